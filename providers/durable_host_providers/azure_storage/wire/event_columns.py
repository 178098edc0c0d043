"""The columns that make up an event, by its type. `history_rows` adds those that every row has.

Source: azure-storage-task-hub.md 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from durable_host.model import history as model
from durable_host.model.ids import DispatchId
from durable_host_providers.azure_storage.wire.cells import (
    NULL,
    Columns,
    failure_column,
    optional,
    put,
    tags_column,
    trace_column,
)
from durable_host_providers.azure_storage.wire.extra import NOTHING, extra_of, is_made_up
from durable_host_providers.azure_storage.wire.objects import InstanceRef, parent_to
from durable_host_providers.azure_storage.wire.texts import json_text
from durable_host_providers.azure_storage.wire.times import edm_time

__all__ = ["REWOUND", "columns_of", "is_played", "kind_before", "stands_for_original"]

REWOUND = "Rewound: "
"""How the reason of a row begins that a rewind has made a generic one; what follows is the type of the event."""

_PLAYED: frozenset[type[model.HistoryEvent]] = frozenset(
    {
        model.ExecutionStarted,
        model.TaskCompleted,
        model.TaskFailed,
        model.SubOrchestrationInstanceCompleted,
        model.SubOrchestrationInstanceFailed,
        model.TimerFired,
        model.EventRaised,
        model.ExecutionSuspended,
        model.ExecutionResumed,
        model.ExecutionTerminated,
        model.GenericEvent,
    }
)
"""What has been delivered to the orchestrator when its row is written. Source: azure-storage-task-hub.md 3.4."""


def is_played(event: model.HistoryEvent) -> bool:
    """What the row says of the event unless there is a reason to say something else. A rewind leaves it as it was."""
    if type(event) is model.GenericEvent and event.original is not None and stands_for_original(event):
        return type(event.original) in _PLAYED
    return type(event) in _PLAYED


def columns_of(event: model.HistoryEvent, values: Columns) -> None:
    """Add the event's own columns to a row."""
    values["EventType"] = type(event).__name__
    _WRITE[type(event)](event, values)
    if event.message_id is not None:
        values["MessageId"] = event.message_id
    dispatch_id: DispatchId | None = getattr(event, "dispatch_id", None)
    if dispatch_id is not None and not is_made_up(dispatch_id):
        values["DispatchId"] = dispatch_id
    extra = extra_of(event)
    if extra is not None and not (type(event) is model.GenericEvent and stands_for_original(event)):
        values["DurableHost"] = json_text(extra)


def _write_started(event: model.ExecutionStarted, values: Columns) -> None:
    values["OrchestrationInstance"] = json_text(InstanceRef(event.instance_id, event.execution_id))
    values["ParentInstance"] = NULL if event.parent is None else json_text(parent_to(event.parent))
    values["Name"] = event.name
    put(values, "Version", event.version)
    put(values, "Input", event.input)
    values["Tags"] = tags_column(event.tags, event.detached)
    values["ParentTraceContext"] = trace_column(event.traceparent, event.tracestate)
    values["GenerateNewTrace"] = False
    if event.scheduled_at is not None:
        values["ScheduledStartTime"] = edm_time(event.scheduled_at)
    if event.generation is not None:
        values["Generation"] = event.generation


def _write_completed(event: model.ExecutionCompleted, values: Columns) -> None:
    values["OrchestrationStatus"] = event.status.value
    put(values, "Result", event.result)
    values["FailureDetails"] = failure_column(event.failure)


def _write_terminated(event: model.ExecutionTerminated, values: Columns) -> None:
    put(values, "Input", event.reason)


def _write_reason(event: model.ExecutionSuspended | model.ExecutionResumed, values: Columns) -> None:
    put(values, "Reason", event.reason)


def _write_rewound(event: model.ExecutionRewound, values: Columns) -> None:
    put(values, "Reason", event.reason)
    put(values, "ParentExecutionId", None if event.parent is None else event.parent.execution_id)
    put(values, "InstanceId", event.instance_id)
    values["ParentTraceContext"] = NULL


def _write_task_scheduled(event: model.TaskScheduled, values: Columns) -> None:
    values["Name"] = event.name
    put(values, "Version", event.version)
    put(values, "Input", event.input)
    values["ParentTraceContext"] = trace_column(event.traceparent)
    values["Tags"] = tags_column(event.tags)


