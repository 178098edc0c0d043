"""What is wrong with a stored text or row."""

from __future__ import annotations

from durable_host.errors import StoreError

__all__ = ["NotAnEnvelopeError", "UnknownKindError", "UnreadableRowError", "WireError"]


class WireError(StoreError, ValueError):
    """Something stored cannot be read as what it should be."""


class NotAnEnvelopeError(WireError):
    """A queue text that is no message at all: it can never be processed by anybody. `reason` says what is wrong."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The text in the queue is no task hub message: {reason}.")


class UnknownKindError(WireError):
    """A well-formed message of a kind that this version does not know; another one may.

    Attributes:
        kind: the event's type name as it stands in the message.
        instance_id: whom it is addressed to.
    """

    def __init__(self, kind: str, instance_id: str) -> None:
        self.kind = kind
        self.instance_id = instance_id
        super().__init__(f"The message to {instance_id!r} is of kind {kind!r}, which this version does not know.")


class UnreadableRowError(WireError):
    """A row of History or Instances that no writer we know has made.

    Attributes:
        partition_key, row_key: of the row.
    """

    def __init__(self, partition_key: str, row_key: str, reason: str) -> None:
        self.partition_key = partition_key
        self.row_key = row_key
        super().__init__(f"Row {row_key!r} of {partition_key!r} cannot be read: {reason}.")
