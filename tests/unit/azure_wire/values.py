"""Strategies for values of the model: everything that it can express, odd texts and large ones included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from durable_host.model import history as model
from durable_host.model.failure import Failure
from durable_host.model.history import HistoryEvent, ParentInstance
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import TERMINAL, RuntimeStatus

__all__ = ["EVENTS", "INSTANTS", "SHORT", "STATES", "TASKS", "TEXTS", "messages"]

_ODD = st.sampled_from(
    [
        "",
        "null",
        "\x00\x07\b\t\n\f\r\x1f\x7f\x80\x85\x9f",
        "\u2028\u2029\ufeff\ufffe\uffff\U0001f600\U0010ffff",
        "a/b\\c#d?e^f^^0",
        'it\'s "quoted" <&> %2F {}',
        "http://127.0.0.1:10000/devstoreaccount1/hub-largemessages/x",
        "2026-11-21T10:43:17.6071993Z",
    ]
)
# Made when drawn: descriptions of strategies must stay short.
_LARGE = st.sampled_from([("x", 31_000), ("日本語\U0001f600", 9_000), ("\n", 30_000)]).map(
    lambda each: each[0] * each[1]
)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | _ODD | _LARGE
"""Any text without lone surrogates, which the model does not hold."""

SHORT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
"""Texts that are never moved to a blob: ids, names."""

INSTANTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
    lambda instant: datetime(2, 1, 1, tzinfo=UTC) < instant < datetime(9998, 1, 1, tzinfo=UTC)
)
"""Instants of all zones."""

_TEXT = st.none() | TEXTS
_IDS = st.builds(InstanceId, SHORT)
_EXECUTIONS = st.builds(ExecutionId, SHORT)
_MESSAGE_IDS = st.builds(MessageId, SHORT)
_DISPATCH_IDS = st.none() | st.builds(DispatchId, SHORT)
_NUMBERS = st.integers(-(2**31), 2**31 - 1)
_STATUSES = st.sampled_from(RuntimeStatus)
_NAMES = SHORT | st.sampled_from(["$type", "$id", "FireAndForget"])
_TAGS = st.none() | st.dictionaries(_NAMES, TEXTS, max_size=3)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | SHORT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=2),
    max_leaves=4,
)
_FAILURES: st.SearchStrategy[Failure | None] = st.recursive(
    st.none(),
    lambda cause: st.builds(
        Failure,
        type=SHORT,
        message=TEXTS,
        stack=_TEXT,
        cause=cause,
        non_retriable=st.booleans(),
        properties=st.none() | st.dictionaries(_NAMES, _JSON, max_size=2),
    ),
    max_leaves=3,
)
_PARENTS = st.none() | st.builds(
    ParentInstance,
    instance_id=_IDS,
    execution_id=_EXECUTIONS,
    task_id=_NUMBERS,
    name=SHORT,
    version=_TEXT,
    dispatch_id=_DISPATCH_IDS,
)
_COMMON: dict[str, Any] = {
    "timestamp": INSTANTS,
    "event_id": _NUMBERS,
    "message_id": st.none() | _MESSAGE_IDS,
}
_DISPATCHED: dict[str, Any] = {**_COMMON, "dispatch_id": _DISPATCH_IDS}
_FAILED: dict[str, Any] = {
    **_DISPATCHED,
    "task_id": _NUMBERS,
    "reason": _TEXT,
    "details": _TEXT,
    "failure": _FAILURES,
}
_PLAIN: st.SearchStrategy[HistoryEvent] = st.one_of(
    st.builds(
        model.ExecutionStarted,
        **_COMMON,
        instance_id=_IDS,
        execution_id=_EXECUTIONS,
        name=TEXTS,
        version=_TEXT,
        input=_TEXT,
        parent=_PARENTS,
        tags=_TAGS,
        traceparent=_TEXT,
        tracestate=_TEXT,
        scheduled_at=st.none() | INSTANTS,
        generation=st.none() | _NUMBERS,
        replaceable=st.lists(_STATUSES, max_size=2).map(tuple),
        restarted_from=st.none() | _IDS,
        detached=st.booleans(),
        seen=st.lists(_MESSAGE_IDS, max_size=2).map(tuple),
        starts=st.none() | _NUMBERS,
        custom_status=_TEXT,
    ),
    st.builds(model.ExecutionCompleted, **_COMMON, status=_STATUSES, result=_TEXT, failure=_FAILURES),
    st.builds(model.ExecutionTerminated, **_COMMON, reason=_TEXT, recursive=st.booleans()),
    st.builds(model.ExecutionSuspended, **_COMMON, reason=_TEXT),
    st.builds(model.ExecutionResumed, **_COMMON, reason=_TEXT),
    st.builds(model.ExecutionRewound, **_COMMON, reason=_TEXT, parent=_PARENTS, instance_id=st.none() | _IDS),
    st.builds(
        model.TaskScheduled, **_DISPATCHED, name=TEXTS, version=_TEXT, input=_TEXT, tags=_TAGS, traceparent=_TEXT
    ),
    st.builds(model.TaskCompleted, **_DISPATCHED, task_id=_NUMBERS, result=_TEXT),
    st.builds(model.TaskFailed, **_FAILED),
    st.builds(
        model.SubOrchestrationInstanceCreated,
        **_DISPATCHED,
        name=TEXTS,
        instance_id=_IDS,
        version=_TEXT,
        input=_TEXT,
        tags=_TAGS,
        detached=st.booleans(),
    ),
    st.builds(model.SubOrchestrationInstanceCompleted, **_DISPATCHED, task_id=_NUMBERS, result=_TEXT),
    st.builds(model.SubOrchestrationInstanceFailed, **_FAILED),
    st.builds(model.TimerCreated, **_DISPATCHED, fire_at=INSTANTS),
    st.builds(model.TimerFired, **_DISPATCHED, timer_id=_NUMBERS, fire_at=INSTANTS),
    st.builds(model.OrchestratorStarted, **_COMMON),
    st.builds(model.OrchestratorCompleted, **_COMMON),
    st.builds(model.EventSent, **_COMMON, instance_id=_IDS, name=TEXTS, input=_TEXT),
    st.builds(
        model.EventRaised,
        **_COMMON,
        name=TEXTS | st.sampled_from(["op@2026-11-21T10:43:17.6071993Z", "op@never"]),
        input=_TEXT,
        traceparent=_TEXT,
    ),
)


def _rewound(original: HistoryEvent) -> HistoryEvent:
    return model.GenericEvent(
        timestamp=original.timestamp,
        event_id=original.event_id,
        message_id=original.message_id,
        reason=f"Rewound: {model.event_type(original)}",
        original=original,
    )


EVENTS: st.SearchStrategy[HistoryEvent] = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(
        st.builds(
            model.GenericEvent,
            **_COMMON,
            data=_TEXT,
            reason=_TEXT | st.sampled_from(["Rewound: TaskFailed", "Rewound: GenericEvent", "Rewound: nonsense"]),
            original=st.none() | inner,
        ),
        inner.map(_rewound),
    ),
    max_leaves=3,
)
"""Every kind of event, those that a rewind makes included."""

TASKS = st.builds(
    ActivityTask,
    dispatch_id=st.builds(DispatchId, SHORT),
    instance_id=_IDS,
    execution_id=_EXECUTIONS,
    task_id=_NUMBERS,
    name=TEXTS,
    input=_TEXT,
    traceparent=_TEXT,
    tags=_TAGS,
)
"""Activity tasks."""


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Messages with any event."""
    event = draw(EVENTS)
    due = getattr(event, "fire_at", None) or getattr(event, "scheduled_at", None)
    return Message(
        id=draw(_MESSAGE_IDS),
        target=draw(_IDS | st.just(InstanceId("@counter@k"))),
        event=event,
        execution_id=draw(st.none() | _EXECUTIONS),
        visible_at=draw(st.none() | INSTANTS | st.just(due)),
        deliveries=draw(st.integers(0, 20)),
    )


