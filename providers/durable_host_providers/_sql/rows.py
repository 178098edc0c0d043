"""Values of the model as columns of rows, and back.

Instants are integers: microseconds since 1970 in UTC, so that they compare and sort in every database. Payloads that
are larger than `INLINE` characters go to a table of their own, so that an update of an instance's row does not write
a megabyte of input again; a bit mask in the row says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from durable_host.model.codec import decode_event, decode_state, encode_state
from durable_host.model.failure import Failure
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import TERMINAL, RuntimeStatus

__all__ = [
    "INLINE",
    "PAYLOADS",
    "from_micros",
    "message_of",
    "payloads_of",
    "shown_state",
    "state_of",
    "state_text",
    "to_micros",
]

INLINE = 1024
"""Longest payload kept in the instance's own row, in characters."""

PAYLOADS = ("input", "output", "custom_status", "failure")
"""Members of InstanceState that are kept beside its text, in the order of the bits in the mask."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_failures = msgspec.json.Decoder(Failure)
_encode = msgspec.json.Encoder().encode


def to_micros(instant: datetime) -> int:
    """The stored form of an instant."""
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant of a stored form."""
    return _EPOCH + timedelta(microseconds=micros)


def shown_state(state: InstanceState) -> InstanceState:
    """The projection as `get_instance` tells it: output and completion time of terminal instances only."""
    if state.status in TERMINAL or (state.output is None and state.completed_at is None):
        return state
    return msgspec.structs.replace(state, output=None, completed_at=None)


def state_text(state: InstanceState) -> str:
    """The stored text of a projection without its payloads."""
    if state.input is None and state.output is None and state.custom_status is None and state.failure is None:
        return encode_state(state)
    return encode_state(msgspec.structs.replace(state, input=None, output=None, custom_status=None, failure=None))


def payloads_of(state: InstanceState) -> tuple[str | None, str | None, str | None, str | None]:
    """The payload columns of a projection, in the order of `PAYLOADS`."""
    failure = state.failure
    return state.input, state.output, state.custom_status, None if failure is None else _encode(failure).decode()


def state_of(
    text: str | bytes,
    payloads: Mapping[str, str | None] | None,
    quarantined: str | None,
) -> InstanceState:
    """The projection of a row.

    Args:
        payloads: the members of `PAYLOADS` that have a value; None: they were not asked for.
        quarantined: why the instance is out of circulation; it shows as Failed then, with this reason.
    """
    state = decode_state(text)
    changes: dict[str, object] = dict(payloads or ())
    failure = changes.get("failure")
    if isinstance(failure, str):
        changes["failure"] = _failures.decode(failure)
    if quarantined is not None:
        changes["status"] = RuntimeStatus.FAILED
        changes["quarantined"] = quarantined
    return msgspec.structs.replace(state, **changes) if changes else state


def message_of(
    message_id: str, target: str, text: str | bytes, execution_id: str | None, visible_at: int | None, deliveries: int
) -> Message:
    """The message of a row."""
    return Message(
        MessageId(message_id),
        InstanceId(target),
        decode_event(text),
        None if execution_id is None else ExecutionId(execution_id),
        None if visible_at is None else from_micros(visible_at),
        deliveries,
    )
