"""Steps of one instance and its end take small statements of their own, which must do what `commit` does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome, OrchestrationWorkItem
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import (
    activity,
    advance,
    create,
    event,
    held_after,
    lock,
    lock_one,
    lock_tasks,
)
from durable_host_providers.postgres.store import PostgresTaskHubStore
from tests.live.postgres_hubs import Calls, opened_hub

pytestmark = pytest.mark.live

A = InstanceId("a")


async def _second_episode(hub: ContractHub, store: PostgresTaskHubStore) -> OrchestrationWorkItem:
    """A locked instance that has a history and a message."""
    await create(hub, store, A)
    await store.commit([advance(hub, await lock_one(store))])
    await store.send([event(hub, A)])
    return await lock_one(store)


async def _somebody_waits(connection: Any) -> None:
    async with asyncio.timeout(20):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 the server tells nobody
            await asyncio.sleep(0.01)


async def test_an_activity_that_is_there_already_is_not_added_again(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        item = await _second_episode(hub, store)
        calls = Calls(store, monkeypatch)
        first = advance(hub, item, activities=[activity(hub, dispatch_id="twice")], hold=True)
        assert await store.commit([first]) == [CommitOutcome.COMMITTED]
        assert first.state is not None
        held = replace(item, version=first.state.version, inbox=())
        second = advance(hub, held, activities=[activity(hub, dispatch_id="twice")], hold=True)

        assert await store.commit([second]) == [CommitOutcome.COMMITTED]

        assert calls.names == ["step_alone", "step_alone", "commit"]
        assert [each.task.dispatch_id for each in await lock_tasks(store)] == ["twice"]
        assert await store.get_history(A) == [*(item.history or ()), *first.events, *second.events]


async def test_the_end_of_an_instance_is_told_by_the_small_statement(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        item = await _second_episode(hub, store)
        calls = Calls(store, monkeypatch)
        ended = advance(hub, item, state={"status": RuntimeStatus.COMPLETED, "output": '"done"'})

        assert await store.commit([ended]) == [CommitOutcome.COMMITTED]

        assert calls.names == ["last_step"]
        state = await store.get_instance(A)
        assert state is not None
        assert (state.status, state.output, state.version) == (
            RuntimeStatus.COMPLETED,
            '"done"',
            ended.state and ended.state.version,
        )
        assert await store.get_history(A) == [*(item.history or ()), *ended.events]
        assert await lock(store) == []


async def test_the_same_end_again_finds_the_lease_lost(postgres_database: str) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        item = await _second_episode(hub, store)
        ended = advance(hub, item, state={"status": RuntimeStatus.COMPLETED})
        await store.commit([ended])

        assert await store.commit([ended]) == [CommitOutcome.LEASE_LOST]


async def test_a_lease_that_somebody_else_has_taken_is_lost(postgres_database: str) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        item = await _second_episode(hub, store)
        connection: Any = await asyncpg.connect(postgres_database)
        await connection.execute("UPDATE durable_host.instances SET lease = lease + 1")
        await connection.close()

        outcomes = await store.commit([advance(hub, item, state={"status": RuntimeStatus.COMPLETED})])

        assert outcomes == [CommitOutcome.LEASE_LOST]
        assert await store.get_history(A) == item.history


@pytest.mark.parametrize("way", ["last step", "commit", "given back", "closed"])
async def test_a_message_that_is_being_sent_meanwhile_wakes_the_instance_again(
    postgres_database: str, way: str
) -> None:
    """Who sends has the row first: its message is not in the snapshot with which the statement began."""
    async with opened_hub(postgres_database) as (hub, other), AsyncExitStack() as stack:
        _, store = await stack.enter_async_context(opened_hub(postgres_database))
        item = await _second_episode(hub, store)
        step = advance(hub, item, hold=True)
        await store.commit([step])
        held = held_after(item, step)
        connection: Any = await asyncpg.connect(postgres_database)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await other.send([event(hub, A)], transaction=connection)
            ending: asyncio.Future[Any]
            if way == "last step":
                ended = advance(hub, held, state={"status": RuntimeStatus.COMPLETED})
                ending = asyncio.ensure_future(store.commit([ended]))
            elif way == "commit":
                ending = asyncio.ensure_future(store.commit([advance(hub, held, messages=[event(hub, "b")])]))
            elif way == "given back":
                ending = asyncio.ensure_future(store.abandon([held.lease], delay=timedelta(0)))
            else:
                ending = asyncio.ensure_future(stack.aclose())
            await _somebody_waits(connection)
            await transaction.commit()
            await ending
        finally:
            await connection.close()

        woken = await lock(other, wait=timedelta(seconds=10))
        assert A in [each.instance_id for each in woken]
