"""Checkpoints as the arguments of one statement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member

from durable_host.model.codec import decode_events, encode_event, encode_events, encode_task
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import TERMINAL
from durable_host.storage.contract import Checkpoint
from durable_host_providers._sql.rows import payloads_of, shown_state, state_text, to_micros

from .grants import UNKNOWN_ROW, Grant, Grants, InstanceToken

__all__ = ["Batch", "Run", "message_columns", "raw", "run_of_rows"]

_NOTHING, _WRITE, _RESTORE = 0, 1, 2


def raw(text: str | None) -> bytes | None:
    """The stored form of a payload."""
    return None if text is None else text.encode()


def message_columns(messages: Sequence[Message]) -> tuple[list[object], ...]:
    """Messages as five arrays: targets, ids, executions, times and events."""
    return (
        [message.target for message in messages],
        [message.id for message in messages],
        [message.execution_id for message in messages],
        [None if message.visible_at is None else to_micros(message.visible_at) for message in messages],
        [encode_event(message.event).encode() for message in messages],
    )


@dataclass(slots=True)
class Run:
    """A stored run of events, read to be amended."""

    ref: int
    first: int
    events: list[HistoryEvent]


@dataclass(slots=True)
class Batch:
    """Checkpoints of different instances that are written together.

    Args:
        bring: rows whose input is brought along whatever we remember of them.

    Attributes:
        changed: projections that are written, for those who watch.
        holding: whose lease is kept.
    """

    grants: Grants
    bring: Collection[int] = ()
    checkpoints: list[Checkpoint] = member(default_factory=list[Checkpoint])
    refs: list[int] = member(default_factory=list[int])
    changed: dict[int, InstanceState] = member(default_factory=dict[int, InstanceState])
    tasks: list[ActivityTask] = member(default_factory=list[ActivityTask])
    messages: list[Message] = member(default_factory=list[Message])
    releases: bool = False
    _fence: list[tuple[object, ...]] = member(default_factory=list[tuple[object, ...]])
    _projections: list[tuple[object, ...]] = member(default_factory=list[tuple[object, ...]])
    _restoring: list[tuple[int, str]] = member(default_factory=list[tuple[int, str]])
    _replaced: list[int] = member(default_factory=list[int])
    _history: list[tuple[int, int, bytes]] = member(default_factory=list[tuple[int, int, bytes]])
    _runs: dict[tuple[int, int], Run] = member(default_factory=dict[tuple[int, int], Run])
    _consumed: list[int] = member(default_factory=list[int])
    _consumed_by_id: list[tuple[int, str]] = member(default_factory=list[tuple[int, str]])
    _deferred: list[tuple[int, str]] = member(default_factory=list[tuple[int, str]])
    _folded: list[str] = member(default_factory=list[str])
    _task_refs: list[int] = member(default_factory=list[int])
    _tagged: list[tuple[int, InstanceState]] = member(default_factory=list[tuple[int, InstanceState]])
    _look: list[int] = member(default_factory=list[int])
    _empty: list[int] = member(default_factory=list[int])

    def add(self, checkpoint: Checkpoint, token: InstanceToken) -> None:
        """Take up one checkpoint."""
        ref, base = token.ref, checkpoint.base
        grant = self.grants.find(token)
        self.checkpoints.append(checkpoint)
        self.refs.append(ref)
        version = (None, None) if base is None else (base.generation, base.length)
        projection, expected, mode = self._projection(checkpoint, ref, grant)
        self._fence.append((ref, token.lease, *version, expected, checkpoint.hold, mode))
        self._projections.append(projection)
        if not checkpoint.hold:
            self.releases = True
            if checkpoint.state is None and base is None:
                self._empty.append(ref)
        elif grant is None or checkpoint.deferred:
            self._look.append(ref)
        self._folded += [lease.key for lease in checkpoint.completed]
        self.tasks += checkpoint.activities
        self._task_refs += [ref] * len(checkpoint.activities)
        self.messages += checkpoint.messages
        given: Mapping[str, int] = {} if grant is None else grant.given
        for message_id in checkpoint.consumed:
            seq = given.get(message_id, UNKNOWN_ROW)
            if seq != UNKNOWN_ROW:
                self._consumed.append(seq)
            else:
                self._consumed_by_id.append((ref, message_id))
        self._deferred += [(ref, message_id) for message_id in checkpoint.deferred]

    def _projection(
        self, checkpoint: Checkpoint, ref: int, grant: Grant | None
    ) -> tuple[tuple[object, ...], str | None, int]:
        state, base = checkpoint.state, checkpoint.base
        if state is None or state.version is None:
            return _NO_PROJECTION, None, _NOTHING
        version = state.version
        replaces = base is None or version.generation > base.generation
        if replaces and base is not None:
            self._replaced.append(ref)
        if checkpoint.events:
            first = 0 if base is None or replaces else base.length
            self._history.append((ref, first, encode_events(checkpoint.events).encode()))
        newer = base is None or version > base or bool(checkpoint.amended)
        if not newer:
            self._restoring += [(ref, message_id) for message_id in checkpoint.consumed]
        state = shown_state(state)
        self.changed[ref] = state
        # The input of an execution never changes, and may be large.
        known = None if grant is None or replaces or not newer or ref in self.bring else grant.execution_id
        bring = known != state.execution_id
        if bring:
            self._tagged.append((ref, state))
        payloads = payloads_of(state)
        columns = (
            version.generation,
            version.length,
            to_micros(state.updated_at),
            to_micros(state.created_at),
            state.status in TERMINAL,
            state.status.value,
            state.execution_id,
            state.name,
            None if state.parent is None else state.parent.instance_id,
            state_text(state).encode(),
            raw(payloads[1]),
            raw(payloads[2]),
            raw(payloads[3]),
            bring,
            raw(payloads[0]) if bring else None,
        )
        return columns, None if bring else known, _WRITE if newer else _RESTORE

    def amendments(self) -> list[tuple[int, int]]:
        """The events that are amended: rows and indexes."""
        return [
            (ref, index)
            for ref, checkpoint in zip(self.refs, self.checkpoints, strict=True)
            for index, _ in checkpoint.amended
        ]

    def amend(self, run_of: Callable[[int, int], Run | None]) -> None:
        """Put amended events into their runs, which were read."""
        for ref, checkpoint in zip(self.refs, self.checkpoints, strict=True):
            for index, event in checkpoint.amended:
                run = run_of(ref, index)
                if run is None:
                    raise ValueError(f"history has no event {index} to amend")
                run = self._runs.setdefault((ref, run.first), run)
                run.events[index - run.first] = event

    def arguments(self, *, locked: int, room: int) -> list[object]:
        """The arguments of `commit` behind hub and lease.

        Args:
            locked: so many of the activities are handed over.
            room: so many instances are to be locked for those who wait.
        """
        runs = list(self._runs.values())
        tags = [
            (ref, name.encode(), value.encode())
            for ref, state in self._tagged
            for name, value in (state.tags or {}).items()
        ]
        columns: list[object] = [
            *_columns(self._fence, 7),
            *_columns(self._projections, 15),
            *_columns(self._restoring, 2),
            self._replaced,
            *_columns(self._history, 3),
            [run.ref for run in runs],
            [run.first for run in runs],
            [encode_events(run.events).encode() for run in runs],
            self._consumed,
            *_columns(self._consumed_by_id, 2),
            *_columns(self._deferred, 2),
            self._folded,
            self._task_refs,
            [task.dispatch_id for task in self.tasks],
            [encode_task(task).encode() for task in self.tasks],
            locked,
            *message_columns(self.messages),
            [ref for ref, _ in self._tagged],
            *_columns(tags, 3),
            self._look,
            self._empty,
            room,
        ]
        # The driver passes NULL at a tenth of the price of an empty array.
        return [None if column == [] else column for column in columns]

    def applied(self, restored: Collection[int], owner_of: Callable[[InstanceToken], bool]) -> dict[str, InstanceState]:
        """Remember what was written; returns the projections that changed, by instance id."""
        found: dict[str, InstanceState] = {}
        for ref, checkpoint, fence in zip(self.refs, self.checkpoints, self._fence, strict=True):
            token = checkpoint.lease.token
            assert isinstance(token, InstanceToken)
            state = self.changed.get(ref)
            if fence[6] == _NOTHING or (fence[6] == _RESTORE and ref not in restored):
                state = None
            if state is not None:
                found[checkpoint.lease.key] = state
            if not checkpoint.hold:
                self.grants.drop(ref)
                continue
            grant = self.grants.find(token)
            if grant is None:
                if not owner_of(token):
                    continue
                grant = Grant(ref, InstanceId(checkpoint.lease.key), token.lease, checkpoint.base)
                self.grants.add(grant)
            for message_id in (*checkpoint.consumed, *checkpoint.deferred):
                grant.given.pop(message_id, None)
            if checkpoint.state is not None:
                grant.version = checkpoint.state.version
            if state is not None:
                grant.status, grant.execution_id = state.status.value, state.execution_id
            grant.carried = None
            grant.held = True
        return found


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    if not rows:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*rows, strict=True)]


def run_of_rows(ref: int, first: int, events: bytes) -> Run:
    """A stored run.

    Raises:
        MsgspecError: it cannot be decoded.
    """
    return Run(ref, first, decode_events(events))


_NO_PROJECTION: tuple[object, ...] = (*(None,) * 13, False, None)
