"""Messages and activity tasks of the model as queue messages, and back.

    stamp = Stamp(activity_id=ids.new_id(), sequence=7, sender=Sender("order-1", "0b9c…"), episode=2)
    packed = pack_message(message, stamp)             # text for the queue; perhaps a blob to write before it

    envelope = read_envelope(got.text)                # in `envelopes`
    if envelope.compressed_blob_name: envelope = read_blob(await read(envelope.compressed_blob_name))
    message = message_of(envelope, queue_id=got.id, deliveries=got.dequeue_count)

Ours travel with their message id, dispatch id and time of visibility in members that .NET ignores. Those of other
writers lack them: the queue's id of the message serves as its id then, as long as it lives.

INVARIANT: nothing that we write makes .NET fail: no type name that it does not know, no null where it wants a value.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from durable_host.model.history import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    TaskScheduled,
    TimerFired,
    event_type,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.messages import ActivityTask, Message
from durable_host_providers.azure_storage.wire.envelopes import (
    NO_ACTIVITY,
    Envelope,
    ExecutionContext,
    Sender,
    TaskMessage,
    envelope_bytes,
    queue_text,
    read_envelope,
)
from durable_host_providers.azure_storage.wire.errors import NotAnEnvelopeError, UnknownKindError
from durable_host_providers.azure_storage.wire.events import event_from, event_to
from durable_host_providers.azure_storage.wire.extra import NOTHING, extra_of, is_made_up, made_up_id
from durable_host_providers.azure_storage.wire.keys import is_entity, message_blob_name
from durable_host_providers.azure_storage.wire.objects import TypedInstanceRef, typed_tags_to
from durable_host_providers.azure_storage.wire.payloads import MAX_MESSAGE_BYTES, compress, decompress
from durable_host_providers.azure_storage.wire.queue_events import TaskScheduledEvent, kind_of
from durable_host_providers.azure_storage.wire.times import instant_of, json_time

__all__ = [
    "CLIENT",
    "Packed",
    "Stamp",
    "due_at",
    "is_made_up",
    "message_of",
    "pack_message",
    "pack_task",
    "read_blob",
    "task_of",
    "visibility_s",
]

CLIENT = Sender()
"""The sender of what clients send."""


class Stamp(msgspec.Struct, frozen=True):
    """What an envelope tells about its sending.

    Attributes:
        activity_id: 32 hex digits, random per message; part of the name of a large message's blob.
        sequence: 1 for the first message that this process sends, and so on, over all queues.
        sender: the execution that asked for it; for the result of an activity, the one that asked for the activity.
        episode: of that execution; -1 for the result of an activity whose request had none; None for clients.
        tags: of that execution; travel with requests for activities and children.
    """

    activity_id: str
    sequence: int
    sender: Sender = CLIENT
    episode: int | None = None
    tags: dict[str, str] | None = None


class Packed(msgspec.Struct, frozen=True):
    """What to put: the queue's text and, for a large message, the blob to write *before* it."""

    text: str
    blob_name: str | None = None
    blob: bytes | None = None


def pack_message(message: Message, stamp: Stamp, *, use_base64: bool = False) -> Packed:
    """A message to an instance, for its control queue."""
    event = message.event
    extra = extra_of(event)
    if event.message_id is not None:
        extra = msgspec.structs.replace(extra or NOTHING, message_id=event.message_id)
    asked = isinstance(event, TaskScheduled) or (isinstance(event, ExecutionStarted) and event.parent is not None)
    dispatch_id: DispatchId | None = getattr(event, "dispatch_id", None)
    envelope = Envelope(
        activity_id=_guid(stamp.activity_id),
        task_message=TaskMessage(
            event=event_to(event),
            orchestration_instance=TypedInstanceRef(message.target, message.execution_id),
            orchestration_execution_context=_context(stamp.tags) if asked else None,
        ),
        sequence_number=stamp.sequence,
        episode=msgspec.UNSET if stamp.episode is None else stamp.episode,
        sender=stamp.sender,
        message_id=message.id,
        dispatch_id=msgspec.UNSET if dispatch_id is None or is_made_up(dispatch_id) else dispatch_id,
        visible_at=_told_visibility(message),
        durable_host=extra or msgspec.UNSET,
    )
    return _pack(envelope, message.target, stamp, event_type(event), use_base64)


def pack_task(
    task: ActivityTask, stamp: Stamp, *, at: datetime, version: str | None = "", use_base64: bool = False
) -> Packed:
    """A request for an activity, for the work-item queue.

    Args:
        at: the timestamp of the TaskScheduled event that records the request.
    """
    scheduled = TaskScheduled(
        timestamp=at,
        event_id=task.task_id,
        name=task.name,
        version=version,
        input=task.input,
        tags=task.tags,
        traceparent=task.traceparent,
    )
    envelope = Envelope(
        activity_id=_guid(stamp.activity_id),
        task_message=TaskMessage(
            event=event_to(scheduled),
            orchestration_instance=TypedInstanceRef(task.instance_id, task.execution_id),
            orchestration_execution_context=_context(stamp.tags),
        ),
        sequence_number=stamp.sequence,
        episode=msgspec.UNSET if stamp.episode is None else stamp.episode,
        sender=stamp.sender,
        dispatch_id=msgspec.UNSET if is_made_up(task.dispatch_id) else task.dispatch_id,
        durable_host=extra_of(scheduled) or msgspec.UNSET,
    )
    return _pack(envelope, task.instance_id, stamp, "TaskScheduled", use_base64)


