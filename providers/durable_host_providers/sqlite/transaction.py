"""One write transaction: what all jobs of a batch share, and messages on their way to inboxes.

Jobs of one batch are applied kind by kind and in bulk, since every statement costs the writer a turn of Python's global
lock: first what makes work, then what gives it out. Messages that several jobs send are collected and put into their
inboxes together, before anything is locked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from durable_host.model.codec import encode_event
from durable_host.model.instance import InstanceState
from durable_host.model.messages import Message
from durable_host_providers._sql.rows import to_micros
from durable_host_providers._sql.statements import Rows, Values, load_statements

from .grants import Grants

__all__ = ["AT_ONCE", "LEASE_BITS", "SQL", "Marks", "Transaction", "pairs", "rows", "values"]

AT_ONCE = 1 << 48
"""Wake-up times below this are numbers of messages, not instants: visible at once, whatever the clock says."""

LEASE_BITS = 40
"""Lower bits of a lease number, which count this owner's locking transactions; above them stands the owner."""

SQL = load_statements("durable_host_providers.sqlite", "write.sql", "read.sql")


def rows(name: str) -> Rows:
    """A named statement over many rows."""
    return Rows(SQL[name])


def pairs(cursors: Iterable[sqlite3.Cursor]) -> Iterator[tuple[int, int]]:
    """The pairs of numbers in two lists, as `group_concat` writes them: one fetch instead of one for each row."""
    for cursor in cursors:
        row: tuple[str | None, str | None] = cursor.fetchone()
        if row[0] and row[1]:
            yield from zip(map(int, row[0].split(",")), map(int, row[1].split(",")), strict=True)


def values(name: str) -> Values:
    """A named statement over a list of values."""
    return Values(SQL[name])


_FIND_TARGETS = values("find_targets")
_ADD_PLACES = rows("add_places")
_ADD_MESSAGES = rows("add_messages")
_STORED = values("stored_messages")
_WAKE = rows("wake")


class Marks(NamedTuple):
    """The highest numbers of messages, activities and instances, and the time of the last arrival."""

    message: int
    arrived: int
    activity: int
    instance: int


