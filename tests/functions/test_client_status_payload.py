"""The status object and the shape of histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from durable_host.functions.status_payload import embedded, history_payload, plain, status_payload
from durable_host.model.history import (
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import InstanceState
from durable_host.model.status import RuntimeStatus

AT = datetime(2025, 3, 1, 12, 0, 0, 100_000, UTC)
STATE = InstanceState(
    InstanceId("abc"),
    ExecutionId("e" * 32),
    "Chain",
    RuntimeStatus.COMPLETED,
    AT,
    AT + timedelta(seconds=2),
    input='{"city": "Tokyo", "n": 1.0}',
    output='["Hello Tokyo!"]',
)
EVENTS: list[HistoryEvent] = [
    OrchestratorStarted(timestamp=AT),
    ExecutionStarted(
        timestamp=AT,
        instance_id=STATE.instance_id,
        execution_id=STATE.execution_id,
        name="Chain",
        input="5",
        generation=0,
    ),
    TaskScheduled(timestamp=AT, event_id=0, name="Hello"),
    TaskScheduled(timestamp=AT, event_id=1, name="Gate"),
    OrchestratorCompleted(timestamp=AT),
    TaskCompleted(timestamp=AT + timedelta(seconds=1), task_id=0, result='{"a": 1}'),
]


def test_status_has_the_recorded_members_in_order() -> None:
    assert msgspec.json.encode(status_payload(STATE)).decode() == (
        '{"name":"Chain","instanceId":"abc","runtimeStatus":"Completed","input":{"city":"Tokyo","n":1.0},'
        '"customStatus":null,"output":["Hello Tokyo!"],"createdTime":"2025-03-01T12:00:00Z",'
        '"lastUpdatedTime":"2025-03-01T12:00:02Z"}'
    )


def test_version_stands_after_the_name_when_there_is_one() -> None:
    payload = status_payload(msgspec.structs.replace(STATE, orchestrator_version="2"))

    assert list(payload)[:3] == ["name", "version", "instanceId"]


def test_suspended_instance_shows_the_reason_as_output() -> None:
    state = msgspec.structs.replace(STATE, status=RuntimeStatus.SUSPENDED, suspended_reason="hold on", output=None)

    assert status_payload(state, embed=plain)["output"] == "hold on"


def test_input_can_be_hidden() -> None:
    assert status_payload(STATE, show_input=False)["input"] is None


def test_pending_instance_shows_no_history() -> None:
    state = msgspec.structs.replace(STATE, status=RuntimeStatus.PENDING)

    assert "historyEvents" not in status_payload(state, history=EVENTS)


def test_answer_absorbs_its_call_and_an_open_call_stays() -> None:
    shown = history_payload(EVENTS, show_history_output=True, embed=plain)

    assert [event["EventType"] for event in shown] == ["ExecutionStarted", "TaskScheduled", "TaskCompleted"]
    assert shown[1] == {
        "EventType": "TaskScheduled",
        "Name": "Gate",
        "Input": None,
        "ParentTraceContext": None,
        "Tags": None,
        "Timestamp": "2025-03-01T12:00:00.1Z",
    }
    assert list(shown[2].items()) == [
        ("EventType", "TaskCompleted"),
        ("Result", {"a": 1}),
        ("Timestamp", "2025-03-01T12:00:01.1Z"),
        ("ScheduledTime", "2025-03-01T12:00:00.1+00:00"),
        ("FunctionName", "Hello"),
        ("Input", None),
    ]


def test_results_and_inputs_show_only_when_asked_for() -> None:
    shown = history_payload(EVENTS, show_input=False)

    assert all("Result" not in event and "Input" not in event for event in shown)


def test_failed_task_and_child_have_their_members_in_order() -> None:
    events: list[HistoryEvent] = [
        TaskScheduled(timestamp=AT, event_id=0, name="a"),
        TaskFailed(timestamp=AT, task_id=0, reason="r", details="d"),
        SubOrchestrationInstanceCreated(timestamp=AT, event_id=1, name="c", instance_id=InstanceId("x:1")),
        EventRaised(timestamp=AT, name="go", input="1"),
        ExecutionCompleted(timestamp=AT, status=RuntimeStatus.FAILED, result="no json"),
    ]

    shown = history_payload(events, show_history_output=True, embed=plain)

    assert list(shown[0]) == [
        "EventType",
        "Reason",
        "Details",
        "FailureDetails",
        "Timestamp",
        "ScheduledTime",
        "FunctionName",
        "Input",
    ]
    assert shown[1]["InstanceId"] == "x:1"
    assert list(shown[2]) == ["EventType", "Name", "Input", "ParentTraceContext", "Timestamp"]
    assert shown[3]["Result"] == "no json"


def test_text_that_is_no_json_is_embedded_as_a_string() -> None:
    assert msgspec.json.encode([embedded("it's no JSON"), embedded(" [1, 12345678901234567890] "), embedded(None)]) == (
        b'["it\'s no JSON",[1,12345678901234567890],null]'
    )
