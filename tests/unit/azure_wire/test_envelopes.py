"""What a queue's text may be: in which forms a message is accepted, and what is said of the others."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from durable_host.model.history import (
    EventRaised,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    HistoryEvent,
    ParentInstance,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host_providers.azure_storage.wire.envelopes import Sender, read_envelope
from durable_host_providers.azure_storage.wire.errors import NotAnEnvelopeError, UnknownKindError, WireError
from durable_host_providers.azure_storage.wire.extra import is_made_up
from durable_host_providers.azure_storage.wire.messages import (
    CLIENT,
    Stamp,
    due_at,
    message_of,
    pack_message,
    pack_task,
    read_blob,
    task_of,
    visibility_s,
)
from durable_host_providers.azure_storage.wire.payloads import MAX_MESSAGE_BYTES, compress
from tests.azure_recordings import HUB, recorded_hub

NOW = datetime(2026, 11, 21, 10, 43, 2, 958_675, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"
WORKER = Stamp(ID, 2, Sender("order-1", "0b9c"), 1)


def _text(event: HistoryEvent, stamp: Stamp = WORKER, **more: Any) -> str:
    message = Message(MessageId("m"), InstanceId("a"), event, **more)
    return pack_message(message, stamp).text


def _event(text: str) -> HistoryEvent:
    return message_of(read_envelope(text), queue_id="q", deliveries=1).event


def _recorded(kind: str) -> dict[str, Any]:
    """The recorded message with this event."""
    for messages in recorded_hub("table").queues.values():
        for message in messages:
            parsed: dict[str, Any] = json.loads(message.text)
            if parsed["TaskMessage"] and parsed["TaskMessage"]["Event"]["$type"].endswith(f".{kind}Event"):
                return parsed
    raise AssertionError(kind)


# What is written.


def test_a_clients_message_has_no_episode_and_an_empty_sender() -> None:
    text = _text(EventRaised(timestamp=NOW, name="Approval", input='{"by":"queue"}'), Stamp(ID, 6))

    assert text == (
        '{"$type":"DurableTask.AzureStorage.MessageData","ActivityId":"01234567-89ab-cdef-0123-456789abcdef",'
        '"TaskMessage":{"$type":"DurableTask.Core.TaskMessage","Event":{"$type":'
        '"DurableTask.Core.History.EventRaisedEvent","EventType":15,"Name":"Approval","Input":"{\\"by\\":\\"queue\\"}",'
        '"ParentTraceContext":null,"EventId":-1,"IsPlayed":false,"Timestamp":"2026-11-21T10:43:02.958675Z"},'
        '"SequenceNumber":0,"OrchestrationInstance":{"$type":"DurableTask.Core.OrchestrationInstance",'
        '"InstanceId":"a","ExecutionId":null},"OrchestrationExecutionContext":null},"CompressedBlobName":null,'
        '"SequenceNumber":6,"Sender":{"InstanceId":"","ExecutionId":""},"SerializableTraceContext":null,'
        '"MessageId":"m"}'
    )


def test_the_start_of_a_child_names_its_parent_with_types_and_carries_the_tags_of_its_caller() -> None:
    parent = ParentInstance(InstanceId("p"), ExecutionId("e"), 0, "P", "", DispatchId("d"))
    event = ExecutionStarted(
        timestamp=NOW,
        instance_id=InstanceId("c"),
        execution_id=ExecutionId("x"),
        name="C",
        parent=parent,
        tags={"k": "v"},
        detached=True,
        traceparent="00-a-b-01",
    )

    message = json.loads(_text(event, Stamp(ID, 2, Sender("p", "e"), 1, {"team": "red"})))["TaskMessage"]

    dictionary = (
        "System.Collections.Generic.Dictionary`2"
        "[[System.String, System.Private.CoreLib],[System.String, System.Private.CoreLib]]"
    )
    assert message["Event"]["ParentInstance"] == {
        "$type": "DurableTask.Core.ParentInstance",
        "Name": "P",
        "OrchestrationInstance": {
            "$type": "DurableTask.Core.OrchestrationInstance",
            "InstanceId": "p",
            "ExecutionId": "e",
        },
        "TaskScheduleId": 0,
        "Version": "",
        "DispatchId": "d",
    }
    assert message["Event"]["Tags"] == {"$type": dictionary, "k": "v", "FireAndForget": ""}
    assert message["Event"]["ParentTraceContext"] == {
        "$type": "DurableTask.Core.Tracing.DistributedTraceContext",
        "TraceParent": "00-a-b-01",
        "TraceState": None,
        "Id": None,
        "SpanId": None,
        "ActivityStartTime": None,
    }
    assert message["OrchestrationExecutionContext"] == {
        "$type": "DurableTask.Core.OrchestrationExecutionContext",
        "OrchestrationTags": {"$type": dictionary, "team": "red"},
    }


def test_a_request_to_rewind_a_child_says_who_asks() -> None:
    parent = ParentInstance(InstanceId("p"), ExecutionId("e"), 3, "P")
    event = ExecutionRewound(timestamp=NOW, reason="again", parent=parent, instance_id=InstanceId("p"))

    text = _text(event)

    written = json.loads(text)["TaskMessage"]["Event"]
    assert (written["EventType"], written["ParentExecutionId"], written["InstanceId"]) == (21, "e", "p")
    assert _event(text) == event


def test_tags_that_dotnet_would_take_for_metadata_do_not_reach_it() -> None:
    event = TaskScheduled(timestamp=NOW, name="A", tags={"$type": "x", "$ref": "y", "k": "v"})

    text = _text(event)

    assert sorted(json.loads(text)["TaskMessage"]["Event"]["Tags"]) == ["$type", "k"]
    assert json.loads(text)["TaskMessage"]["Event"]["Tags"]["$type"].startswith("System.Collections")
    assert _event(text) == event


@pytest.mark.parametrize("detached", [True, False])
def test_a_users_tag_does_not_make_a_start_a_detached_one(detached: bool) -> None:
    event = ExecutionStarted(
        timestamp=NOW,
        instance_id=InstanceId("a"),
        execution_id=ExecutionId("e"),
        name="N",
        tags={"FireAndForget": "please"},
        detached=detached,
    )

    text = _text(event)

    assert ("FireAndForget" in json.loads(text)["TaskMessage"]["Event"]["Tags"]) == detached
    assert _event(text) == event


def test_a_message_is_large_from_one_byte_over_the_limit() -> None:
    empty = len(_text(EventRaised(timestamp=NOW, name="e", input="")))
    fits = EventRaised(timestamp=NOW, name="e", input="x" * (MAX_MESSAGE_BYTES - empty))
    over = EventRaised(timestamp=NOW, name="e", input="x" * (MAX_MESSAGE_BYTES - empty + 1))

    assert len(_text(fits)) == MAX_MESSAGE_BYTES
    packed = pack_message(Message(MessageId("m"), InstanceId("a/ü"), over), WORKER)

    assert packed.blob_name == f"a/ü/message-{ID}-EventRaised.json.gz"
    assert packed.blob is not None
    assert message_of(read_blob(packed.blob), queue_id="q", deliveries=1).event == over
    assert json.loads(packed.text) == {
        "$type": "DurableTask.AzureStorage.MessageData",
        "ActivityId": "00000000-0000-0000-0000-000000000000",
        "TaskMessage": None,
        "CompressedBlobName": packed.blob_name,
        "SequenceNumber": 0,
        "Sender": None,
        "SerializableTraceContext": None,
    }


def test_the_same_message_gives_the_same_blob() -> None:
    message = Message(MessageId("m"), InstanceId("a"), EventRaised(timestamp=NOW, name="e", input="x" * 50_000))

    assert pack_message(message, WORKER) == pack_message(message, WORKER)


# What other writers may send.


@pytest.mark.parametrize("member", ["Episode", "Sender", "SerializableTraceContext", "CompressedBlobName"])
def test_members_that_older_writers_lack_may_be_missing(member: str) -> None:
    parsed = _recorded("TaskScheduled")
    del parsed[member]
    del parsed["TaskMessage"]["OrchestrationExecutionContext"]
    del parsed["TaskMessage"]["Event"]["Tags"]

    task = task_of(read_envelope(json.dumps(parsed)), queue_id="q")

    assert (task.instance_id, task.tags) == (
        parsed["TaskMessage"]["OrchestrationInstance"]["InstanceId"],
        None,
    )


def test_members_that_nobody_knows_are_passed_over() -> None:
    parsed = _recorded("EventRaised")
    parsed["New"] = {"$type": "Some.Type", "a": [1, {"b": None}]}
    parsed["TaskMessage"]["Event"]["Newer"] = "x"
    parsed["SerializableTraceContext"] = {"$id": "1"}

    assert isinstance(_event(json.dumps(parsed)), EventRaised)


def test_type_names_may_name_an_assembly_and_stand_anywhere() -> None:
    parsed = _recorded("ExecutionStarted")
    before = _event(json.dumps(parsed))

    def old(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        members = cast("dict[str, Any]", value)
        found = {name: old(member) for name, member in members.items() if name != "$type"}
        if "$type" in members:
            found["$type"] = f"{members['$type']}, DurableTask.Core"
        return found

    assert _event(json.dumps(old(parsed))) == before


def test_the_data_contract_serializers_form_is_read() -> None:
    text = json.dumps(
        {
            "$type": "DurableTask.AzureStorage.MessageData",
            "ActivityId": "01234567-89ab-cdef-0123-456789abcdef",
            "TaskMessage": {
                "__type": "TaskMessage:#DurableTask.Core",
                "Event": {
                    "__type": "TimerFiredEvent:#DurableTask.Core.History",
                    "EventId": -1,
                    "EventType": 11,
                    "FireAt": "/Date(1795257782958)/",
                    "IsPlayed": False,
                    "TimerId": 4,
                    "Timestamp": "/Date(1795257782958+0100)/",
                },
                "OrchestrationInstance": {"ExecutionId": "e", "InstanceId": "a"},
                "SequenceNumber": 0,
            },
            "CompressedBlobName": None,
            "SequenceNumber": 1,
        }
    )

    at = datetime(2026, 11, 21, 10, 43, 2, 958_000, tzinfo=UTC)
    assert _event(text) == TimerFired(timestamp=at, timer_id=4, fire_at=at)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-21T10:43:02Z", NOW.replace(microsecond=0)),
        ("2026-11-21T10:43:02.9586757Z", NOW),
        ("2026-11-21T10:43:02.9586757", NOW),
        ("2026-11-21T10:43:02.95Z", NOW.replace(microsecond=950_000)),
        ("2026-11-21T11:43:02.9586757+01:00", NOW),
        ("0001-01-01T00:00:00", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_all_forms_are_read(written: str, read: datetime) -> None:
    parsed = _recorded("EventRaised")
    parsed["TaskMessage"]["Event"]["Timestamp"] = written

    assert _event(json.dumps(parsed)).timestamp == read


def test_a_message_of_another_writer_is_known_by_its_id_in_the_queue() -> None:
    message = message_of(read_envelope(json.dumps(_recorded("EventRaised"))), queue_id="q-7", deliveries=3)

    assert (message.id, message.deliveries) == ("q-7", 3)


def test_a_request_without_a_dispatch_id_gets_one_that_its_reply_does_not_tell() -> None:
    one = task_of(read_envelope(json.dumps(_recorded("TaskScheduled"))), queue_id="q-1")
    other = task_of(read_envelope(json.dumps(_recorded("TaskScheduled"))), queue_id="q-2")
    reply = TaskCompleted(timestamp=NOW, task_id=one.task_id, dispatch_id=one.dispatch_id)

    assert one.dispatch_id != other.dispatch_id
    assert is_made_up(one.dispatch_id)
    assert "DispatchId" not in json.loads(_text(reply))
    assert "DispatchId" not in json.loads(pack_task(one, WORKER, at=NOW).text)


def test_messages_of_entities_pass_through_unharmed() -> None:
    (envelope,) = [
        read_envelope(message.text)
        for messages in recorded_hub("table").queues.values()
        for message in messages
        if '"@counter@e"' in message.text
    ]
    message = message_of(envelope, queue_id="q", deliveries=1)

    again = message_of(read_envelope(pack_message(message, WORKER).text), queue_id="q", deliveries=1)

    assert again == message
    assert isinstance(message.event, EventRaised)
    assert message.event.name == "op"
    assert '"op":"add"' in str(message.event.input)


# What is no message.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Base64"),
        ("hello", "Base64"),
        ("{", "no JSON"),
        ("[1]", "Base64"),
        (base64.b64encode(b"hello").decode(), "not of a JSON object"),
        (base64.b64encode(b"{\xff").decode(), "no JSON"),
        ("{}", "neither a TaskMessage"),
        ('{"TaskMessage":null,"CompressedBlobName":""}', "neither a TaskMessage"),
        ('{"TaskMessage":1}', "TaskMessage"),
        ('{"TaskMessage":{}}', "event"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, ""),
    ],
)
def test_a_text_that_is_no_message_is_told_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(NotAnEnvelopeError, match=f"(?i){reason}"):
        read_envelope(text)


@pytest.mark.parametrize(
    ("member", "value"),
    [("Timestamp", "yesterday"), ("TimerId", "x"), ("FireAt", None), ("EventId", None), ("Timestamp", "/Date(x)/")],
)
def test_a_known_event_with_a_member_that_cannot_be_read_is_no_message(member: str, value: object) -> None:
    parsed = _recorded("TimerFired")
    parsed["TaskMessage"]["Event"][member] = value

    with pytest.raises(NotAnEnvelopeError):
        _event(json.dumps(parsed))


def test_a_message_to_nobody_is_no_message() -> None:
    parsed = _recorded("TimerFired")
    parsed["TaskMessage"]["OrchestrationInstance"] = None

    with pytest.raises(NotAnEnvelopeError, match="nobody"):
        read_envelope(json.dumps(parsed))


def test_an_event_of_a_kind_that_is_not_known_is_not_taken_for_garbage() -> None:
    parsed = _recorded("TimerFired")
    parsed["TaskMessage"]["Event"]["$type"] = "DurableTask.Core.History.HistoryStateEvent, DurableTask.Core"

    with pytest.raises(UnknownKindError) as caught:
        read_envelope(json.dumps(parsed))

    assert (caught.value.kind, caught.value.instance_id) == (
        "HistoryState",
        parsed["TaskMessage"]["OrchestrationInstance"]["InstanceId"],
    )


def test_a_message_in_the_queue_of_activities_that_asks_for_none_is_of_another_kind() -> None:
    with pytest.raises(UnknownKindError, match="ExecutionTerminated"):
        task_of(read_envelope(_text(ExecutionTerminated(timestamp=NOW))), queue_id="q")


@pytest.mark.parametrize("data", [b"", b"no gzip", compress(b"{}")[:-9], compress(b"no json")])
def test_a_blob_that_is_damaged_is_told(data: bytes) -> None:
    with pytest.raises(WireError):
        read_blob(data)


def test_the_blob_of_a_wrapper_holds_no_other_wrapper() -> None:
    wrapper = b'{"TaskMessage":null,"CompressedBlobName":"a/message-b-TimerFired.json.gz"}'

    with pytest.raises(NotAnEnvelopeError, match="another wrapper"):
        read_blob(compress(wrapper))


# Times of visibility.


@pytest.mark.parametrize(
    ("event", "target", "due"),
    [
        (TimerFired(timestamp=NOW, timer_id=0, fire_at=NOW), "a", NOW),
        (EventRaised(timestamp=NOW, name="op@2026-11-21T10:43:02.9586757Z"), "@counter@k", NOW),
        (EventRaised(timestamp=NOW, name="op@2026-11-21T10:43:02.9586757Z"), "a", None),
        (EventRaised(timestamp=NOW, name="op@never"), "@counter@k", None),
        (EventRaised(timestamp=NOW, name="op"), "@counter@k", None),
        (TaskFailed(timestamp=NOW, task_id=0), "a", None),
    ],
)
def test_some_messages_say_themselves_when_they_are_due(event: HistoryEvent, target: str, due: datetime | None) -> None:
    assert due_at(event, target) == due


def test_a_recorded_start_at_a_time_is_visible_then() -> None:
    (envelope,) = [
        read_envelope(message.text)
        for message in recorded_hub("table").queues[f"{HUB}-control-01"]
        if "start-scheduled" in message.text
    ]
    message = message_of(envelope, queue_id="q", deliveries=1)

    assert message.visible_at is not None
    assert message.visible_at.isoformat() == "2026-11-21T11:43:02.897922+00:00"


@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [(-5.0, 0), (0.0, 0), (0.000_001, 1), (1.0, 1), (1.000_001, 2), (3599.998, 3600), (86_400.0 * 400, 600_000)],
)
def test_visibility_is_rounded_up_and_bounded(ahead: float, seconds: int) -> None:
    assert visibility_s(NOW + timedelta(seconds=ahead), NOW, most=600_000) == seconds


def test_what_has_no_time_is_visible_at_once() -> None:
    assert visibility_s(None, NOW, most=600_000) == 0
    assert Stamp(ID, 1).sender == CLIENT
