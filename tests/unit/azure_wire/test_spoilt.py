"""Whatever stands in a queue or a row, reading it ends with a value or with an error of the formats' own."""

from __future__ import annotations

import contextlib
import json
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.envelopes import read_envelope
from durable_host_providers.azure_storage.wire.errors import NotAnEnvelopeError, UnknownKindError, UnreadableRowError
from durable_host_providers.azure_storage.wire.history_rows import read_event, read_sentinel
from durable_host_providers.azure_storage.wire.instance_rows import (
    quarantine_columns,
    read_instance,
    release_columns,
)
from durable_host_providers.azure_storage.wire.messages import message_of, task_of
from tests.azure_recordings import RECORDINGS, recorded_hub

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.sampled_from(["DurableTask.Core.History.TaskFailedEvent", "9999-12-31T23:59:59.9999999Z", "/Date(99e9)/"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
_TEXTS = st.sampled_from(
    [
        message.text
        for name in RECORDINGS
        for messages in recorded_hub(name).queues.values()
        for message in messages
        if message.text.startswith("{") and '"TaskMessage":{' in message.text
    ]
)
_HISTORY = st.sampled_from(
    [row for name in RECORDINGS for rows in recorded_hub(name).history.values() for row in rows[:40]]
)
_INSTANCES = st.sampled_from([row for name in RECORDINGS for row in recorded_hub(name).instances])
_VALUES: st.SearchStrategy[Value] = st.one_of(
    st.text(max_size=4),
    st.integers(-(2**31), 2**31),
    st.booleans(),
    st.floats(),
    st.binary(max_size=2),
    st.sampled_from([EdmDateTime("0001-01-01T00:00:00Z"), EdmDateTime("9999-12-31T23:59:59.9999999Z"), "null", "{}"]),
)
_OURS = ("DurableHost", "HistoryVersion", "HistoryStamp", "MessageId", "DispatchId", "FailureDetails", "Quarantined")

many = settings(max_examples=150, deadline=None)


@st.composite
def _spoilt_texts(draw: st.DrawFn) -> str:
    found: dict[str, Any] = json.loads(draw(_TEXTS))
    place = found
    for _ in range(draw(st.integers(0, 3))):
        inner = [name for name, member in place.items() if isinstance(member, dict)]
        if inner:
            place = cast("dict[str, Any]", place[draw(st.sampled_from(inner))])
    name = draw(st.sampled_from([*place, "MessageId", "VisibleAt", "DispatchId", "DurableHost", "$type", "__type"]))
    if draw(st.booleans()):
        place[name] = draw(_JSON)
    else:
        place.pop(name, None)
    return json.dumps(found)


@many
@given(_spoilt_texts())
def test_a_spoilt_message_is_a_message_or_is_told(text: str) -> None:
    with contextlib.suppress(NotAnEnvelopeError, UnknownKindError):
        envelope = read_envelope(text)
        message_of(envelope, queue_id="q", deliveries=1)
        task_of(envelope, queue_id="q")


@many
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_message_or_is_told(text: str) -> None:
    with contextlib.suppress(NotAnEnvelopeError, UnknownKindError):
        read_envelope(text)


@many
@given(_HISTORY, st.data())
def test_a_spoilt_row_of_history_is_an_event_or_is_told(row: dict[str, Value], data: st.DataObject) -> None:
    spoilt = {**row, data.draw(st.sampled_from([*row, *_OURS])): data.draw(_VALUES)}

    with contextlib.suppress(UnreadableRowError):
        if row["RowKey"] == "sentinel":
            read_sentinel(spoilt)
        else:
            read_event(spoilt)


@many
@given(_INSTANCES, st.data())
def test_a_spoilt_row_of_instances_is_a_projection_or_is_told(row: dict[str, Value], data: st.DataObject) -> None:
    spoilt = {**row, data.draw(st.sampled_from([*row, *_OURS])): data.draw(_VALUES)}

    with contextlib.suppress(UnreadableRowError):
        read_instance(spoilt)
        release_columns({**spoilt, **quarantine_columns(spoilt, "why")})
