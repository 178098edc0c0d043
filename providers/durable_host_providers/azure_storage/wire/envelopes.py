"""The JSON object that is the text of every queue message, as it stands. `messages` gives it its meaning.

Reading is one pass of a typed decoder. What that refuses is looked at once more, slowly: type names with an assembly
and the data contract serializer's forms are accepted; then it is either of a kind that we do not know, or no message.
Source: azure-storage-task-hub.md 3.1, 3.2 and 3.7.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, cast

import msgspec

from durable_host_providers.azure_storage.wire.errors import NotAnEnvelopeError, UnknownKindError
from durable_host_providers.azure_storage.wire.extra import Extra
from durable_host_providers.azure_storage.wire.objects import TypedInstanceRef
from durable_host_providers.azure_storage.wire.queue_events import EVENT_TAGS, QueueEvent, kind_of
from durable_host_providers.azure_storage.wire.texts import json_bytes

__all__ = [
    "NO_ACTIVITY",
    "Envelope",
    "ExecutionContext",
    "Sender",
    "TaskMessage",
    "envelope_bytes",
    "queue_text",
    "read_envelope",
]

NO_ACTIVITY = "00000000-0000-0000-0000-000000000000"
"""ActivityId of the wrapper of a large message."""


class Sender(msgspec.Struct, frozen=True, rename="pascal"):
    """Who sent a message: an execution; a client leaves both texts empty."""

    instance_id: str | None = ""
    execution_id: str | None = ""


class ExecutionContext(
    msgspec.Struct,
    frozen=True,
    rename="pascal",
    tag_field="$type",
    tag="DurableTask.Core.OrchestrationExecutionContext",
):
    """What an activity and a child are told of the orchestration that asked for them."""

    orchestration_tags: dict[str, str | None] | None = None


class TaskMessage(msgspec.Struct, frozen=True, rename="pascal", tag_field="$type", tag="DurableTask.Core.TaskMessage"):
    """An event and its target."""

    event: QueueEvent
    sequence_number: int = 0
    orchestration_instance: TypedInstanceRef | None = None
    orchestration_execution_context: ExecutionContext | None = None


class Envelope(
    msgspec.Struct, frozen=True, rename="pascal", tag_field="$type", tag="DurableTask.AzureStorage.MessageData"
):
    """The object itself.

    Attributes:
        compressed_blob_name: where the whole envelope lies if this is only its wrapper.
        sequence_number: count of messages that the sending process has sent; a tie-breaker.
        episode: of the sender; informational.
        message_id, dispatch_id, visible_at, durable_host: ours alone.
    """

    activity_id: str = NO_ACTIVITY
    task_message: TaskMessage | None = None
    compressed_blob_name: str | None = None
    sequence_number: int = 0
    episode: int | msgspec.UnsetType | None = msgspec.UNSET
    sender: Sender | None = None
    serializable_trace_context: Any = None
    message_id: str | msgspec.UnsetType = msgspec.UNSET
    dispatch_id: str | msgspec.UnsetType = msgspec.UNSET
    visible_at: str | msgspec.UnsetType | None = msgspec.UNSET
    durable_host: Extra | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(Envelope).decode
_decode_plain = msgspec.json.Decoder().decode


def envelope_bytes(envelope: Envelope) -> bytes:
    """The object's JSON, as it goes into the queue or, gzipped, into a blob."""
    return json_bytes(envelope)


def queue_text(data: bytes, *, use_base64: bool = False) -> str:
    """The text of the queue message; Base64 where a worker of the first generation may read the hub."""
    return base64.b64encode(data).decode() if use_base64 else data.decode()


def read_envelope(text: str | bytes) -> Envelope:
    """The object of a queue message's text, in either encoding, or of an unzipped blob.

    The result has either a `task_message` or the name of the blob that holds the whole.

    Raises:
        NotAnEnvelopeError: nobody can ever process this.
        UnknownKindError: it is well-formed, but of a kind that is not known here.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not data.startswith(b"{"):
        data = _from_base64(data)
    try:
        envelope = _decode(data)
    except msgspec.ValidationError as error:
        envelope = _read_again(data, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAnEnvelopeError(f"it is no JSON: {error}") from error
    if envelope.task_message is None:
        if not envelope.compressed_blob_name:
            raise NotAnEnvelopeError("it has neither a TaskMessage nor the name of a blob")
    elif envelope.task_message.orchestration_instance is None:
        raise NotAnEnvelopeError("it has no OrchestrationInstance, so it is addressed to nobody")
    return envelope


def _from_base64(data: bytes) -> bytes:
    plain = data.strip(b" \t\r\n\xef\xbb\xbf")
    if plain.startswith(b"{"):
        return plain
    try:
        decoded = base64.b64decode(plain, validate=True)
    except binascii.Error as error:
        raise NotAnEnvelopeError("it is neither JSON nor Base64") from error
    if not decoded.startswith(b"{"):
        raise NotAnEnvelopeError("it is Base64, but not of a JSON object")
    return decoded


def _read_again(data: bytes, refused: msgspec.ValidationError) -> Envelope:
    try:
        found = _normal(_decode_plain(data))
    except RecursionError as error:
        raise NotAnEnvelopeError("it is nested too deeply") from error
    if isinstance(found, dict):
        _check_kind(cast("dict[str, Any]", found).get("TaskMessage"))
    try:
        return msgspec.convert(found, Envelope)
    except msgspec.ValidationError as error:
        raise NotAnEnvelopeError(str(error)) from refused


def _check_kind(task_message: Any) -> None:
    if not isinstance(task_message, dict):
        return
    message = cast("dict[str, Any]", task_message)
    event, target = message.get("Event"), message.get("OrchestrationInstance")
    if not isinstance(event, dict) or not isinstance(target, dict):
        return
    name = cast("dict[str, Any]", event).get("$type")
    instance_id = cast("dict[str, Any]", target).get("InstanceId")
    if isinstance(name, str) and name not in EVENT_TAGS and isinstance(instance_id, str):
        raise UnknownKindError(kind_of(name), instance_id)


_USERS = frozenset({"Properties", "DurableHost"})  # whatever is in there is nobody's metadata


def _normal(value: Any) -> Any:
    """The object with plain type names: without assembly, and where the data contract serializer wrote them."""
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, Any]", value)
    contract = members.get("__type")
    normal: dict[str, Any] = {}
    if isinstance(contract, str) and "$type" not in members:
        name, _, namespace = contract.partition(":#")
        normal["$type"] = f"{namespace}.{name}"
    for key, member in members.items():
        if key == "$type" and isinstance(member, str) and not member.startswith("System."):
            normal[key] = member.partition(",")[0]
        elif key in ("Tags", "OrchestrationTags") and isinstance(member, list):
            normal[key] = _pairs(member)
        elif key != "__type":
            normal[key] = member if key in _USERS else _normal(member)
    return normal


def _pairs(entries: Any) -> Any:
    try:
        return {entry["Key"]: entry["Value"] for entry in entries}
    except (TypeError, KeyError):
        return entries
