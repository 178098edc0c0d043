"""Pure: what a rewind takes out of a failed history.

Each failure, the activity request behind it and the completion become GenericEvents at their places; a failed child's
request stays, since the rewound child answers it once more. Source: azure-storage-task-hub.md 6.11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durable_host.model.history import (
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    GenericEvent,
    HistoryEvent,
    ParentInstance,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskFailed,
    TaskScheduled,
    event_type,
)
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.messages import Message

__all__ = ["Rewind", "amend", "plan_rewind", "rewind_children"]


@dataclass(frozen=True, slots=True)
class Rewind:
    """Which events go, by index, and which children are to be rewound, by action id."""

    removed: frozenset[int]
    children: tuple[tuple[int, InstanceId], ...]


def plan_rewind(history: Sequence[HistoryEvent]) -> Rewind:
    """Find the failures of a history."""
    scheduled: dict[int, int] = {}
    created: dict[int, SubOrchestrationInstanceCreated] = {}
    removed: set[int] = set()
    children: dict[int, InstanceId] = {}
    for at, event in enumerate(history):
        match event:
            case TaskScheduled():
                scheduled[event.event_id] = at
            case SubOrchestrationInstanceCreated():
                created[event.event_id] = event
            case TaskFailed():
                removed.add(at)
                if event.task_id in scheduled:
                    removed.add(scheduled[event.task_id])
            case SubOrchestrationInstanceFailed():
                removed.add(at)
                if event.task_id in created:
                    children[event.task_id] = created[event.task_id].instance_id
            case ExecutionCompleted():
                removed.add(at)
            case _:
                pass
    return Rewind(frozenset(removed), tuple(children.items()))


def amend(history: Sequence[HistoryEvent], removed: frozenset[int]) -> list[tuple[int, HistoryEvent]]:
    """The events that stand in place of those removed; each keeps its message id, so that it is not taken again."""
    amended: list[tuple[int, HistoryEvent]] = []
    for at in sorted(removed):
        event = history[at]
        if isinstance(event, GenericEvent):
            continue
        amended.append(
            (
                at,
                GenericEvent(
                    timestamp=event.timestamp,
                    event_id=event.event_id,
                    message_id=event.message_id,
                    reason=f"Rewound: {event_type(event)}",
                    original=event,
                ),
            )
        )
    return amended


def rewind_children(
    started: ExecutionStarted,
    rewind: Rewind,
    request: Message,
    event: ExecutionRewound,
    history: Sequence[HistoryEvent],
) -> list[Message]:
    """Requests to the failed children to do the same; each knows whom to answer if it cannot."""
    requests = {each.event_id: each for each in history if isinstance(each, SubOrchestrationInstanceCreated)}
    return [
        Message(
            id=MessageId(f"{request.id}:{task_id}"),
            target=child,
            event=ExecutionRewound(
                timestamp=event.timestamp,
                reason=event.reason,
                instance_id=started.instance_id,
                parent=ParentInstance(
                    instance_id=started.instance_id,
                    execution_id=started.execution_id,
                    task_id=task_id,
                    name=started.name,
                    version=started.version,
                    dispatch_id=requests[task_id].dispatch_id,
                ),
            ),
            deliveries=0,
        )
        for task_id, child in rewind.children
    ]
