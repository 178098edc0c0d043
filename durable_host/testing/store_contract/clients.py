"""Promises 8, 11, 18 and 19, `wait_for_change` and the hub's life cycle: what clients and operators do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durable_host.errors import StoreMismatchError, UnsupportedError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion, InstanceQuery, InstanceState, pending_state
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome, TaskHubStore
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
    others_run,
    settle,
    start,
    visible,
)

__all__ = ["CreateContract", "LifeCycleContract", "PurgeContract", "QuarantineContract", "WatchContract"]

COMMITTED, LEASE_LOST = CommitOutcome.COMMITTED, CommitOutcome.LEASE_LOST
A = InstanceId("a")


class CreateContract(ContractBase):
    """Promises 8 and 19."""

    @promise(8)
    async def test_a_created_instance_shows_as_pending_at_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        message = start(hub, tags={"tag": "value"})

        assert await store.create_instance(message, replaceable=()) is True

        assert await visible(store) == (pending_state(message), ())
        other = hub.open()
        async with other:
            assert await visible(other) == (pending_state(message), ())

    @promise(8)
    async def test_of_several_creators_at_once_exactly_one_hears_true(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        other = hub.open()
        async with other:
            messages = [start(hub) for _ in range(10)]
            calls = [(store, other)[at % 2].create_instance(each, replaceable=()) for at, each in enumerate(messages)]

            heard = await asyncio.gather(*calls)

        assert sorted(heard) == [False] * 9 + [True]
        winner = messages[heard.index(True)]
        state = await store.get_instance(A)
        assert state is not None
        assert state.execution_id == winner.execution_id
        assert ids(await lock_one(store)) == (winner.id,)

    @promise(8)
    async def test_the_same_start_again_hears_true_and_is_stored_once(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        message = start(hub)
        other = hub.open()
        async with other:
            heard = [await each.create_instance(message, replaceable=()) for each in (store, other, store)]

        assert heard == [True, True, True]
        assert ids(await lock_one(store)) == (message.id,)

    @promise(8)
    async def test_the_same_start_again_hears_true_after_the_first_episode(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        message = start(hub)
        await store.create_instance(message, replaceable=())
        completed = {"status": RuntimeStatus.COMPLETED, "execution_id": message.execution_id}
        await commit(store, advance(hub, await lock_one(store), state=completed))
        before = await visible(store)

        assert await store.create_instance(message, replaceable=list(RuntimeStatus)) is True

        assert await visible(store) == before
        assert await lock(store) == []

    @promise(8)
    async def test_a_start_under_an_id_in_use_changes_nothing(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        before = await visible(store)

        assert await store.create_instance(start(hub), replaceable=()) is False
        assert await store.create_instance(start(hub), replaceable=[RuntimeStatus.COMPLETED]) is False

        assert await visible(store) == before
        assert await lock(store) == []

    @promise(8)
    async def test_a_start_replaces_an_instance_of_a_status_that_gives_way(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for status in (RuntimeStatus.COMPLETED, RuntimeStatus.FAILED, RuntimeStatus.TERMINATED, RuntimeStatus.RUNNING):
            await store.purge([A], force=True)
            await settle(hub, store, status=status)
            rest = [each for each in RuntimeStatus if each is not status]
            assert await store.create_instance(start(hub), replaceable=rest) is False
            again = start(hub)

            assert await store.create_instance(again, replaceable={status}) is True

            state = await store.get_instance(A)
            assert state is not None
            assert (state.status, state.execution_id) == (RuntimeStatus.PENDING, again.execution_id)
            assert list(await store.get_history(A) or ()) == [], "what stands is another execution's history"
            assert await store.create_instance(again, replaceable=()) is True

    @promise(8)
    async def test_a_start_that_replaces_comes_with_the_history_it_will_replace(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        again = start(hub)
        await store.create_instance(again, replaceable=[RuntimeStatus.COMPLETED])

        item = await lock_one(store)

        assert (item.version, len(item.history or ()), ids(item)) == (HistoryVersion(1, 2), 2, (again.id,))
        checkpoint = advance(hub, item, replace=True)
        assert await commit(store, checkpoint) is COMMITTED
        assert await visible(store) == (checkpoint.state, checkpoint.events)

    @promise(8)
    async def test_a_start_for_a_living_instance_does_not_fail_its_senders_checkpoint(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, "child")
        before = await visible(store, "child")
        await create(hub, store, "parent")
        message = start(hub, "child")

        assert await commit(store, advance(hub, await lock_one(store), messages=(message,))) is COMMITTED

        assert await visible(store, "child") == before
        item = await lock_one(store)
        assert (item.version, ids(item)) == (HistoryVersion(1, 2), (message.id,))

    @promise(8)
    async def test_a_child_shows_from_its_first_checkpoint_on(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "parent")
        await commit(store, advance(hub, await lock_one(store), messages=(start(hub, "child"),)))
        assert await visible(store, "child") == (None, None)
        item = await lock_one(store)
        checkpoint = advance(hub, item)

        await commit(store, checkpoint)

        assert await visible(store, "child") == (checkpoint.state, checkpoint.events)

    @promise(8)
    async def test_a_scheduled_start_shows_as_pending_and_is_delivered_then(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        message = start(hub, visible_at=hub.now() + timedelta(hours=1))

        assert await store.create_instance(message, replaceable=())

        assert (await visible(store))[0] == pending_state(message)
        assert await lock(store) == []
        await hub.wait(3600)
        assert ids(await lock_one(store)) == (message.id,)

    @promise(19)
    async def test_a_store_without_callers_transactions_refuses_one(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        if store.traits.caller_transactions:
            return  # the provider's own tests know what a transaction is there
        with pytest.raises(UnsupportedError):
            await store.create_instance(start(hub), replaceable=(), transaction=object())
        with pytest.raises(UnsupportedError):
            await store.send([event(hub)], transaction=object())

        assert await store.get_instance(A) is None
        assert await lock(store) == []


class PurgeContract(ContractBase):
    """Promise 11."""

    @promise(11)
    async def test_purge_removes_terminal_instances_and_counts_them(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        statuses = (
            RuntimeStatus.COMPLETED,
            RuntimeStatus.FAILED,
            RuntimeStatus.TERMINATED,
            RuntimeStatus.RUNNING,
            RuntimeStatus.SUSPENDED,
        )
        for status in statuses:
            await settle(hub, store, status.value, status=status)
        await create(hub, store, "pending")
        every = [InstanceId(name) for name in (*(each.value for each in statuses), "pending", "nobody")]

        assert await store.purge(every) == 3

        left = await store.query_instances(InstanceQuery())
        assert [state.instance_id for state in left.instances] == ["Running", "Suspended", "pending"]
        assert [await visible(store, name) for name in every[:3]] == [(None, None)] * 3
        assert await store.purge(every) == 0

    @promise(11)
    async def test_force_removes_any_instance(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, "running")
        await create(hub, store, "pending")

        assert await store.purge([InstanceId("running"), InstanceId("pending")], force=True) == 2

        assert (await store.query_instances(InstanceQuery())).instances == ()
        assert await lock(store) == []

    @promise(11)
    async def test_an_instance_named_twice_is_counted_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)

        assert await store.purge([A, A]) == 1

    @promise(11)
    async def test_messages_go_with_their_instance(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        await store.send([event(hub), event(hub, visible_at=hub.now() + timedelta(seconds=5))])

        await store.purge([A])

        await hub.wait(6)
        assert await lock(store) == []
        assert (await store.statistics()).inbox_waiting == 0

    @promise(11)
    async def test_a_purged_id_begins_anew(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        await store.purge([A])
        message = start(hub)

        assert await store.create_instance(message, replaceable=())

        item = await lock_one(store)
        assert (item.version, item.history, ids(item)) == (None, (), (message.id,))

    @promise(11)
    async def test_others_keep_everything(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, "a", status=RuntimeStatus.COMPLETED)
        await settle(hub, store, "ab", status=RuntimeStatus.COMPLETED)
        before = await visible(store, "ab")
        await store.send([event(hub, "ab")])

        await store.purge([A])

        assert await visible(store, "ab") == before
        assert (await lock_one(store)).instance_id == "ab"


class QuarantineContract(ContractBase):
    """Promise 18."""

    @promise(18)
    async def test_a_quarantined_instance_is_failed_with_the_reason_and_keeps_all_it_has(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        history = await store.get_history(A)
        await store.send([event(hub)])
        item = await lock_one(store)

        assert await store.quarantine(item.lease, "it keeps failing") is COMMITTED

        state = await store.get_instance(A)
        assert state is not None
        assert (state.status, state.quarantined) == (RuntimeStatus.FAILED, "it keeps failing")
        assert await store.get_history(A) == history
        found = await store.query_instances(InstanceQuery(statuses=frozenset({RuntimeStatus.FAILED})))
        assert [each.instance_id for each in found.instances] == ["a"]
        assert (await store.statistics()).quarantined == 1

    @promise(18)
    async def test_nothing_makes_a_quarantined_instance_eligible(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub), event(hub, visible_at=hub.now() + timedelta(seconds=5))])
        item = await lock_one(store)
        waiting = asyncio.ensure_future(lock(store, wait=timedelta(seconds=0.5)))
        await others_run()
        await store.quarantine(item.lease, "why")
        await store.send([event(hub)])

        assert await waiting == []
        await hub.outlive_lease()
        assert await lock(store) == []
        assert await store.create_instance(start(hub), replaceable=list(RuntimeStatus)) is False
        assert await store.renew([item.lease]) == [None]
        assert await commit(store, advance(hub, item)) is LEASE_LOST

    @promise(18)
    async def test_release_makes_it_what_it_was(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, custom_status='"custom"')
        before = await visible(store)
        first, second = event(hub), event(hub)
        await store.send([first])
        item = await lock_one(store)
        await store.quarantine(item.lease, "why")
        await store.send([second])

        assert await store.release_quarantined([A, InstanceId("nobody")]) == 1

        assert await visible(store) == before
        again = await lock_one(store)
        assert (ids(again), again.version) == ((first.id, second.id), item.version)
        assert await store.release_quarantined([A]) == 0
        assert (await store.statistics()).quarantined == 0
        assert await commit(store, advance(hub, again)) is COMMITTED

    @promise(18)
    async def test_release_wakes_a_waiting_call(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        await store.quarantine((await lock_one(store)).lease, "why")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=timedelta(seconds=20)))
            await others_run()
            await store.release_quarantined([A])

        assert waiting.result().instance_id == "a"

    @promise(18)
    async def test_a_lost_lease_quarantines_nothing(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        stale = await lock_one(store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            taken = await lock_one(other)

            assert await store.quarantine(stale.lease, "why") is LEASE_LOST

            assert await commit(other, advance(hub, taken)) is COMMITTED
        state = await store.get_instance(A)
        assert state is not None
        assert state.quarantined is None

    @promise(18)
    async def test_a_held_instance_may_be_quarantined(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await commit(store, advance(hub, item, hold=True))

        assert await store.quarantine(item.lease, "why") is COMMITTED

        await store.send([event(hub)])
        assert await lock(store) == []
        assert await store.release_quarantined([A]) == 1
        assert len(await lock(store)) == 1

    @promise(18, 11)
    async def test_a_quarantined_instance_may_be_purged(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub)])
        await store.quarantine((await lock_one(store)).lease, "why")

        assert await store.purge([A]) == 1

        assert await store.release_quarantined([A]) == 0
        assert (await store.statistics()).quarantined == 0


class WatchContract(ContractBase):
    """`wait_for_change`, `wait_for_end` and `check`."""

    async def watch(
        self, store: TaskHubStore, after: InstanceState | None, seconds: float = 20
    ) -> asyncio.Task[InstanceState | None]:
        """Begin to wait."""
        watching = asyncio.ensure_future(store.wait_for_change(A, after=after, timeout=timedelta(seconds=seconds)))
        await others_run()
        assert not watching.done()
        return watching

    @promise()
    async def test_it_returns_at_once_when_there_is_news(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        now = await store.get_instance(A)

        assert await store.wait_for_change(A, after=None, timeout=timedelta(seconds=20)) == now

    @promise()
    async def test_it_returns_what_stands_when_its_time_is_over(self, hub: ContractHub, store: TaskHubStore) -> None:
        assert await store.wait_for_change(A, after=None, timeout=timedelta(seconds=0.1)) is None
        await settle(hub, store)
        now = await store.get_instance(A)

        assert await store.wait_for_change(A, after=now, timeout=timedelta(seconds=0.1)) == now
        assert await store.wait_for_change(A, after=now, timeout=NEVER) == now

    @promise()
    async def test_it_returns_when_the_instance_appears_changes_fails_and_goes(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        seen: list[InstanceState | None] = []
        loop = asyncio.get_running_loop()
        began = loop.time()

        watching = await self.watch(store, None)
        await create(hub, store, "a")
        seen.append(await watching)

        watching = await self.watch(store, seen[-1])
        await commit(store, advance(hub, await lock_one(store), messages=(event(hub),)))
        seen.append(await watching)

        watching = await self.watch(store, seen[-1])
        await store.quarantine((await lock_one(store)).lease, "why")
        seen.append(await watching)

        watching = await self.watch(store, seen[-1])
        await store.purge([A])
        seen.append(await watching)

        statuses = [state and state.status for state in seen]
        assert statuses == [RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.FAILED, None]
        assert loop.time() - began < 20

    @promise()
    async def test_it_sees_what_another_store_object_does(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            watching = await self.watch(other, None)
            await create(hub, store, "a")

            assert await watching is not None

    @promise()
    async def test_an_amended_instance_has_changed(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, status=RuntimeStatus.FAILED)
        await store.send([event(hub)])
        item = await lock_one(store)
        watching = await self.watch(store, await store.get_instance(A))
        amended = ((0, fact(hub)),)

        await commit(store, advance(hub, item, events=0, amended=amended))

        state = await watching
        assert state is not None
        assert state.status is RuntimeStatus.RUNNING

    @promise()
    async def test_waiting_for_the_end_returns_at_the_end_only(self, hub: ContractHub, store: TaskHubStore) -> None:
        waiting = asyncio.ensure_future(store.wait_for_end(A, timeout=timedelta(seconds=20)))
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store), messages=(event(hub),)))
        await others_run()
        assert not waiting.done(), "a step on the way is not the end"

        await commit(store, advance(hub, await lock_one(store), state={"status": RuntimeStatus.COMPLETED}))

        state = await waiting
        assert state is not None
        assert state.status is RuntimeStatus.COMPLETED
        assert await store.wait_for_end(A, timeout=timedelta(seconds=20)) == state

    @promise()
    async def test_waiting_for_the_end_hears_that_the_instance_is_gone(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        waiting = asyncio.ensure_future(store.wait_for_end(A, timeout=timedelta(seconds=20)))
        await others_run()

        await store.purge([A], force=True)

        assert await waiting is None

    @promise()
    async def test_waiting_for_the_end_tells_what_stands_when_its_time_is_over(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        assert await store.wait_for_end(A, timeout=timedelta(seconds=0.1)) is None
        await create(hub, store, "a")

        state = await store.wait_for_end(A, timeout=timedelta(seconds=0.1))

        assert state is not None
        assert state.status is RuntimeStatus.PENDING


class LifeCycleContract(ContractBase):
    """`create`, `delete`, opening and closing."""

    @promise()
    async def test_creating_twice_keeps_what_is_there(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        before = await visible(store)

        await hub.open().create()
        await store.create()

        assert await visible(store) == before

    @promise()
    async def test_a_deleted_hub_cannot_be_opened_and_begins_empty_when_created_again(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        await store.__aexit__(None, None, None)
        closed = hub.open()
        await closed.delete()
        await closed.delete()

        with pytest.raises(StoreMismatchError):
            await hub.open().__aenter__()

        await closed.create()
        async with hub.open() as again:
            assert await visible(again) == (None, None)
            assert await lock(again) == []

    @promise()
    async def test_content_outlives_the_store_object(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            await settle(hub, other)
            before = await visible(other)
            await other.send([event(hub)])

        assert await visible(store) == before
        assert len(await lock(store)) == 1

    @promise(10)
    async def test_closing_gives_back_what_is_locked_at_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            await create(hub, other, "a", "b")
            a, b = await lock(other)
            await commit(other, advance(hub, a, activities=(activity(hub),)))
            task = await lock_task(other)

        assert ids(await lock_one(store)) == ids(b)
        assert (await lock_task(store)).task == task.task
        assert await store.renew([b.lease, task.lease]) == [None, None]

    @promise(5)
    async def test_a_lease_of_a_closed_store_object_is_lost(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            await create(hub, other, "a")
            a = await lock_one(other)
            await commit(other, advance(hub, a, activities=(activity(hub),), messages=(event(hub),)))
            item, task = await lock_one(other), await lock_task(other)

        assert await commit(store, advance(hub, item)) is LEASE_LOST
        assert list(await store.complete_activities([completion(hub, task)])) == [LEASE_LOST]
        assert len(await lock_tasks(store)) == 1

    @promise()
    async def test_the_store_can_be_checked(self, hub: ContractHub, store: TaskHubStore) -> None:
        await store.check()
