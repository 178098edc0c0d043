"""An activity that is handed over with a lone step stands in the instance's row: what that must not change."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.storage.contract import ActivityWorkItem, CommitOutcome, OrchestrationWorkItem
from durable_host.testing.store_contract import ContractHub, handed_activities
from durable_host.testing.store_contract.handed_activities import handed_next
from durable_host.testing.store_contract.steps import (
    LONG,
    activity,
    advance,
    completion,
    event,
    held_after,
    lock_one,
    lock_task,
    lock_tasks,
    others_run,
)
from durable_host_providers.postgres.store import PostgresTaskHubStore
from tests.live.postgres_hubs import Calls, opened_hub

pytestmark = pytest.mark.live

SHORT = timedelta(seconds=1)


async def handed(
    hub: ContractHub, store: PostgresTaskHubStore, name: str = "a"
) -> tuple[OrchestrationWorkItem, ActivityWorkItem]:
    """An instance that is held after a step, and carries the activity that was handed over."""
    call = asyncio.ensure_future(lock_tasks(store, wait=LONG))
    async with asyncio.timeout(20):
        # What a first call sets up must not be under way: it looks for activities itself.
        while not (store.work.signals.is_listening and store.work.activities.room):  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])
    held, task = await handed_activities.handed(hub, store, name)
    assert store.work.grants.by_id[name].carried == task.task.dispatch_id
    return held, task


async def _rows(url: str) -> tuple[list[str | None], list[str]]:
    """What instances carry, and the activities that have a row of their own."""
    connection: Any = await asyncpg.connect(url)
    try:
        carried = await connection.fetch("SELECT carried_id FROM durable_host.instances ORDER BY instance_id")
        rows = await connection.fetch("SELECT dispatch_id FROM durable_host.activities ORDER BY seq")
    finally:
        await connection.close()
    return [row[0] for row in carried], [row[0] for row in rows]


async def test_a_step_after_a_step_touches_two_rows(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        calls = Calls(store, monkeypatch)
        held, first = await handed(hub, store)
        calls.names.clear()
        _, second = await handed_next(hub, store, held, first)

        assert calls.names == ["step_carried"]
        assert await _rows(postgres_database) == ([second.task.dispatch_id], [])


async def test_an_activity_that_is_there_already_is_neither_carried_nor_handed_over(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        held, task = await handed(hub, store)
        twice = activity(hub, dispatch_id="twice")
        connection: Any = await asyncpg.connect(postgres_database)
        await connection.execute(
            "INSERT INTO durable_host.activities (ref, wake_at, created_at, hub, deliveries, dispatch_id, task) "
            "SELECT ref, durable_host.now_micros() + 5000000, 0, hub, 3, 'twice', carried_task "
            "FROM durable_host.instances"
        )
        await connection.close()
        calls = Calls(store, monkeypatch)
        waiting = asyncio.ensure_future(lock_tasks(store, wait=timedelta(seconds=0.3)))
        await others_run()

        step = advance(hub, held, completed=(task.lease,), activities=(twice,), hold=True)
        assert await store.commit([step]) == [CommitOutcome.COMMITTED]

        assert calls.names == ["step_carried", "commit"]
        assert await waiting == []
        assert await _rows(postgres_database) == ([None], ["twice"])


async def test_when_the_leases_end_a_call_that_waits_elsewhere_gets_it(postgres_database: str) -> None:
    async with (
        opened_hub(postgres_database, SHORT) as (hub, store),
        opened_hub(postgres_database, SHORT) as (_, other),
    ):
        held, task = await handed(hub, store)
        waiting = asyncio.ensure_future(lock_tasks(other, wait=LONG))

        (again,) = await waiting

        assert again.task == task.task
        assert await other.complete_activities([completion(hub, again)]) == [CommitOutcome.COMMITTED]
        assert (await lock_one(other)).version == held.version


async def test_what_a_user_keeps_locked_keeps_no_other_activity_from_anybody(postgres_database: str) -> None:
    async with (
        opened_hub(postgres_database, SHORT) as (hub, store),
        opened_hub(postgres_database, SHORT) as (_, other),
    ):
        _, one = await handed(hub, store, "a")
        _, two = await handed(hub, store, "b")
        connection: Any = await asyncpg.connect(postgres_database)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await other.send([event(hub, "a")], transaction=connection)
            got: list[ActivityWorkItem] = []
            async with asyncio.timeout(20):
                while not got:
                    got = await lock_tasks(other, wait=SHORT)
            assert [each.task for each in got] == [two.task]
            await transaction.commit()
        finally:
            await connection.close()

        assert (await lock_task(other)).task == one.task


@pytest.mark.parametrize("last", [False, True])
async def test_when_the_answer_of_a_step_is_lost_what_it_handed_over_is_free(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    async with opened_hub(postgres_database) as (hub, store), opened_hub(postgres_database) as (_, other):
        held, first = await handed(hub, store)
        if last:
            held, first = await handed_next(hub, store, held, first)
        calls = Calls(store, monkeypatch)
        calls.loses = "step_carried"
        waiting = asyncio.ensure_future(lock_tasks(store, wait=timedelta(seconds=0.5)))
        await others_run()
        task = activity(hub)
        step = advance(hub, held, completed=(first.lease,), activities=(task,), hold=True)
        with pytest.raises(StoreUnavailableError):
            await store.commit([step])
        found = await waiting

        await store.abandon([held.lease], delay=timedelta(0))
        found += await lock_tasks(other, wait=LONG) if not found else []

        assert [each.task for each in found] == [task]
        await other.send([event(hub)])
        again = await lock_one(other, wait=LONG)
        assert again.version == held_after(held, step).version


async def _unloaded(url: str) -> None:
    connection: Any = await asyncpg.connect(url)
    await connection.execute("SELECT durable_host.unload(ARRAY(SELECT ref FROM durable_host.instances))")
    await connection.close()


@pytest.mark.parametrize("how", ["goes on", "ends"])
@pytest.mark.parametrize("row", ["less", "more"])
async def test_a_row_that_carries_less_or_more_than_its_host_remembers_is_taken_as_it_is(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, row: str, how: str
) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        held, task = await handed(hub, store)
        if row == "less":
            await _unloaded(postgres_database)
            assert await _rows(postgres_database) == ([None], [task.task.dispatch_id])
        else:
            store.work.grants.by_id["a"].carried = None
        calls = Calls(store, monkeypatch)
        rest: dict[str, Any] = {"goes on": {"activities": (activity(hub),), "hold": True}, "ends": {}}[how]

        outcomes = await store.commit([advance(hub, held, completed=(task.lease,), **rest)])

        assert outcomes == [CommitOutcome.COMMITTED]
        assert calls.names[-1] == "commit"
        carried, rows = await _rows(postgres_database)
        assert task.task.dispatch_id not in (*carried, *rows)
