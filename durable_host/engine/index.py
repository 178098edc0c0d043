"""What the engine must know about a history to judge messages and decisions, without keeping the history.

A `HistoryIndex` is a fold over events: `extend` is called with a loaded history and, after each commit, with what was
committed; nothing else changes it. `admit` and `decide` only read it. It is what a worker caches beside the executor's
session, so its size must not grow with answered calls: of those only the highest action id is kept, since ids ascend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    Reply,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import DispatchId, InstanceId, MessageId
from durable_host.model.status import RuntimeStatus

__all__ = ["HistoryIndex", "OpenTask", "TaskKind"]


class TaskKind(Enum):
    """What an open task waits for; the value enters the dispatch id."""

    ACTIVITY = "activity"
    TIMER = "timer"
    CHILD = "child"


class OpenTask:
    """A request that history holds without its answer. `child` is the instance id of a child."""

    __slots__ = ("child", "dispatch_id", "kind")

    def __init__(self, kind: TaskKind, dispatch_id: DispatchId | None, child: InstanceId | None = None) -> None:
        self.kind = kind
        self.dispatch_id = dispatch_id
        self.child = child


_ANSWERED_BY: dict[type[HistoryEvent], TaskKind] = {
    TaskCompleted: TaskKind.ACTIVITY,
    TaskFailed: TaskKind.ACTIVITY,
    TimerFired: TaskKind.TIMER,
    SubOrchestrationInstanceCompleted: TaskKind.CHILD,
    SubOrchestrationInstanceFailed: TaskKind.CHILD,
}

REPLIES: tuple[type[Reply], ...] = (
    TaskCompleted,
    TaskFailed,
    TimerFired,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
)

_REMEMBERED = (
    EventRaised,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionResumed,
    ExecutionTerminated,
    GenericEvent,
)


class HistoryIndex:
    """Summary of one generation of an instance's history.

    Attributes:
        length: number of events folded in.
        started: the event that began the execution; None while history is empty.
        completed: the event that ended it; `completed_at`: the length of the history up to and including it.
        open: requests without an answer, by action id.
        open_activities: how many of them are activities.
        top: highest action id that history shows, -1 for none.
        reopened: action ids that a rewind took away and that have not been asked for again.
        messages: ids of external messages that history has taken, in order of arrival (values are unused).
        suspended: whether a suspension stands; `switched_at`: when the last one, or its end, was asked for.
        unfinished: the last episode lacks its end, since a crash cut it short or its actions are still to be asked for.
        rewinds: GenericEvents received; part of every dispatch id, so that old replies do not answer new attempts.
        actions: scheduling events in this generation.
        last_at: time of the last episode; time never steps back within a history.
    """

    __slots__ = (
        "actions",
        "completed",
        "completed_at",
        "last_at",
        "length",
        "messages",
        "open",
        "open_activities",
        "reopened",
        "rewinds",
        "started",
        "suspended",
        "switched_at",
        "top",
        "unfinished",
    )

    def __init__(self, events: Iterable[HistoryEvent] = ()) -> None:
        self.length = 0
        self.started: ExecutionStarted | None = None
        self.completed: ExecutionCompleted | None = None
        self.completed_at = 0
        self.open: dict[int, OpenTask] = {}
        self.open_activities = 0
        self.top = -1
        self.reopened: set[int] = set()
        self.messages: dict[MessageId, None] = {}
        self.suspended = False
        self.switched_at: datetime | None = None
        self.unfinished = False
        self.rewinds = 0
        self.actions = 0
        self.last_at: datetime | None = None
        self.extend(events)

    @property
    def status(self) -> RuntimeStatus:
        """Status as history tells it."""
        if self.completed is not None:
            return self.completed.status
        return RuntimeStatus.SUSPENDED if self.suspended else RuntimeStatus.RUNNING

    def answers(self, event: Reply) -> bool:
        """Whether the event answers an open request: right id, right kind, and the dispatch id that history recorded.

        Rows and replies of other writers carry no dispatch id; those match by action id, as in
        azure-storage-task-hub.md 6.5.
        """
        task = self.open.get(event.task_id)
        return (
            task is not None
            and task.kind is _ANSWERED_BY[type(event)]
            and (task.dispatch_id is None or event.dispatch_id is None or task.dispatch_id == event.dispatch_id)
        )

    def is_ahead(self, event: Reply) -> bool:
        """Whether the reply answers something that history does not show yet, so that it must come again later."""
        return event.task_id > self.top or event.task_id in self.reopened

    def children(self) -> Sequence[tuple[int, InstanceId]]:
        """Open children: action id and instance id."""
        return [(id, task.child) for id, task in self.open.items() if task.child is not None]

    def extend(self, events: Iterable[HistoryEvent]) -> None:
        """Fold committed events in."""
        for event in events:
            self.length += 1
            fold = _FOLDS.get(type(event))
            if fold is not None:
                fold(self, event)
            if event.message_id is not None and isinstance(event, _REMEMBERED):
                self.messages[event.message_id] = None

    def schedule(self, id: int, task: OpenTask | None) -> None:
        """Fold in a scheduling event; None: nobody waits for an answer."""
        self.actions += 1
        self.top = max(self.top, id)
        self.reopened.discard(id)
        if task is not None:
            self.open[id] = task
            if task.kind is TaskKind.ACTIVITY:
                self.open_activities += 1

    def answer(self, id: int) -> None:
        """Fold in an answer to an open request."""
        task = self.open.pop(id, None)
        if task is not None and task.kind is TaskKind.ACTIVITY:
            self.open_activities -= 1


def _orchestrator_started(index: HistoryIndex, event: OrchestratorStarted) -> None:
    index.unfinished = True
    index.last_at = event.timestamp if index.last_at is None else max(index.last_at, event.timestamp)


def _orchestrator_completed(index: HistoryIndex, event: OrchestratorCompleted) -> None:
    index.unfinished = False


def _execution_started(index: HistoryIndex, event: ExecutionStarted) -> None:
    if index.started is None:
        index.started = event
        index.messages.update(dict.fromkeys(event.seen))


def _task_scheduled(index: HistoryIndex, event: TaskScheduled) -> None:
    index.schedule(event.event_id, OpenTask(TaskKind.ACTIVITY, event.dispatch_id))


def _timer_created(index: HistoryIndex, event: TimerCreated) -> None:
    index.schedule(event.event_id, OpenTask(TaskKind.TIMER, event.dispatch_id))


def _child_created(index: HistoryIndex, event: SubOrchestrationInstanceCreated) -> None:
    task = None if event.detached else OpenTask(TaskKind.CHILD, event.dispatch_id, event.instance_id)
    index.schedule(event.event_id, task)


def _event_sent(index: HistoryIndex, event: EventSent) -> None:
    index.schedule(event.event_id, None)


def _answered(index: HistoryIndex, event: Reply) -> None:
    if index.answers(event):
        index.answer(event.task_id)


def _completed(index: HistoryIndex, event: ExecutionCompleted) -> None:
    index.completed = event
    index.completed_at = index.length
    index.top = max(index.top, event.event_id)


def _suspended(index: HistoryIndex, event: ExecutionSuspended) -> None:
    index.suspended = True
    index.switched_at = event.timestamp


def _resumed(index: HistoryIndex, event: ExecutionResumed) -> None:
    index.suspended = False
    index.switched_at = event.timestamp


def _generic(index: HistoryIndex, event: GenericEvent) -> None:
    original = event.original
    if original is None:
        index.rewinds += 1
        return
    # A rewound request keeps its id: its answer may come before the row that asks again.
    if isinstance(original, TaskScheduled | TimerCreated):
        index.top = max(index.top, original.event_id)
        index.reopened.add(original.event_id)
    if isinstance(original, ExecutionCompleted):
        index.top = max(index.top, original.event_id)


_FOLDS: dict[type[HistoryEvent], Callable[[HistoryIndex, Any], None]] = {
    OrchestratorStarted: _orchestrator_started,
    OrchestratorCompleted: _orchestrator_completed,
    ExecutionStarted: _execution_started,
    ExecutionCompleted: _completed,
    ExecutionSuspended: _suspended,
    ExecutionResumed: _resumed,
    TaskScheduled: _task_scheduled,
    TimerCreated: _timer_created,
    SubOrchestrationInstanceCreated: _child_created,
    EventSent: _event_sent,
    TaskCompleted: _answered,
    TaskFailed: _answered,
    TimerFired: _answered,
    SubOrchestrationInstanceCompleted: _answered,
    SubOrchestrationInstanceFailed: _answered,
    GenericEvent: _generic,
}
