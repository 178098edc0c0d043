"""The event that a row's columns make up, by its type. Source: azure-storage-task-hub.md 4.2 and 6.11."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from durable_host.model import history as model
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.wire.cells import (
    Stored,
    failure_of_column,
    number,
    optional,
    optional_instant,
    optional_number,
    required,
    tags_of_column,
    trace_of,
)
from durable_host_providers.azure_storage.wire.event_columns import REWOUND, kind_before
from durable_host_providers.azure_storage.wire.extra import NOTHING, Extra
from durable_host_providers.azure_storage.wire.objects import InstanceRef, ParentRef, parent_from
from durable_host_providers.azure_storage.wire.times import instant_of

__all__ = ["event_of"]

Facts = dict[str, Any]

_extras = msgspec.json.Decoder(Extra).decode
_instances = msgspec.json.Decoder(InstanceRef).decode
_parents = msgspec.json.Decoder(ParentRef | None).decode


def event_of(values: Stored) -> model.HistoryEvent:
    """The event of a row.

    Raises:
        KeyError, TypeError, ValueError, msgspec.MsgspecError: it cannot be read.
    """
    return _event(str(values["EventType"]), values)


def _event(kind: str, values: Stored) -> model.HistoryEvent:
    read = _READ.get(kind)
    if read is None:
        raise ValueError("no such event type is known")
    facts: Facts = {
        "timestamp": instant_of(required(values, "_Timestamp")),
        "event_id": number(values, "EventId"),
    }
    message_id = values.get("MessageId")
    if message_id is not None:
        facts["message_id"] = MessageId(str(message_id))
    if kind in _DISPATCHED:
        dispatch_id = values.get("DispatchId")
        facts["dispatch_id"] = None if dispatch_id is None else DispatchId(str(dispatch_id))
    extra = values.get("DurableHost")
    return read(values, facts, _extras(extra) if isinstance(extra, str) and extra else NOTHING)


def _read_started(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    instance = _instances(required(values, "OrchestrationInstance"))
    parent = optional(values, "ParentInstance")
    tags, detached = tags_of_column(optional(values, "Tags"))
    trace = trace_of(values)
    return model.ExecutionStarted(
        **facts,
        instance_id=InstanceId(instance.instance_id),
        execution_id=ExecutionId(instance.execution_id or ""),
        name=optional(values, "Name") or "",
        version=optional(values, "Version"),
        input=optional(values, "Input"),
        parent=parent_from(_parents(parent)) if parent else None,
        tags=tags if extra.tags is None else extra.tags,
        traceparent=trace.trace_parent,
        tracestate=extra.tracestate if trace.trace_parent is None else trace.trace_state,
        scheduled_at=optional_instant(values, "ScheduledStartTime"),
        generation=optional_number(values, "Generation"),
        replaceable=extra.replaceable,
        restarted_from=extra.restarted_from,
        detached=detached,
        seen=extra.seen,
        starts=extra.starts,
        custom_status=extra.custom_status,
    )


def _read_completed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionCompleted(
        **facts,
        status=RuntimeStatus(required(values, "OrchestrationStatus")),
        result=optional(values, "Result"),
        failure=failure_of_column(optional(values, "FailureDetails")),
    )


def _read_terminated(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionTerminated(**facts, reason=optional(values, "Input"), recursive=extra.recursive)


def _read_suspended(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionSuspended(**facts, reason=optional(values, "Reason"))


def _read_resumed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionResumed(**facts, reason=optional(values, "Reason"))


def _read_rewound(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    instance_id = optional(values, "InstanceId")
    return model.ExecutionRewound(
        **facts,
        reason=optional(values, "Reason"),
        parent=extra.parent,
        instance_id=None if instance_id is None else InstanceId(instance_id),
    )


def _read_task_scheduled(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskScheduled(
        **facts,
        name=optional(values, "Name") or "",
        version=optional(values, "Version"),
        input=optional(values, "Input"),
        tags=tags_of_column(optional(values, "Tags"))[0] if extra.tags is None else extra.tags,
        traceparent=trace_of(values).trace_parent,
    )


def _read_task_completed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskCompleted(**facts, task_id=number(values, "TaskScheduledId"), result=optional(values, "Result"))


def _read_task_failed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskFailed(
        **facts,
        task_id=number(values, "TaskScheduledId"),
        reason=optional(values, "Reason"),
        details=optional(values, "Details"),
        failure=failure_of_column(optional(values, "FailureDetails")),
    )


def _read_child_created(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    tags, detached = tags_of_column(optional(values, "Tags"))
    return model.SubOrchestrationInstanceCreated(
        **facts,
        name=optional(values, "Name") or "",
        instance_id=InstanceId(required(values, "InstanceId")),
        version=optional(values, "Version"),
        input=optional(values, "Input"),
        tags=tags if extra.tags is None else extra.tags,
        detached=detached,
    )


def _read_child_completed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.SubOrchestrationInstanceCompleted(
        **facts, task_id=number(values, "TaskScheduledId"), result=optional(values, "Result")
    )


def _read_child_failed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.SubOrchestrationInstanceFailed(
        **facts,
        task_id=number(values, "TaskScheduledId"),
        reason=optional(values, "Reason"),
        details=optional(values, "Details"),
        failure=failure_of_column(optional(values, "FailureDetails")),
    )


def _read_timer_created(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TimerCreated(**facts, fire_at=instant_of(required(values, "FireAt")))


def _read_timer_fired(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TimerFired(**facts, timer_id=number(values, "TimerId"), fire_at=instant_of(required(values, "FireAt")))


def _read_orchestrator_started(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.OrchestratorStarted(**facts)


def _read_orchestrator_completed(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.OrchestratorCompleted(**facts)


def _read_event_sent(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.EventSent(
        **facts,
        instance_id=InstanceId(required(values, "InstanceId")),
        name=optional(values, "Name") or "",
        input=optional(values, "Input"),
    )


def _read_event_raised(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.EventRaised(
        **facts,
        name=optional(values, "Name") or "",
        input=optional(values, "Input"),
        traceparent=trace_of(values).trace_parent,
    )


def _read_generic(values: Stored, facts: Facts, extra: Extra) -> model.HistoryEvent:
    reason = optional(values, "Reason")
    if reason is None or not reason.startswith(REWOUND):
        return model.GenericEvent(**facts, data=optional(values, "Data"), reason=extra.reason, original=extra.original)
    kind = kind_before(reason, "OrchestrationStatus" in values)
    if kind == "GenericEvent" or kind not in _READ:
        # What stood here is not known any more; that something did is all that matters.
        original: model.HistoryEvent = model.GenericEvent(**facts, data=optional(values, "Data"))
    else:
        before = {name: value for name, value in values.items() if name != "Reason"}
        if extra.reason is not None:
            before["Reason"] = extra.reason
        original = _event(kind, before)
    return model.GenericEvent(**facts, reason=reason, original=original)


_READ: dict[str, Callable[[Stored, Facts, Extra], model.HistoryEvent]] = {
    "ExecutionStarted": _read_started,
    "ExecutionCompleted": _read_completed,
    "ContinueAsNew": _read_completed,
    "ExecutionTerminated": _read_terminated,
    "ExecutionSuspended": _read_suspended,
    "ExecutionResumed": _read_resumed,
    "ExecutionRewound": _read_rewound,
    "TaskScheduled": _read_task_scheduled,
    "TaskCompleted": _read_task_completed,
    "TaskFailed": _read_task_failed,
    "SubOrchestrationInstanceCreated": _read_child_created,
    "SubOrchestrationInstanceCompleted": _read_child_completed,
    "SubOrchestrationInstanceFailed": _read_child_failed,
    "TimerCreated": _read_timer_created,
    "TimerFired": _read_timer_fired,
    "OrchestratorStarted": _read_orchestrator_started,
    "OrchestratorCompleted": _read_orchestrator_completed,
    "EventSent": _read_event_sent,
    "EventRaised": _read_event_raised,
    "GenericEvent": _read_generic,
}

_DISPATCHED = frozenset(
    {
        "TaskScheduled",
        "TaskCompleted",
        "TaskFailed",
        "SubOrchestrationInstanceCreated",
        "SubOrchestrationInstanceCompleted",
        "SubOrchestrationInstanceFailed",
        "TimerCreated",
        "TimerFired",
    }
)
