"""The status of an instance as the HTTP API and the client show it: one object, and the shape of its history.

Members, their order and the forms of dates are those recorded from the reference (http-api.md sections 2, 5 and 5.1).
The same shaping serves two readers: HTTP embeds stored JSON as it stands (`embedded`), the Python client wants values
(`plain`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

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
from durable_host.model.status import RuntimeStatus

__all__ = [
    "embedded",
    "history_payload",
    "history_time",
    "plain",
    "status_payload",
    "status_time",
    "visible_output",
]

_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|u([0-9a-f]{4})|.)", re.IGNORECASE | re.DOTALL)

Embed = Callable[[str | None], object]

_Call = TaskScheduled | SubOrchestrationInstanceCreated
_ANSWERS = (TaskCompleted, TaskFailed, SubOrchestrationInstanceCompleted, SubOrchestrationInstanceFailed)


def embedded(text: str | None) -> object:
    """A stored text as a JSON value inside another document, for msgspec's encoder.

    Number forms and the order of members stay as stored, blanks between tokens go. What is no JSON becomes a string.
    """
    if text is None:
        return None
    try:
        compact = msgspec.json.format(text, indent=-1)
        return msgspec.Raw((_ESCAPE.sub(_unescaped, compact) if "\\u" in compact else compact).encode())
    except msgspec.DecodeError:
        return text
    except UnicodeEncodeError:  # half of a surrogate pair: no UTF-8 document can hold it
        return text.encode("utf-8", "replace").decode()


def _unescaped(found: re.Match[str]) -> str:
    digits = found[3] or (found[1] and found[1] + found[2])  # one escape, or a pair for one character
    if not digits:
        return found[0]
    character = bytes.fromhex(digits).decode("utf-16-be", "replace")
    return character if character > "\x7f" else found[0]


def plain(text: str | None) -> object:
    """A stored text as a Python value; what is no JSON stays text."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def status_time(at: datetime) -> str:
    """`2025-03-01T12:00:00Z`: UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def history_time(at: datetime, suffix: str = "Z") -> str:
    """`2025-03-01T12:00:01.42Z`: UTC, fraction without zeros at its end."""
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{at.microsecond:06d}".rstrip("0")
    return f"{text}.{fraction}{suffix}" if fraction else f"{text}{suffix}"


def status_payload(
    state: InstanceState,
    *,
    show_input: bool = True,
    history: Sequence[HistoryEvent] | None = None,
    show_history_output: bool = False,
    embed: Embed = embedded,
) -> dict[str, object]:
    """The status object.

    Args:
        history: events of the present execution when they were asked for; None: no `historyEvents`. A Pending
            instance shows none in any case.
        embed: what to make of stored texts.
    """
    payload: dict[str, object] = {"name": state.name}
    if state.orchestrator_version is not None:
        payload["version"] = state.orchestrator_version
    payload["instanceId"] = state.instance_id
    payload["runtimeStatus"] = state.status.value
    payload["input"] = embed(state.input) if show_input else None
    payload["customStatus"] = embed(state.custom_status)
    payload["output"] = embed(visible_output(state))
    payload["createdTime"] = status_time(state.created_at)
    payload["lastUpdatedTime"] = status_time(state.updated_at)
    if history is not None and state.status is not RuntimeStatus.PENDING:
        payload["historyEvents"] = history_payload(
            history, show_input=show_input, show_history_output=show_history_output, embed=embed
        )
    return payload


def visible_output(state: InstanceState) -> str | None:
    """The text that a status shows as output: a suspended instance shows the reason, a quarantined one why."""
    if state.status is RuntimeStatus.SUSPENDED:
        return state.suspended_reason
    if state.output is None and state.quarantined is not None:
        return state.quarantined
    return state.output


def history_payload(
    events: Iterable[HistoryEvent],
    *,
    show_input: bool = True,
    show_history_output: bool = False,
    embed: Embed = embedded,
) -> list[dict[str, object]]:
    """The history as status queries show it: calls folded into their answers, episodes left out."""
    events = list(events)
    answered = {event.task_id for event in events if isinstance(event, _ANSWERS)}
    calls: dict[int, _Call] = {}
    shown: list[dict[str, object]] = []
    for event in events:
        if isinstance(event, TaskScheduled | SubOrchestrationInstanceCreated):
            calls[event.event_id] = event
            if event.event_id in answered:
                continue
        members = _members(event, calls, embed)
        if members is None:
            continue
        if not show_input:
            members.pop("Input", None)
        if not show_history_output:
            members.pop("Result", None)
        shown.append(members)
    return shown


def _members(event: HistoryEvent, calls: dict[int, _Call], embed: Embed) -> dict[str, object] | None:
    kind, at = event_type(event), history_time(event.timestamp)
    match event:
        case ExecutionStarted():
            scheduled = event.scheduled_at
            return {
                "EventType": kind,
                "Input": event.input,
                "Correlation": None,
                "ParentTraceContext": None,
                "ScheduledStartTime": None if scheduled is None else history_time(scheduled),
                "Generation": event.generation,
                "GenerateNewTrace": False,
                "Timestamp": at,
                "FunctionName": event.name,
            }
        case TaskScheduled() | SubOrchestrationInstanceCreated():
            members: dict[str, object] = {"EventType": kind, "Name": event.name}
            if isinstance(event, SubOrchestrationInstanceCreated):
                members["InstanceId"] = event.instance_id
            return members | {
                "Input": event.input,
                "ParentTraceContext": None,
                "Tags": event.tags,
                "Timestamp": at,
            }
        case TaskCompleted() | SubOrchestrationInstanceCompleted():
            result = embed(event.result)
            return {"EventType": kind, "Result": result, "Timestamp": at} | _call(calls.get(event.task_id))
        case TaskFailed() | SubOrchestrationInstanceFailed():
            failure = {"Reason": event.reason, "Details": event.details, "FailureDetails": None}
            return {"EventType": kind, **failure, "Timestamp": at} | _call(calls.get(event.task_id))
        case TimerCreated() | TimerFired():
            return {"EventType": kind, "FireAt": history_time(event.fire_at), "Timestamp": at}
        case EventRaised():
            return {
                "EventType": kind,
                "Name": event.name,
                "Input": event.input,
                "ParentTraceContext": None,
                "Timestamp": at,
            }
        case EventSent():
            target = {"InstanceId": event.instance_id, "Name": event.name, "Input": event.input}
            return {"EventType": kind, **target, "Timestamp": at}
        case ExecutionSuspended() | ExecutionResumed():
            return {"EventType": kind, "Reason": event.reason, "Timestamp": at}
        case ExecutionTerminated():
            return {"EventType": kind, "Input": event.reason, "Timestamp": at}
        case GenericEvent():
            return {"Data": event.data, "EventType": kind, "Timestamp": at}
        case ExecutionCompleted():
            return {
                "EventType": kind,
                "OrchestrationStatus": event.status.value,
                "Result": embed(event.result),
                "FailureDetails": None,
                "Timestamp": at,
            }
        case _:  # the frame of an episode, and rewinds, which never stand in a history
            return None


def _call(call: _Call | None) -> dict[str, object]:
    if call is None:  # a hub taken over may lack the event that asked
        return {"ScheduledTime": None, "FunctionName": None, "Input": None}
    members: dict[str, object] = {
        "ScheduledTime": history_time(call.timestamp, "+00:00"),
        "FunctionName": call.name,
    }
    if isinstance(call, SubOrchestrationInstanceCreated):
        members["InstanceId"] = call.instance_id
    return members | {"Input": call.input}
