"""Events of the model as events of messages, and back.

Encoding and decoding are tables by type: they are on the way of every message. What the format has no place for comes
and goes beside the event, see `extra`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from durable_host.model import history as model
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.wire import queue_events as wire
from durable_host_providers.azure_storage.wire.extra import NOTHING, Extra
from durable_host_providers.azure_storage.wire.objects import (
    TypedInstanceRef,
    TypedTraceContext,
    failure_from,
    parent_from,
    tags_from,
    typed_failure_to,
    typed_parent_to,
    typed_tags_to,
)
from durable_host_providers.azure_storage.wire.times import instant_of, json_time

__all__ = ["event_from", "event_to"]

_STATUS = [RuntimeStatus(name) for name in wire.STATUS_NUMBERS]
_NUMBERS = {status: number for number, status in enumerate(_STATUS)}

Facts = dict[str, Any]


def event_to(event: model.HistoryEvent) -> wire.QueueEvent:
    """The event as it stands in a message. Its message id, dispatch id and extra members travel beside it."""
    return _TO[type(event)](event)


def event_from(
    event: wire.QueueEvent,
    *,
    extra: Extra = NOTHING,
    message_id: MessageId | None = None,
    dispatch_id: DispatchId | None = None,
) -> model.HistoryEvent:
    """The event of a message.

    Raises:
        ValueError: a time or a status cannot be read.
    """
    facts: Facts = {"timestamp": instant_of(event.timestamp), "event_id": event.event_id}
    if message_id is not None:
        facts["message_id"] = message_id
    if dispatch_id is not None and type(event) in _DISPATCHED:
        facts["dispatch_id"] = dispatch_id
    return _FROM[type(event)](event, facts, extra)


# To the wire.


def _trace_to(traceparent: str | None, tracestate: str | None = None) -> TypedTraceContext | None:
    return None if traceparent is None else TypedTraceContext(trace_parent=traceparent, trace_state=tracestate)


def _started_to(event: model.ExecutionStarted) -> wire.QueueEvent:
    return wire.ExecutionStartedEvent(
        orchestration_instance=TypedInstanceRef(event.instance_id, event.execution_id),
        parent_instance=typed_parent_to(event.parent),
        name=event.name,
        version=event.version,
        input=event.input,
        tags=_typed_tags(event.tags, event.detached),
        parent_trace_context=_trace_to(event.traceparent, event.tracestate),
        scheduled_start_time=None if event.scheduled_at is None else json_time(event.scheduled_at),
        generation=event.generation,
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _typed_tags(tags: dict[str, str] | None, detached: bool = False) -> dict[str, str | None] | None:
    return typed_tags_to(tags, detached)  # type: ignore[return-value]  # a dict of texts is one of texts and nulls


def _completed_to(event: model.ExecutionCompleted) -> wire.QueueEvent:
    return wire.ExecutionCompletedEvent(
        orchestration_status=_NUMBERS[event.status],
        result=event.result,
        failure_details=typed_failure_to(event.failure),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _terminated_to(event: model.ExecutionTerminated) -> wire.QueueEvent:
    return wire.ExecutionTerminatedEvent(
        input=event.reason, event_id=event.event_id, timestamp=json_time(event.timestamp)
    )


def _suspended_to(event: model.ExecutionSuspended) -> wire.QueueEvent:
    return wire.ExecutionSuspendedEvent(
        reason=event.reason, event_id=event.event_id, timestamp=json_time(event.timestamp)
    )


def _resumed_to(event: model.ExecutionResumed) -> wire.QueueEvent:
    return wire.ExecutionResumedEvent(
        reason=event.reason, event_id=event.event_id, timestamp=json_time(event.timestamp)
    )


def _rewound_to(event: model.ExecutionRewound) -> wire.QueueEvent:
    return wire.ExecutionRewoundEvent(
        reason=event.reason,
        parent_execution_id=None if event.parent is None else event.parent.execution_id,
        instance_id=event.instance_id,
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _task_scheduled_to(event: model.TaskScheduled) -> wire.QueueEvent:
    return wire.TaskScheduledEvent(
        name=event.name,
        version=event.version,
        input=event.input,
        parent_trace_context=_trace_to(event.traceparent),
        tags=_typed_tags(event.tags),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _task_completed_to(event: model.TaskCompleted) -> wire.QueueEvent:
    return wire.TaskCompletedEvent(
        task_scheduled_id=event.task_id,
        result=event.result,
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _task_failed_to(event: model.TaskFailed) -> wire.QueueEvent:
    return wire.TaskFailedEvent(
        task_scheduled_id=event.task_id,
        reason=event.reason,
        details=event.details,
        failure_details=typed_failure_to(event.failure),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _child_created_to(event: model.SubOrchestrationInstanceCreated) -> wire.QueueEvent:
    return wire.SubOrchestrationInstanceCreatedEvent(
        name=event.name,
        version=event.version,
        instance_id=event.instance_id,
        input=event.input,
        tags=_typed_tags(event.tags, event.detached),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _child_completed_to(event: model.SubOrchestrationInstanceCompleted) -> wire.QueueEvent:
    return wire.SubOrchestrationInstanceCompletedEvent(
        task_scheduled_id=event.task_id,
        result=event.result,
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _child_failed_to(event: model.SubOrchestrationInstanceFailed) -> wire.QueueEvent:
    return wire.SubOrchestrationInstanceFailedEvent(
        task_scheduled_id=event.task_id,
        reason=event.reason,
        details=event.details,
        failure_details=typed_failure_to(event.failure),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _timer_created_to(event: model.TimerCreated) -> wire.QueueEvent:
    return wire.TimerCreatedEvent(
        fire_at=json_time(event.fire_at), event_id=event.event_id, timestamp=json_time(event.timestamp)
    )


def _timer_fired_to(event: model.TimerFired) -> wire.QueueEvent:
    return wire.TimerFiredEvent(
        timer_id=event.timer_id,
        fire_at=json_time(event.fire_at),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _orchestrator_started_to(event: model.OrchestratorStarted) -> wire.QueueEvent:
    return wire.OrchestratorStartedEvent(event_id=event.event_id, timestamp=json_time(event.timestamp))


def _orchestrator_completed_to(event: model.OrchestratorCompleted) -> wire.QueueEvent:
    return wire.OrchestratorCompletedEvent(event_id=event.event_id, timestamp=json_time(event.timestamp))


def _event_sent_to(event: model.EventSent) -> wire.QueueEvent:
    return wire.EventSentEvent(
        instance_id=event.instance_id,
        name=event.name,
        input=event.input,
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _event_raised_to(event: model.EventRaised) -> wire.QueueEvent:
    return wire.EventRaisedEvent(
        name=event.name,
        input=event.input,
        parent_trace_context=_trace_to(event.traceparent),
        event_id=event.event_id,
        timestamp=json_time(event.timestamp),
    )


def _generic_to(event: model.GenericEvent) -> wire.QueueEvent:
    return wire.GenericEvent(data=event.data, event_id=event.event_id, timestamp=json_time(event.timestamp))


_TO: dict[type[model.HistoryEvent], Callable[[Any], wire.QueueEvent]] = {
    model.ExecutionStarted: _started_to,
    model.ExecutionCompleted: _completed_to,
    model.ExecutionTerminated: _terminated_to,
    model.ExecutionSuspended: _suspended_to,
    model.ExecutionResumed: _resumed_to,
    model.ExecutionRewound: _rewound_to,
    model.TaskScheduled: _task_scheduled_to,
    model.TaskCompleted: _task_completed_to,
    model.TaskFailed: _task_failed_to,
    model.SubOrchestrationInstanceCreated: _child_created_to,
    model.SubOrchestrationInstanceCompleted: _child_completed_to,
    model.SubOrchestrationInstanceFailed: _child_failed_to,
    model.TimerCreated: _timer_created_to,
    model.TimerFired: _timer_fired_to,
    model.OrchestratorStarted: _orchestrator_started_to,
    model.OrchestratorCompleted: _orchestrator_completed_to,
    model.EventSent: _event_sent_to,
    model.EventRaised: _event_raised_to,
    model.GenericEvent: _generic_to,
}


# From the wire.


def _traceparent(context: TypedTraceContext | None) -> str | None:
    return None if context is None else context.trace_parent


def _instant(text: str | None) -> datetime | None:
    return None if text is None else instant_of(text)


def _started_from(event: wire.ExecutionStartedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    tags, detached = tags_from(event.tags)
    context = event.parent_trace_context
    instance = event.orchestration_instance
    return model.ExecutionStarted(
        **facts,
        instance_id=InstanceId(instance.instance_id),
        execution_id=ExecutionId(instance.execution_id or ""),
        name=event.name or "",
        version=event.version,
        input=event.input,
        parent=parent_from(event.parent_instance),
        tags=tags if extra.tags is None else extra.tags,
        traceparent=_traceparent(context),
        tracestate=extra.tracestate if context is None else context.trace_state,
        scheduled_at=_instant(event.scheduled_start_time),
        generation=event.generation,
        replaceable=extra.replaceable,
        restarted_from=extra.restarted_from,
        detached=detached,
        seen=extra.seen,
        starts=extra.starts,
        custom_status=extra.custom_status,
    )


def _completed_from(
    event: wire.ExecutionCompletedEvent | wire.ContinueAsNewEvent, facts: Facts, extra: Extra
) -> model.HistoryEvent:
    return model.ExecutionCompleted(
        **facts, status=_status(event), result=event.result, failure=failure_from(event.failure_details)
    )


def _status(event: wire.ExecutionCompletedEvent | wire.ContinueAsNewEvent) -> RuntimeStatus:
    number = event.orchestration_status
    if not 0 <= number < len(_STATUS):
        raise ValueError(f"OrchestrationStatus is {number}, known are 0 to {len(_STATUS) - 1}")
    return _STATUS[number]


def _terminated_from(event: wire.ExecutionTerminatedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionTerminated(**facts, reason=event.input, recursive=extra.recursive)


def _suspended_from(event: wire.ExecutionSuspendedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionSuspended(**facts, reason=event.reason)


def _resumed_from(event: wire.ExecutionResumedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.ExecutionResumed(**facts, reason=event.reason)


def _rewound_from(event: wire.ExecutionRewoundEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    instance_id = None if event.instance_id is None else InstanceId(event.instance_id)
    return model.ExecutionRewound(**facts, reason=event.reason, parent=extra.parent, instance_id=instance_id)


def _task_scheduled_from(event: wire.TaskScheduledEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskScheduled(
        **facts,
        name=event.name or "",
        version=event.version,
        input=event.input,
        tags=tags_from(event.tags)[0] if extra.tags is None else extra.tags,
        traceparent=_traceparent(event.parent_trace_context),
    )


def _task_completed_from(event: wire.TaskCompletedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskCompleted(**facts, task_id=event.task_scheduled_id, result=event.result)


def _task_failed_from(event: wire.TaskFailedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TaskFailed(
        **facts,
        task_id=event.task_scheduled_id,
        reason=event.reason,
        details=event.details,
        failure=failure_from(event.failure_details),
    )


def _child_created_from(
    event: wire.SubOrchestrationInstanceCreatedEvent, facts: Facts, extra: Extra
) -> model.HistoryEvent:
    tags, detached = tags_from(event.tags)
    return model.SubOrchestrationInstanceCreated(
        **facts,
        name=event.name or "",
        instance_id=InstanceId(event.instance_id),
        version=event.version,
        input=event.input,
        tags=tags if extra.tags is None else extra.tags,
        detached=detached,
    )


def _child_completed_from(
    event: wire.SubOrchestrationInstanceCompletedEvent, facts: Facts, extra: Extra
) -> model.HistoryEvent:
    return model.SubOrchestrationInstanceCompleted(**facts, task_id=event.task_scheduled_id, result=event.result)


def _child_failed_from(
    event: wire.SubOrchestrationInstanceFailedEvent, facts: Facts, extra: Extra
) -> model.HistoryEvent:
    return model.SubOrchestrationInstanceFailed(
        **facts,
        task_id=event.task_scheduled_id,
        reason=event.reason,
        details=event.details,
        failure=failure_from(event.failure_details),
    )


def _timer_created_from(event: wire.TimerCreatedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TimerCreated(**facts, fire_at=instant_of(event.fire_at))


def _timer_fired_from(event: wire.TimerFiredEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.TimerFired(**facts, timer_id=event.timer_id, fire_at=instant_of(event.fire_at))


def _orchestrator_started_from(event: wire.OrchestratorStartedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.OrchestratorStarted(**facts)


def _orchestrator_completed_from(
    event: wire.OrchestratorCompletedEvent, facts: Facts, extra: Extra
) -> model.HistoryEvent:
    return model.OrchestratorCompleted(**facts)


def _event_sent_from(event: wire.EventSentEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    instance_id = InstanceId(event.instance_id)
    return model.EventSent(**facts, instance_id=instance_id, name=event.name or "", input=event.input)


def _event_raised_from(event: wire.EventRaisedEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.EventRaised(
        **facts, name=event.name or "", input=event.input, traceparent=_traceparent(event.parent_trace_context)
    )


def _generic_from(event: wire.GenericEvent, facts: Facts, extra: Extra) -> model.HistoryEvent:
    return model.GenericEvent(**facts, data=event.data, reason=extra.reason, original=extra.original)


_FROM: dict[type[wire.QueueEvent], Callable[[Any, Facts, Extra], model.HistoryEvent]] = {
    wire.ExecutionStartedEvent: _started_from,
    wire.ExecutionCompletedEvent: _completed_from,
    wire.ContinueAsNewEvent: _completed_from,
    wire.ExecutionTerminatedEvent: _terminated_from,
    wire.ExecutionSuspendedEvent: _suspended_from,
    wire.ExecutionResumedEvent: _resumed_from,
    wire.ExecutionRewoundEvent: _rewound_from,
    wire.TaskScheduledEvent: _task_scheduled_from,
    wire.TaskCompletedEvent: _task_completed_from,
    wire.TaskFailedEvent: _task_failed_from,
    wire.SubOrchestrationInstanceCreatedEvent: _child_created_from,
    wire.SubOrchestrationInstanceCompletedEvent: _child_completed_from,
    wire.SubOrchestrationInstanceFailedEvent: _child_failed_from,
    wire.TimerCreatedEvent: _timer_created_from,
    wire.TimerFiredEvent: _timer_fired_from,
    wire.OrchestratorStartedEvent: _orchestrator_started_from,
    wire.OrchestratorCompletedEvent: _orchestrator_completed_from,
    wire.EventSentEvent: _event_sent_from,
    wire.EventRaisedEvent: _event_raised_from,
    wire.GenericEvent: _generic_from,
}

_DISPATCHED = frozenset(
    {
        wire.TaskScheduledEvent,
        wire.TaskCompletedEvent,
        wire.TaskFailedEvent,
        wire.SubOrchestrationInstanceCreatedEvent,
        wire.SubOrchestrationInstanceCompletedEvent,
        wire.SubOrchestrationInstanceFailedEvent,
        wire.TimerCreatedEvent,
        wire.TimerFiredEvent,
    }
)
