"""Promise 14: what a call makes may be locked at once for a waiting call of the same store object.

A store that hands nothing over passes as well, since the contract only says what a hand-over must not break.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durable_host.storage.contract import CommitOutcome, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    LONG,
    activity,
    advance,
    commit,
    completion,
    create,
    event,
    ids,
    lock,
    lock_one,
    lock_tasks,
    others_run,
    settle,
)

__all__ = ["HandOverContract"]

COMMITTED = CommitOutcome.COMMITTED


class HandOverContract(ContractBase):
    """Promise 14."""

    @promise(14)
    async def test_what_is_handed_over_is_locked(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other, asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=LONG))
            await others_run()
            await create(hub, store, "a")
            assert await lock(other) == [] or waiting.done()
            item = await waiting

        assert item.inbox[0].deliveries in (0, 1)
        assert await commit(store, advance(hub, item)) is COMMITTED

    @promise(14)
    async def test_work_goes_to_one_waiting_call_only(self, hub: ContractHub, store: TaskHubStore) -> None:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(lock(store, wait=timedelta(seconds=0.3))) for _ in range(4)]
            await others_run()
            await create(hub, store, "a", "b")
            await others_run()
        await create(hub, store, "c")

        locked = [item for call in calls for item in call.result()]
        keys = [item.instance_id for item in (*locked, *await lock(store))]

        assert sorted(keys) == ["a", "b", "c"]

    @promise(14)
    async def test_a_waiting_call_gets_no_more_than_its_limit(self, hub: ContractHub, store: TaskHubStore) -> None:
        async with asyncio.TaskGroup() as group:
            orchestrations = group.create_task(lock(store, 2, wait=LONG))
            await others_run()
            await create(hub, store, *"abcde")
        first = orchestrations.result()
        rest = await lock(store)
        async with asyncio.TaskGroup() as group:
            activities = group.create_task(lock_tasks(store, 2, wait=LONG))
            await others_run()
            tasks = [activity(hub, first[0].instance_id) for _ in range(5)]
            await commit(store, advance(hub, first[0], activities=tasks))
        left = await lock_tasks(store)

        assert 1 <= len(first) <= 2
        assert sorted(item.instance_id for item in first + rest) == list("abcde")
        assert 1 <= len(activities.result()) <= 2
        assert len(activities.result()) + len(left) == 5

    @promise(14)
    async def test_activities_of_a_checkpoint_reach_a_waiting_call(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_tasks(store, wait=LONG))
            await others_run()
            await commit(store, advance(hub, item, activities=(activity(hub),)))
        (task,) = waiting.result()

        assert task.deliveries in (0, 1)
        assert await lock_tasks(store) == []
        assert list(await store.complete_activities([completion(hub, task)])) == [COMMITTED]

    @promise(14)
    async def test_a_reply_hands_its_instance_over(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store), activities=(activity(hub),)))
        (task,) = await lock_tasks(store)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=LONG))
            await others_run()
            await store.complete_activities([completion(hub, task)])
        item = waiting.result()

        assert len(item.history or ()) == 2
        assert await lock(store) == []
        assert await commit(store, advance(hub, item)) is COMMITTED

    @promise(14)
    async def test_a_checkpoint_may_hand_over_its_own_instance_and_others(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store, "b")
        await create(hub, store, "a")
        item = await lock_one(store)
        to_self, to_other = event(hub, "a"), event(hub, "b")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock(store, wait=LONG))
            await others_run()
            await commit(store, advance(hub, item, messages=(to_self, to_other)))
        items = waiting.result()
        items += await lock(store)

        assert sorted((each.instance_id, *ids(each)) for each in items) == [("a", to_self.id), ("b", to_other.id)]
        assert list(await store.commit([advance(hub, each) for each in items])) == [COMMITTED, COMMITTED]

    @promise(14)
    async def test_what_arrives_before_delivery_comes_along_or_later(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        first, second = event(hub), event(hub)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=LONG))
            await others_run()
            await store.send([first])
            await store.send([second])
        seen = ids(waiting.result())
        await commit(store, advance(hub, waiting.result()))
        for item in await lock(store):
            seen += ids(item)

        assert seen == (first.id, second.id)

    @promise(14)
    async def test_closing_gives_back_what_was_not_fetched(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        await other.__aenter__()
        await create(hub, store, "a")
        item = await lock_one(store)
        await commit(store, advance(hub, item, messages=(event(hub),), hold=True))
        item = await lock_one(store)
        call = asyncio.ensure_future(lock(other, 10, wait=LONG))
        await others_run()
        await create(hub, other, "b")  # handed over perhaps, and not fetched: this task has not yielded since
        await other.__aexit__(None, None, None)
        await asyncio.gather(call, return_exceptions=True)

        assert len(await lock(store)) == 1, "b is locked until its lease ends"
        assert await commit(store, advance(hub, item)) is COMMITTED

    @promise(14)
    async def test_a_call_whose_time_ends_as_work_arrives_loses_nothing(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        if not self.simulated:
            return  # two things at one instant need virtual time
        loop = asyncio.get_running_loop()
        for number in range(5):
            end = loop.time() + 1

            async def create_at(end: float = end, name: str = f"a{number}") -> None:
                await asyncio.sleep(end - loop.time())
                await create(hub, store, name)

            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(lock(store, wait=timedelta(seconds=1)))
                group.create_task(create_at())

            items = waiting.result() or await lock(store)
            assert [item.instance_id for item in items] == [f"a{number}"]
            await commit(store, advance(hub, items[0]))
