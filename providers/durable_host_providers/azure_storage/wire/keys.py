"""Keys, names and places that follow from an instance id: rows, control queues, blobs."""

from __future__ import annotations

import re

__all__ = [
    "SENTINEL",
    "control_queue_of",
    "escape_key",
    "fnv1a",
    "history_blob_name",
    "instance_of_key",
    "is_entity",
    "message_blob_name",
    "payload_prefixes",
    "row_key",
]

SENTINEL = "sentinel"
"""Row key of the row whose ETag is the lock of an instance's history; it sorts after all events."""

_ESCAPED = {
    "^": "^^",
    "/": "^0",
    "\\": "^1",
    "#": "^2",
    "?": "^3",
    **{chr(code): f"^{chr(0xC0 + code)}" for code in (*range(0x20), *range(0x7F, 0xA0))},
}
_ESCAPES = str.maketrans(_ESCAPED)
_UNESCAPED = {escape[1]: plain for plain, escape in _ESCAPED.items()}
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f/\\\\#?^]")
_ESCAPE = re.compile(r"\^(.)", re.DOTALL)


def escape_key(instance_id: str) -> str:
    """The partition key of an instance id. Not idempotent: never escape twice.

    Source: azure-storage-task-hub.md 4.1.
    """
    return instance_id.translate(_ESCAPES) if _FORBIDDEN.search(instance_id) else instance_id


def instance_of_key(partition_key: str) -> str:
    """The instance id of a partition key."""
    if "^" not in partition_key:
        return partition_key
    return _ESCAPE.sub(lambda found: _plain(found[1]), partition_key)


def _plain(character: str) -> str:
    known = _UNESCAPED.get(character)
    if known is not None:
        return known
    code = ord(character)
    return chr(code - 0xC0) if code >= 0xC0 else character


def row_key(index: int) -> str:
    """The row key of the event at this index."""
    return f"{index:016X}"


def is_entity(instance_id: str) -> bool:
    """Whether the id is that of an entity, `@name@key`."""
    return instance_id.startswith("@")


def fnv1a(text: str) -> int:
    """32-bit FNV-1a of the UTF-8 bytes. Source: azure-storage-task-hub.md 2.1."""
    value = 2166136261
    for byte in text.encode("utf-8", "surrogatepass"):
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def control_queue_of(instance_id: str, partitions: int) -> int:
    """The index of the control queue that an instance's messages go to. Source: azure-storage-task-hub.md 2.1."""
    return fnv1a(instance_id) % partitions


def message_blob_name(instance_id: str, activity_id: str, event_type: str) -> str:
    """Where a large message lies: below the *raw* id of its target. `activity_id`: 32 hex digits.

    Source: azure-storage-task-hub.md 3.6.
    """
    return f"{instance_id}/message-{activity_id}-{event_type}.json.gz"


def history_blob_name(instance_id: str, row: str, kind: str, token: str, column: str) -> str:
    """Where a large column lies: below the *escaped* id.

    Args:
        row: the row key; empty for a row of Instances.
        kind: the row's event type, or the column for a row of Instances.
        token: 8 upper-case hex digits, random, so that two owners do not write the same blob.
    """
    return f"{escape_key(instance_id)}/history-{row}-{kind}-{token}-{column}.json.gz"


def payload_prefixes(instance_id: str) -> tuple[str, ...]:
    """Prefixes of all blobs of an instance and of no other. Source: azure-storage-task-hub.md 9.1 item 3."""
    escaped = escape_key(instance_id)
    return (f"{instance_id}/",) if escaped == instance_id else (f"{instance_id}/", f"{escaped}/")
