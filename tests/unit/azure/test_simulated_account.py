"""The account in memory behaves like the service where the provider relies on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from durable_host.testing.environment import simulated_environment
from durable_host_providers.azure_storage.ports import (
    ConflictError,
    EdmDateTime,
    EdmInt64,
    NotFoundError,
    PreconditionFailedError,
    RequestRefusedError,
    StorageAccount,
    TableAction,
    TableOperation,
    Value,
)
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.simulated_filter import parse_filter

ROW: dict[str, Value] = {
    "PartitionKey": "it's",
    "RowKey": "",
    "RuntimeStatus": "Running",
    "CreatedTime": EdmDateTime("2026-11-21T10:43:17.6071993Z"),
    "Count": 3,
    "Big": EdmInt64(3),
    "Done": True,
}


def account(page_size: int = 1_000) -> StorageAccount:
    return SimulatedAccount(SimulatedService(simulated_environment().clock.now, page_size=page_size))


def insert(partition: str, row: str, **values: Value) -> TableOperation:
    return TableOperation(TableAction.INSERT, {"PartitionKey": partition, "RowKey": row, **values})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("PartitionKey eq 'it''s'", True),
        ("PartitionKey eq 'its'", False),
        ("CreatedTime ge datetime'2026-11-21T10:43:17.607Z'", True),
        ("CreatedTime le datetime'2026-11-21T10:43:17.607Z'", False),
        ("(RuntimeStatus eq 'Completed' or RuntimeStatus eq 'Running') and Count gt 2", True),
        ("RuntimeStatus eq 'Completed' or RuntimeStatus eq 'Running' and Count gt 3", False),
        ("not (Done eq true)", False),
        ("Big eq 3L", True),
        ("Missing ne 'x'", False),
        ("Count eq '3'", False),
    ],
)
def test_filters_are_evaluated_as_the_service_does(text: str, expected: bool) -> None:
    assert parse_filter(text)(ROW) is expected


@pytest.mark.parametrize("text", ["PartitionKey", "PartitionKey eq", "a eq 'b' and", "(a eq 1", "a is 'b'", "a eq 'b"])
def test_a_filter_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(RequestRefusedError):
        parse_filter(text)


@pytest.mark.simulated
async def test_a_message_that_was_got_is_hidden_until_its_time_and_its_old_receipt_is_void() -> None:
    queue = account().queue("q")
    await queue.create()
    await queue.put("text")
    (first,) = await queue.get(32, visibility_s=30)
    assert list(await queue.get(32, visibility_s=30)) == []
    await asyncio.sleep(31)
    (second,) = await queue.get(32, visibility_s=30)

    assert (first.dequeue_count, second.dequeue_count, second.text) == (1, 2, "text")
    with pytest.raises(NotFoundError):
        await queue.remove(first)
    await queue.remove(await queue.update(second, visibility_s=0))
    assert await queue.count() == 0


@pytest.mark.simulated
async def test_a_transaction_is_all_or_nothing() -> None:
    table = account().table("T")
    await table.create()
    (etag,) = await table.transact([insert("p", "1")])
    stale = TableOperation(TableAction.MERGE, {"PartitionKey": "p", "RowKey": "1"}, "W/stale")

    with pytest.raises(PreconditionFailedError) as refused:
        await table.transact([insert("p", "2"), stale])
    assert refused.value.index == 1
    assert await table.get("p", "2") is None
    with pytest.raises(ConflictError):
        await table.write(insert("p", "1"))

    merge = TableOperation(TableAction.MERGE, {"PartitionKey": "p", "RowKey": "1", "A": 1}, etag)
    (newer,) = await table.transact([merge])
    row = await table.get("p", "1", select=("A",))
    assert row is not None
    assert (row.values, row.etag == newer, newer != etag) == ({"A": 1}, True, True)


@pytest.mark.simulated
async def test_pages_go_on_where_the_one_before_ended() -> None:
    table = account(page_size=2).table("T")
    await table.create()
    for name in ("d", "b", "a", "e", "c"):
        await table.write(insert(name, ""))
    seen: list[Value] = []
    continuation: str | None = None
    while True:
        page = await table.query("PartitionKey ge 'b'", continuation=continuation)
        seen += [row.values["PartitionKey"] for row in page.rows]
        continuation = page.continuation
        if continuation is None:
            break

    assert seen == ["b", "c", "d", "e"]


@pytest.mark.simulated
async def test_a_lease_ends_and_can_be_taken_over() -> None:
    blobs = account().blobs("c")
    await blobs.create()
    await blobs.acquire_lease(None, duration_s=15, lease_id="one")
    with pytest.raises(ConflictError):
        await blobs.acquire_lease(None, duration_s=15, lease_id="two")
    await asyncio.sleep(16)
    await blobs.acquire_lease(None, duration_s=15, lease_id="two")
    with pytest.raises(ConflictError):
        await blobs.renew_lease(None, "one")
    await blobs.write("b", b"1", if_absent=True)
    with pytest.raises(ConflictError):
        await blobs.write("b", b"1", if_absent=True)

    assert blobs.url("@c@k/a b") == "https://simulated.blob.core.windows.net/c/%40c%40k/a%20b"


def test_times_of_the_service_may_differ_from_those_of_its_callers() -> None:
    service = SimulatedService(lambda: datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=10))

    assert service.now().second == 10
