"""Identities. They are plain texts; the types keep them from being swapped."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import NewType

from durable_host.errors import InvalidInstanceIdError

__all__ = [
    "DispatchId",
    "ExecutionId",
    "InstanceId",
    "MessageId",
    "check_characters",
    "check_instance_id",
    "dispatch_id",
    "forwarded_id",
    "is_forwarded",
    "original_id",
    "postponed_id",
]

InstanceId = NewType("InstanceId", str)
"""Chosen by the caller or generated: 1 to 256 characters at starts; a hub taken over may hold others."""

ExecutionId = NewType("ExecutionId", str)
"""One run of an instance: 32 lower-case hexadecimal digits."""

MessageId = NewType("MessageId", str)
"""One message: stable across redelivery and across a sender's retries."""

DispatchId = NewType("DispatchId", str)
"""One scheduled request; a reply counts only if it carries the id that history recorded. 32 hexadecimal digits."""

_POSTPONED = ":later"

_FORBIDDEN = frozenset("/\\#?")


def check_instance_id(instance_id: str) -> InstanceId:
    """Return the id when a start may use it.

    Raises:
        InvalidInstanceIdError: it is empty, longer than 256 characters, starts with `@`, or contains one of
            `/ \\ # ?`, a control character (U+0000-U+001F, U+007F-U+009F) or a lone surrogate, which no store takes.
            Source: http-api.md section 4.
    """
    if not 1 <= len(instance_id) <= 256:
        raise InvalidInstanceIdError(instance_id, f"it has {len(instance_id)} characters, 1 to 256 are allowed")
    if instance_id[0] == "@":
        raise InvalidInstanceIdError(instance_id, "it starts with '@', which is reserved for entities")
    if not _FORBIDDEN.isdisjoint(instance_id):
        character = next(each for each in instance_id if each in _FORBIDDEN)
        raise InvalidInstanceIdError(instance_id, f"it contains {character!r}; none of / \\ # ? is allowed")
    return check_characters(instance_id)


def check_characters(instance_id: str) -> InstanceId:
    """Return the id if stores take its characters; no instance has another one.

    Raises:
        InvalidInstanceIdError: it contains a control character or a lone surrogate.
    """
    if instance_id.isascii() and instance_id.isprintable():
        return InstanceId(instance_id)
    for character in instance_id:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise InvalidInstanceIdError(instance_id, f"it contains the control character U+{ord(character):04X}")
        if "\ud800" <= character <= "\udfff":
            raise InvalidInstanceIdError(instance_id, f"it contains the lone surrogate U+{ord(character):04X}")
    return InstanceId(instance_id)


def dispatch_id(execution_id: str, task_id: int, kind: str, name: str, payload: str | None, rewinds: int) -> DispatchId:
    """Content-addressed identity of one scheduled request.

    The same decision in a repeated episode has the same id, so its replies and children are adopted; another decision
    (the repeated episode saw another inbox) has another id, so the ghost's reply is dropped. `payload` is the input of
    a call or the due time of a timer; `rewinds` counts the rewinds of the execution, so that an old failure does not
    answer the new attempt under the same task id. Source: design 3.4.
    """
    # Lengths keep fields apart: ("ab", "c") and ("a", "bc") must differ.
    task, again, data = str(task_id), str(rewinds), "\x00" if payload is None else payload
    text = (
        f"{len(execution_id)}\x1f{len(task)}\x1f{len(kind)}\x1f{len(name)}\x1f{len(again)}\x1f{len(data)}"
        f"{execution_id}\x1e{task}\x1e{kind}\x1e{name}\x1e{again}\x1e{data}"
    )
    return DispatchId(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())


def postponed_id(id: MessageId) -> MessageId:
    """The id under which a message is sent again for later, while the original leaves the inbox."""
    return id if id.endswith(_POSTPONED) else MessageId(f"{id}{_POSTPONED}")


def forwarded_id(id: MessageId, at: datetime, *, by: str = "") -> MessageId:
    """The id under which an instance sends a message to itself again: another one at any other time, and by others.

    The copy that an attempt has left behind may be consumed in the very checkpoint that sends the next one.

    Args:
        id: as it came; one that was forwarded before gets another id, even at the same time.
        by: what sends it, if that is sure to be another one next time; two things may happen within a clock's tick.
    """
    time = int(at.timestamp() * 1_000_000)
    mark = blake2b(f"{id}\0{time}\0{by}".encode(), digest_size=8).hexdigest()
    return MessageId(f"{original_id(id)}{_POSTPONED}.{mark}")


def is_forwarded(id: MessageId) -> bool:
    """Whether an instance has sent the message to itself again."""
    return f"{_POSTPONED}." in id and original_id(id) != id


def original_id(id: MessageId) -> MessageId:
    """The id that the sender gave: history records this one, so that the sender's repetition is recognised."""
    original, postponed, time = id.rpartition(_POSTPONED)
    return MessageId(original) if postponed and (not time or time[0] == ".") else id
