"""Promise 14 where a waiting call takes items one by one: nothing goes two ways, nothing goes beyond the limit.

A store that answers its lock calls and delivers nothing besides passes as well.
"""

from __future__ import annotations

import asyncio

from durable_host.storage.contract import (
    ActivityWorkItem,
    CommitOutcome,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    LONG,
    SOON,
    Forgetful,
    activity,
    advance,
    all_of,
    commit,
    completion,
    create,
    event,
    held_after,
    lock,
    lock_one,
    lock_tasks,
    others_run,
    settle,
)

__all__ = ["ReceivingContract"]


class ReceivingContract(ContractBase):
    """Promise 14, for `receive_orchestrations` and `receive_activities`."""

    @promise(14)
    async def test_what_is_made_step_by_step_is_received_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        got: list[ActivityWorkItem] = []
        await create(hub, store, "a")
        item = await lock_one(store)
        call = asyncio.ensure_future(store.receive_activities(4, wait=LONG, deliver=got.append))
        await others_run()
        tasks = [activity(hub) for _ in range(3)]
        first = advance(hub, item, activities=tasks[:1], hold=True)
        await commit(store, first)
        second = advance(hub, held_after(item, first), activities=tasks[1:], hold=True)
        await commit(store, second)
        await others_run()
        got += await all_of(call, 3 - len(got), lambda: lock_tasks(store, wait=SOON))

        assert sorted(each.task.dispatch_id for each in got) == sorted(each.dispatch_id for each in tasks)
        for each in got:
            assert await store.complete_activities([completion(hub, each)]) == [CommitOutcome.COMMITTED]

    @promise(14)
    async def test_a_call_ends_with_its_limit(self, hub: ContractHub, store: TaskHubStore) -> None:
        for number, limit in enumerate((1, 2, 3)):
            got: list[ActivityWorkItem] = []
            await create(hub, store, f"a{number}")
            item = await lock_one(store)
            call = asyncio.ensure_future(store.receive_activities(limit, wait=LONG, deliver=got.append))
            await others_run()
            for _ in range(limit):
                checkpoint = advance(hub, item, activities=[activity(hub, f"a{number}")], hold=True)
                await commit(store, checkpoint)
                item = held_after(item, checkpoint)
                if call.done():
                    break

            received = [*(await asyncio.wait_for(call, SOON.total_seconds())), *got]

            assert 1 <= len(received) <= limit

    @promise(14)
    async def test_no_more_than_the_limit_is_received(self, hub: ContractHub, store: TaskHubStore) -> None:
        got: list[ActivityWorkItem] = []
        await create(hub, store, "a", "b")
        one, two = await lock(store)
        call = asyncio.ensure_future(store.receive_activities(2, wait=LONG, deliver=got.append))
        await others_run()
        tasks = [activity(hub, "a") for _ in range(3)]
        others = [activity(hub, "b") for _ in range(3)]
        await commit(store, advance(hub, one, activities=tasks))
        await commit(store, advance(hub, two, activities=others))
        received = [*got, *(await all_of(call, 0, lambda: lock_tasks(store)))]

        left: list[ActivityWorkItem] = []
        while len(received) + len(left) < 6 and (more := await lock_tasks(store, wait=SOON)):
            left += more

        assert len(received) <= 2
        ids = sorted(each.task.dispatch_id for each in (*received, *left))
        assert ids == sorted(each.dispatch_id for each in (*tasks, *others))

    @promise(3, 14)
    async def test_a_cancelled_call_keeps_what_was_delivered(self, hub: ContractHub, store: TaskHubStore) -> None:
        for turns in range(4):
            got: list[ActivityWorkItem] = []
            await create(hub, store, f"a{turns}")
            item = await lock_one(store)
            call = asyncio.ensure_future(store.receive_activities(8, wait=LONG, deliver=got.append))
            await others_run()
            tasks = [activity(hub, f"a{turns}") for _ in range(2)]
            await commit(store, advance(hub, item, activities=tasks))
            for _ in range(turns):
                await asyncio.sleep(0)
            got += await all_of(call, 2 - len(got), lambda: lock_tasks(store, wait=SOON))

            assert sorted(each.task.dispatch_id for each in got) == sorted(each.dispatch_id for each in tasks)
            for each in got:
                assert await store.complete_activities([completion(hub, each)]) == [CommitOutcome.COMMITTED]
            for answered in await lock(store):
                await commit(store, advance(hub, answered))

    @promise(14)
    async def test_instances_are_received_with_their_history_unless_the_caller_holds_it(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        got: list[OrchestrationWorkItem] = []
        await settle(hub, store, "old")
        call = asyncio.ensure_future(store.receive_orchestrations(8, wait=LONG, cache=Forgetful(), deliver=got.append))
        await others_run()
        await create(hub, store, "new")
        await store.send([event(hub, "old")])
        await others_run()
        got += await all_of(call, 2 - len(got), lambda: lock(store, wait=SOON))

        new, old = sorted(got, key=lambda item: item.instance_id)
        assert (new.instance_id, new.history) == ("new", ())
        assert (old.instance_id, old.history) == ("old", await store.get_history(old.instance_id))
        for item in got:
            assert await commit(store, advance(hub, item)) is CommitOutcome.COMMITTED
