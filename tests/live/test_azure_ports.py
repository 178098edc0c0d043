"""The ports of the Azure Storage provider behave alike: simulated, over the Azure SDK, and over REST on Azurite."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

from durable_host_providers.azure_storage.ports import (
    ANY,
    REQUEST_KINDS,
    ConflictError,
    EdmDateTime,
    EdmGuid,
    EdmInt64,
    LeaseState,
    NotFoundError,
    PreconditionFailedError,
    RequestRefusedError,
    StorageAccount,
    TableAction,
    TableOperation,
    Value,
)
from tests.live.azure_accounts import KINDS, Service, make_service

pytestmark = pytest.mark.live

ODD = "ä\u2028日本語 <&>\"'\\ 🙂 \t end"
ID_1 = "11111111-0000-0000-0000-000000000000"
ID_2 = "22222222-0000-0000-0000-000000000000"


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest) -> Service:
    return make_service(request.param, request)


def insert(row_key: str, partition_key: str = "p", **values: Value) -> TableOperation:
    return TableOperation(TableAction.INSERT, {"PartitionKey": partition_key, "RowKey": row_key, **values})


def change(action: TableAction, row_key: str, etag: str = ANY, **values: Value) -> TableOperation:
    return TableOperation(action, {"PartitionKey": "p", "RowKey": row_key, **values}, etag)


# Queues.


async def test_a_queue_is_created_once_and_deleted_once(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())

        assert await queue.create() is True
        assert await queue.create() is False
        assert await account.queue_names(queue.name) == [queue.name]
        assert await queue.delete() is True
        assert await queue.delete() is False
        assert await account.queue_names(queue.name) == []


async def test_a_message_is_put_got_and_removed(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()

        put = await queue.put(ODD)
        (got,) = await queue.get(32, visibility_s=30)

        assert (put.text, put.dequeue_count) == (ODD, 0)
        assert (got.id, got.text, got.dequeue_count) == (put.id, ODD, 1)
        assert got.inserted_at.tzinfo is not None
        assert timedelta(seconds=25) < got.next_visible_at - got.inserted_at < timedelta(seconds=40)
        assert await queue.get(1, visibility_s=30) == []
        assert await queue.count() == 1
        await queue.remove(got)
        assert await queue.count() == 0
        await queue.delete()


async def test_what_put_returned_can_be_changed_and_removed(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()

        put = await queue.put("a", visibility_s=60)
        shown = await queue.update(put, visibility_s=0)

        with pytest.raises(NotFoundError):
            await queue.remove(put)
        (peeked,) = await queue.peek(5)
        assert (peeked.id, peeked.text) == (put.id, "a")
        await queue.remove(shown)
        await queue.delete()


async def test_an_invisible_message_comes_back(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()
        await queue.put("a", visibility_s=1)

        assert await queue.get(1, visibility_s=60) == []
        await service.pass_time(2.1)
        (first,) = await queue.get(1, visibility_s=1)
        await service.pass_time(2.1)
        (second,) = await queue.get(1, visibility_s=60)

        assert (first.dequeue_count, second.dequeue_count) == (1, 2)
        with pytest.raises(NotFoundError):
            await queue.update(first, visibility_s=0)
        with pytest.raises(NotFoundError):
            await queue.remove(first)
        await queue.remove(second)
        await queue.delete()


async def test_an_update_replaces_the_text_and_the_pop_receipt(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()
        await queue.put("a")
        (got,) = await queue.get(1, visibility_s=60)

        changed = await queue.update(got, visibility_s=0, text=ODD)

        assert (changed.id, changed.text) == (got.id, ODD)
        assert changed.pop_receipt != got.pop_receipt
        (again,) = await queue.get(1, visibility_s=60)
        assert again.text == ODD
        await queue.delete()


async def test_up_to_32_messages_are_got_at_once(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()
        for number in range(34):
            await queue.put(str(number))

        assert len(await queue.get(32, visibility_s=60)) == 32
        assert len(await queue.get(32, visibility_s=60)) == 2
        assert await queue.get(32, visibility_s=60) == []
        await queue.delete()


async def test_a_queue_that_is_not_there_is_not_found(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())

        for call in (queue.put("a"), queue.get(1, visibility_s=30), queue.peek(1), queue.count()):
            with pytest.raises(NotFoundError) as caught:
                await call
            assert caught.value.code == "QueueNotFound"


async def test_a_visibility_beyond_seven_days_is_refused(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        await queue.create()

        with pytest.raises(RequestRefusedError) as caught:
            await queue.put("a", visibility_s=8 * 86_400)
        assert caught.value.status == 400
        await queue.delete()


# Tables.


async def test_a_table_is_created_once_and_deleted_once(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())

        assert await table.create() is True
        assert await table.create() is False
        assert await table.delete() is True
        assert await table.delete() is False


async def test_columns_keep_their_types(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        values: dict[str, Value] = {
            "PartitionKey": "it's 100% &+",
            "RowKey": "",
            "Text": ODD,
            "Empty": "",
            "Yes": True,
            "No": False,
            "Int32": -5,
            "Int64": EdmInt64(5),
            "Large": EdmInt64(2**60),
            "Double": 1.5,
            "Whole": 2.0,
            "Huge": math.inf,
            "When": EdmDateTime("2026-11-21T10:43:17.6071993Z"),
            "Guid": EdmGuid("11c8b4f0-5f2e-4b2e-9ea4-0b9a8c6f4d11"),
            "Bytes": b"\x00\xff",
        }

        etag = await table.write(TableOperation(TableAction.INSERT, values))
        row = await table.get("it's 100% &+", "")
        page = await table.query("PartitionKey eq 'it''s 100% &+'")

        assert row is not None
        stamp = row.values.pop("Timestamp")
        assert type(stamp) is EdmDateTime
        assert row.values == values
        assert {name: type(each) for name, each in row.values.items()} == {k: type(v) for k, v in values.items()}
        assert row.etag == etag
        (queried,) = page.rows
        assert type(queried.values.pop("Timestamp")) is EdmDateTime
        assert (queried, page.continuation) == (row, None)
        assert {name: type(each) for name, each in queried.values.items()} == {k: type(v) for k, v in values.items()}
        await table.delete()


async def test_a_row_that_is_not_there_is_none(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()

        assert await table.get("p", "r") is None
        assert (await table.query("PartitionKey eq 'p'")).rows == []
        await table.delete()
        with pytest.raises(NotFoundError) as caught:
            await table.query("PartitionKey eq 'p'")
        assert caught.value.code == "TableNotFound"
        with pytest.raises(NotFoundError):
            await table.write(insert("r"))


async def test_selected_columns_alone_are_read_with_the_etag(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        etag = await table.write(insert("r", A="1", B="2"))

        row = await table.get("p", "r", select=("A",))
        (queried,) = (await table.query("PartitionKey eq 'p'", select=("RowKey", "B"))).rows

        assert row is not None
        assert (row.values, row.etag) == ({"A": "1"}, etag)
        assert (queried.values, queried.etag) == ({"RowKey": "r", "B": "2"}, etag)
        await table.delete()


async def test_an_insert_of_what_is_there_is_a_conflict(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        await table.write(insert("r"))

        with pytest.raises(ConflictError) as caught:
            await table.write(insert("r"))
        assert caught.value.code == "EntityAlreadyExists"
        await table.delete()


async def test_replace_and_merge_need_the_etag_that_stands(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        first = await table.write(insert("r", A="1", B="2"))

        second = await table.write(change(TableAction.MERGE, "r", first, A="3"))
        assert second != first
        for action in (TableAction.MERGE, TableAction.REPLACE, TableAction.DELETE):
            with pytest.raises(PreconditionFailedError):
                await table.write(change(action, "r", first, A="4"))
        third = await table.write(change(TableAction.REPLACE, "r", second, C="5"))

        row = await table.get("p", "r", select=("A", "B", "C"))
        assert row is not None
        assert (row.values, row.etag) == ({"C": "5"}, third)
        await table.write(change(TableAction.MERGE, "r", ANY, A="6"))
        assert await table.write(change(TableAction.DELETE, "r", ANY)) == ""
        await table.delete()


async def test_what_is_not_there_cannot_be_changed(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()

        for action in (TableAction.MERGE, TableAction.REPLACE, TableAction.DELETE):
            with pytest.raises(NotFoundError):
                await table.write(change(action, "r", ANY, A="1"))
        await table.delete()


async def test_upserts_insert_or_change(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()

        await table.write(change(TableAction.UPSERT_MERGE, "r", A="1"))
        await table.write(change(TableAction.UPSERT_MERGE, "r", B="2"))
        row = await table.get("p", "r", select=("A", "B"))
        await table.write(change(TableAction.UPSERT_REPLACE, "r", C="3"))
        after = await table.get("p", "r", select=("A", "B", "C"))

        assert row is not None
        assert after is not None
        assert (row.values, after.values) == ({"A": "1", "B": "2"}, {"C": "3"})
        await table.delete()


async def test_a_transaction_is_done_as_a_whole_and_gives_the_etags(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        old = await table.write(insert("merged", A="1"))
        gone = await table.write(insert("gone"))

        etags = await table.transact(
            [
                insert("new", Text=ODD, Json='{"a": {"b": "}{"}}\r\n{"GET": 1}'),
                change(TableAction.MERGE, "merged", old, B=EdmInt64(2)),
                change(TableAction.DELETE, "gone", gone),
                change(TableAction.UPSERT_MERGE, "upserted", C=True),
                change(TableAction.UPSERT_REPLACE, "replaced", D=1.0),
            ]
        )

        rows = {str(row.values["RowKey"]): row for row in (await table.query("PartitionKey eq 'p'")).rows}
        assert set(rows) == {"new", "merged", "upserted", "replaced"}
        assert [rows[name].etag for name in ("new", "merged")] == list(etags[:2])
        assert etags[2] == ""
        assert [rows[name].etag for name in ("upserted", "replaced")] == list(etags[3:])
        assert rows["new"].values["Text"] == ODD
        assert rows["new"].values["Json"] == '{"a": {"b": "}{"}}\r\n{"GET": 1}'
        assert (rows["merged"].values["A"], rows["merged"].values["B"]) == ("1", 2)
        await table.delete()


async def test_a_refused_transaction_changes_nothing_and_names_the_operation(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        old = await table.write(insert("r", A="1"))
        await table.write(change(TableAction.MERGE, "r", old, A="2"))

        with pytest.raises(PreconditionFailedError) as stale:
            await table.transact([insert("x"), insert("y"), change(TableAction.MERGE, "r", old, A="3")])
        with pytest.raises(ConflictError) as twice:
            await table.transact([insert("x"), insert("r")])
        with pytest.raises(NotFoundError) as missing:
            await table.transact([insert("x"), change(TableAction.MERGE, "z", ANY, A="3")])

        assert (stale.value.index, twice.value.index, missing.value.index) == (2, 1, 1)
        rows = (await table.query("PartitionKey eq 'p'", select=("RowKey", "A"))).rows
        assert [row.values for row in rows] == [{"RowKey": "r", "A": "2"}]
        await table.delete()


async def test_a_hundred_operations_are_one_transaction(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()

        etags = await table.transact([insert(f"{number:03}", Text="x" * 100) for number in range(100)])
        deleted = await table.transact([change(TableAction.DELETE, f"{number:03}") for number in range(100)])

        assert (len(etags), all(etags), list(deleted)) == (100, True, [""] * 100)
        assert (await table.query()).rows == []
        await table.delete()


async def test_pages_go_through_all_rows_in_key_order(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()
        for partition in ("a'b", "ä/b".replace("/", "-"), "c"):
            await table.transact([insert(f"{number:02}", partition) for number in range(7)])

        found: list[tuple[Value, Value]] = []
        continuation: str | None = None
        pages = 0
        while True:
            page = await table.query(
                "RowKey ge '01'", select=("PartitionKey", "RowKey"), top=4, continuation=continuation
            )
            assert len(page.rows) <= 4
            found += [(row.values["PartitionKey"], row.values["RowKey"]) for row in page.rows]
            continuation, pages = page.continuation, pages + 1
            if continuation is None:
                break

        assert pages >= 5
        assert len(found) == len(set(found)) == 18
        assert sorted(found) == [(p, f"{n:02}") for p in ("a'b", "c", "ä-b") for n in range(1, 7)]
        await table.delete()


async def test_empty_keys_are_keys(service: Service) -> None:
    async with service.open() as account:
        table = account.table(service.new_name())
        await table.create()

        etag = await table.write(insert("", "", A="1"))
        await table.write(TableOperation(TableAction.REPLACE, {"PartitionKey": "", "RowKey": "", "A": "2"}, etag))
        (row,) = (await table.query("PartitionKey eq ''", select=("A",))).rows

        assert row.values == {"A": "2"}
        await table.transact(
            [TableOperation(TableAction.MERGE, {"PartitionKey": "", "RowKey": "", "B": "3"}, row.etag)]
        )
        again = await table.get("", "")
        assert again is not None
        assert (again.values["A"], again.values["B"]) == ("2", "3")
        await table.delete()


# Blobs.


async def test_a_container_is_created_once_and_deleted_once(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())

        assert await blobs.properties(None) is None
        assert await blobs.read("a") is None
        assert list(await blobs.list("")) == []
        with pytest.raises(NotFoundError):
            await blobs.write("a", b"1")
        assert await blobs.create() is True
        assert await blobs.create() is False
        found = await blobs.properties(None)
        assert found is not None
        assert (found.name, found.lease) == (blobs.container, LeaseState.AVAILABLE)
        assert await blobs.delete() is True
        assert await blobs.delete() is False


async def test_a_blob_is_written_read_listed_and_removed(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()

        etag = await blobs.write("@a@b/c d.json", b"\x00\xff")
        await blobs.write("empty", b"", metadata={"FunctionInstance": "me"})
        content = await blobs.read("@a@b/c d.json")
        empty = await blobs.read("empty")

        assert content is not None
        assert (content.data, content.etag) == (b"\x00\xff", etag)
        assert empty is not None
        assert empty.data == b""
        assert blobs.url("@a@b/c d.json").endswith(f"/{blobs.container}/%40a%40b/c%20d.json")
        item = await blobs.properties("@a@b/c d.json")
        assert item is not None
        assert (item.name, item.etag, item.size, item.lease) == ("@a@b/c d.json", etag, 2, LeaseState.AVAILABLE)
        assert [each.name for each in await blobs.list("@a@b/")] == ["@a@b/c d.json"]
        assert [each.name for each in await blobs.list("")] == ["@a@b/c d.json", "empty"]
        named = await blobs.properties("empty")
        assert named is not None
        assert {name.lower(): value for name, value in named.metadata.items()} == {"functioninstance": "me"}
        assert await blobs.remove("empty") is True
        assert await blobs.remove("empty") is False
        assert await blobs.properties("empty") is None
        await blobs.delete()


async def test_a_blob_is_written_on_condition(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()
        first = await blobs.write("a", b"1", if_absent=True)

        with pytest.raises(ConflictError):
            await blobs.write("a", b"2", if_absent=True)
        second = await blobs.write("a", b"2", if_match=first)
        with pytest.raises(PreconditionFailedError):
            await blobs.write("a", b"3", if_match=first)
        with pytest.raises(PreconditionFailedError):
            await blobs.write("b", b"3", if_match=first)
        with pytest.raises(PreconditionFailedError):
            await blobs.remove("a", if_match=first)

        content = await blobs.read("a")
        assert content is not None
        assert (content.data, content.etag) == (b"2", second)
        assert await blobs.remove("a", if_match=second) is True
        await blobs.delete()


async def test_of_several_writers_of_a_new_blob_one_wins(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()

        done = await asyncio.gather(
            *[blobs.write("a", b"%d" % number, if_absent=True) for number in range(5)], return_exceptions=True
        )

        assert sum(isinstance(each, str) for each in done) == 1
        assert sum(isinstance(each, ConflictError) for each in done) == 4
        await blobs.delete()


async def test_a_leased_blob_is_written_by_its_holder_only(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()
        await blobs.write("a", b"1")

        await blobs.acquire_lease("a", duration_s=15, lease_id=ID_1)
        await blobs.acquire_lease("a", duration_s=15, lease_id=ID_1)
        with pytest.raises(ConflictError):
            await blobs.acquire_lease("a", duration_s=15, lease_id=ID_2)
        with pytest.raises(PreconditionFailedError):
            await blobs.write("a", b"2")
        with pytest.raises(PreconditionFailedError):
            await blobs.write("a", b"2", lease_id=ID_2)
        with pytest.raises(ConflictError):
            await blobs.write("a", b"2", if_absent=True)
        with pytest.raises(PreconditionFailedError):
            await blobs.remove("a")
        await blobs.write("a", b"3", lease_id=ID_1)
        await blobs.renew_lease("a", ID_1)
        with pytest.raises((ConflictError, PreconditionFailedError)):
            await blobs.renew_lease("a", ID_2)

        item = await blobs.properties("a")
        assert item is not None
        assert item.lease is LeaseState.LEASED
        assert [each.lease for each in await blobs.list("a")] == [LeaseState.LEASED]
        await blobs.remove("a", lease_id=ID_1)
        await blobs.delete()


async def test_a_lease_is_changed_and_released(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()
        await blobs.write("a", b"1")
        await blobs.acquire_lease("a", duration_s=15, lease_id=ID_1)

        await blobs.change_lease("a", ID_1, new_lease_id=ID_2)
        for call in (blobs.renew_lease("a", ID_1), blobs.release_lease("a", ID_1)):
            with pytest.raises((ConflictError, PreconditionFailedError)):
                await call
        await blobs.release_lease("a", ID_2)

        item = await blobs.properties("a")
        assert item is not None
        assert item.lease is LeaseState.AVAILABLE
        with pytest.raises(NotFoundError):
            await blobs.acquire_lease("b", duration_s=15, lease_id=ID_1)
        await blobs.delete()


async def test_a_container_is_leased_as_a_blob_is(service: Service) -> None:
    async with service.open() as account:
        blobs = account.blobs(service.new_name())
        await blobs.create()

        await blobs.acquire_lease(None, duration_s=60, lease_id=ID_1)
        await blobs.acquire_lease(None, duration_s=60, lease_id=ID_1)
        with pytest.raises(ConflictError):
            await blobs.acquire_lease(None, duration_s=60, lease_id=ID_2)
        with pytest.raises(PreconditionFailedError):
            await blobs.delete()
        await blobs.renew_lease(None, ID_1)
        await blobs.change_lease(None, ID_1, new_lease_id=ID_2)
        found = await blobs.properties(None)

        assert found is not None
        assert found.lease is LeaseState.LEASED
        assert await blobs.delete(lease_id=ID_2) is True


# The account.


async def test_requests_are_counted_by_kind(service: Service) -> None:
    async with service.open() as account:
        queue, table = account.queue(service.new_name()), account.table(service.new_name())
        blobs = account.blobs(service.new_name())
        await queue.create()
        for _ in range(3):
            await queue.put("a")
        await queue.get(32, visibility_s=30)
        await table.create()
        await table.transact([insert("r")])
        await table.query()
        await blobs.create()
        await blobs.write("a", b"1")
        await blobs.read("a")

        assert account.requests == {
            "queue.create": 1,
            "queue.put": 3,
            "queue.get": 1,
            "table.create": 1,
            "table.transact": 1,
            "table.query": 1,
            "blob.create": 1,
            "blob.write": 1,
            "blob.read": 1,
        }
        assert set(account.requests) <= set(REQUEST_KINDS)
        for each in (queue, table, blobs):
            await each.delete()


async def test_another_event_loop_may_ask_as_well(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        blobs = account.blobs(service.new_name())
        await queue.create()
        await blobs.create()

        async def elsewhere() -> None:
            await asyncio.gather(*[queue.put(str(number)) for number in range(5)])
            await blobs.write("a", b"1")

        await asyncio.to_thread(asyncio.run, elsewhere())

        assert await queue.count() == 5
        assert await blobs.read("a") is not None
        await queue.delete()
        await blobs.delete()


async def test_an_account_works_without_being_entered(service: Service) -> None:
    account: StorageAccount = service.open()
    queue = account.queue(service.new_name())

    assert await queue.create() is True
    assert await queue.delete() is True


async def test_an_account_may_be_entered_while_it_is_entered(service: Service) -> None:
    async with service.open() as account:
        queue = account.queue(service.new_name())
        async with account:
            await queue.create()
        await queue.put("a")

        assert await queue.count() == 1
        await queue.delete()
