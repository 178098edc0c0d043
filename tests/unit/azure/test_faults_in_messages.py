"""Faults that the reference has with messages and with the life of instances, each as it would show."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome
from durable_host.testing.store_contract.steps import (
    activity,
    advance,
    commit,
    completion,
    create,
    event,
    lock,
    lock_one,
    lock_tasks,
    settle,
    start,
)
from durable_host_providers.azure_storage import locking, mail, outbox
from durable_host_providers.azure_storage.origin import BY_CLIENT
from durable_host_providers.azure_storage.ports import EdmDateTime, RequestRefusedError, TableAction, TableOperation
from durable_host_providers.azure_storage.simulated import SimulatedAccount
from tests.azure_recordings import HUB
from tests.unit.azure.hub_in_memory import SETTINGS, opened
from tests.unit.azure_wire.scenarios import Ran, running

pytestmark = pytest.mark.simulated

A = InstanceId("a")
FAR = timedelta(days=40)


# Delays beyond what a queue takes.


async def test_a_start_far_ahead_is_put_off_in_steps_that_a_queue_takes() -> None:
    async with opened() as memory:
        due = memory.hub.now() + FAR
        assert await memory.store.create_instance(start(memory.hub, visible_at=due), replaceable=())
        steps = 0
        while not await lock(memory.store):
            (message,) = memory.messages()
            await asyncio.sleep((message.visible_at - memory.hub.now()).total_seconds())
            steps += 1

        assert timedelta(0) <= memory.hub.now() - due < timedelta(seconds=1)
        assert steps == math.ceil(FAR / timedelta(days=6))


async def test_without_the_bound_a_start_far_ahead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FAR_S", 10**9)
    async with opened() as memory:
        with pytest.raises(RequestRefusedError):
            await memory.store.create_instance(start(memory.hub, visible_at=memory.hub.now() + FAR), replaceable=())


async def test_a_start_that_comes_within_a_second_of_its_time_is_taken() -> None:
    async with opened() as memory:
        now = memory.hub.now()
        message = start(memory.hub, visible_at=now + timedelta(seconds=0.9))
        assert await memory.store.create_instance(message, replaceable=())
        for stored in memory.messages():  # .NET cuts delays to whole seconds
            stored.visible_at = now

        item = await lock_one(memory.store)

        assert item.instance_id == "a"


# What is no message.


async def _spoilt(looks: int) -> tuple[list[int], int]:
    """How often a text was looked at each time it was still there, and how many were moved."""
    async with opened() as memory:
        (queue, *_) = SETTINGS.layout.control_queues
        await memory.account.queue(queue).put("no envelope")
        seen: list[int] = []
        for _ in range(looks):
            await lock(memory.store)
            seen += [each.count for each in memory.service.queues[queue].messages.values()]
            await asyncio.sleep(700)
        moved = memory.service.queues.get(SETTINGS.layout.poison)
        return seen, 0 if moved is None else len(moved.messages)


async def test_a_text_that_is_no_message_is_moved_after_five_looks() -> None:
    assert await _spoilt(8) == ([1, 2, 3, 4], 1)


async def test_without_the_bound_such_a_text_comes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "_LOOKS", 10**9)

    assert await _spoilt(8) == ([1, 2, 3, 4, 5, 6, 7, 8], 0)


# Before the start.


@pytest.mark.parametrize("ahead", [timedelta(seconds=20), timedelta(hours=1)])
async def test_events_to_an_instance_that_has_not_started_survive(ahead: timedelta) -> None:
    async with running() as ran:
        await ran.client.start("Approval", instance_id="a", start_at=ahead)
        await ran.client.raise_event("a", "Approval", data_json='"early"')
        await asyncio.sleep(5)
        assert (await ran.client.require("a")).status is RuntimeStatus.PENDING

        ended = await ran.client.wait_for_completion("a", timeout=2 * ahead)

        assert (ended.status, ended.output) == (RuntimeStatus.COMPLETED, '"early"')


@pytest.mark.parametrize("seed", [0, 5, 6, 8])
async def test_a_suspension_and_a_resumption_before_the_start_survive(seed: int) -> None:
    async with running() as ran:
        for instance_id in ("a", "b"):
            await ran.client.start("Approval", instance_id=instance_id, start_at=timedelta(minutes=2))
            await ran.client.suspend(instance_id, "wait")
        await asyncio.sleep(30)
        await ran.client.resume("b", "go on")
        await asyncio.sleep(120)

        found = [(await ran.client.require(instance_id)).status for instance_id in ("a", "b")]

        assert found == [RuntimeStatus.SUSPENDED, RuntimeStatus.RUNNING]


async def _merge(ran: Ran, **columns: str | EdmDateTime) -> None:
    await (
        SimulatedAccount(ran.service)
        .table(f"{HUB}Instances")
        .write(TableOperation(TableAction.MERGE, {"PartitionKey": "a", "RowKey": "", **columns}))
    )


async def test_an_instance_that_another_worker_ended_before_its_start_does_not_start() -> None:
    async with running() as ran:
        await ran.client.start("Sequence", instance_id="a", start_at=timedelta(minutes=5))
        at = EdmDateTime("2030-01-01T00:00:00.0000000Z")

        await _merge(ran, RuntimeStatus="Terminated", Output="no longer needed", CompletedTime=at, LastUpdatedTime=at)
        await asyncio.sleep(1_800)

        state = await ran.client.require("a")
        assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "no longer needed")
        assert list(await ran.client.history("a")) == []
        assert ran.texts("a") == []


async def test_a_termination_of_nobody_does_not_stay_for_ever() -> None:
    async with running() as ran:
        await ran.client.start("Approval", instance_id="a")
        await ran.waits("a")
        await ran.client.terminate("a", "the end")
        text = next(iter(ran.texts("a")))
        await ran.ended("a")
        queue = next(name for name in ran.service.queues if name.endswith("-control-00"))
        ran.service.queues[queue].put(text.replace('"InstanceId":"a"', '"InstanceId":"nobody"'), 0)

        await asyncio.sleep(7_200)

        assert ran.texts("nobody") == []


# A start whose client has not written the row.


async def _disowned(deliveries: int) -> list[int]:
    """How often a start without a row was delivered, as long as it was there."""
    async with opened() as memory:
        await memory.store.outbox.send(start(memory.hub), BY_CLIENT)
        seen: list[int] = []
        for _ in range(deliveries):
            assert await lock(memory.store) == []
            seen += [each.count for each in memory.messages()]
            await asyncio.sleep(700)
        return seen


async def test_a_start_whose_row_does_not_come_is_deleted_at_its_tenth_delivery() -> None:
    assert await _disowned(12) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_without_the_bound_a_start_whose_row_does_not_come_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_MAX_START_DELIVERIES", 10**9)

    assert await _disowned(12) == list(range(1, 13))


async def test_a_start_whose_row_comes_late_is_taken() -> None:
    async with opened() as memory:
        message = start(memory.hub)
        await memory.store.outbox.send(message, BY_CLIENT)
        for _ in range(4):
            assert await lock(memory.store) == []
            await asyncio.sleep(100)

        await memory.store.instances.create(message, None)
        await asyncio.sleep(700)

        assert (await lock_one(memory.store)).instance_id == "a"


# A stop, a hand-over.


async def test_what_was_fetched_and_not_begun_is_shown_at_once_when_a_process_stops() -> None:
    async with opened() as memory:
        await settle(memory.hub, memory.store)
        await memory.store.send([event(memory.hub)])
        await memory.store.inbox.look()
        assert all(each.visible_at > memory.hub.now() for each in memory.messages())

        await memory.store.inbox.close()

        assert [each.visible_at <= memory.hub.now() for each in memory.messages()] == [True]


async def test_what_was_fetched_and_not_begun_is_shown_at_once_when_a_partition_is_given_away() -> None:
    async with opened() as memory:
        await settle(memory.hub, memory.store)
        await memory.store.send([event(memory.hub)])
        await memory.store.inbox.look()
        manager = memory.store.manager
        assert manager is not None
        (partition,) = [each for each in manager.owned if each.queue == SETTINGS.layout.control_queue_for(A)]

        await memory.store.inbox.drain(partition)

        assert [each.visible_at <= memory.hub.now() for each in memory.messages()] == [True]


# Second deliveries.


@pytest.mark.parametrize("held", [True, False])
async def test_request_that_the_queue_delivers_again_while_it_runs_is_not_removed(held: bool) -> None:
    async with opened() as memory:
        hub, store = memory.hub, memory.store
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store), activities=[activity(hub)]))
        (taken,) = await lock_tasks(store)
        (request,) = memory.service.queues[SETTINGS.layout.work_items].messages.values()
        request.visible_at = hub.now()

        assert await lock_tasks(store) == []
        assert list(memory.service.queues[SETTINGS.layout.work_items].messages.values()) == [request]

        # The receipt of the second delivery is the one that counts.
        if held:
            assert list(await store.renew([taken.lease])) != [None]
        assert list(await store.complete_activities([completion(hub, taken)])) == [CommitOutcome.COMMITTED]
        assert not memory.service.queues[SETTINGS.layout.work_items].messages
