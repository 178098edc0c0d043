"""Starts as the arguments of one statement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from durable_host.model.codec import encode_event
from durable_host.model.instance import InstanceState, pending_state
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host_providers._sql.rows import payloads_of, state_text, to_micros

from .checkpoints import raw
from .grants import UNKNOWN_ROW, Grant, Grants, InstanceToken
from .items import Locked

__all__ = ["Start", "Starts"]


@dataclass(frozen=True, slots=True)
class Start:
    """One call of create_instance."""

    message: Message
    replaceable: Collection[RuntimeStatus]


@dataclass(slots=True)
class Starts:
    """Several calls that are made at once."""

    calls: Sequence[Start]
    states: list[InstanceState] = field(init=False)
    _at: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.states = [pending_state(call.message) for call in self.calls]
        self._at = {call.message.id: at for at, call in enumerate(self.calls)}

    @property
    def is_alone(self) -> bool:
        """Whether it is one start, without tags."""
        return len(self.calls) == 1 and not self.states[0].tags

    def values(self) -> list[object]:
        """The arguments of `start_alone` behind whether it is handed over."""
        return list(_row(self.calls[0], self.states[0])[:-1])

    def columns(self) -> list[object]:
        """The arguments of `start` behind the number of those that are handed over."""
        rows: list[tuple[object, ...]] = []
        tags: list[tuple[object, ...]] = []
        for call, state in zip(self.calls, self.states, strict=True):
            message = call.message
            rows.append(_row(call, state))
            tags += [(message.id, name.encode(), value.encode()) for name, value in (state.tags or {}).items()]
        columns: list[object] = [list(column) for column in zip(*rows, strict=True)]
        return [*columns, *([list(column) for column in zip(*tags, strict=True)] if tags else (None, None, None))]

    def make(self, grants: Grants, message_id: str, token: InstanceToken, until: float) -> Locked:
        """The work item of a start that was handed over."""
        at = self._at[message_id]
        message, state = self.calls[at].message, self.states[at]
        grant = Grant(token.ref, message.target, token.lease, None, state.status.value, state.execution_id)
        grant.given[message.id] = UNKNOWN_ROW
        grants.add(grant)
        handed = Message(message.id, message.target, message.event, message.execution_id, message.visible_at, 0)
        return Locked(message.target, None, (handed,), token, False, until)


def _row(call: Start, state: InstanceState) -> tuple[object, ...]:
    message = call.message
    return (
        message.target,
        message.id,
        message.execution_id,
        None if message.visible_at is None else to_micros(message.visible_at),
        encode_event(message.event).encode(),
        state.status.value,
        state.execution_id,
        state.name,
        None if state.parent is None else state.parent.instance_id,
        to_micros(state.created_at),
        state_text(state).encode(),
        raw(payloads_of(state)[0]),
        ",".join(status.value for status in call.replaceable),
    )