@st.composite
def _states(draw: st.DrawFn) -> InstanceState:
    status = draw(_STATUSES)
    ended = status in TERMINAL
    custom_status = draw(_TEXT)
    return InstanceState(
        instance_id=draw(_IDS),
        execution_id=draw(_EXECUTIONS),
        name=draw(TEXTS),
        status=status,
        created_at=draw(INSTANTS),
        updated_at=draw(INSTANTS),
        version=draw(st.none() | st.builds(HistoryVersion, st.integers(0, 2**40), st.integers(0, 2**40))),
        completed_at=draw(st.none() | INSTANTS) if ended else None,
        scheduled_at=draw(st.none() | INSTANTS),
        input=draw(_TEXT),
        output=draw(_TEXT) if ended else None,
        custom_status=None if custom_status == "null" else custom_status,  # which is how "none" is stored
        failure=draw(_FAILURES),
        suspended_reason=draw(_TEXT),
        orchestrator_version=draw(_TEXT),
        tags=draw(_TAGS),
        parent=draw(_PARENTS),
        restarted_from=draw(st.none() | _IDS),
        starts=draw(st.none() | _NUMBERS),
        traceparent=draw(_TEXT),
        quarantined=(draw(SHORT) or None) if status is RuntimeStatus.FAILED else None,
    )


STATES = _states()
"""Projections as `get_instance` may show them."""
