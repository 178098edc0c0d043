"""The usual steps of an instance that its worker holds, as the arguments of smaller statements than `commit`.

Most checkpoints are of two kinds: an activity's result comes in, the next activity goes out, the instance stays locked;
and in the end, a result comes in and nothing goes out. An activity that is handed over with the step of one instance
alone gets no row of its own: the instance carries it to its next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from durable_host.model.codec import encode_events, encode_task
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask
from durable_host.model.status import TERMINAL
from durable_host.storage.contract import Checkpoint
from durable_host_providers._sql.rows import payloads_of, shown_state, state_text, to_micros

from .checkpoints import raw
from .grants import Grant, Grants, InstanceToken

__all__ = ["LastStep", "Steps", "is_last_step", "is_step"]


def is_step(checkpoint: Checkpoint, grants: Grants) -> bool:
    """Whether a checkpoint is of the first kind, as far as is known here."""
    state = checkpoint.state
    return (
        checkpoint.hold
        and state is not None
        and state.status not in TERMINAL
        and state.failure is None
        and _goes_on(checkpoint, state, grants)
    )


def is_last_step(checkpoint: Checkpoint, grants: Grants) -> bool:
    """Whether a checkpoint is of the second kind, with at most one message and one result."""
    state = checkpoint.state
    return (
        not checkpoint.hold
        and checkpoint.base is not None
        and state is not None
        and not checkpoint.activities
        and len(checkpoint.completed) < 2
        and len(checkpoint.consumed) < 2
        and _goes_on(checkpoint, state, grants)
    )


def _goes_on(checkpoint: Checkpoint, state: InstanceState, grants: Grants) -> bool:
    """Whether it appends to the execution that is known here, and sends nothing."""
    base, token = checkpoint.base, checkpoint.lease.token
    if not checkpoint.events:
        return False
    if checkpoint.messages or checkpoint.deferred or checkpoint.amended:
        return False
    version = state.version
    if version is None or not isinstance(token, InstanceToken):
        return False
    if base is not None and version.generation != base.generation:
        return False
    grant = grants.find(token)
    return (
        grant is not None
        and grant.execution_id == state.execution_id
        and grant.status is not None
        and grant.version == base
        and (grant.carried is None or any(lease.key == grant.carried for lease in checkpoint.completed))
    )


@dataclass(slots=True)
class Steps:
    """Checkpoints of that kind, of different instances."""

    grants: Grants
    checkpoints: Sequence[Checkpoint]
    tasks: list[ActivityTask] = field(default_factory=list[ActivityTask])

    def __post_init__(self) -> None:
        if len(self.checkpoints) > 1:  # rows are locked in the order of ids, here as everywhere
            self.checkpoints = sorted(self.checkpoints, key=_key)
        for each in self.checkpoints:
            self.tasks += each.activities

    @property
    def refs(self) -> list[int]:
        """The rows of the instances."""
        return [_parts(each)[0].ref for each in self.checkpoints]

    def arguments(self, *, locked: int) -> list[object]:
        """The arguments of `step` behind hub and lease; `locked`: so many of the activities are handed over."""
        rows: list[tuple[object, ...]] = []
        refs: list[int] = []
        folded: list[str] = []
        consumed: list[str] = []
        consumers: list[int] = []
        for checkpoint in self.checkpoints:
            token, base, state, version = _parts(checkpoint)
            custom = state.custom_status
            grant = self.grants.find(token)
            rows.append(
                (
                    token.ref,
                    token.lease,
                    *base,
                    state.execution_id,
                    None if grant is None else grant.status,
                    version.generation,
                    version.length,
                    to_micros(state.updated_at),
                    state_text(state).encode(),
                    None if custom is None else custom.encode(),
                    None if grant is None else grant.carried,
                    state.status.value,
                    encode_events(checkpoint.events).encode(),
                )
            )
            refs += [token.ref] * len(checkpoint.activities)
            folded += [lease.key for lease in checkpoint.completed]
            consumed += checkpoint.consumed
            consumers += [token.ref] * len(checkpoint.consumed)
        return [
            *(list(column) for column in zip(*rows, strict=True)),
            consumers or None,
            consumed or None,
            folded or None,
            refs or None,
            [task.dispatch_id for task in self.tasks] or None,
            [encode_task(task).encode() for task in self.tasks] or None,
            locked,
        ]

    @property
    def is_alone(self) -> bool:
        """Whether it is one checkpoint with at most one message, one result and one new activity."""
        if len(self.checkpoints) > 1:
            return False
        (only,) = self.checkpoints
        return len(self.tasks) < 2 and len(only.completed) < 2 and len(only.consumed) < 2

    def alone(self, *, handed: bool) -> tuple[str, list[object]]:
        """The statement of one checkpoint, and its arguments behind hub, lease and its length.

        Args:
            handed: the activity is handed over, and carried.
        """
        (checkpoint,) = self.checkpoints
        token, base, state, version = _parts(checkpoint)
        custom = state.custom_status
        grant = self.grants.find(token)
        carried = None if grant is None else grant.carried
        status = state.status.value
        arguments: list[object] = [
            token.ref,
            token.lease,
            *base,
            version.length,
            to_micros(state.updated_at),
            state_text(state).encode(),
            None if custom is None else custom.encode(),
            state.execution_id,
            None if grant is None else grant.status,
            encode_events(checkpoint.events).encode(),
        ]
        task = _columns(self.tasks[0]) if self.tasks else _NO_TASK
        if carried is not None and not checkpoint.consumed and (handed or not self.tasks):
            return "step_carried", [*arguments, status, carried, *task]
        folded = checkpoint.completed[0].key if checkpoint.completed and carried is None else None
        consumed = checkpoint.consumed[0] if checkpoint.consumed else None
        row, to_carry = (_NO_TASK, task) if handed else (task, _NO_TASK)
        return "step_alone", [*arguments, folded, *row, version.generation, status, consumed, carried, *to_carry]

    def applied(self, *, carried: bool) -> dict[str, InstanceState]:
        """Remember what was written; returns the projections, by instance id.

        Args:
            carried: the new activity, if there is one, is carried.
        """
        states: dict[str, InstanceState] = {}
        for checkpoint in self.checkpoints:
            token, _, state, version = _parts(checkpoint)
            states[checkpoint.lease.key] = state
            grant: Grant | None = self.grants.find(token)
            if grant is not None:
                grant.version, grant.status = version, state.status.value
                for message_id in checkpoint.consumed:
                    grant.given.pop(message_id, None)
                grant.carried = self.tasks[0].dispatch_id if carried and self.tasks else None
                grant.held = True
        return states


@dataclass(slots=True)
class LastStep:
    """A checkpoint of the second kind."""

    grants: Grants
    checkpoint: Checkpoint

    @property
    def ref(self) -> int:
        """The row of the instance."""
        return _parts(self.checkpoint)[0].ref

    def arguments(self) -> list[object]:
        """The arguments of `last_step` behind hub and lease."""
        checkpoint = self.checkpoint
        token, base, state, version = _parts(checkpoint)
        state = shown_state(state)
        grant = self.grants.find(token)
        carried = None if grant is None else grant.carried
        return [
            token.ref,
            token.lease,
            *base,
            state.execution_id,
            None if grant is None else grant.status,
            version.generation,
            version.length,
            to_micros(state.updated_at),
            state.status in TERMINAL,
            state.status.value,
            state_text(state).encode(),
            *(raw(payload) for payload in payloads_of(state)[1:]),
            encode_events(checkpoint.events).encode(),
            checkpoint.consumed[0] if checkpoint.consumed else None,
            checkpoint.completed[0].key if checkpoint.completed and carried is None else None,
            carried,
        ]

    def applied(self) -> dict[str, InstanceState]:
        """Remember that it is locked no more; returns the projection, by instance id."""
        self.grants.drop(self.ref)
        return {self.checkpoint.lease.key: shown_state(_parts(self.checkpoint)[2])}


_NO_TASK: tuple[object, object] = (None, None)


def _columns(task: ActivityTask) -> tuple[object, object]:
    return task.dispatch_id, encode_task(task).encode()


def _key(checkpoint: Checkpoint) -> str:
    return checkpoint.lease.key


def _parts(
    checkpoint: Checkpoint,
) -> tuple[InstanceToken, tuple[int | None, int | None], InstanceState, HistoryVersion]:
    token, base, state = checkpoint.lease.token, checkpoint.base, checkpoint.state
    assert isinstance(token, InstanceToken) and state is not None and state.version is not None
    version = (None, None) if base is None else (base.generation, base.length)
    return token, version, state, state.version
