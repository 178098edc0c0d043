"""Promises 1 to 3: who may be locked, waiting, cancelled and failing lock calls."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import CommitOutcome, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    LONG,
    NEVER,
    SOON,
    Forgetful,
    activity,
    advance,
    all_of,
    commit,
    create,
    event,
    ids,
    lock,
    lock_one,
    lock_task,
    lock_tasks,
    others_run,
    settle,
    start,
)

__all__ = ["CancellationContract", "EligibilityContract", "WaitingContract"]


class EligibilityContract(ContractBase):
    """Promise 1."""

    @promise(1)
    async def test_a_new_instance_is_locked_with_empty_history_and_its_start(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        message = start(hub)
        await store.create_instance(message, replaceable=())

        item = await lock_one(store)

        assert (item.instance_id, item.version, item.history) == ("a", None, ())
        assert [(each.id, each.event, each.deliveries) for each in item.inbox] == [(message.id, message.event, 1)]
        assert item.lease.key == "a"
        assert timedelta(0) < item.lease.remaining <= store.traits.max_lease

    @promise(1)
    async def test_a_committed_instance_is_locked_with_its_history(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        checkpoint = advance(hub, await lock_one(store))
        await commit(store, checkpoint)
        await store.send([event(hub)])

        item = await lock_one(store)

        assert item.version == HistoryVersion(1, 2)
        assert tuple(item.history or ()) == tuple(checkpoint.events)

    @promise(1)
    async def test_history_that_the_worker_holds_is_left_out(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub)])

        item = await lock_one(store, cached=True)

        assert (item.version, item.history) == (HistoryVersion(1, 2), None)

    @promise(1)
    async def test_a_new_instance_has_empty_history_whatever_the_worker_holds(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")

        assert (await lock_one(store, cached=True)).history == ()

    @promise(1)
    async def test_a_locked_instance_is_not_locked_again(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            await create(hub, store, "a")
            await lock_one(store)
            await store.send([event(hub)])

            assert await lock(store) == []
            assert await lock(other) == []

    @promise(1)
    async def test_an_instance_without_messages_is_not_locked(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)

        assert await lock(store) == []

    @promise(1, 13)
    async def test_a_message_that_is_not_visible_yet_makes_nothing_eligible(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        await store.send([event(hub, visible_at=hub.now() + timedelta(seconds=10))])
        assert await lock(store) == []

        await hub.wait(9)
        assert await lock(store) == []
        await hub.wait(1)

        assert (await lock_one(store)).instance_id == "a"

    @promise(1)
    async def test_only_visible_messages_are_delivered(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        late = event(hub, visible_at=hub.now() + timedelta(hours=1))
        now = event(hub)
        await store.send([late, now])

        assert ids(await lock_one(store)) == (now.id,)

    @promise(1)
    async def test_one_call_returns_distinct_instances_and_keeps_the_limit(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, *"abcde")
        await store.send([event(hub, name) for name in "abcde"])

        first = await lock(store, 3)
        second = await lock(store, 3)

        assert (len(first), len(second)) == (3, 2)
        assert {item.instance_id for item in first + second} == set("abcde")

    @promise(1)
    async def test_what_arrives_during_an_episode_is_delivered_after_it(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        message = event(hub)
        await store.send([message])

        await commit(store, advance(hub, item))

        assert ids(await lock_one(store)) == (message.id,)

    @promise(1)
    async def test_the_present_or_last_worker_makes_no_difference_after_a_commit(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        other = hub.open()
        async with other:
            await store.send([event(hub)])

            assert (await lock_one(other)).version == HistoryVersion(1, 2)


class WaitingContract(ContractBase):
    """Promise 2."""

    @promise(2)
    async def test_a_call_that_finds_nothing_returns_nothing_when_its_time_is_over(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        assert await lock(store, wait=timedelta(seconds=0.2)) == []
        assert await lock_tasks(store, wait=timedelta(seconds=0.2)) == []

        assert loop.time() - began > 0.39

    @promise(2)
    async def test_a_waiting_call_returns_when_a_message_arrives(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=LONG))
            await others_run()
            began = loop.time()
            await store.send([event(hub)])

        assert waiting.result().instance_id == "a"
        assert loop.time() - began < LONG.total_seconds() / 2

    @promise(2)
    async def test_a_waiting_call_returns_when_another_store_object_makes_work(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        other = hub.open()
        loop = asyncio.get_running_loop()
        async with other:
            await settle(hub, store)
            await store.send([event(hub)])
            item = await lock_one(store)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(lock_one(other, wait=LONG))
                waiting_for_task = group.create_task(lock_tasks(other, wait=LONG))
                await others_run()
                began = loop.time()
                await commit(store, advance(hub, item, activities=(activity(hub),), messages=(event(hub),)))

        assert waiting.result().instance_id == "a"
        assert len(waiting_for_task.result()) == 1
        assert loop.time() - began < LONG.total_seconds() / 2

    @promise(2)
    async def test_a_waiting_call_returns_when_a_message_becomes_visible(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=LONG))
            await others_run()
            began = loop.time()
            await store.send([event(hub, visible_at=hub.now() + timedelta(seconds=0.3))])

        assert waiting.result().instance_id == "a"
        assert loop.time() - began < LONG.total_seconds() / 2

    @promise(2)
    async def test_a_waiting_call_returns_when_work_is_given_back(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub)])
        item = await lock_one(store)
        other = hub.open()
        async with other, asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(other, wait=LONG))
            await others_run()
            await store.abandon([item.lease], delay=NEVER)

        assert waiting.result().instance_id == "a"

    @promise(2)
    async def test_a_waiting_call_returns_when_a_lease_ends(self, hub: ContractHub, store: TaskHubStore) -> None:
        if not self.simulated:
            return  # it would take a lease of real time
        await settle(hub, store)
        await store.send([event(hub)])
        item = await lock_one(store)
        await commit(store, advance(hub, item, activities=(activity(hub),), messages=(event(hub),)))
        await lock_one(store)
        await lock_task(store)
        other = hub.open()
        async with other, asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(other, wait=10 * hub.lease))
            waiting_for_task = group.create_task(lock_tasks(other, wait=10 * hub.lease))

        assert waiting.result().instance_id == "a"
        assert len(waiting_for_task.result()) == 1

    @promise(2)
    async def test_every_waiting_call_gets_work_when_there_is_enough(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        other = hub.open()
        async with other, asyncio.TaskGroup() as group:
            calls = [group.create_task(lock(each, 1, wait=LONG)) for each in (store, other, store)]
            await others_run()
            await create(hub, store, "a", "b", "c")

        assert sorted(item.instance_id for call in calls for item in call.result()) == ["a", "b", "c"]


class _Failing:
    """A cache that fails at the second question."""

    def __init__(self) -> None:
        self.asked = 0

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        self.asked += 1
        if self.asked > 1:
            raise ZeroDivisionError
        return False


class CancellationContract(ContractBase):
    """Promise 3."""

    @promise(3)
    async def test_a_call_cancelled_while_it_waits_takes_nothing_with_it(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        orchestrations = asyncio.ensure_future(lock(store, 10, wait=LONG))
        activities = asyncio.ensure_future(lock_tasks(store, 10, wait=LONG))
        await others_run()
        orchestrations.cancel()
        activities.cancel()
        await asyncio.gather(orchestrations, activities, return_exceptions=True)

        # What was on its way for the cancelled calls may have taken it, and gives it back.
        await create(hub, store, "a")
        item = await lock_one(store, wait=SOON)
        await commit(store, advance(hub, item, activities=(activity(hub),)))

        assert len(await lock_tasks(store, wait=SOON)) == 1

    @promise(3)
    async def test_a_call_cancelled_when_work_was_just_made_gives_it_back(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for turns in range(6):
            call = asyncio.ensure_future(store.lock_orchestrations(10, wait=LONG, cache=Forgetful()))
            await others_run()
            await create(hub, store, f"a{turns}")
            for _ in range(turns):
                await asyncio.sleep(0)

            locked = await all_of(call, 1, lambda: lock(store, wait=SOON))

            assert [item.instance_id for item in locked] == [f"a{turns}"]
            await commit(store, advance(hub, locked[0]))

    @promise(3)
    async def test_a_call_cancelled_when_an_activity_was_just_made_gives_it_back(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for turns in range(6):
            await create(hub, store, f"a{turns}")
            item = await lock_one(store)
            call = asyncio.ensure_future(store.lock_activities(10, wait=LONG))
            await others_run()
            await commit(store, advance(hub, item, activities=(activity(hub),)))
            for _ in range(turns):
                await asyncio.sleep(0)

            locked = await all_of(call, 1, lambda: lock_tasks(store, wait=SOON))

            assert len(locked) == 1

    @promise(3)
    async def test_a_call_cancelled_while_it_locks_gives_back_what_it_has(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for turns in range(6):
            names = [f"{turns}-{number}" for number in range(3)]
            await create(hub, store, *names)
            call = asyncio.ensure_future(store.lock_orchestrations(10, wait=LONG, cache=Forgetful()))
            for _ in range(turns):
                await asyncio.sleep(0)

            locked = await all_of(call, len(names), lambda: lock(store, wait=SOON))

            assert sorted(item.instance_id for item in locked) == names
            for item in locked:
                await commit(store, advance(hub, item))

    @promise(3)
    async def test_a_call_that_fails_gives_back_what_it_had_locked(self, hub: ContractHub, store: TaskHubStore) -> None:
        for name in "abc":
            await settle(hub, store, name)
        await store.send([event(hub, name) for name in "abc"])

        with pytest.raises(ZeroDivisionError):
            await store.lock_orchestrations(10, wait=NEVER, cache=_Failing())

        assert [item.instance_id for item in await lock(store)] == ["a", "b", "c"]

    @promise(3, 14)
    async def test_a_waiting_call_that_fails_gives_back_what_it_was_handed(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for name in "abc":
            await settle(hub, store, name)
        call = asyncio.ensure_future(store.lock_orchestrations(10, wait=LONG, cache=_Failing()))
        await others_run()
        await store.send([event(hub, name) for name in "abc"])
        (outcome,) = await asyncio.gather(call, return_exceptions=True)

        locked = [] if isinstance(outcome, BaseException) else list(outcome)
        while len(locked) < 3 and (more := await lock(store)):
            locked += more

        assert sorted(item.instance_id for item in locked) == ["a", "b", "c"]
        for item in locked:
            assert await commit(store, advance(hub, item)) is CommitOutcome.COMMITTED
