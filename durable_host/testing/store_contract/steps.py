"""The words that the suite's tests are written in: messages, checkpoints and calls, with sensible defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from durable_host.model.history import (
    EventRaised,
    ExecutionStarted,
    GenericEvent,
    HistoryEvent,
    ParentInstance,
    TaskCompleted,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    Lease,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.testing.store_contract.harness import ContractHub

__all__ = [
    "LONG",
    "NEVER",
    "SOON",
    "Caching",
    "Forgetful",
    "activity",
    "advance",
    "all_of",
    "commit",
    "completion",
    "create",
    "event",
    "fact",
    "held_after",
    "ids",
    "lock",
    "lock_one",
    "lock_task",
    "lock_tasks",
    "others_run",
    "running",
    "settle",
    "start",
    "visible",
]

NEVER = timedelta(0)
"""Do not wait."""

LONG = timedelta(seconds=20)

SOON = timedelta(seconds=10)
"""Less than a lease: what is not given back is not there."""


class Forgetful:
    """A worker that holds no history."""

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


class Caching:
    """A worker that holds every history it is asked about."""

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return True


def start(
    hub: ContractHub,
    instance_id: str = "a",
    *,
    message_id: str | None = None,
    execution_id: str | None = None,
    name: str = "Orchestrator",
    input: str | None = '"input"',
    visible_at: datetime | None = None,
    tags: dict[str, str] | None = None,
    parent: ParentInstance | None = None,
) -> Message:
    """A message that starts an instance."""
    number = hub.number()
    execution = ExecutionId(execution_id or f"{number:032x}")
    return Message(
        MessageId(message_id or f"start-{number}"),
        InstanceId(instance_id),
        ExecutionStarted(
            timestamp=hub.now(),
            instance_id=InstanceId(instance_id),
            execution_id=execution,
            name=name,
            input=input,
            tags=tags,
            parent=parent,
            scheduled_at=visible_at,
        ),
        execution_id=execution,
        visible_at=visible_at,
    )


def event(
    hub: ContractHub,
    instance_id: str = "a",
    *,
    message_id: str | None = None,
    name: str = "event",
    input: str | None = "1",
    visible_at: datetime | None = None,
) -> Message:
    """A message that raises an event."""
    return Message(
        MessageId(message_id or f"event-{hub.number()}"),
        InstanceId(instance_id),
        EventRaised(timestamp=hub.now(), name=name, input=input),
        visible_at=visible_at,
    )


def activity(hub: ContractHub, instance_id: str = "a", *, dispatch_id: str | None = None) -> ActivityTask:
    """An activity to run."""
    number = hub.number()
    return ActivityTask(
        DispatchId(dispatch_id or f"task-{number}"),
        InstanceId(instance_id),
        ExecutionId(f"{1:032x}"),
        number,
        "Activity",
        input='{"n": 1}',
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tags={"tag": "value"},
    )


def completion(hub: ContractHub, item: ActivityWorkItem) -> ActivityCompletion:
    """The end of an activity."""
    task = item.task
    reply = TaskCompleted(timestamp=hub.now(), task_id=task.task_id, result="1", dispatch_id=task.dispatch_id)
    return ActivityCompletion(
        item.lease, Message(MessageId(f"reply-{task.dispatch_id}"), task.instance_id, reply, task.execution_id)
    )


def running(hub: ContractHub, instance_id: str, version: HistoryVersion, **changes: Any) -> InstanceState:
    """A projection."""
    state = InstanceState(
        InstanceId(instance_id),
        ExecutionId(f"{1:032x}"),
        "Orchestrator",
        RuntimeStatus.RUNNING,
        created_at=hub.now(),
        updated_at=hub.now(),
        version=version,
        input='"input"',
    )
    return msgspec.structs.replace(state, **changes)


def fact(hub: ContractHub, text: str = "fact") -> HistoryEvent:
    """An event of history that means nothing."""
    return GenericEvent(timestamp=hub.now(), data=text)


def advance(
    hub: ContractHub,
    item: OrchestrationWorkItem,
    *,
    events: int | Sequence[HistoryEvent] = 2,
    consumed: Sequence[MessageId] | None = None,
    replace: bool = False,
    state: dict[str, Any] | None = None,
    **rest: Any,
) -> Checkpoint:
    """The checkpoint of an episode on this work item.

    Args:
        events: how many are appended, or which.
        consumed: message ids; default: the item's whole inbox.
        replace: begin the next generation.
        state: changes of the new projection, which else says Running.
        rest: further fields of the checkpoint.
    """
    facts = (
        [fact(hub, f"{item.instance_id} {hub.number()}") for _ in range(events)] if isinstance(events, int) else events
    )
    base = item.version
    if base is None:
        version = HistoryVersion(1, len(facts))
    elif replace:
        version = HistoryVersion(base.generation + 1, len(facts))
    else:
        version = HistoryVersion(base.generation, base.length + len(facts))
    return Checkpoint(
        item.lease,
        base,
        running(hub, item.instance_id, version, **(state or {})),
        tuple(facts),
        consumed=ids(item) if consumed is None else tuple(consumed),
        **rest,
    )


def held_after(item: OrchestrationWorkItem, checkpoint: Checkpoint) -> OrchestrationWorkItem:
    """The same held instance after a commit."""
    assert checkpoint.state is not None
    return OrchestrationWorkItem(item.instance_id, checkpoint.state.version, None, (), item.lease)


def ids(item: OrchestrationWorkItem) -> tuple[MessageId, ...]:
    """Ids of the inbox, as delivered."""
    return tuple(message.id for message in item.inbox)


async def create(hub: ContractHub, store: TaskHubStore, *instance_ids: str) -> None:
    """Create instances; each must be new."""
    for instance_id in instance_ids:
        assert await store.create_instance(start(hub, instance_id), replaceable=())


async def lock(
    store: TaskHubStore, limit: int = 100, *, wait: timedelta = NEVER, cached: bool = False
) -> list[OrchestrationWorkItem]:
    """Lock instances; in the order of their ids, since the contract gives none."""
    items = await store.lock_orchestrations(limit, wait=wait, cache=Caching() if cached else Forgetful())
    return sorted(items, key=lambda item: item.instance_id)


async def lock_one(store: TaskHubStore, *, wait: timedelta = NEVER, cached: bool = False) -> OrchestrationWorkItem:
    """Lock the one instance that is eligible."""
    items = await lock(store, wait=wait, cached=cached)
    assert len(items) == 1, f"exactly one instance should be eligible, not {[item.instance_id for item in items]}"
    return items[0]


async def lock_tasks(store: TaskHubStore, limit: int = 100, *, wait: timedelta = NEVER) -> list[ActivityWorkItem]:
    """Lock activities, in the order delivered."""
    return list(await store.lock_activities(limit, wait=wait))


async def lock_task(store: TaskHubStore) -> ActivityWorkItem:
    """Lock the one activity that waits."""
    items = await lock_tasks(store)
    assert len(items) == 1, f"exactly one activity should wait, not {[item.task.dispatch_id for item in items]}"
    return items[0]


async def commit(store: TaskHubStore, checkpoint: Checkpoint) -> CommitOutcome:
    """Commit one checkpoint."""
    outcomes = await store.commit([checkpoint])
    assert len(outcomes) == 1
    return outcomes[0]


async def all_of(call: asyncio.Future[Any], count: int, lock_more: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """Cancel a lock call: what it returned after all, and what it gave back, which may take a moment."""
    call.cancel()
    await asyncio.wait([call])
    locked = [] if call.cancelled() or call.exception() is not None else list(call.result())
    while len(locked) < count and (more := await lock_more()):
        locked += more
    return locked


async def others_run() -> None:
    """Let other tasks get to where they wait."""
    await asyncio.sleep(0.01)


async def settle(hub: ContractHub, store: TaskHubStore, instance_id: str = "a", **state: Any) -> Lease:
    """Create an instance and commit its first episode; returns the lease, which has ended."""
    await create(hub, store, instance_id)
    item = await lock_one(store)
    assert await commit(store, advance(hub, item, state=state)) is CommitOutcome.COMMITTED
    return item.lease


async def visible(store: TaskHubStore, instance_id: str = "a") -> tuple[object, object]:
    """What a reader sees of an instance, to compare before and after; the store's own revision left out."""
    state = await store.get_instance(InstanceId(instance_id))
    history = await store.get_history(InstanceId(instance_id))
    return (
        None if state is None else msgspec.structs.replace(state, revision=None),
        None if history is None else tuple(history),
    )
