"""Faults that the reference has with rows and blobs, each as it would show."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from durable_host.model.history import EventRaised, ExecutionStarted, OrchestratorCompleted, OrchestratorStarted
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host.testing.store_contract.steps import (
    advance,
    commit,
    create,
    event,
    fact,
    lock,
    lock_one,
    settle,
    start,
)
from durable_host_providers.azure_storage import payload_blobs
from durable_host_providers.azure_storage.history_table import Appending, HistoryTable
from durable_host_providers.azure_storage.ports import EdmDateTime
from durable_host_providers.azure_storage.wire.payloads import compress
from tests.unit.azure.hub_in_memory import SETTINGS, HubInMemory, opened

pytestmark = pytest.mark.simulated

A = InstanceId("a")
LARGE = '"' + "x" * 100_000 + '"'


async def _end_with_large_facts(memory: HubInMemory, *instance_ids: str) -> None:
    hub, store = memory.hub, memory.store
    for instance_id in instance_ids:
        await create(hub, store, instance_id)
        await store.send([event(hub, instance_id, input=LARGE)])
        state = {"status": RuntimeStatus.COMPLETED}
        await commit(store, advance(hub, await lock_one(store), events=[fact(hub, LARGE)], state=state))


NEIGHBOURS = ("order-10", "order-1:0", "order")


async def test_a_purge_leaves_blobs_of_ids_that_begin_alike() -> None:
    async with opened() as memory:
        await _end_with_large_facts(memory, *NEIGHBOURS)
        others = memory.blobs()
        await _end_with_large_facts(memory, "order-1")
        assert memory.blobs() > others

        assert await memory.store.purge([InstanceId("order-1")]) == 1

        assert memory.blobs() == others


async def test_without_the_separator_a_purge_takes_blobs_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(instance_id: str) -> tuple[str, ...]:
        return (instance_id,)

    monkeypatch.setattr(payload_blobs, "payload_prefixes", careless)
    async with opened() as memory:
        await _end_with_large_facts(memory, *NEIGHBOURS)
        others = memory.blobs()
        await _end_with_large_facts(memory, "order-1")

        await memory.store.purge([InstanceId("order-1")])

        assert memory.blobs() < others


async def test_a_purge_takes_blobs_under_the_raw_and_the_escaped_id() -> None:
    async with opened() as memory:
        await _end_with_large_facts(memory, "a/b#?^")
        assert any(name.startswith("a/b#?^/") for name in memory.blobs())
        assert any(name.startswith("a^0b^2^3^^/") for name in memory.blobs())

        assert await memory.store.purge([InstanceId("a/b#?^")]) == 1

        assert memory.blobs() == set()


async def test_what_an_earlier_execution_left_in_the_row_does_not_show() -> None:
    async with opened() as memory:
        await settle(memory.hub, memory.store)
        await memory.merge("a", Output='"of before"', CompletedTime=EdmDateTime("2020-01-01T00:00:00.0000000Z"))

        state = await memory.store.get_instance(A)

        assert state is not None
        assert (state.status, state.output, state.completed_at) == (RuntimeStatus.RUNNING, None, None)


@pytest.mark.parametrize("column", ["Input", "Output"])
async def test_a_text_whose_blob_is_named_beside_it_shows(column: str) -> None:
    async with opened() as memory:
        await settle(memory.hub, memory.store, status=RuntimeStatus.COMPLETED)
        await memory.write_blob("a/large", compress(LARGE.encode()))
        await memory.merge("a", **{column: "", f"{column}BlobName": "a/large"})

        state = await memory.store.get_instance(A)

        assert state is not None
        assert getattr(state, column.lower()) == LARGE


@pytest.mark.parametrize("column", ["Input", "Output"])
async def test_an_address_is_a_text_unless_it_is_in_the_hubs_own_container(column: str) -> None:
    async with opened() as memory:
        await settle(memory.hub, memory.store, status=RuntimeStatus.COMPLETED)
        await memory.write_blob("a/large", compress(LARGE.encode()))
        found: list[tuple[str, object]] = []
        for address in ("https://example.org/a/large", f"{memory.container_url}s/a/large", "urn:isbn:0"):
            await memory.merge("a", **{column: address})
            found.append((address, getattr(await memory.store.get_instance(A), column.lower())))
        assert all(shown == address for address, shown in found), found

        await memory.merge("a", **{column: f"{memory.container_url}/a/large"})

        assert getattr(await memory.store.get_instance(A), column.lower()) == LARGE


@pytest.mark.parametrize("fences", [True, False])
async def test_a_row_of_a_newer_start_is_overwritten_without_the_fence_only(fences: bool) -> None:
    async with opened() as memory:
        hub, store = memory.hub, memory.store
        store.committer.fences_projection = fences
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        await store.send([event(hub)])
        stray = await lock_one(store)
        again = start(hub)
        again = replace(again, event=replace(again.event, generation=1))  # as clients count
        assert await store.create_instance(again, replaceable=[RuntimeStatus.COMPLETED])

        await commit(store, advance(hub, stray, state={"status": RuntimeStatus.COMPLETED}))

        state = await store.get_instance(A)
        assert state is not None
        assert (state.execution_id == again.execution_id) is fences


async def test_an_instance_whose_blob_is_gone_stops_nobody_else() -> None:
    async with opened() as memory:
        hub, store = memory.hub, memory.store
        for instance_id in ("a", "b"):
            await create(hub, store, instance_id)
            await commit(store, advance(hub, await lock_one(store), events=[fact(hub, LARGE)]))
        for name in memory.blobs():
            if name.startswith("a/"):
                await memory.store.blobs.remove([name])
        store.locks.known.clear()  # as in another process
        await store.send([event(hub, "a"), event(hub, "b")])

        items = await lock(store)

        assert [(item.instance_id, item.history is None) for item in items] == [("a", True), ("b", False)]
        with pytest.raises(Exception, match="blob 'a/"):
            await store.get_history(A)
        await store.abandon([items[0].lease], delay=hub.lease)
        assert await lock(store) == []


async def test_ids_that_differ_in_case_only_are_two_instances() -> None:
    async with opened() as memory:
        hub, store = memory.hub, memory.store
        await create(hub, store, "order", "Order")
        first = {item.instance_id: item for item in await lock(store)}
        assert set(first) == {"order", "Order"}
        for item in first.values():
            await commit(store, advance(hub, item, hold=True))
        await store.send([event(hub, "Order", message_id="for the second")])

        (item,) = await lock(store, cached=True)

        assert (item.instance_id, [message.id for message in item.inbox]) == ("Order", ["for the second"])
        assert item.lease.token == first[InstanceId("Order")].lease.token


async def test_what_a_generation_carries_over_is_written_with_its_start() -> None:
    async with opened() as memory:
        hub = memory.hub
        table = HistoryTable(memory.account, SETTINGS.layout.history, hub.environment, memory.store.blobs, batch=3)
        carried = [EventRaised(timestamp=hub.now(), name="event", input=str(number)) for number in range(20)]
        begun = ExecutionStarted(timestamp=hub.now(), instance_id=A, execution_id=ExecutionId("e"), name="f")
        end = OrchestratorCompleted(timestamp=hub.now())
        events = (OrchestratorStarted(timestamp=hub.now()), begun, *carried, end, *(fact(hub) for _ in range(4)), end)
        lengths: list[int] = []

        def progress() -> None:
            rows = memory.service.tables[SETTINGS.layout.history.lower()].partitions["a"]
            lengths.append(len(rows) - 1)

        version = HistoryVersion(2, len(events))
        await table.append(Appending(A, ExecutionId("e"), events, 0, (), version, None), progress=progress)

        assert lengths == [22, 25]


async def test_store_tells_how_much_of_a_beginning_fits_one_transaction() -> None:
    async with opened() as memory:
        hub, store = memory.hub, memory.store
        begun = ExecutionStarted(timestamp=hub.now(), instance_id=A, execution_id=ExecutionId("e"), name="f")

        def fits(*inputs: str) -> int:
            carried = [EventRaised(timestamp=hub.now(), name="event", input=text) for text in inputs]
            return store.fits_at_once([OrchestratorStarted(timestamp=hub.now()), begun, *carried])

        assert fits(*"1234") == 6
        assert fits(*["1"] * 200) == 99
        assert fits(*["1" * 30_000] * 97) == 2 + 51
        assert fits(*["\u4e2d" * 30_000] * 97) == 2 + 34
        assert fits(*["1" * 300_000] * 97) == 99  # these go to blobs
