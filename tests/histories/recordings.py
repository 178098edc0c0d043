"""Recorded histories as events of the model."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from durable_host.model.failure import Failure
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
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.status import RuntimeStatus

__all__ = ["Recording", "load", "recordings"]

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Recording:
    """One instance of a recorded hub."""

    hub: str
    instance_id: InstanceId
    events: Sequence[HistoryEvent]
    status: str | None
    output: str | None
    custom_status: str | None

    @property
    def start(self) -> ExecutionStarted:
        return next(event for event in self.events if isinstance(event, ExecutionStarted))

    def __str__(self) -> str:
        return f"{self.hub}-{self.instance_id}"


def recordings() -> Sequence[Recording]:
    """All instances of all hubs."""
    return [each for file in sorted(FOLDER.glob("*.json")) for each in load(file)]


@cache
def load(file: Path) -> Sequence[Recording]:
    """The instances of one hub."""
    hub: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found: list[Recording] = []
    for instance in hub["instances"].values():
        events = [_event(row, hub["blobs"]) for row in instance["events"]]
        start = next(event for event in events if isinstance(event, ExecutionStarted))
        found.append(
            Recording(
                file.stem,
                start.instance_id,
                events,
                instance.get("status"),
                instance.get("output"),
                _or_none(instance.get("custom_status")),
            )
        )
    return found


def _event(row: dict[str, Any], blobs: dict[str, str]) -> HistoryEvent:
    facts: dict[str, Any] = {"timestamp": _moment(row["_Timestamp"]), "event_id": row["EventId"]}
    text = _large(row, "Input", blobs)
    result = _large(row, "Result", blobs)
    match row["EventType"]:
        case "ExecutionStarted":
            instance = json.loads(row["OrchestrationInstance"])
            return ExecutionStarted(
                **facts,
                instance_id=InstanceId(instance["InstanceId"]),
                execution_id=ExecutionId(instance["ExecutionId"]),
                name=row["Name"],
                input=text,
                parent=_parent(row.get("ParentInstance")),
                tags=json.loads(row.get("Tags") or "null"),
            )
        case "ExecutionCompleted":
            status = RuntimeStatus(row["OrchestrationStatus"])
            return ExecutionCompleted(**facts, status=status, result=result, failure=_failure(row))
        case "ExecutionTerminated":
            return ExecutionTerminated(**facts, reason=text)
        case "ExecutionSuspended":
            return ExecutionSuspended(**facts, reason=row.get("Reason"))
        case "ExecutionResumed":
            return ExecutionResumed(**facts, reason=row.get("Reason"))
        case "TaskScheduled":
            return TaskScheduled(**facts, name=row["Name"], input=text)
        case "TaskCompleted":
            return TaskCompleted(**facts, task_id=row["TaskScheduledId"], result=result)
        case "TaskFailed":
            return TaskFailed(
                **facts,
                task_id=row["TaskScheduledId"],
                reason=row.get("Reason"),
                details=row.get("Details"),
                failure=_failure(row),
            )
        case "SubOrchestrationInstanceCreated":
            tags = json.loads(row.get("Tags") or "{}")
            return SubOrchestrationInstanceCreated(
                **facts,
                name=row["Name"],
                instance_id=InstanceId(row["InstanceId"]),
                input=text,
                detached="FireAndForget" in tags,
            )
        case "SubOrchestrationInstanceCompleted":
            return SubOrchestrationInstanceCompleted(**facts, task_id=row["TaskScheduledId"], result=result)
        case "SubOrchestrationInstanceFailed":
            return SubOrchestrationInstanceFailed(
                **facts,
                task_id=row["TaskScheduledId"],
                reason=row.get("Reason"),
                details=row.get("Details"),
                failure=_failure(row),
            )
        case "TimerCreated":
            return TimerCreated(**facts, fire_at=_moment(row["FireAt"]))
        case "TimerFired":
            return TimerFired(**facts, timer_id=row["TimerId"], fire_at=_moment(row["FireAt"]))
        case "OrchestratorStarted":
            return OrchestratorStarted(**facts)
        case "OrchestratorCompleted":
            return OrchestratorCompleted(**facts)
        case "EventSent":
            return EventSent(**facts, instance_id=InstanceId(row["InstanceId"]), name=row["Name"], input=text)
        case "EventRaised":
            return EventRaised(**facts, name=row["Name"], input=text)
        case "GenericEvent":
            return GenericEvent(**facts, data=row.get("Data"), reason=row.get("Reason"))
        case other:
            raise AssertionError(f"unknown event type {other}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)  # the seventh digit is cut off


def _or_none(text: str | None) -> str | None:
    return None if text == "null" else text


def _large(row: dict[str, Any], column: str, blobs: dict[str, str]) -> str | None:
    name = row.get(f"{column}BlobName")
    if name is None:
        return row.get(column)
    return gzip.decompress(base64.b64decode(blobs[name])).decode()


def _parent(text: str | None) -> ParentInstance | None:
    if text is None:
        return None
    parent = json.loads(text)
    instance = parent["OrchestrationInstance"]
    return ParentInstance(
        InstanceId(instance["InstanceId"]),
        ExecutionId(instance["ExecutionId"]),
        parent["TaskScheduleId"],
        parent["Name"],
    )


def _failure(row: dict[str, Any]) -> Failure | None:
    return _described(json.loads(row.get("FailureDetails") or "null"))


def _described(details: dict[str, Any] | None) -> Failure | None:
    if details is None:
        return None
    return Failure(
        details["ErrorType"],
        details["ErrorMessage"],
        details.get("StackTrace"),
        _described(details.get("InnerFailure")),
        bool(details.get("IsNonRetriable")),
    )
