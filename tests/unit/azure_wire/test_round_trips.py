"""Whatever the model expresses is read as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_host.model.history import GenericEvent, HistoryEvent, event_type
from durable_host.model.ids import MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.envelopes import Sender, read_envelope
from durable_host_providers.azure_storage.wire.history_rows import (
    event_row,
    read_event,
    read_sentinel,
    rewound_columns,
    sentinel_row,
)
from durable_host_providers.azure_storage.wire.instance_rows import instance_row, merge_columns, read_instance
from durable_host_providers.azure_storage.wire.keys import escape_key, instance_of_key
from durable_host_providers.azure_storage.wire.messages import (
    Packed,
    Stamp,
    message_of,
    pack_message,
    pack_task,
    read_blob,
    task_of,
)
from durable_host_providers.azure_storage.wire.payloads import (
    MAX_COLUMN_BYTES,
    MAX_MESSAGE_BYTES,
    decompress,
    offload,
    offloaded,
)
from durable_host_providers.azure_storage.wire.times import edm_time, instant_of, json_time
from tests.unit.azure_wire.values import EVENTS, INSTANTS, SHORT, STATES, TASKS, TEXTS, messages

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of large texts, when a test fails

many = settings(
    max_examples=75,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

STAMP = Stamp("0123456789abcdef0123456789abcdef", 7, Sender("a", "e"), 3, {"team": "red"})


def _envelope_of(packed: Packed) -> Any:
    assert len(packed.text.encode()) <= MAX_MESSAGE_BYTES * 4 // 3 + 4
    envelope = read_envelope(packed.text)
    assert (envelope.compressed_blob_name or None) == packed.blob_name
    if packed.blob is not None:
        envelope = read_blob(packed.blob)
    return envelope


@many
@given(messages(), st.booleans())
def test_a_message_is_read_as_it_was_sent(message: Message, use_base64: bool) -> None:
    envelope = _envelope_of(pack_message(message, STAMP, use_base64=use_base64))

    assert message_of(envelope, queue_id="q", deliveries=message.deliveries) == message
    assert (envelope.sender, envelope.sequence_number, envelope.episode) == (STAMP.sender, 7, 3)


@many
@given(TASKS, INSTANTS)
def test_a_task_is_read_as_it_was_sent(task: ActivityTask, at: Any) -> None:
    assert task_of(_envelope_of(pack_task(task, STAMP, at=at)), queue_id="q") == task


@many
@given(messages())
def test_a_queue_text_is_free_of_characters_that_no_xml_takes(message: Message) -> None:
    text = pack_message(message, STAMP).text

    assert not re.search("[\x00-\x1f\ufffe\uffff\u0085\u2028\u2029]", text)


@many
@given(messages())
def test_a_message_without_what_is_ours_is_still_read(message: Message) -> None:
    packed = pack_message(message, STAMP)
    text = packed.text if packed.blob is None else decompress(packed.blob).decode()
    stored = json.loads(text)
    for member in ("MessageId", "DispatchId", "VisibleAt", "DurableHost"):
        stored.pop(member, None)

    found = message_of(read_envelope(json.dumps(stored)), queue_id="q", deliveries=1)

    assert (found.id, found.target, found.execution_id) == (MessageId("q"), message.target, message.execution_id)
    assert (type(found.event), found.event.timestamp) == (type(message.event), message.event.timestamp)


@many
@given(EVENTS, SHORT)
def test_an_event_is_read_as_its_row_was_written(event: HistoryEvent, instance_id: str) -> None:
    row = event_row(instance_id, "e", event, 17)

    assert (row["RowKey"], instance_of_key(str(row["PartitionKey"]))) == ("0000000000000011", instance_id)
    assert read_event(_through_the_table(row, instance_id)) == event


@many
@given(EVENTS)
def test_a_row_is_the_same_whether_a_rewind_replaces_it_or_merges_into_it(event: HistoryEvent) -> None:
    if isinstance(event, GenericEvent):
        return
    amended = GenericEvent(
        timestamp=event.timestamp,
        event_id=event.event_id,
        message_id=event.message_id,
        reason=f"Rewound: {event_type(event)}",
        original=event,
    )
    columns = rewound_columns(amended)
    if columns is None:  # a text is too large
        return

    merged = {**event_row("a", "e", event, 0), **columns}

    assert read_event(merged) == amended
    assert merged == event_row("a", "e", amended, 0)


@many
@given(STATES, st.booleans())
def test_a_projection_is_read_as_its_row_was_written(state: InstanceState, detached: bool) -> None:
    row = instance_row(state, "hub", detached=detached)

    assert read_instance(_through_the_table(row, state.instance_id, instances=True)) == state


@many
@given(STATES, STATES)
def test_a_merged_row_reads_as_the_whole_one(before: InstanceState, after: InstanceState) -> None:
    after = replace(after, instance_id=before.instance_id, execution_id=before.execution_id)
    old, new = instance_row(before, "hub"), instance_row(after, "hub")
    columns = merge_columns(old, new)
    if columns is None:
        return

    assert read_instance({**old, **columns}) == after


@many
@given(INSTANTS)
def test_an_instant_is_read_as_it_was_written(instant: Any) -> None:
    assert instant_of(edm_time(instant)) == instant
    assert instant_of(json_time(instant)) == instant
    assert len(edm_time(instant)) == len("2026-11-21T10:43:17.6071993Z")
    assert not re.search(r"\.?0+Z$", json_time(instant)[19:])


@many
@given(TEXTS)
def test_a_key_is_the_escaped_id_and_back(instance_id: str) -> None:
    key = escape_key(instance_id)

    assert instance_of_key(key) == instance_id
    assert not re.search(r"[\x00-\x1f\x7f-\x9f/\\#?]", key)


@many
@given(st.integers(0, 2**31), st.integers(0, 2**31), TEXTS, st.none() | INSTANTS)
def test_a_sentinel_tells_the_version_that_was_written(generation: int, length: int, execution: str, at: Any) -> None:
    sentinel = read_sentinel(sentinel_row("a", execution, HistoryVersion(generation, length), completed_at=at))

    assert (sentinel.execution_id, sentinel.is_complete) == (execution, at is not None)
    assert (sentinel.generation, sentinel.length) == (generation, None if at is None else length)


def _through_the_table(row: Mapping[str, Value], instance_id: str, *, instances: bool = False) -> dict[str, Value]:
    """The row as it comes back: large texts in blobs meanwhile."""
    kind = None if instances else str(row["EventType"])
    stored, moved = offload(dict(row), instance_id, str(row["RowKey"]), kind, "0123ABCD")
    for name, value in stored.items():
        assert type(value) in (str, EdmDateTime, bool, int), name
        if isinstance(value, str) and name not in ("PartitionKey", "ExecutionId", "MessageId", "Version"):
            assert len(value.encode("utf-16-le")) <= MAX_COLUMN_BYTES or name in _FREE, name
    blobs = {each.blob_name: decompress(each.data).decode() for each in moved}
    texts = {column: blobs[name] for column, name in offloaded(stored).items()}
    return {**stored, **texts}


_FREE = frozenset({"ParentInstance", "ParentTraceContext"})
