"""History events as they stand in queue messages.

Each struct is the JSON object of one event: `$type`, then the members in the serializer's order. Nulls are written,
members that are missing get the defaults that .NET would give them. Source: azure-storage-task-hub.md 3.4.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from durable_host_providers.azure_storage.wire.objects import (
    TypedFailureDetails,
    TypedInstanceRef,
    TypedParentRef,
    TypedTraceContext,
)

__all__ = [
    "EVENT_TAGS",
    "STATUS_NUMBERS",
    "ContinueAsNewEvent",
    "EventRaisedEvent",
    "EventSentEvent",
    "ExecutionCompletedEvent",
    "ExecutionResumedEvent",
    "ExecutionRewoundEvent",
    "ExecutionStartedEvent",
    "ExecutionSuspendedEvent",
    "ExecutionTerminatedEvent",
    "GenericEvent",
    "OrchestratorCompletedEvent",
    "OrchestratorStartedEvent",
    "QueueEvent",
    "SubOrchestrationInstanceCompletedEvent",
    "SubOrchestrationInstanceCreatedEvent",
    "SubOrchestrationInstanceFailedEvent",
    "TaskCompletedEvent",
    "TaskFailedEvent",
    "TaskScheduledEvent",
    "TimerCreatedEvent",
    "TimerFiredEvent",
    "kind_of",
]

_PREFIX = "DurableTask.Core.History."

STATUS_NUMBERS = (
    "Running",
    "Completed",
    "ContinuedAsNew",
    "Failed",
    "Canceled",
    "Terminated",
    "Pending",
    "Suspended",
)
"""Names of OrchestrationStatus by number."""


def _tag(class_name: str) -> str:
    """`TaskFailed` of the class here is `DurableTask.Core.History.TaskFailedEvent` there."""
    return f"{_PREFIX}{class_name}"


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", tag_field="$type", tag=_tag):
    pass


class ExecutionStartedEvent(_Event, frozen=True, kw_only=True):
    orchestration_instance: TypedInstanceRef
    event_type: int = 0
    parent_instance: TypedParentRef | None = None
    name: str | None = None
    version: str | None = None
    input: str | None = None
    tags: dict[str, str | None] | None = None
    correlation: str | None = None
    parent_trace_context: TypedTraceContext | None = None
    scheduled_start_time: str | None = None
    generation: int | None = None
    generate_new_trace: bool = False
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class _Completed(_Event, frozen=True, kw_only=True):
    event_type: int = 1
    orchestration_status: int
    result: str | None = None
    failure_details: TypedFailureDetails | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class ExecutionCompletedEvent(_Completed, frozen=True, kw_only=True):
    pass


class ContinueAsNewEvent(_Completed, frozen=True, kw_only=True):
    """Only read."""


class ExecutionTerminatedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 3
    input: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class ExecutionSuspendedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 19
    reason: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class ExecutionResumedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 20
    reason: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class ExecutionRewoundEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 21
    reason: str | None = None
    parent_execution_id: str | None = None
    instance_id: str | None = None
    parent_trace_context: TypedTraceContext | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class TaskScheduledEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 4
    name: str | None = None
    version: str | None = None
    input: str | None = None
    parent_trace_context: TypedTraceContext | None = None
    tags: dict[str, str | None] | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class TaskCompletedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 5
    task_scheduled_id: int
    result: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class TaskFailedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 6
    task_scheduled_id: int
    reason: str | None = None
    details: str | None = None
    failure_details: TypedFailureDetails | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class SubOrchestrationInstanceCreatedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 7
    name: str | None = None
    version: str | None = None
    instance_id: str
    input: str | None = None
    client_span_id: str | None = None
    tags: dict[str, str | None] | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class SubOrchestrationInstanceCompletedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 8
    task_scheduled_id: int
    result: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class SubOrchestrationInstanceFailedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 9
    task_scheduled_id: int
    reason: str | None = None
    details: str | None = None
    failure_details: TypedFailureDetails | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class TimerCreatedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 10
    fire_at: str
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class TimerFiredEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 11
    timer_id: int
    fire_at: str
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class OrchestratorStartedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 12
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class OrchestratorCompletedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 13
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class EventSentEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 14
    instance_id: str
    name: str | None = None
    input: str | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class EventRaisedEvent(_Event, frozen=True, kw_only=True):
    event_type: int = 15
    name: str | None = None
    input: str | None = None
    parent_trace_context: TypedTraceContext | None = None
    event_id: int = -1
    is_played: bool = False
    timestamp: str


class GenericEvent(_Event, frozen=True, kw_only=True):
    data: str | None = None
    event_type: int = 17
    event_id: int = -1
    is_played: bool = False
    timestamp: str


QueueEvent = (
    ExecutionStartedEvent
    | ExecutionCompletedEvent
    | ContinueAsNewEvent
    | ExecutionTerminatedEvent
    | ExecutionSuspendedEvent
    | ExecutionResumedEvent
    | ExecutionRewoundEvent
    | TaskScheduledEvent
    | TaskCompletedEvent
    | TaskFailedEvent
    | SubOrchestrationInstanceCreatedEvent
    | SubOrchestrationInstanceCompletedEvent
    | SubOrchestrationInstanceFailedEvent
    | TimerCreatedEvent
    | TimerFiredEvent
    | OrchestratorStartedEvent
    | OrchestratorCompletedEvent
    | EventSentEvent
    | EventRaisedEvent
    | GenericEvent
)
"""Any event of a message."""


def kind_of(type_name: str) -> str:
    """`TaskFailed` of `DurableTask.Core.History.TaskFailedEvent, DurableTask.Core`."""
    name = type_name.partition(",")[0].rpartition(".")[2]
    return name if name == "GenericEvent" else name.removesuffix("Event")


EVENT_TAGS = frozenset(f"{_PREFIX}{each.__name__}" for each in get_args(QueueEvent))
"""The type names of all of these."""