def read_blob(data: bytes) -> Envelope:
    """The envelope of a large message, from the bytes of its blob.

    Raises:
        WireError: see `payloads.decompress` and `envelopes.read_envelope`.
    """
    envelope = read_envelope(decompress(data))
    if envelope.task_message is None:
        raise NotAnEnvelopeError("the blob of a large message holds another wrapper")
    return envelope


def message_of(envelope: Envelope, *, queue_id: str, deliveries: int) -> Message:
    """The message of a control queue.

    Args:
        queue_id: the queue's id of it.
        deliveries: how often it was fetched, this time included; 0: handed over.

    Raises:
        NotAnEnvelopeError: a time or a number in it cannot be read.
    """
    task_message, target = _parts(envelope)
    extra = NOTHING if envelope.durable_host is msgspec.UNSET else envelope.durable_host
    try:
        event = event_from(
            task_message.event,
            extra=extra,
            message_id=extra.message_id,
            dispatch_id=None if envelope.dispatch_id is msgspec.UNSET else DispatchId(envelope.dispatch_id),
        )
        visible_at = _visibility(envelope, event, target.instance_id)
    except (ValueError, OverflowError) as error:
        raise NotAnEnvelopeError(str(error)) from error
    return Message(
        id=MessageId(queue_id if envelope.message_id is msgspec.UNSET else envelope.message_id),
        target=InstanceId(target.instance_id),
        event=event,
        execution_id=None if target.execution_id is None else ExecutionId(target.execution_id),
        visible_at=visible_at,
        deliveries=deliveries,
    )


def task_of(envelope: Envelope, *, queue_id: str) -> ActivityTask:
    """The request of a work-item queue.

    One without a dispatch id gets one that is made up from the queue's id, so that two of them are never taken for one;
    it goes no further, see `is_made_up`.

    Raises:
        UnknownKindError: it is something else than a request for an activity.
        NotAnEnvelopeError: it cannot be read.
    """
    task_message, target = _parts(envelope)
    event = task_message.event
    if not isinstance(event, TaskScheduledEvent):
        raise UnknownKindError(kind_of(type(event).__name__), target.instance_id)
    extra = NOTHING if envelope.durable_host is msgspec.UNSET else envelope.durable_host
    try:
        scheduled = event_from(event, extra=extra)
    except (ValueError, OverflowError) as error:
        raise NotAnEnvelopeError(str(error)) from error
    assert isinstance(scheduled, TaskScheduled)
    return ActivityTask(
        dispatch_id=made_up_id(queue_id) if envelope.dispatch_id is msgspec.UNSET else DispatchId(envelope.dispatch_id),
        instance_id=InstanceId(target.instance_id),
        execution_id=ExecutionId(target.execution_id or ""),
        task_id=scheduled.event_id,
        name=scheduled.name,
        input=scheduled.input,
        traceparent=scheduled.traceparent,
        tags=scheduled.tags,
    )


# Times of visibility.


def due_at(event: HistoryEvent, target: str) -> datetime | None:
    """When .NET would let the message become visible; None: at once. Source: azure-storage-task-hub.md 3.8."""
    if isinstance(event, TimerFired):
        return event.fire_at
    if isinstance(event, ExecutionStarted):
        return event.scheduled_at
    if isinstance(event, EventRaised) and is_entity(target) and event.name[2:3] == "@":
        try:
            return instant_of(event.name[3:])
        except ValueError:
            return None
    return None


def visibility_s(visible_at: datetime | None, now: datetime, *, most: int) -> int:
    """Whole seconds until then, rounded up: better late than early. At least 0, at most `most`."""
    if visible_at is None or visible_at <= now:
        return 0
    return min(most, -((now - visible_at) // timedelta(seconds=1)))


def _told_visibility(message: Message) -> str | msgspec.UnsetType | None:
    """The member that says so where the event alone does not."""
    if message.visible_at == due_at(message.event, message.target):
        return msgspec.UNSET
    return None if message.visible_at is None else json_time(message.visible_at)


def _visibility(envelope: Envelope, event: HistoryEvent, target: str) -> datetime | None:
    told = envelope.visible_at
    if told is msgspec.UNSET:
        return due_at(event, target)
    return None if told is None else instant_of(told)


# Details.


def _parts(envelope: Envelope) -> tuple[TaskMessage, TypedInstanceRef]:
    task_message = envelope.task_message
    if task_message is None or task_message.orchestration_instance is None:
        raise NotAnEnvelopeError("it is the wrapper of a large message, whose blob was not read")
    return task_message, task_message.orchestration_instance


def _guid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _context(tags: dict[str, str] | None) -> ExecutionContext:
    return ExecutionContext(typed_tags_to(tags or {}))  # type: ignore[arg-type]  # a dict of texts is one of texts and nulls


def _pack(envelope: Envelope, target: str, stamp: Stamp, kind: str, use_base64: bool) -> Packed:
    data = envelope_bytes(envelope)
    if len(data) <= MAX_MESSAGE_BYTES:
        return Packed(queue_text(data, use_base64=use_base64))
    name = message_blob_name(target, stamp.activity_id, kind)
    wrapper = Envelope(activity_id=NO_ACTIVITY, compressed_blob_name=name)
    return Packed(queue_text(envelope_bytes(wrapper), use_base64=use_base64), name, compress(data))
