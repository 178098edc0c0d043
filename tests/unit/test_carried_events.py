"""Events that continue-as-new carries over: each is taken once, in its order, also where not all fit one write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.decide import begin_generation, sent_again
from durable_host.engine.index import HistoryIndex
from durable_host.model.actions import ContinueAsNew
from durable_host.model.history import EventRaised, ExecutionStarted, HistoryEvent
from durable_host.model.ids import MessageId, original_id
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub
from durable_host_providers.memory.store import MemoryTaskHubStore
from tests.unit.engine_values import at, episode, started

HOUR = timedelta(hours=1)


class Narrow(MemoryTaskHubStore):
    """Writes so many events of a generation's beginning as one."""

    most = 5

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        return min(len(events), self.most)


def raised(number: int) -> EventRaised:
    return EventRaised(timestamp=at(number), name="item", input=str(number), message_id=MessageId(f"item-{number}"))


@pytest.mark.simulated
@pytest.mark.parametrize("waits", [True, False])
async def test_events_that_do_not_fit_are_taken_once_and_in_their_order(waits: bool) -> None:
    environment = simulated_environment()
    hub = MemoryHub(environment)
    store = hub.open()
    store.__class__ = Narrow
    worker = TaskHubWorker(store, environment=environment, lease_thread=False)

    async def take_one(context: Context) -> object:
        taken: list[int] = context.get_input()
        if not taken:
            await context.create_timer(context.current_utc_datetime + timedelta(minutes=1))
        elif waits:
            await context.create_timer(context.current_utc_datetime + timedelta(seconds=1))
        taken.append(await context.wait_for_external_event("item"))
        if len(taken) == 40:
            return taken
        context.continue_as_new(taken)
        return None

    worker.orchestrator(take_one, name="take_one")
    async with worker:
        id = await worker.client.start("take_one", [])
        for number in range(40):
            await worker.client.raise_event(id, "item", number)

        assert await worker.client.result(id, timeout=HOUR) == list(range(40))


def test_what_is_sent_again_is_new_to_the_next_generation() -> None:
    first = started(message_id="start")
    waiting = [raised(number) for number in range(4)]
    action = ContinueAsNew("1", tuple(waiting))
    index = HistoryIndex([*episode(first), *waiting])

    fresh = begin_generation(index, first, [], action, now=at(9), custom_status=None, carries=1)
    again = sent_again(first, action, 1, now=at(9))

    begun = HistoryIndex(fresh)
    assert [event.input for event in fresh if isinstance(event, EventRaised)] == ["0"]
    assert [original_id(message.id) for message in again] == ["item-1", "item-2", "item-3"]
    assert not any(original_id(message.id) in begun.messages for message in again)
    assert all(original_id(message.id) in index.messages for message in again)
    assert {message.execution_id for message in again} == {None}
    assert not {message.id for message in again} & {message.id for message in sent_again(first, action, 1, now=at(10))}


def test_ids_that_were_taken_are_remembered_through_a_generation_that_ends_at_once() -> None:
    first = started(message_id="start")
    index = HistoryIndex([*episode(first), raised(0)])

    second = begin_generation(index, first, [], ContinueAsNew("1"), now=at(9), custom_status=None)
    begun = next(event for event in second if isinstance(event, ExecutionStarted))
    third = begin_generation(HistoryIndex(), begun, second, ContinueAsNew("2"), now=at(9), custom_status=None)

    assert {"start", "item-0"} <= set(HistoryIndex(third).messages)
