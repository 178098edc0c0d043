"""Promise 14: an activity that a held instance's step hands to a waiting call is an activity like any other.

Whatever a store does to make that step cheap must not be seen when something else than the next step comes: its lease
ends, its result cannot be folded in, the instance is given back or put aside, the store closes.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import ActivityWorkItem, CommitOutcome, OrchestrationWorkItem, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    LONG,
    NEVER,
    SOON,
    activity,
    advance,
    all_of,
    commit,
    completion,
    create,
    event,
    held_after,
    ids,
    lock,
    lock_one,
    lock_task,
    lock_tasks,
    others_run,
    settle,
)

__all__ = ["HandedActivityContract", "handed", "handed_next"]

COMMITTED = CommitOutcome.COMMITTED
LEASE_LOST = CommitOutcome.LEASE_LOST


async def handed(
    hub: ContractHub, store: TaskHubStore, instance_id: str = "a"
) -> tuple[OrchestrationWorkItem, ActivityWorkItem]:
    """An instance that is held after a step, and the activity that this step has handed to a waiting call."""
    await lock_tasks(store, wait=timedelta(seconds=0.1))  # what a first call sets up is there then
    await settle(hub, store, instance_id)
    await store.send([event(hub, instance_id)])
    return await handed_next(hub, store, await lock_one(store))


async def handed_next(
    hub: ContractHub, store: TaskHubStore, item: OrchestrationWorkItem, done: ActivityWorkItem | None = None
) -> tuple[OrchestrationWorkItem, ActivityWorkItem]:
    """The same after one step more, which folds a result in."""
    call = asyncio.ensure_future(lock_tasks(store, wait=LONG))
    await others_run()
    completed = () if done is None else (done.lease,)
    step = advance(hub, item, activities=(activity(hub, item.instance_id),), completed=completed, hold=True)
    assert await commit(store, step) is COMMITTED
    await asyncio.wait([call], timeout=1)
    (task,) = await all_of(call, 1, lambda: lock_tasks(store, wait=SOON))
    return held_after(item, step), task


class HandedActivityContract(ContractBase):
    """Promise 14."""

    @promise(14)
    async def test_a_chain_of_handed_activities_leaves_nothing_behind(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held, task = await handed(hub, store)
        for _ in range(3):
            held, task = await handed_next(hub, store, held, task)
        end = advance(hub, held, completed=(task.lease,), state={"status": RuntimeStatus.COMPLETED})

        assert await commit(store, end) is COMMITTED

        assert len(await store.get_history(InstanceId("a")) or ()) == 12
        await hub.outlive_lease()
        assert (await lock_tasks(store), await lock(store)) == ([], [])
        statistics = await store.statistics()
        assert (statistics.activities_waiting, statistics.activities_running) == (0, 0)

    @promise(14)
    async def test_a_handed_activity_is_counted(self, hub: ContractHub, store: TaskHubStore) -> None:
        await handed(hub, store)
        before = await store.statistics()
        await hub.outlive_lease()
        after = await store.statistics()

        assert (before.activities_waiting, before.activities_running) == (0, 1)
        assert (after.activities_waiting, after.activities_running) == (1, 0)

    @promise(14)
    async def test_when_its_lease_ends_another_call_gets_it(self, hub: ContractHub, store: TaskHubStore) -> None:
        held, task = await handed(hub, store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            again = await lock_task(other)

            assert again.task == task.task
            assert await store.complete_activities([completion(hub, task)]) == [LEASE_LOST]
            assert await other.complete_activities([completion(hub, again)]) == [COMMITTED]
            woken = await lock_one(other)
            assert len(woken.inbox) == 1
            assert await commit(store, advance(hub, held)) is LEASE_LOST
            assert await commit(other, advance(hub, woken)) is COMMITTED

    @promise(14)
    async def test_when_both_leases_end_whoever_takes_the_instance_leaves_the_activity(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        _, task = await handed(hub, store)
        await store.send([event(hub)])
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            taken = await lock_one(other)
            assert await commit(other, advance(hub, taken, hold=True)) is COMMITTED

            again = await lock_task(store)

            assert again.task == task.task

    @promise(14)
    async def test_its_lease_can_be_renewed(self, hub: ContractHub, store: TaskHubStore) -> None:
        held, task = await handed(hub, store)
        for _ in range(3):
            await hub.wait(hub.lease.total_seconds() * 0.7)
            assert None not in await store.renew([held.lease, task.lease])

        assert await lock_tasks(store) == []
        held, task = await handed_next(hub, store, held, task)
        await hub.wait(hub.lease.total_seconds() * 0.7)
        assert None not in await store.renew([task.lease])
        await hub.wait(hub.lease.total_seconds() * 0.7)
        assert await lock_tasks(store) == []
        assert await store.complete_activities([completion(hub, task)]) == [COMMITTED]

    @promise(14)
    async def test_an_instance_renewed_alone_keeps_nothing_from_others(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held, task = await handed(hub, store)
        for _ in range(2):
            await hub.wait(hub.lease.total_seconds() * 0.7)
            (renewed,) = await store.renew([held.lease])
            assert renewed is not None

        assert (await lock_task(store)).task == task.task
        assert await commit(store, advance(hub, held, hold=True)) is COMMITTED

    @promise(14)
    async def test_its_result_reaches_the_held_instance_by_message(self, hub: ContractHub, store: TaskHubStore) -> None:
        held, task = await handed(hub, store)

        assert await store.complete_activities([completion(hub, task)]) == [COMMITTED]
        assert await store.complete_activities([completion(hub, task)]) == [LEASE_LOST]

        more = await lock_one(store)
        assert (more.lease.token, len(more.inbox)) == (held.lease.token, 1)
        assert await commit(store, advance(hub, more)) is COMMITTED

    @promise(14)
    async def test_its_result_reaches_an_instance_that_was_given_back(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held, task = await handed(hub, store)
        await store.abandon([held.lease], delay=NEVER)

        assert await lock_tasks(store) == []
        assert await store.complete_activities([completion(hub, task)]) == [COMMITTED]

        assert len((await lock_one(store)).inbox) == 1

    @promise(14)
    async def test_given_back_it_comes_again_and_the_instance_stays_held(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held, task = await handed(hub, store)

        await store.abandon([task.lease], delay=NEVER)

        again = await lock_task(store)
        assert again.task == task.task
        assert await commit(store, advance(hub, held, completed=(again.lease,), hold=True)) is COMMITTED
        await hub.outlive_lease()
        assert await lock_tasks(store) == []

    @promise(14)
    async def test_a_step_beside_it_leaves_it_where_it_is(self, hub: ContractHub, store: TaskHubStore) -> None:
        held, task = await handed(hub, store)
        await store.send([event(hub)])
        more = await lock_one(store)

        beside, second = await handed_next(hub, store, more)

        assert second.task != task.task
        assert await store.complete_activities([completion(hub, task), completion(hub, second)]) == [
            COMMITTED,
            COMMITTED,
        ]
        replies = await lock_one(store)
        assert (replies.lease.token, len(replies.inbox)) == (held.lease.token, 2)
        assert replies.version in (None, beside.version)
        assert await commit(store, advance(hub, replies)) is COMMITTED

    @promise(14)
    async def test_results_of_several_instances_are_folded_at_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        pairs = [await handed(hub, store, name) for name in "abc"]
        tasks = [activity(hub, held.instance_id) for held, _ in pairs]
        steps = [
            advance(hub, held, completed=(task.lease,), activities=(next_task,), hold=True)
            for (held, task), next_task in zip(pairs, tasks, strict=True)
        ]

        assert await store.commit(steps) == [COMMITTED] * 3

        got = await lock_tasks(store)
        assert sorted(each.task.dispatch_id for each in got) == sorted(each.dispatch_id for each in tasks)

    @promise(14)
    async def test_it_goes_on_when_its_instance_is_put_aside(self, hub: ContractHub, store: TaskHubStore) -> None:
        held, task = await handed(hub, store)

        assert await store.quarantine(held.lease, "broken") is COMMITTED

        assert await store.complete_activities([completion(hub, task)]) == [COMMITTED]
        assert await store.release_quarantined([held.instance_id]) == 1
        assert len((await lock_one(store)).inbox) == 1

    @promise(14)
    async def test_a_start_beside_it_is_refused_and_changes_nothing(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held, task = await handed(hub, store)

        assert await store.purge([held.instance_id]) == 0

        end = advance(hub, held, completed=(task.lease,), state={"status": RuntimeStatus.COMPLETED})
        assert await commit(store, end) is COMMITTED
        assert await store.purge([held.instance_id]) == 1
        await create(hub, store, "a")
        assert len(ids(await lock_one(store))) == 1
        assert await lock_tasks(store) == []

    @promise(14)
    async def test_closing_gives_both_back(self, hub: ContractHub, store: TaskHubStore) -> None:
        closing = hub.open()
        await closing.__aenter__()
        try:
            held, task = await handed(hub, closing)
            await store.send([event(hub)])
        finally:
            await closing.__aexit__(None, None, None)

        again, taken = await lock_task(store), await lock_one(store)

        assert again.task == task.task
        assert (taken.instance_id, taken.version) == (held.instance_id, held.version)
