"""Every message and every row of the recorded hubs is read, and written again as it was."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from msgspec.structs import replace

from durable_host.model.history import ExecutionStarted, HistoryEvent, event_type
from durable_host.model.ids import MessageId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.wire.envelopes import Envelope, queue_text, read_envelope
from durable_host_providers.azure_storage.wire.history_rows import (
    event_rows,
    read_event,
    read_sentinel,
    sentinel_row,
)
from durable_host_providers.azure_storage.wire.instance_rows import instance_row, read_instance
from durable_host_providers.azure_storage.wire.keys import (
    SENTINEL,
    control_queue_of,
    instance_of_key,
    is_entity,
    row_key,
)
from durable_host_providers.azure_storage.wire.messages import (
    Packed,
    Stamp,
    message_of,
    pack_message,
    pack_task,
    read_blob,
    task_of,
)
from durable_host_providers.azure_storage.wire.payloads import blob_of_url, decompress, offload, offloaded
from durable_host_providers.azure_storage.wire.times import instant_of
from tests.azure_recordings import EXTENSION_RECORDINGS, HUB, RECORDINGS, RecordedHub, recorded_hub
from tests.unit.azure_wire.differences import ALLOWED, Difference, differences

CONTAINER = f"http://127.0.0.1:10000/devstoreaccount1/{HUB}-largemessages"


@pytest.fixture(params=(*RECORDINGS, *EXTENSION_RECORDINGS))
def hub(request: pytest.FixtureRequest) -> RecordedHub:
    return recorded_hub(request.param)


# Messages.


def test_every_message_is_written_as_it_was(hub: RecordedHub) -> None:
    assert set(_of_messages(hub)) <= set(ALLOWED)


def test_the_wrapper_of_a_large_message_is_written_as_it_was() -> None:
    for name in ("table", "safe", "legacy"):
        hub = recorded_hub(name)
        (wrapper,) = [
            message.text
            for queue, message, _ in _messages(hub)
            if "control" in queue and read_envelope(message.text).compressed_blob_name
        ]
        _, _, envelope = next(each for each in _messages(hub) if each[1].text == wrapper)

        packed = _packed(envelope, wrapper)

        assert packed.text == wrapper
        blob_name = read_envelope(wrapper).compressed_blob_name
        assert packed.blob_name == blob_name
        assert packed.blob is not None
        theirs = json.loads(decompress(hub.large_messages[str(blob_name)]))
        ours = json.loads(decompress(packed.blob))
        assert [str(each) for each in differences("message", _flat(theirs), _flat(ours))] == [
            "message: MessageId is added"
        ]


def test_every_message_stands_in_the_queue_of_its_target(hub: RecordedHub) -> None:
    found = 0
    for queue, _, envelope in _messages(hub):
        if "-control-" in queue:
            message = message_of(envelope, queue_id="q", deliveries=1)
            assert queue == f"{hub.hub}-control-{control_queue_of(message.target, 4):02}"
            found += 1
    assert found > 0


def _messages(hub: RecordedHub) -> Iterator[tuple[str, Any, Envelope]]:
    for queue, messages in hub.queues.items():
        for message in messages:
            envelope = read_envelope(message.text)
            if envelope.compressed_blob_name:
                envelope = read_blob(hub.large_messages[envelope.compressed_blob_name])
            yield queue, message, envelope


def _of_messages(hub: RecordedHub) -> Iterator[Difference]:
    """Differences of every text, written again with what its envelope tells of its sending."""
    for queue, message, envelope in _messages(hub):
        place = "task" if queue.endswith("-workitems") else "message"
        ours = _packed(envelope, message.text).text
        assert ours.startswith("{") == message.text.startswith("{")
        yield from differences(place, _flat(_json(message.text)), _flat(_json(ours)))
        assert _order(_json(ours)) == _order(_json(message.text)), "members stand in another order"


def _packed(envelope: Envelope, text: str) -> Packed:
    assert envelope.sender is not None
    assert envelope.task_message is not None
    stamp = Stamp(
        envelope.activity_id.replace("-", ""),
        envelope.sequence_number,
        envelope.sender,
        envelope.episode if isinstance(envelope.episode, int) else None,
    )
    use_base64 = not text.startswith("{")
    if envelope.task_message.event.event_type == 4:
        at = instant_of(envelope.task_message.event.timestamp)
        return pack_task(task_of(envelope, queue_id="q"), stamp, at=at, use_base64=use_base64)
    return pack_message(message_of(envelope, queue_id="q", deliveries=1), stamp, use_base64=use_base64)


def _json(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text if text.startswith("{") else base64.b64decode(text))
    return parsed


_SEVENTH_DIGIT = re.compile(r"(T\d\d:\d\d:\d\d\.\d{6})\dZ$")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Members by path; times cut to what a datetime holds, and without their trailing zeros."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        found: dict[str, Any] = {f"{path}{{}}": not members}
        for name, member in members.items():
            found.update(_flat(member, f"{path}.{name}" if path else name))
        return {name: member for name, member in found.items() if member is not False or not name.endswith("{}")}
    if isinstance(value, str) and path.rpartition(".")[2] in ("Timestamp", "FireAt", "ScheduledStartTime"):
        cut = _SEVENTH_DIGIT.sub(r"\1Z", value)
        value = f"{cut[:-1].rstrip('0')}Z" if "." in cut else cut
    return {path: value}


def _order(value: Any) -> Any:
    """Names of members in order; ours alone left out."""
    if not isinstance(value, dict):
        return None
    members = cast("dict[str, Any]", value)
    return [(name, _order(member)) for name, member in members.items() if name != "MessageId"]


# History.


def test_every_row_of_history_is_written_as_it_was(hub: RecordedHub) -> None:
    assert set(_of_history(hub)) <= set(ALLOWED)


def test_every_sentinel_is_written_as_it_was(hub: RecordedHub) -> None:
    assert set(_of_sentinels(hub)) <= set(ALLOWED)


def test_rows_that_lie_in_blobs_get_the_names_that_they_had() -> None:
    for name in ("table", "safe", "legacy"):
        hub = recorded_hub(name)
        found = 0
        for key, rows in hub.history.items():
            for row in rows:
                for column, blob_name in offloaded(row).items():
                    token = blob_name.split("-")[-2]
                    whole = {**_restored(hub, row), f"{column}BlobName": ""}
                    moved, blobs = offload(
                        whole, instance_of_key(key), str(row["RowKey"]), str(row["EventType"]), token
                    )
                    assert moved == dict(row)
                    assert [(each.column, each.blob_name) for each in blobs] == [(column, blob_name)]
                    assert decompress(blobs[0].data) == decompress(hub.large_messages[blob_name])
                    found += 1
        assert found == 6


def _of_history(hub: RecordedHub) -> Iterator[Difference]:
    for key, rows in hub.history.items():
        sentinel = rows[-1]
        theirs = [row for row in rows if row["RowKey"] != SENTINEL and row["ExecutionId"] == sentinel["ExecutionId"]]
        assert [row["RowKey"] for row in theirs] == [row_key(index) for index in range(len(theirs))]
        assert len(theirs) > 1
        restored = [_restored(hub, row) for row in theirs]
        events = [_arrived(read_event(row)) for row in restored]
        ours = event_rows(instance_of_key(key), str(sentinel["ExecutionId"]), events, 0)
        for before, after, event in zip(restored, ours, events, strict=True):
            place = event_type(event)
            if is_entity(key) and before["IsPlayed"] != after["IsPlayed"]:
                place = f"entity: {place}"
            yield from differences(place, _without_time(before), after)


def _of_sentinels(hub: RecordedHub) -> Iterator[Difference]:
    for key, rows in hub.history.items():
        theirs = rows[-1]
        assert theirs["RowKey"] == SENTINEL
        sentinel = read_sentinel(theirs)
        assert (sentinel.generation, sentinel.length, sentinel.is_complete) == (1, None, True)
        completed_at = instant_of(str(theirs["CheckpointCompletedTimestamp"]))
        ours = sentinel_row(
            instance_of_key(key), sentinel.execution_id, sentinel.version(len(rows) - 1), completed_at=completed_at
        )
        yield from differences("sentinel", _without_time(theirs), ours)


def _arrived(event: HistoryEvent) -> HistoryEvent:
    """The event as this host had recorded it: a start that came as a message has the id of one."""
    if isinstance(event, ExecutionStarted) and (event.generation is not None or event.parent is not None):
        return replace(event, message_id=MessageId("m"))
    return event


def _restored(hub: RecordedHub, row: Mapping[str, Value]) -> dict[str, Value]:
    """The row with its large texts in their columns."""
    names = offloaded(row)
    texts = {column: decompress(hub.large_messages[name]).decode() for column, name in names.items()}
    return {**{name: value for name, value in row.items() if not name.endswith("BlobName")}, **texts}


def _without_time(row: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in row.items() if name != "Timestamp"}


# Instances.


def test_every_row_of_instances_is_written_as_it_was(hub: RecordedHub) -> None:
    assert set(_of_instances(hub)) <= set(ALLOWED)


def test_large_inputs_and_outputs_are_found_by_their_urls() -> None:
    for name in ("table", "safe", "legacy"):
        hub = recorded_hub(name)
        found: dict[str, list[str]] = {}
        for row in hub.instances:
            for column in ("Input", "Output"):
                blob_name = blob_of_url(str(row.get(column, "")), CONTAINER)
                if blob_name is not None:
                    assert blob_name in hub.large_messages
                    found.setdefault(str(row["PartitionKey"]), []).append(column)
        assert found == {"large-done": ["Input", "Output"], "large-waiting": ["Input"], "start-large-queued": ["Input"]}


def test_a_row_of_another_writer_has_no_version_and_a_suspended_one_its_reason(hub: RecordedHub) -> None:
    for row in hub.instances:
        state = read_instance(row, etag="e")
        assert (state.version, state.revision) == (None, "e")
        assert (state.suspended_reason is not None) == (state.status is RuntimeStatus.SUSPENDED)
        assert state.output is None or state.status.is_terminal


def _of_instances(hub: RecordedHub) -> Iterator[Difference]:
    for row in hub.instances:
        state = read_instance(row)
        if state.status is not RuntimeStatus.PENDING:
            state = replace(state, version=HistoryVersion(1, 8))
        detached = "FireAndForget" in str(row.get("Tags"))
        yield from differences("instance", _without_time(row), instance_row(state, hub.hub, detached=detached))


# The table.


def test_no_allowed_difference_is_one_too_many() -> None:
    found: set[Difference] = set()
    for name in (*RECORDINGS, *EXTENSION_RECORDINGS):
        hub = recorded_hub(name)
        for each in (_of_messages, _of_history, _of_sentinels, _of_instances):
            found.update(each(hub))

    assert found == set(ALLOWED)


def test_a_text_is_the_same_in_both_encodings() -> None:
    text = recorded_hub("table").queues[f"{HUB}-workitems"][0].text

    assert read_envelope(queue_text(text.encode(), use_base64=True)) == read_envelope(text)
