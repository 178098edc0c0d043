"""Promises 9, 10, 13 and 15: messages and activities come at least once; leases last while they are renewed."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from durable_host.storage.contract import Checkpoint, CommitOutcome, Lease, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    NEVER,
    activity,
    advance,
    commit,
    completion,
    create,
    event,
    ids,
    lock,
    lock_one,
    lock_task,
    lock_tasks,
    settle,
    start,
)

__all__ = ["ActivityContract", "DeliveryContract", "LeaseContract"]

COMMITTED, LEASE_LOST = CommitOutcome.COMMITTED, CommitOutcome.LEASE_LOST


class DeliveryContract(ContractBase):
    """Promises 9, 13 and 15."""

    @promise(9)
    async def test_messages_come_oldest_first(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        messages = [event(hub, message_id=f"{(number * 37) % 101:03}") for number in range(100)]
        for at in range(0, 100, 7):
            await store.send(messages[at : at + 7])

        item = await lock_one(store)

        assert ids(item) == tuple(message.id for message in messages)
        assert [each.event for each in item.inbox] == [message.event for message in messages]

    @promise(9)
    async def test_a_message_arrives_as_it_was_sent(self, hub: ContractHub, store: TaskHubStore) -> None:
        message = start(hub, visible_at=hub.now() + timedelta(seconds=1))
        await store.send([message])
        await hub.wait(2)

        assert (await lock_one(store)).inbox[0] == message

    @promise(9)
    async def test_a_message_to_an_unknown_id_is_delivered(self, hub: ContractHub, store: TaskHubStore) -> None:
        message = event(hub, "nobody")
        await store.send([message])
        item = await lock_one(store)

        assert (item.instance_id, item.version, item.history, ids(item)) == ("nobody", None, (), (message.id,))
        assert await store.get_instance(item.instance_id) is None
        assert await store.get_history(item.instance_id) is None
        assert await commit(store, Checkpoint(item.lease, None, None, consumed=ids(item))) is COMMITTED
        assert await lock(store) == []
        assert await store.get_instance(item.instance_id) is None

    @promise(9)
    async def test_a_message_that_waits_is_not_stored_twice(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        now, late = event(hub), event(hub, visible_at=hub.now() + timedelta(seconds=5))
        await store.send([now, now, late])
        await store.send([late, now])
        item = await lock_one(store)
        await store.send([now])
        assert ids(item) == (now.id,)

        await commit(store, advance(hub, item, events=0))
        assert await lock(store) == []
        await hub.wait(5)

        assert ids(await lock_one(store)) == (late.id,)

    @promise(9)
    async def test_the_second_copy_in_a_checkpoint_is_not_stored(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, "a")
        await settle(hub, store, "b")
        message = event(hub, "b")
        await store.send([message, event(hub, "a")])

        a, b = await lock(store)
        await commit(store, advance(hub, a, messages=(message,)))
        await commit(store, advance(hub, b))

        assert await lock(store) == []

    @promise(9)
    async def test_deliveries_are_counted(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        counts: list[int] = []
        for _ in range(3):
            item = await lock_one(store)
            counts.append(item.inbox[0].deliveries)
            await store.abandon([item.lease], delay=NEVER)
        counts.append((await lock_one(store)).inbox[0].deliveries)
        await hub.outlive_lease()
        counts.append((await lock_one(store)).inbox[0].deliveries)

        assert counts == [1, 2, 3, 4, 5]

    @promise(9)
    async def test_what_was_given_back_comes_after_its_delay(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await store.abandon([item.lease], delay=timedelta(seconds=10))

        assert await lock(store) == []
        await hub.wait(9)
        assert await lock(store) == []
        await hub.wait(1)

        assert ids(await lock_one(store)) == ids(item)

    @promise(9)
    async def test_what_was_given_back_comes_before_or_with_what_arrives_later(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        """A worker must never see an event for an instance whose start is held back: it would drop the event."""
        await create(hub, store, "a")
        item = await lock_one(store)
        await store.abandon([item.lease], delay=timedelta(seconds=10))
        later = event(hub)
        await store.send([later])

        locked = await lock(store)
        if not locked:
            await hub.wait(10)
            locked = await lock(store)

        assert [ids(each) for each in locked] == [(*ids(item), later.id)]

    @promise(9)
    async def test_giving_back_what_is_lost_is_no_error(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await commit(store, advance(hub, item))

        await store.abandon([item.lease, Lease("nobody", item.lease.token, hub.lease)], delay=NEVER)

        assert await lock(store) == []

    @promise(13)
    async def test_a_timer_six_days_ahead_comes_then(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store)
        await store.send([event(hub, visible_at=hub.now() + timedelta(days=6))])

        await hub.wait(6 * 86_400 - 1)
        assert await lock(store) == []
        await hub.wait(1)

        assert len(await lock(store)) == 1

    @promise(13)
    async def test_starts_and_signals_may_be_years_ahead(self, hub: ContractHub, store: TaskHubStore) -> None:
        years = timedelta(days=4 * 365)
        later = start(hub, "a", visible_at=hub.now() + years)
        assert await store.create_instance(later, replaceable=())
        await store.send([event(hub, "b", visible_at=hub.now() + years)])

        await hub.wait(years.total_seconds() - 60)
        assert await lock(store) == []
        await hub.wait(60)

        assert [item.instance_id for item in await lock(store)] == ["a", "b"]

    @promise(15)
    async def test_deferred_messages_come_back_after_two_to_the_deliveries_seconds(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        message = event(hub)
        await store.send([message])
        for deliveries in range(1, 13):
            item = await lock_one(store)
            assert [(each.id, each.deliveries) for each in item.inbox] == [(message.id, deliveries)]
            await commit(store, advance(hub, item, events=0, consumed=(), deferred=(message.id,)))
            pause = min(2**deliveries, 600)

            assert await lock(store) == []
            await hub.wait(pause - 0.5)
            assert await lock(store) == []
            await hub.wait(0.5)

    @promise(15)
    async def test_the_rest_of_the_inbox_does_not_wait_for_what_is_deferred(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await settle(hub, store)
        deferred, kept = event(hub), event(hub)
        await store.send([deferred, kept])
        item = await lock_one(store)

        await commit(store, advance(hub, item, events=0, consumed=(), deferred=(deferred.id,)))

        assert ids(await lock_one(store)) == (kept.id,)


class ActivityContract(ContractBase):
    """Activity tasks: promises 1 and 9 for them, and `complete_activities`."""

    async def schedule(self, hub: ContractHub, store: TaskHubStore, number: int = 1) -> None:
        """Have one instance ask for activities."""
        await create(hub, store, "a")
        tasks = [activity(hub) for _ in range(number)]
        assert await commit(store, advance(hub, await lock_one(store), activities=tasks)) is COMMITTED

    @promise(1, 9)
    async def test_tasks_come_oldest_first_and_keep_the_limit(self, hub: ContractHub, store: TaskHubStore) -> None:
        await self.schedule(hub, store, 20)

        first, second = await lock_tasks(store, 15), await lock_tasks(store, 15)

        numbers = [item.task.task_id for item in first + second]
        assert (len(first), len(second)) == (15, 5)
        assert numbers == sorted(numbers)

    @promise(1)
    async def test_a_locked_task_is_not_locked_again(self, hub: ContractHub, store: TaskHubStore) -> None:
        await self.schedule(hub, store)
        other = hub.open()
        async with other:
            await lock_task(store)

            assert await lock_tasks(store) == []
            assert await lock_tasks(other) == []

    @promise(9)
    async def test_a_task_arrives_as_it_was_asked_for(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        task = activity(hub)
        await commit(store, advance(hub, await lock_one(store), activities=(task,)))

        item = await lock_task(store)

        assert (item.task, item.deliveries, item.lease.key) == (task, 1, task.dispatch_id)

    @promise(9)
    async def test_a_task_that_waits_is_not_stored_twice(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a", "b")
        task = activity(hub)
        for item in await lock(store):
            await commit(store, advance(hub, item, activities=(task,)))

        assert len(await lock_tasks(store)) == 1

    @promise(9, 6)
    async def test_completion_sends_the_reply_and_removes_the_task(self, hub: ContractHub, store: TaskHubStore) -> None:
        await self.schedule(hub, store, 2)
        items = await lock_tasks(store)
        replies = [completion(hub, item) for item in items]

        assert list(await store.complete_activities(replies)) == [COMMITTED, COMMITTED]

        assert ids(await lock_one(store)) == tuple(each.reply.id for each in replies)
        await hub.outlive_lease()
        assert await lock_tasks(store) == []

    @promise(9)
    async def test_a_task_given_back_comes_after_its_delay_and_is_counted(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await self.schedule(hub, store)
        item = await lock_task(store)
        await store.abandon([item.lease], delay=timedelta(seconds=10))

        assert await lock_tasks(store) == []
        await hub.wait(9)
        assert await lock_tasks(store) == []
        await hub.wait(1)

        assert (await lock_task(store)).deliveries == 2

    @promise(5, 10)
    async def test_a_worker_whose_task_was_taken_over_sends_no_reply(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await self.schedule(hub, store)
        stale = await lock_task(store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            taken = await lock_task(other)

            assert taken.deliveries == 2
            assert list(await store.complete_activities([completion(hub, stale)])) == [LEASE_LOST]
            if store.traits.atomic_commit:
                assert await lock(store) == []
            assert list(await other.complete_activities([completion(hub, taken)])) == [COMMITTED]

    @promise(4, 5)
    async def test_a_second_completion_is_lost_and_fails_no_other(self, hub: ContractHub, store: TaskHubStore) -> None:
        await self.schedule(hub, store, 3)
        first, second, third = [completion(hub, item) for item in await lock_tasks(store)]
        await store.complete_activities([second])

        assert list(await store.complete_activities([first, second, third])) == [COMMITTED, LEASE_LOST, COMMITTED]

        assert sorted(ids(await lock_one(store))) == sorted(each.reply.id for each in (first, second, third))


class LeaseContract(ContractBase):
    """Promise 10."""

    async def both(self, hub: ContractHub, store: TaskHubStore) -> list[Lease]:
        """A lease of an instance and one of an activity."""
        await create(hub, store, "a")
        item = await lock_one(store)
        await commit(store, advance(hub, item, activities=(activity(hub),), messages=(event(hub),)))
        return [(await lock_one(store)).lease, (await lock_task(store)).lease]

    @promise(10)
    async def test_leases_of_either_kind_last_while_they_are_renewed(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        leases = await self.both(hub, store)
        for _ in range(10):
            await hub.wait(hub.lease.total_seconds() * 0.7)
            renewed = await store.renew(leases)
            assert all(timedelta(0) < lease.remaining <= store.traits.max_lease for lease in renewed if lease)
            leases = [lease for lease in renewed if lease]
            assert len(leases) == 2

        assert (await lock(store), await lock_tasks(store)) == ([], [])

    @promise(10)
    async def test_a_lease_that_is_not_renewed_ends(self, hub: ContractHub, store: TaskHubStore) -> None:
        await self.both(hub, store)
        await hub.wait(hub.lease.total_seconds() * 0.9)
        assert (await lock(store), await lock_tasks(store)) == ([], [])

        await hub.outlive_lease()

        assert (len(await lock(store)), len(await lock_tasks(store))) == (1, 1)

    @promise(10)
    async def test_a_renewed_lease_commits(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        await hub.wait(hub.lease.total_seconds() * 0.7)
        await store.renew([item.lease])
        await hub.wait(hub.lease.total_seconds() * 0.7)

        assert await lock(store) == []
        assert await commit(store, advance(hub, item)) is COMMITTED

    @promise(10)
    async def test_what_was_taken_over_finished_or_given_back_cannot_be_renewed(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        old = await self.both(hub, store)
        await hub.outlive_lease()
        item, task = await lock_one(store), await lock_task(store)
        assert await store.renew([*old, item.lease]) == [None, None, (await store.renew([item.lease]))[0]]

        await commit(store, advance(hub, item))
        await store.abandon([task.lease], delay=NEVER)

        assert await store.renew([item.lease, task.lease]) == [None, None]

    @promise(10)
    async def test_renewing_nothing_returns_nothing(self, hub: ContractHub, store: TaskHubStore) -> None:
        assert list(await store.renew([])) == []

    @promise(10)
    async def test_renew_works_from_another_threads_loop_while_the_main_loop_is_blocked(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        leases = await self.both(hub, store)
        await hub.wait(hub.lease.total_seconds() * 0.7)
        renewed: list[Lease | None] = []

        def renew() -> None:
            async def main() -> None:
                renewed.extend(await store.renew(leases))

            asyncio.run(main())

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        thread.join(10)  # blocks this loop, as a spinning orchestrator does

        assert [lease and lease.key for lease in renewed] == [lease.key for lease in leases]
        await hub.wait(hub.lease.total_seconds() * 0.7)
        assert (await lock(store), await lock_tasks(store)) == ([], [])

    @promise(10)
    async def test_an_instance_may_be_named_like_an_activity_task(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "same")
        task = activity(hub, "same", dispatch_id="same")
        await commit(store, advance(hub, await lock_one(store), activities=(task,), messages=(event(hub, "same"),)))
        item, running = await lock_one(store), await lock_task(store)
        await hub.wait(hub.lease.total_seconds() * 0.7)

        await store.renew([item.lease])
        await hub.wait(hub.lease.total_seconds() * 0.7)

        assert (len(await lock(store)), len(await lock_tasks(store))) == (0, 1)
        await store.abandon([running.lease], delay=NEVER)
        assert await lock(store) == []
