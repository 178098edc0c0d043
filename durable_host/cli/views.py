"""Instances and histories as people and programs read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from durable_host.cli.console import clean, shortened
from durable_host.functions.status_payload import status_payload
from durable_host.model.failure import Failure
from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    event_type,
)
from durable_host.model.instance import InstanceState
from durable_host.storage.contract import HubStatistics

__all__ = ["history_json", "history_rows", "instance_json", "instance_lines", "moment", "statistics_json"]


def moment(at: datetime | None) -> str:
    """`2026-01-31 12:00:00Z`, or nothing."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def instance_json(state: InstanceState) -> dict[str, object]:
    """The status object of the HTTP API, and what it does not tell."""
    shown = status_payload(state)
    shown["executionId"] = state.execution_id
    if state.completed_at is not None:
        shown["completedTime"] = state.completed_at.astimezone(UTC).isoformat()
    if state.scheduled_at is not None:
        shown["scheduledTime"] = state.scheduled_at.astimezone(UTC).isoformat()
    if state.parent is not None:
        shown["parentInstanceId"] = state.parent.instance_id
    if state.restarted_from is not None:
        shown["restartedFrom"] = state.restarted_from
    if state.tags:
        shown["tags"] = state.tags
    if state.failure is not None:
        shown["failure"] = msgspec.to_builtins(state.failure)
    if state.quarantined is not None:
        shown["quarantined"] = state.quarantined
    return shown


def instance_lines(state: InstanceState) -> list[str]:
    """One fact a line, empty ones left out."""
    facts: list[tuple[str, str | None]] = [
        ("id", state.instance_id),
        ("name", state.name),
        ("version", state.orchestrator_version),
        ("status", state.status.value),
        ("reason", state.suspended_reason),
        ("quarantined", state.quarantined),
        ("created", moment(state.created_at)),
        ("scheduled", moment(state.scheduled_at)),
        ("updated", moment(state.updated_at)),
        ("completed", moment(state.completed_at)),
        ("execution", state.execution_id),
        ("parent", None if state.parent is None else state.parent.instance_id),
        ("restarted from", state.restarted_from),
        ("tags", ", ".join(f"{key}={value}" for key, value in sorted((state.tags or {}).items()))),
        ("input", state.input),
        ("custom status", state.custom_status),
        ("output", state.output),
    ]
    width = max(len(name) for name, value in facts if value)
    lines = [f"{name.ljust(width)}  {_indented(value, width + 2)}" for name, value in facts if value]
    if state.failure is not None:
        lines += ["", *_failure_lines(state.failure)]
    return lines


def _indented(value: str, indent: int) -> str:
    """A text of several lines, none of which can be taken for one of ours."""
    return ("\n" + " " * indent).join(clean(line.rstrip()) for line in value.rstrip().splitlines())


def _failure_lines(failure: Failure) -> list[str]:
    lines: list[str] = []
    for depth, each in enumerate(failure.chain()):
        lines.append(("caused by " if depth else "failed with ") + _indented(f"{each.type}: {each.message}", 4))
        lines += [f"    {clean(line)}" for line in (each.stack or "").rstrip().splitlines()]
    return lines


def history_json(events: Sequence[HistoryEvent]) -> list[object]:
    """Events as they are stored, so that `durable_host.testing.replaying.load_history` reads them again."""
    return [msgspec.to_builtins(event) for event in events]


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(each.capitalize() for each in tail)


def statistics_json(statistics: HubStatistics) -> dict[str, object]:
    """Depths and ages, names as in the HTTP API."""
    shown: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(statistics).items():
        shown[_camel(name)] = value
    shown["handedBack"] = [
        {_camel(name): value for name, value in msgspec.structs.asdict(each).items()} for each in statistics.handed_back
    ]
    return shown


def history_rows(events: Sequence[HistoryEvent]) -> list[list[str]]:
    """Rows for a table: position, time, event, the id of the call, what it is about."""
    rows: list[list[str]] = []
    for at, event in enumerate(events):
        stamp = (
            event.timestamp.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.")
            + f"{event.timestamp.microsecond // 1000:03d}"
        )
        number, about = _about(event)
        rows.append([str(at), stamp, event_type(event), "" if number is None else str(number), shortened(about, 100)])
    return rows


def _about(event: HistoryEvent) -> tuple[int | None, str | None]:
    match event:
        case ExecutionStarted():
            return None, f"{event.name}({event.input or ''})"
        case ExecutionCompleted():
            return None, f"{event.status.value}: {event.result or ''}"
        case TaskScheduled():
            return event.event_id, f"{event.name}({event.input or ''})"
        case SubOrchestrationInstanceCreated():
            return event.event_id, f"{event.name} as {event.instance_id}"
        case TaskCompleted() | SubOrchestrationInstanceCompleted():
            return event.task_id, event.result
        case TaskFailed() | SubOrchestrationInstanceFailed():
            return event.task_id, event.reason
        case TimerCreated():
            return event.event_id, f"until {moment(event.fire_at)}"
        case TimerFired():
            return event.timer_id, None
        case EventRaised():
            return None, f"{event.name}({event.input or ''})"
        case EventSent():
            return event.event_id, f"{event.name} to {event.instance_id}"
        case ExecutionTerminated() | ExecutionSuspended() | ExecutionResumed() | ExecutionRewound():
            return None, event.reason
        case _:
            return None, None
