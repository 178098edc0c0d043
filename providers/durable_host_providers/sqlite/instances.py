"""Starts, quarantine and purge, as parts of a write transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from durable_host.model.instance import InstanceState, pending_state
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome, Lease
from durable_host_providers._sql.rows import payloads_of, state_text, to_micros

from .checkpoints import inline, write_tags
from .grants import InstanceToken
from .transaction import SQL, Transaction, pairs, rows, values

__all__ = ["Start", "create", "purge", "quarantine", "release_quarantined"]

_FIND = values("find_instances")
_ADD = rows("add_instances")
_ADD_PAYLOADS = rows("add_payloads")
_LEASED = rows("leased_instances")
_RELEASE_QUARANTINED = values("release_quarantined")
_QUARANTINED = values("quarantined")
_PURGEABLE = values("purgeable")
_PURGES = tuple(
    values(name)
    for name in ("drop_instances", "drop_inboxes", "drop_history", "drop_payloads", "drop_tags", "drop_tasks")
)


@dataclass(frozen=True, slots=True)
class Start:
    """One call of create_instance."""

    message: Message
    replaceable: Collection[RuntimeStatus]


def create(tx: Transaction, starts: Sequence[Start]) -> list[bool]:
    """Store each start and its Pending projection, unless an instance stands in the way; says which were taken."""
    found: dict[str, Sequence[Any]] = {}
    for cursor in _FIND.run(tx.execute, list({start.message.target: None for start in starts})):
        for row in cursor:
            found[row[0]] = row[1:]
    batch = _Starts(tx)
    outcomes: list[bool] = []
    for start in starts:
        row = found.get(start.message.target)
        taken = batch.add(start, row)
        if taken is not None:
            found[start.message.target] = taken
        outcomes.append(taken is not None)
    batch.write()
    return outcomes


class _Starts:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._new: list[tuple[InstanceState, Message]] = []
        self._next: int | None = None
        self._large: list[tuple[int, int, str]] = []
        self._tagged: list[tuple[int, InstanceState]] = []
        self._rows: list[Sequence[object]] = []

    def add(self, start: Start, row: Sequence[Any] | None) -> Sequence[Any] | None:
        """Take one start up; returns what stands under its id then, or None if it was refused."""
        message = start.message
        state = pending_state(message)
        if row is None:
            return self._insert(state, message)
        ref, status, start_id, quarantined = row
        if start_id == message.id:
            return row  # the same start again: it hears what it heard before
        if quarantined or (status is not None and RuntimeStatus(status) not in start.replaceable):
            return None
        return self._replace(ref, state, message, row)

    def _insert(self, state: InstanceState, message: Message) -> Sequence[Any]:
        tx = self._tx
        ref = tx.new_instances(1)
        due = tx.put(ref, (message,))
        (text, *_), mask = inline(ref, payloads_of(state), self._large)
        created = to_micros(state.created_at)
        parent = None if state.parent is None else state.parent.instance_id
        status = state.status.value
        self._rows.append(
            (
                ref,
                state.instance_id,
                due,
                message.id,
                status,
                state.execution_id,
                state.name,
                parent,
                created,
                created,
                mask,
                state_text(state),
                text,
            )
        )
        if state.tags:
            self._tagged.append((ref, state))
        tx.changed[state.instance_id] = state
        tx.woken = True
        return ref, status, message.id, 0

    def _replace(self, ref: int, state: InstanceState, message: Message, row: Sequence[Any]) -> Sequence[Any]:
        tx = self._tx
        self._flush()
        (text, *_), mask = inline(ref, payloads_of(state), self._large)
        created = to_micros(state.created_at)
        parent = None if state.parent is None else state.parent.instance_id
        status = state.status.value
        columns = (message.id, status, state.execution_id, state.name, parent, created, created, mask)
        tx.execute(SQL["replace_instance"], (ref, *columns, state_text(state), text))
        tx.send((message,))
        self._tagged.append((ref, state))
        tx.changed[state.instance_id] = state
        return ref, status, message.id, 0

    def _flush(self) -> None:
        rows_, self._rows = self._rows, []
        if rows_:
            _ADD.do(self._tx.execute, rows_)

    def write(self) -> None:
        self._flush()
        self._tx.deliver()
        if self._large:
            _ADD_PAYLOADS.do(self._tx.execute, self._large)
        if self._tagged:
            write_tags(self._tx, self._tagged, [ref for ref, _ in self._tagged])


def quarantine(tx: Transaction, lease: Lease, reason: str) -> CommitOutcome:
    """Take a locked instance out of circulation."""
    token = lease.token
    if not isinstance(token, InstanceToken):
        return CommitOutcome.LEASE_LOST
    if not list(pairs(_LEASED.run(tx.execute, [(token.ref, token.lease)]))):
        return CommitOutcome.LEASE_LOST
    tx.execute(SQL["quarantine"], (token.ref, reason))
    tx.touched.append(token.ref)
    tx.grants.drop(token.ref)
    tx.changed[lease.key] = None
    return CommitOutcome.COMMITTED


def release_quarantined(tx: Transaction, instance_ids: Collection[str]) -> int:
    """Put instances back into circulation; says how many were out of it."""
    asked = list(dict.fromkeys(instance_ids))
    released = [row[0] for cursor in _QUARANTINED.run(tx.execute, asked) for row in cursor]
    if released:
        _RELEASE_QUARANTINED.do(tx.execute, released)
        tx.changed.update(dict.fromkeys(released))
        tx.woken = True
    return len(released)


def purge(tx: Transaction, instance_ids: Collection[str], force: bool) -> int:
    """Remove instances with all that belongs to them; says how many. A lease on one of them is lost."""
    asked = list(dict.fromkeys(instance_ids))
    found = [row for cursor in _PURGEABLE.run(tx.execute, asked, force) for row in cursor]
    refs = [row[0] for row in found]
    if refs:
        for statement in _PURGES:
            statement.do(tx.execute, refs)
        for ref in refs:
            tx.touched.append(ref)
            tx.grants.drop(ref)
        tx.changed.update({row[1]: None for row in found})
    return sum(row[2] for row in found)