def _write_result(event: model.TaskCompleted | model.SubOrchestrationInstanceCompleted, values: Columns) -> None:
    values["TaskScheduledId"] = event.task_id
    put(values, "Result", event.result)


def _write_failure(event: model.TaskFailed | model.SubOrchestrationInstanceFailed, values: Columns) -> None:
    values["TaskScheduledId"] = event.task_id
    put(values, "Reason", event.reason)
    put(values, "Details", event.details)
    values["FailureDetails"] = failure_column(event.failure)


def _write_child_created(event: model.SubOrchestrationInstanceCreated, values: Columns) -> None:
    values["Name"] = event.name
    put(values, "Version", event.version)
    values["InstanceId"] = event.instance_id
    put(values, "Input", event.input)
    values["Tags"] = tags_column(event.tags, event.detached)


def _write_timer_created(event: model.TimerCreated, values: Columns) -> None:
    values["FireAt"] = edm_time(event.fire_at)


def _write_timer_fired(event: model.TimerFired, values: Columns) -> None:
    values["TimerId"] = event.timer_id
    values["FireAt"] = edm_time(event.fire_at)


def _write_event_sent(event: model.EventSent, values: Columns) -> None:
    values["InstanceId"] = event.instance_id
    values["Name"] = event.name
    put(values, "Input", event.input)


def _write_event_raised(event: model.EventRaised, values: Columns) -> None:
    values["Name"] = event.name
    put(values, "Input", event.input)
    values["ParentTraceContext"] = trace_column(event.traceparent)


def _write_generic(event: model.GenericEvent, values: Columns) -> None:
    if not stands_for_original(event):
        put(values, "Data", event.data)
        return
    original = event.original
    assert original is not None
    columns_of(original, values)
    values["EventType"] = "GenericEvent"
    reason = optional(values, "Reason")
    put(values, "Reason", event.reason)
    # The reference loses the text of a failure here.
    extra = (
        extra_of(original) if reason is None else msgspec.structs.replace(extra_of(original) or NOTHING, reason=reason)
    )
    if extra is not None:
        values["DurableHost"] = json_text(extra)


def stands_for_original(event: model.GenericEvent) -> bool:
    """Whether a rewind put it in the place of its original, so that the columns of that one tell all of it."""
    original = event.original
    return (
        original is not None
        and not isinstance(original, model.GenericEvent)
        and event.data is None
        and event.reason is not None
        and event.reason.startswith(REWOUND)
        and kind_before(event.reason, isinstance(original, model.ExecutionCompleted)) == model.event_type(original)
        and (event.timestamp, event.event_id, event.message_id)
        == (original.timestamp, original.event_id, original.message_id)
    )


def kind_before(reason: str, completion: bool) -> str:
    """What a rewound row was. A second rewind finds the completion of the first one again."""
    kind = reason.removeprefix(REWOUND)
    return "ExecutionCompleted" if kind == "GenericEvent" and completion else kind


def _write_nothing(event: model.OrchestratorStarted | model.OrchestratorCompleted, values: Columns) -> None:
    pass


_WRITE: dict[type[model.HistoryEvent], Callable[[Any, Columns], None]] = {
    model.ExecutionStarted: _write_started,
    model.ExecutionCompleted: _write_completed,
    model.ExecutionTerminated: _write_terminated,
    model.ExecutionSuspended: _write_reason,
    model.ExecutionResumed: _write_reason,
    model.ExecutionRewound: _write_rewound,
    model.TaskScheduled: _write_task_scheduled,
    model.TaskCompleted: _write_result,
    model.TaskFailed: _write_failure,
    model.SubOrchestrationInstanceCreated: _write_child_created,
    model.SubOrchestrationInstanceCompleted: _write_result,
    model.SubOrchestrationInstanceFailed: _write_failure,
    model.TimerCreated: _write_timer_created,
    model.TimerFired: _write_timer_fired,
    model.OrchestratorStarted: _write_nothing,
    model.OrchestratorCompleted: _write_nothing,
    model.EventSent: _write_event_sent,
    model.EventRaised: _write_event_raised,
    model.GenericEvent: _write_generic,
}
