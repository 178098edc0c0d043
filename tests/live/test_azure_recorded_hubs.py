"""The recorded hubs, brought into an account, are there to the byte."""

from __future__ import annotations

import base64

import pytest

from durable_host_providers.azure_storage.ports import StorageAccount, Value
from tests.azure_recordings import RECORDINGS
from tests.live.azure_accounts import KINDS, Service, make_service
from tests.servers.recorded_hubs import MovedHub, when_recorded

pytestmark = pytest.mark.live


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest) -> Service:
    return make_service(request.param, request)


async def rows_of(account: StorageAccount, name: str) -> list[dict[str, Value]]:
    found: list[dict[str, Value]] = []
    continuation: str | None = None
    while True:
        page = await account.table(name).query(continuation=continuation)
        for row in page.rows:
            del row.values["Timestamp"]
            found.append(row.values)
        continuation = page.continuation
        if continuation is None:
            return found


@pytest.mark.parametrize("kind", RECORDINGS)
async def test_every_row_message_and_blob_is_as_it_was_recorded(service: Service, kind: str) -> None:
    recorded = MovedHub(kind, service.new_name().capitalize())
    async with service.open() as account:
        await recorded.load(account)

        for name, rows in recorded.tables.items():
            found = {(row["PartitionKey"], row["RowKey"]): row for row in await rows_of(account, name)}
            assert len(found) == len(rows)
            for row in rows:
                stored = found[row["PartitionKey"], row["RowKey"]]
                assert {each: type(value) for each, value in stored.items()} == {k: type(v) for k, v in row.items()}
                changed = {each for each in row if row[each] != stored[each]}
                assert all(str(row[each]).startswith("http://127.0.0.1:10000/") for each in changed)
                assert all(recorded.hub.lower() in str(stored[each]) for each in changed)
        for name, messages in recorded.queues.items():
            texts = [message.text for message in await account.queue(name).get(32, visibility_s=300)]
            assert sorted(texts) == sorted(text for text, _ in messages)
        for name, blobs in recorded.containers.items():
            assert [item.name for item in await account.blobs(name).list("")] == sorted(blobs)
            for blob, data in blobs.items():
                content = await account.blobs(name).read(blob)
                assert content is not None
                assert content.data == data
        await remove(account, recorded)


async def test_messages_may_keep_their_delay(service: Service) -> None:
    recorded = MovedHub("table", service.new_name().capitalize())
    async with service.open() as account:
        await recorded.load(account, when_recorded)

        visible = [
            message.text for name in recorded.queues for message in await account.queue(name).get(32, visibility_s=300)
        ]

        due = [text for messages in recorded.queues.values() for text, delay_s in messages if delay_s == 0]
        assert sorted(visible) == sorted(due)
        assert len(due) < sum(map(len, recorded.queues.values()))
        await remove(account, recorded)


def test_a_hub_under_another_name_does_not_know_its_old_one() -> None:
    for kind in RECORDINGS:
        recorded = MovedHub(kind, "Other")
        assert all(name.startswith("Other") for name in recorded.tables)
        assert all(name.startswith("other-") for name in (*recorded.queues, *recorded.containers))
        for name, blobs in recorded.containers.items():
            if not name.endswith("-largemessages"):
                assert all("recorded" not in blob and b"recorded" not in data for blob, data in blobs.items())
        hubs = {row.get("TaskHubName") for row in recorded.tables["OtherInstances"]}
        assert hubs == {"Other"}


def test_the_safe_hub_is_written_in_base64() -> None:
    texts = [text for messages in MovedHub("safe").queues.values() for text, _ in messages]

    assert texts
    assert all(base64.b64decode(text).startswith(b'{"$type"') for text in texts)


async def remove(account: StorageAccount, recorded: MovedHub) -> None:
    """Azurite slows down with every message that it keeps."""
    for name in recorded.tables:
        await account.table(name).delete()
    for name in recorded.queues:
        await account.queue(name).delete()
    for name in recorded.containers:
        await account.blobs(name).delete()
