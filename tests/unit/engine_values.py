"""Short ways to write histories and messages in tests of the pure core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durable_host.model.history import (
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    ParentInstance,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ID = InstanceId("order-1")
EXECUTION = ExecutionId("e" * 32)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def started(
    execution: str = EXECUTION,
    *,
    replaceable: tuple[RuntimeStatus, ...] = (),
    parent: ParentInstance | None = None,
    detached: bool = False,
    message_id: str | None = None,
    generation: int | None = 0,
) -> ExecutionStarted:
    return ExecutionStarted(
        timestamp=T0,
        instance_id=ID,
        execution_id=ExecutionId(execution),
        name="Chain",
        replaceable=replaceable,
        parent=parent,
        detached=detached,
        generation=generation,
        message_id=MessageId(message_id) if message_id else None,
    )


def scheduled(id: int, dispatch: str | None = None, name: str = "Hello") -> TaskScheduled:
    identity = DispatchId(dispatch if dispatch is not None else f"d{id}")
    return TaskScheduled(timestamp=at(1), event_id=id, name=name, dispatch_id=identity)


def completed(id: int, dispatch: str | None = None, result: str = '"ok"') -> TaskCompleted:
    identity = DispatchId(dispatch if dispatch is not None else f"d{id}")
    return TaskCompleted(timestamp=at(2), task_id=id, result=result, dispatch_id=identity)


def failed(id: int, dispatch: str | None = None) -> TaskFailed:
    identity = DispatchId(dispatch if dispatch is not None else f"d{id}")
    return TaskFailed(timestamp=at(2), task_id=id, reason="boom", dispatch_id=identity)


def raised(name: str, data: str | None = None) -> EventRaised:
    return EventRaised(timestamp=at(2), name=name, input=data)


def ended(
    status: RuntimeStatus = RuntimeStatus.COMPLETED, id: int = 9, result: str | None = None
) -> ExecutionCompleted:
    return ExecutionCompleted(timestamp=at(3), event_id=id, status=status, result=result)


def episode(*events: HistoryEvent, second: float = 0) -> list[HistoryEvent]:
    return [OrchestratorStarted(timestamp=at(second)), *events, OrchestratorCompleted(timestamp=at(second))]


def message(event: HistoryEvent, id: str = "m", *, execution: str | None = EXECUTION, deliveries: int = 1) -> Message:
    if isinstance(event, ExecutionStarted):
        execution = event.execution_id
    return Message(
        id=MessageId(id),
        target=ID,
        event=event,
        execution_id=ExecutionId(execution) if execution is not None else None,
        deliveries=deliveries,
    )
