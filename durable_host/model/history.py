"""The facts of one execution: every event that history holds or that travels to an instance.

Names, members and their meaning are those of the Durable Task Framework (`azure-storage-task-hub.md` 3.4 and 4.2), so
that each provider stores the same thing. What is ours alone — `dispatch_id`, `message_id`, lineage — is optional:
events of other writers lack it.

Times are aware UTC datetimes. `event_id` is the action id of an event that schedules something, else -1. Inputs and
results are JSON *texts*, or None for "nothing".
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from durable_host.model.failure import Failure
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.status import RuntimeStatus

__all__ = [
    "EventRaised",
    "EventSent",
    "ExecutionCompleted",
    "ExecutionResumed",
    "ExecutionRewound",
    "ExecutionStarted",
    "ExecutionSuspended",
    "ExecutionTerminated",
    "GenericEvent",
    "HistoryEvent",
    "OrchestratorCompleted",
    "OrchestratorStarted",
    "ParentInstance",
    "Reply",
    "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceCreated",
    "SubOrchestrationInstanceFailed",
    "TaskCompleted",
    "TaskFailed",
    "TaskScheduled",
    "TimerCreated",
    "TimerFired",
    "event_type",
]


class ParentInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked for a child: the parent's execution and the action id under which it waits.

    `dispatch_id` is that of the parent's SubOrchestrationInstanceCreated event; the child's reply carries it.
    """

    instance_id: InstanceId
    execution_id: ExecutionId
    task_id: int
    name: str = ""
    version: str | None = None
    dispatch_id: DispatchId | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    timestamp: datetime
    event_id: int = -1
    message_id: MessageId | None = None
    """Id of the message that this event arrived as; None for events that the engine made itself."""


class ExecutionStarted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """An execution begins. Also the message that starts an instance.

    Attributes:
        generation: how often a client has created this id before; None for children and after continue-as-new.
        replaceable: statuses in which an instance of the same id gives way to this start; judged when admitted.
        restarted_from: the instance that a restart copied, lineage only.
        detached: nobody waits: no reply goes to the parent.
        seen: ids of external messages that the previous execution took shortly before it continued as new; a second
            delivery of one of these is still recognised.
        starts, custom_status: what a continued execution inherits for its projection; None for other starts.
    """

    instance_id: InstanceId
    execution_id: ExecutionId
    name: str
    version: str | None = None
    input: str | None = None
    parent: ParentInstance | None = None
    tags: dict[str, str] | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    scheduled_at: datetime | None = None
    generation: int | None = None
    replaceable: tuple[RuntimeStatus, ...] = ()
    restarted_from: InstanceId | None = None
    detached: bool = False
    seen: tuple[MessageId, ...] = ()
    starts: int | None = None
    custom_status: str | None = None


class ExecutionCompleted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """The execution ended: Completed, Failed or Terminated. `result` is the output, the failure text or the reason."""

    status: RuntimeStatus
    result: str | None = None
    failure: Failure | None = None


class ExecutionTerminated(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Somebody ended the execution. `recursive` ends the children that are open, too."""

    reason: str | None = None
    recursive: bool = False


class ExecutionSuspended(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """What arrives from here on is recorded but not applied, until ExecutionResumed."""

    reason: str | None = None


class ExecutionResumed(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """What arrived since the suspension is applied now, in order."""

    reason: str | None = None


class ExecutionRewound(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A request to run the failed calls of a failed instance again; a message only, history shows GenericEvents.

    A parent that is rewound sends this to its failed children with `parent` set; a child that cannot be rewound any
    more answers that parent, so that nobody waits for ever.
    """

    reason: str | None = None
    parent: ParentInstance | None = None
    instance_id: InstanceId | None = None


class TaskScheduled(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """An activity was asked for. `input` is kept only with `storeInputsInOrchestrationHistory`."""

    name: str
    version: str | None = ""
    input: str | None = None
    tags: dict[str, str] | None = None
    traceparent: str | None = None
    dispatch_id: DispatchId | None = None


class TaskCompleted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True, gc=False):
    """An activity's result."""

    task_id: int
    result: str | None = None
    dispatch_id: DispatchId | None = None


class TaskFailed(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """An activity's failure. `reason` is the text that users see, `details` opaque, `failure` the structured form."""

    task_id: int
    reason: str | None = None
    details: str | None = None
    failure: Failure | None = None
    dispatch_id: DispatchId | None = None


class SubOrchestrationInstanceCreated(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A child was asked for. `detached` (tag `FireAndForget` on Azure Storage): nobody waits for it."""

    name: str
    instance_id: InstanceId
    version: str | None = None
    input: str | None = None
    tags: dict[str, str] | None = None
    detached: bool = False
    dispatch_id: DispatchId | None = None


class SubOrchestrationInstanceCompleted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True, gc=False):
    """A child's output."""

    task_id: int
    result: str | None = None
    dispatch_id: DispatchId | None = None


class SubOrchestrationInstanceFailed(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A child failed or was terminated."""

    task_id: int
    reason: str | None = None
    details: str | None = None
    failure: Failure | None = None
    dispatch_id: DispatchId | None = None


class TimerCreated(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A timer (or one link of a long one) was set."""

    fire_at: datetime
    dispatch_id: DispatchId | None = None


class TimerFired(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A timer is due; the message *is* its due time, whatever any clock says. `timestamp` is when it was created."""

    timer_id: int
    fire_at: datetime
    dispatch_id: DispatchId | None = None

    @property
    def task_id(self) -> int:
        """The action id that this answers."""
        return self.timer_id


class OrchestratorStarted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True, gc=False):
    """An episode begins; its timestamp is the orchestrator's current time."""


class OrchestratorCompleted(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True, gc=False):
    """An episode's decisions end here."""


class EventSent(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """An event was sent to another instance."""

    instance_id: InstanceId
    name: str
    input: str | None = None


class EventRaised(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """An external event arrived. Names are compared without case."""

    name: str
    input: str | None = None
    traceparent: str | None = None


class GenericEvent(_Event, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A fact without effect on replay.

    After a rewind one of these stands in place of each event taken away (`original`, `reason` `Rewound: <type>`), and
    one with the rewind's reason as `data` is appended.
    """

    data: str | None = None
    reason: str | None = None
    original: HistoryEvent | None = None


HistoryEvent = (
    ExecutionStarted
    | ExecutionCompleted
    | ExecutionTerminated
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionRewound
    | TaskScheduled
    | TaskCompleted
    | TaskFailed
    | SubOrchestrationInstanceCreated
    | SubOrchestrationInstanceCompleted
    | SubOrchestrationInstanceFailed
    | TimerCreated
    | TimerFired
    | OrchestratorStarted
    | OrchestratorCompleted
    | EventSent
    | EventRaised
    | GenericEvent
)
"""Any event."""

Reply = TaskCompleted | TaskFailed | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed | TimerFired
"""Events that answer a scheduled request; `task_id` says which, `dispatch_id` proves it."""


def event_type(event: HistoryEvent) -> str:
    """The event's name as stored and shown, for example `TaskScheduled`."""
    return type(event).__name__