class Transaction:
    """A write transaction in progress.

    Attributes:
        now: the time of all its effects, in microseconds.
        until: when a lease that it gives ends.
        lease: number of the leases that it gives: differs from every other transaction's, of any process, for ever.
        changed: projections that it wrote, for those who watch; None: somebody must read it.
        woken: it may have made instances eligible. `tasks_added`: the same for activities.
        marks: where numbering stands; kept for the next transaction, as long as nobody else writes.
        touched: instances whose grant no longer tells the truth if this fails.
        committing: rows of instances whose checkpoint is in this transaction: it wakes them itself, after `deliver`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        grants: Grants,
        *,
        owner: int,
        now: int,
        until: int,
        lease: int,
        marks: Marks | None = None,
    ) -> None:
        self.execute = connection.execute
        self.grants = grants
        self.owner = owner
        self.now = now
        self.until = until
        self.lease = lease
        self.changed: dict[str, InstanceState | None] = {}
        self.woken = False
        self.tasks_added = False
        self.touched: list[int] = []
        self.committing: dict[str, int] = {}
        self._outgoing: list[Message] = []
        self._message_rows: list[Sequence[object]] = []
        self.marks = marks
        self._first_message = 1 << 62

    # Numbers of new rows.

    def _numbers(self) -> Marks:
        if self.marks is None:
            found: tuple[Any, ...] = self.execute(SQL["marks"]).fetchone()
            self.marks = Marks(*(each or 0 for each in found))
        return self.marks

    def new_messages(self, count: int) -> tuple[int, int]:
        """Numbers for messages: the first, and the time of their arrival, which is never before an earlier one's."""
        message, arrived, activity, instance = self._numbers()
        arrived = max(arrived, self.now)
        self.marks = Marks(message + count, arrived, activity, instance)
        self._first_message = min(self._first_message, message + 1)
        return message + 1, arrived

    def is_new(self, message: int) -> bool:
        """Whether it is this transaction that put the message into an inbox."""
        return self.marks is not None and self._first_message <= message <= self.marks.message

    def new_activities(self, count: int) -> int:
        """Numbers for activities: the first."""
        message, arrived, activity, instance = self._numbers()
        self.marks = Marks(message, arrived, activity + count, instance)
        return activity + 1

    def new_instances(self, count: int) -> int:
        """Numbers for instances: the first."""
        message, arrived, activity, instance = self._numbers()
        self.marks = Marks(message, arrived, activity, instance + count)
        return instance + 1

    # Messages.

    def send(self, messages: Iterable[Message]) -> None:
        """Put messages on their way to instances, whoever has them."""
        self._outgoing.extend(messages)

    def put(self, ref: int, messages: Sequence[Message]) -> int:
        """Put messages into the inbox of an instance whose row is ours to write; returns the earliest wake-up time."""
        seq, arrived = self.new_messages(len(messages))
        earliest = 1 << 62
        for message in messages:
            visible_at = None if message.visible_at is None else to_micros(message.visible_at)
            due = seq if visible_at is None else visible_at
            earliest = min(earliest, due)
            self._message_rows.append(
                (seq, ref, due, arrived, visible_at, message.id, message.execution_id, encode_event(message.event))
            )
            seq += 1
        return earliest

    def deliver(self) -> None:
        """Write the inboxes and wake the instances that nobody has locked."""
        outgoing, self._outgoing = self._outgoing, []
        wakes: list[tuple[int, int, int]] = []
        if outgoing:
            by_target: dict[str, list[Message]] = {}
            for message in outgoing:
                by_target.setdefault(message.target, []).append(message)
            found = self._find_targets([target for target in by_target if target not in self.committing])
            for target, messages in by_target.items():
                if target in self.committing:
                    self.put(self.committing[target], messages)
                    continue
                ref, lease, wake_at, quarantined = found[target]
                first = len(self._message_rows)
                due = self.put(ref, messages)
                if quarantined:
                    continue
                if lease is not None and lease > 0 and wake_at > self.now:
                    grant = self.grants.by_ref.get(ref)
                    if grant is not None and grant.held and grant.lease == lease:
                        self.grants.look(ref, due, self.now)
                elif wake_at is None or due < wake_at:
                    wakes.append((ref, due, first))
        rows_, self._message_rows = self._message_rows, []
        if not rows_:
            return
        stored = sum(cursor.rowcount for cursor in _ADD_MESSAGES.run(self.execute, rows_))
        if wakes and stored < len(rows_):
            wakes = self._really_new(wakes, rows_)
        if wakes:
            _WAKE.do(self.execute, [(ref, due) for ref, due, _ in wakes])
            self.woken = True

    def _find_targets(self, targets: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Row, lease, wake-up time and quarantine of instances; those that do not exist get a place."""
        found: dict[str, Sequence[Any]] = {}
        for cursor in _FIND_TARGETS.run(self.execute, targets):
            for row in cursor:
                found[row[0]] = row[1:]
        missing = [target for target in targets if target not in found]
        if missing:
            first = self.new_instances(len(missing))
            _ADD_PLACES.do(self.execute, list(enumerate(missing, first)))
            for ref, target in enumerate(missing, first):
                found[target] = (ref, None, None, 0)
        return found

    def _really_new(
        self, wakes: Sequence[tuple[int, int, int]], rows_: Sequence[Sequence[Any]]
    ) -> list[tuple[int, int, int]]:
        """Wake-ups without those for messages that waited already: these must not cut a delay short."""
        seqs = [row[0] for row in rows_]
        stored = {row[0] for cursor in _STORED.run(self.execute, seqs) for row in cursor}
        found: list[tuple[int, int, int]] = []
        for ref, _, first in wakes:
            dues = [row[2] for row in rows_[first:] if row[1] == ref and row[0] in stored]
            if dues:
                found.append((ref, min(dues), first))
        return found
