"""Promises 4 to 7, 16, 17 and 20: what a checkpoint does, and when it does nothing."""

from __future__ import annotations

from datetime import timedelta

from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import Checkpoint, CommitOutcome, OrchestrationWorkItem, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    NEVER,
    activity,
    advance,
    commit,
    completion,
    create,
    event,
    fact,
    ids,
    lock,
    lock_one,
    lock_task,
    lock_tasks,
    running,
    settle,
    start,
    visible,
)

__all__ = ["CommitContract", "FenceContract", "ProjectionContract"]

COMMITTED, LEASE_LOST = CommitOutcome.COMMITTED, CommitOutcome.LEASE_LOST
A = InstanceId("a")


class CommitContract(ContractBase):
    """Promises 4, 6, 16 and 17."""

    @promise(6)
    async def test_everything_in_a_checkpoint_takes_effect(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a", "b")
        a, b = await lock(store)
        await commit(store, advance(hub, b))
        task, to_self, to_other = activity(hub), event(hub, "a"), event(hub, "b")
        checkpoint = advance(hub, a, activities=(task,), messages=(to_self, to_other))

        assert await commit(store, checkpoint) is COMMITTED

        assert await visible(store) == (checkpoint.state, checkpoint.events)
        assert (await lock_task(store)).task == task
        again_a, again_b = await lock(store)
        assert (ids(again_a), ids(again_b)) == ((to_self.id,), (to_other.id,))

    @promise(6)
    async def test_events_are_appended_in_order(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        expected: list[object] = []
        for length in (3, 1, 200):
            checkpoint = advance(hub, await lock_one(store), events=length)
            expected += checkpoint.events
            await commit(store, checkpoint)
            await store.send([event(hub)])

        assert list(await store.get_history(A) or ()) == expected
        assert list((await lock_one(store)).history or ()) == expected

    @promise(6)
    async def test_the_next_generation_replaces_history(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub)])
        checkpoint = advance(hub, await lock_one(store), events=1, replace=True)

        assert await commit(store, checkpoint) is COMMITTED

        assert await visible(store) == (checkpoint.state, checkpoint.events)
        await store.send([event(hub)])
        item = await lock_one(store)
        assert (item.version, tuple(item.history or ())) == (HistoryVersion(2, 1), checkpoint.events)
        assert await commit(store, advance(hub, item)) is COMMITTED
        assert len(await store.get_history(A) or ()) == 3

    @promise(6, 9)
    async def test_what_was_not_consumed_is_delivered_again(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        kept = event(hub)
        await store.send([kept])
        item = await lock_one(store)
        taken = [each for each in ids(item) if each != kept.id]

        await commit(store, advance(hub, item, consumed=taken))

        again = await lock_one(store)
        assert [(each.id, each.deliveries) for each in again.inbox] == [(kept.id, 2)]

    @promise(6)
    async def test_a_checkpoint_that_only_consumes_leaves_all_else_as_it_was(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        before = await visible(store)
        await store.send([event(hub)])
        item = await lock_one(store)

        assert await commit(store, Checkpoint(item.lease, item.version, None, consumed=ids(item))) is COMMITTED

        assert await visible(store) == before
        assert await lock(store) == []

    @promise(6)
    async def test_consuming_what_is_not_there_is_no_error(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)

        assert await commit(store, advance(hub, item, consumed=(*ids(item), event(hub).id))) is COMMITTED

    @promise(4)
    async def test_outcomes_are_in_order_and_a_lost_lease_fails_its_own_checkpoint_only(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, *"abcd")
        items = await lock(store)
        await store.abandon([items[1].lease], delay=NEVER)
        await lock_one(store)
        checkpoints = [advance(hub, item) for item in items]

        outcomes = await store.commit([checkpoints[each] for each in (1, 3, 0, 2)])

        assert list(outcomes) == [LEASE_LOST, COMMITTED, COMMITTED, COMMITTED]
        assert [len(await store.get_history(InstanceId(name)) or ()) for name in "abcd"] == [2, 0, 2, 2]

    @promise(4)
    async def test_a_full_batch_is_committed_at_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        size = min(store.traits.commit_batch, store.traits.lock_batch, 256)
        await create(hub, store, *(f"{number:03}" for number in range(size)))
        items = await lock(store, size)
        assert len(items) == size

        outcomes = await store.commit([advance(hub, item) for item in items])

        assert list(outcomes) == [COMMITTED] * size

    @promise(4)
    async def test_instances_of_one_batch_may_send_to_each_other(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a", "b")
        a, b = await lock(store)
        to_b, to_a = event(hub, "b"), event(hub, "a")

        await store.commit([advance(hub, a, messages=(to_b,)), advance(hub, b, messages=(to_a,))])

        assert [ids(item) for item in await lock(store)] == [(to_a.id,), (to_b.id,)]

    @promise(16)
    async def test_amended_events_stand_at_their_index_and_the_rest_is_as_before(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        first = advance(hub, await lock_one(store), events=5)
        await commit(store, first)
        await store.send([event(hub)])
        changed, other = fact(hub, "amended 1"), fact(hub, "amended 3")
        item = await lock_one(store)

        outcome = await commit(store, advance(hub, item, events=0, amended=((1, changed), (3, other))))

        assert outcome is COMMITTED
        expected = [first.events[0], changed, first.events[2], other, first.events[4]]
        assert list(await store.get_history(A) or ()) == expected
        await store.send([event(hub)])
        again = await lock_one(store)
        assert (again.version, list(again.history or ())) == (HistoryVersion(1, 5), expected)

    @promise(16)
    async def test_a_checkpoint_may_amend_and_append(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        first = advance(hub, await lock_one(store), events=2)
        await commit(store, first)
        await store.send([event(hub)])
        changed, added = fact(hub, "amended"), fact(hub, "added")

        await commit(store, advance(hub, await lock_one(store), events=(added,), amended=((0, changed),)))

        assert list(await store.get_history(A) or ()) == [changed, first.events[1], added]

    @promise(17)
    async def test_completed_activities_leave_with_their_checkpoint(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        tasks = [activity(hub), activity(hub), activity(hub)]
        await commit(store, advance(hub, await lock_one(store), activities=tasks, messages=(event(hub),), hold=True))
        item = await lock_one(store)
        running_tasks = await lock_tasks(store)

        done = [each.lease for each in running_tasks[:2]]
        assert await commit(store, advance(hub, item, completed=done)) is COMMITTED

        assert await store.renew(done) == [None, None]
        await hub.outlive_lease()
        assert (await lock_task(store)).task == tasks[2]

    @promise(17)
    async def test_completed_activities_of_a_lost_checkpoint_stay_locked(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await commit(store, advance(hub, item, activities=(activity(hub),), messages=(event(hub),)))
        item, task = await lock_one(store), await lock_task(store)
        await store.abandon([item.lease], delay=NEVER)

        assert await commit(store, advance(hub, item, completed=(task.lease,))) is LEASE_LOST

        assert await lock_tasks(store) == []
        assert list(await store.complete_activities([completion(hub, task)])) == [COMMITTED]


class FenceContract(ContractBase):
    """Promise 5."""

    async def assert_nothing_of_it(
        self, hub: ContractHub, store: TaskHubStore, item: OrchestrationWorkItem, outbox: bool = True
    ) -> None:
        """Commit on a lease that is not current, and see that nothing of it shows."""
        before, statistics = await visible(store, item.instance_id), await store.statistics()
        atomic = store.traits.atomic_commit
        stale = advance(
            hub,
            item,
            activities=(activity(hub),) if atomic else (),
            messages=(event(hub, "elsewhere"),) if atomic else (),
            state={"status": RuntimeStatus.COMPLETED, "custom_status": '"stale"'},
        )

        assert await commit(store, stale) is LEASE_LOST

        assert await visible(store, item.instance_id) == before
        assert await lock_tasks(store) == []
        after = await store.statistics()
        assert (after.inbox_waiting, after.inbox_delayed) == (statistics.inbox_waiting, statistics.inbox_delayed)

    @promise(5)
    async def test_a_worker_whose_lease_was_taken_over_commits_nothing(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        stale = await lock_one(store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            taken = await lock_one(other)
            assert taken.inbox[0].id == stale.inbox[0].id

            await self.assert_nothing_of_it(hub, store, stale)

            assert await commit(other, advance(hub, taken)) is COMMITTED

    @promise(5)
    async def test_a_worker_whose_successor_has_finished_commits_nothing(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        stale = await lock_one(store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            await commit(other, advance(hub, await lock_one(other)))

            await self.assert_nothing_of_it(hub, store, stale)

    @promise(5)
    async def test_the_same_checkpoint_a_second_time_is_lost(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        checkpoint = advance(hub, await lock_one(store))
        assert await commit(store, checkpoint) is COMMITTED

        assert await commit(store, checkpoint) is LEASE_LOST

        assert len(await store.get_history(A) or ()) == 2

    @promise(5)
    async def test_a_worker_that_gave_the_instance_back_commits_nothing(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await store.abandon([item.lease], delay=timedelta(seconds=1))

        await self.assert_nothing_of_it(hub, store, item)

    @promise(5)
    async def test_a_checkpoint_computed_from_another_history_is_lost(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        await store.send([event(hub)])
        item = await lock_one(store)
        before = await visible(store)

        for base in (None, HistoryVersion(1, 1), HistoryVersion(1, 3), HistoryVersion(2, 2)):
            version = HistoryVersion(1, 1) if base is None else HistoryVersion(base.generation, base.length + 1)
            state = running(hub, "a", version)
            checkpoint = Checkpoint(item.lease, base, state, (fact(hub),), consumed=ids(item))
            assert await commit(store, checkpoint) is LEASE_LOST

        assert await visible(store) == before
        assert await commit(store, advance(hub, item)) is COMMITTED

    @promise(5, 11)
    async def test_a_purged_instance_takes_no_checkpoint(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await store.purge([A], force=True)

        await self.assert_nothing_of_it(hub, store, item)

    @promise(5, 8)
    async def test_an_instance_purged_and_created_again_takes_no_checkpoint_of_the_old_one(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await store.purge([A], force=True)
        await create(hub, store, "a")

        await self.assert_nothing_of_it(hub, store, item)

        assert (await lock_one(store)).version is None


class ProjectionContract(ContractBase):
    """Promises 7 and 20."""

    @promise(7)
    async def test_an_equal_version_without_amendments_leaves_the_projection(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, custom_status='"first"')
        before = await visible(store)
        await store.send([event(hub)])
        item = await lock_one(store)

        await commit(store, advance(hub, item, events=0, state={"custom_status": '"second"'}))

        assert await visible(store) == before

    @promise(7, 16)
    async def test_an_equal_version_with_amendments_replaces_the_projection(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, status=RuntimeStatus.FAILED, output="why", completed_at=hub.now())
        await store.send([event(hub)])
        item = await lock_one(store)

        await commit(store, advance(hub, item, events=0, amended=((0, fact(hub)),)))

        state = await store.get_instance(A)
        assert state is not None
        assert (state.status, state.output, state.version) == (RuntimeStatus.RUNNING, None, HistoryVersion(1, 2))

    @promise(7)
    async def test_a_newer_version_replaces_the_projection_as_a_whole(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, custom_status='"first"', tags={"a": "1"}, suspended_reason="why")
        await store.send([event(hub)])
        checkpoint = advance(hub, await lock_one(store), events=1, state={"name": "Renamed"})

        await commit(store, checkpoint)

        assert (await visible(store))[0] == checkpoint.state

    @promise(7)
    async def test_a_shorter_history_of_a_newer_generation_replaces_the_projection(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        await store.send([event(hub)])
        checkpoint = advance(hub, await lock_one(store), events=1, replace=True)

        await commit(store, checkpoint)

        assert (await visible(store))[0] == checkpoint.state

    @promise(7, 8)
    async def test_a_stray_message_to_the_old_execution_does_not_hide_a_new_start(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        await store.send([event(hub)])
        stray = await lock_one(store)
        again = start(hub)
        assert await store.create_instance(again, replaceable=[RuntimeStatus.COMPLETED])

        await commit(store, advance(hub, stray, events=0, state={"status": RuntimeStatus.COMPLETED}))

        state = await store.get_instance(A)
        assert state is not None
        assert (state.status, state.execution_id) == (RuntimeStatus.PENDING, again.execution_id)

    @promise(20)
    async def test_output_and_end_show_for_terminal_instances_only(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        for status in RuntimeStatus:
            item = await lock_one(store)
            ended = {"status": status, "output": '"out"', "completed_at": hub.now()}
            await commit(store, advance(hub, item, state=ended))

            state = await store.get_instance(A)

            assert state is not None
            shown = ('"out"', ended["completed_at"]) if status.is_terminal else (None, None)
            assert (state.status, state.output, state.completed_at) == (status, *shown)
            await store.send([event(hub)])

    @promise(20)
    async def test_a_new_generation_forgets_the_output_of_the_old_one(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED, output='"out"', completed_at=hub.now())
        assert await store.create_instance(start(hub), replaceable=[RuntimeStatus.COMPLETED])
        pending = await store.get_instance(A)
        await commit(store, advance(hub, await lock_one(store), replace=True))

        now = await store.get_instance(A)

        for state in (pending, now):
            assert state is not None
            assert (state.output, state.completed_at) == (None, None)

    @promise(20)
    async def test_payloads_may_be_left_out(self, hub: ContractHub, store: TaskHubStore) -> None:
        completed = RuntimeStatus.COMPLETED
        await settle(hub, store, status=completed, completed_at=hub.now(), output='"out"', custom_status='"custom"')

        state = await store.get_instance(A, with_payloads=False)

        assert state is not None
        assert (state.input, state.output, state.custom_status, state.failure) == (None, None, None, None)
        assert (state.status, state.completed_at is not None) == (RuntimeStatus.COMPLETED, True)
