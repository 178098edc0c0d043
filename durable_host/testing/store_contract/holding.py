"""The second half of promise 1: a worker that keeps an instance's lease is topped up with what arrives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import CommitOutcome, OrchestrationWorkItem, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    NEVER,
    advance,
    commit,
    create,
    event,
    ids,
    lock,
    lock_one,
    others_run,
)

__all__ = ["HoldContract", "hold"]


async def hold(hub: ContractHub, store: TaskHubStore, instance_id: str = "a") -> OrchestrationWorkItem:
    """Create an instance and hold it; returns the item it was locked with."""
    await create(hub, store, instance_id)
    item = await lock_one(store)
    assert await commit(store, advance(hub, item, hold=True)) is CommitOutcome.COMMITTED
    return item


class HoldContract(ContractBase):
    """`Checkpoint.hold`."""

    @promise(1)
    async def test_a_held_instance_is_nobody_elses(self, hub: ContractHub, store: TaskHubStore) -> None:
        await hold(hub, store)
        other = hub.open()
        async with other:
            await store.send([event(hub)])

            assert await lock(other) == []

    @promise(1)
    async def test_a_held_instance_without_messages_is_not_delivered(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await hold(hub, store)

        assert await lock(store) == []

    @promise(1)
    async def test_what_arrives_is_delivered_to_the_holder_once_with_the_same_lease(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held = await hold(hub, store)
        first, second = event(hub), event(hub)
        await store.send([first])
        top_up = await lock_one(store)

        assert (ids(top_up), top_up.history, top_up.version) == ((first.id,), None, HistoryVersion(1, 2))
        assert (top_up.lease.key, top_up.lease.token) == (held.lease.key, held.lease.token)
        assert await lock(store) == []

        await store.send([second])
        assert ids(await lock_one(store)) == (second.id,)
        assert await lock(store) == []

    @promise(1)
    async def test_what_another_store_object_sends_reaches_the_holder(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await hold(hub, store)
        message = event(hub)
        other = hub.open()
        async with other:
            await other.send([message])

            assert ids(await lock_one(store)) == (message.id,)

    @promise(1)
    async def test_what_arrived_during_the_episode_is_delivered_when_the_instance_is_held(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        message = event(hub)
        await store.send([message])
        assert await lock(store) == []

        await commit(store, advance(hub, item, hold=True))

        assert ids(await lock_one(store)) == (message.id,)

    @promise(1)
    async def test_what_the_episode_was_given_and_did_not_take_is_not_delivered_again(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)

        await commit(store, advance(hub, item, consumed=(), hold=True))

        assert await lock(store) == []

    @promise(1)
    async def test_a_timer_of_a_held_instance_reaches_the_holder(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        timer = event(hub, visible_at=hub.now() + timedelta(seconds=5))
        await commit(store, advance(hub, item, messages=(timer,), hold=True))
        assert await lock(store) == []

        await hub.wait(5)

        assert ids(await lock_one(store)) == (timer.id,)

    @promise(1)
    async def test_the_holders_waiting_call_returns_when_something_arrives(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await hold(hub, store)
        message = event(hub)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(lock_one(store, wait=timedelta(seconds=20)))
            await others_run()
            await store.send([message])

        assert ids(waiting.result()) == (message.id,)

    @promise(1, 5)
    async def test_a_top_up_is_committed_under_the_lease_that_is_held(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await hold(hub, store)
        await store.send([event(hub)])
        top_up = await lock_one(store)

        assert await commit(store, advance(hub, top_up, hold=True)) is CommitOutcome.COMMITTED

        await store.send([event(hub)])
        assert (await lock_one(store)).version == HistoryVersion(1, 4)

    @promise(1)
    async def test_a_checkpoint_that_does_not_hold_ends_the_hold(self, hub: ContractHub, store: TaskHubStore) -> None:
        await hold(hub, store)
        await store.send([event(hub)])
        await commit(store, advance(hub, await lock_one(store)))
        other = hub.open()
        async with other:
            await store.send([event(hub)])
            taken = await lock_one(other)

            assert (taken.version, len(taken.history or ())) == (HistoryVersion(1, 4), 4)
            assert await lock(store) == []

    @promise(1)
    async def test_abandon_ends_the_hold(self, hub: ContractHub, store: TaskHubStore) -> None:
        held = await hold(hub, store)
        await store.abandon([held.lease], delay=NEVER)
        assert await lock(store) == []
        other = hub.open()
        async with other:
            await store.send([event(hub)])

            assert len(await lock(other)) == 1

    @promise(1, 9)
    async def test_what_the_holder_was_given_comes_back_when_it_gives_up(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        held = await hold(hub, store)
        messages = [event(hub), event(hub), event(hub)]
        await store.send(messages[:1])
        await lock_one(store)
        await store.send(messages[1:2])
        await lock_one(store)
        await store.send(messages[2:])

        await store.abandon([held.lease], delay=NEVER)

        assert ids(await lock_one(store)) == tuple(message.id for message in messages)

    @promise(1, 5)
    async def test_an_instance_whose_holder_is_gone_is_taken_over(self, hub: ContractHub, store: TaskHubStore) -> None:
        held = await hold(hub, store)
        message = event(hub)
        await store.send([message])
        await lock_one(store)
        await hub.outlive_lease()
        other = hub.open()
        async with other:
            taken = await lock_one(other)

            assert (ids(taken), taken.version) == ((message.id,), HistoryVersion(1, 2))
            assert await store.renew([held.lease]) == [None]
            assert await commit(other, advance(hub, taken)) is CommitOutcome.COMMITTED

    @promise(1)
    async def test_a_holder_whose_lease_has_ended_gets_the_instance_once(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        """Not both topped up and locked anew."""
        await create(hub, store, "a")
        item = await lock_one(store)
        timer = event(hub, visible_at=hub.now() + timedelta(seconds=1))
        await commit(store, advance(hub, item, messages=(timer,), hold=True))
        await hub.outlive_lease()

        again = await lock_one(store)

        assert ids(again) == (timer.id,)
        assert await lock(store) == []
        assert await commit(store, advance(hub, again)) is CommitOutcome.COMMITTED

    @promise(1, 15)
    async def test_what_a_holding_checkpoint_deferred_comes_back_to_the_holder(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        message = event(hub)
        await store.send([message])
        item = await lock_one(store)
        start_id = next(each for each in ids(item) if each != message.id)
        await commit(store, advance(hub, item, consumed=(start_id,), deferred=(message.id,), hold=True))
        assert await lock(store) == []

        await hub.wait(2)

        assert ids(await lock_one(store)) == (message.id,)

    @promise(1)
    async def test_closing_ends_the_hold(self, hub: ContractHub, store: TaskHubStore) -> None:
        other = hub.open()
        async with other:
            await hold(hub, other)
        await store.send([event(hub)])

        assert (await lock_one(store)).version == HistoryVersion(1, 2)
