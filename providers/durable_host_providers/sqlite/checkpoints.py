"""Checkpoints and completions take effect, many in one transaction.

Each statement is run once over the rows of all checkpoints of a batch. Which ones may be written is found out first,
in one statement (`fence`), and since nobody else writes until the transaction ends, that stays true.

The usual step of an instance that its worker holds (same status, same execution) touches no index of its row
(`advance`); every other one goes through `project`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

from durable_host.model.codec import decode_events, encode_events
from durable_host.model.history import HistoryEvent
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask
from durable_host.model.status import TERMINAL
from durable_host.storage.contract import ActivityCompletion, Checkpoint, CommitOutcome
from durable_host_providers._sql.rows import INLINE, payloads_of, shown_state, state_text, to_micros

from .grants import ActivityToken, Grant, InstanceToken
from .locking import Locking
from .transaction import SQL, Transaction, pairs, rows, values

__all__ = ["commit", "complete", "inline", "write_tags"]

_FENCE = rows("fence")
_STEADY = rows("steady")
_DROP_HISTORY = values("drop_history")
_ADD_HISTORY = rows("add_history")
_DROP_MESSAGES = values("drop_messages")
_FOLD_ACTIVITIES = values("fold_activities")
_ADVANCE = rows("advance")
_PROJECT = rows("project")
_KEEP = values("keep_instances")
_RELEASE = values("release_instances")
_DROP_PLACES = values("drop_places")
_ADD_PAYLOADS = rows("add_payloads")
_ADD_TAGS = rows("add_tags")
_DROP_TAGS = values("drop_tags")
_LEASED_ACTIVITIES = rows("leased_activities")
_FINISH_ACTIVITIES = values("finish_activities")
_EARLIEST = values("earliest_messages")


def commit(tx: Transaction, locking: Locking, checkpoints: Sequence[Checkpoint]) -> list[CommitOutcome]:
    """Apply each checkpoint or nothing of it."""
    batch = _Batch(tx, locking)
    valid, steady = batch.fence(checkpoints)
    outcomes: list[CommitOutcome] = []
    for checkpoint in checkpoints:
        token = checkpoint.lease.token
        if isinstance(token, InstanceToken) and token in valid:
            valid.discard(token)  # a second checkpoint from the same base finds another one
            batch.add(checkpoint, token, token.ref in steady)
            outcomes.append(CommitOutcome.COMMITTED)
        else:
            outcomes.append(CommitOutcome.LEASE_LOST)
    batch.write()
    return outcomes


def complete(tx: Transaction, completions: Sequence[ActivityCompletion]) -> list[CommitOutcome]:
    """Send the reply of each activity whose lease is current, and remove the task."""
    asked = [each.lease.token for each in completions]
    tokens = [token for token in asked if isinstance(token, ActivityToken)]
    leases = _LEASED_ACTIVITIES.run(tx.execute, [(each.seq, each.lease) for each in tokens])
    current = {ActivityToken(lease, seq) for seq, lease in pairs(leases)}
    done: list[int] = []
    outcomes: list[CommitOutcome] = []
    for token, completion in zip(asked, completions, strict=True):
        if isinstance(token, ActivityToken) and token in current:
            current.discard(token)  # a second completion of the same lease finds nothing
            done.append(token.seq)
            tx.send((completion.reply,))
            outcomes.append(CommitOutcome.COMMITTED)
        else:
            outcomes.append(CommitOutcome.LEASE_LOST)
    _FINISH_ACTIVITIES.do(tx.execute, done)
    return outcomes


def inline(ref: int, payloads: Sequence[str | None], large: list[tuple[int, int, str]]) -> tuple[list[str | None], int]:
    """Payload columns of a row, and the mask of those that are too long for it and went to `large`."""
    columns = list(payloads)
    mask = 0
    for member, text in enumerate(payloads):
        if text is not None and len(text) > INLINE:
            large.append((ref, member, text))
            columns[member] = None
            mask |= 1 << member
    return columns, mask


def write_tags(tx: Transaction, tagged: Iterable[tuple[int, InstanceState]], replaced: Collection[int]) -> None:
    """Put the tags of projections in place of earlier ones."""
    if replaced:
        _DROP_TAGS.do(tx.execute, list(replaced))
    found = [(ref, name, value) for ref, state in tagged for name, value in (state.tags or {}).items()]
    if found:
        _ADD_TAGS.do(tx.execute, found)


class _Batch:
    """The rows of all checkpoints of one transaction."""

    def __init__(self, tx: Transaction, locking: Locking) -> None:
        self._tx = tx
        self._locking = locking
        self._replaced: list[int] = []
        self._history: list[tuple[int, int, str]] = []
        self._consumed: list[int] = []
        self._folded: list[str] = []
        self._activities: list[tuple[int, ActivityTask]] = []
        self._large: list[tuple[int, int, str]] = []
        self._tagged: list[tuple[int, InstanceState]] = []
        self._advances: list[Sequence[object]] = []
        self._projections: list[Sequence[object]] = []
        self._kept: list[int] = []
        self._released: list[int] = []
        self._empty: list[int] = []
        self._held: list[int] = []
        self._has_inboxes = False

    def fence(self, checkpoints: Sequence[Checkpoint]) -> tuple[set[InstanceToken], set[int]]:
        """The leases whose checkpoint may be written, and the rows among them whose projection is as we remember it."""
        asked: list[tuple[object, ...]] = []
        known: list[tuple[int, str | None, str | None]] = []
        for checkpoint in checkpoints:
            token, base = checkpoint.lease.token, checkpoint.base
            if not isinstance(token, InstanceToken):
                continue
            version = (None, None) if base is None else (base.generation, base.length)
            grant = self._tx.grants.find(token)
            if grant is None or base is None:
                asked.append((token.ref, token.lease, *version, None, ""))  # "" matches no execution
            else:
                asked.append((token.ref, token.lease, *version, grant.status, grant.execution_id))
                known.append((token.ref, grant.status, grant.execution_id))
        if not asked:
            return set(), set()
        valid: set[InstanceToken] = set()
        steady = 0.0
        for cursor in _FENCE.run(self._tx.execute, asked, self._tx.now):
            refs, leases, count, inboxes = cursor.fetchone()
            steady += count
            self._has_inboxes = self._has_inboxes or inboxes > 0
            if refs is not None:
                valid.update(map(InstanceToken, map(int, leases.split(",")), map(int, refs.split(","))))
        if steady == len(known):
            return valid, {row[0] for row in known}
        return valid, _numbers(cursor.fetchone()[0] for cursor in _STEADY.run(self._tx.execute, known, self._tx.now))

    def add(self, checkpoint: Checkpoint, token: InstanceToken, steady: bool) -> None:
        """Take up one checkpoint that passed the fence."""
        tx, ref = self._tx, token.ref
        grant = tx.grants.find(token)
        tx.touched.append(ref)
        self._folded += [lease.key for lease in checkpoint.completed]
        for task in checkpoint.activities:
            self._activities.append((ref, task))
        self._drop_messages(checkpoint, ref, grant)
        state = checkpoint.state
        if state is not None and state.version is not None:
            self._record(checkpoint, state, state.version, ref, grant, steady)
        else:
            (self._kept if checkpoint.hold else self._released).append(ref)
            if not checkpoint.hold and checkpoint.base is None:
                self._empty.append(ref)
        tx.committing[checkpoint.lease.key] = ref
        if checkpoint.messages:
            self._has_inboxes = True
            tx.send(checkpoint.messages)
        if checkpoint.hold:
            if grant is None:
                grant = Grant(ref, checkpoint.lease.key, token.lease, checkpoint.base)
                tx.grants.add(grant)
            if state is not None:
                grant.version = state.version
            grant.held = True
            self._held.append(ref)
        else:
            tx.grants.drop(ref)

    def _drop_messages(self, checkpoint: Checkpoint, ref: int, grant: Grant | None) -> None:
        given = {} if grant is None else grant.given
        for message_id in checkpoint.consumed:
            seq = given.pop(message_id, None)
            if seq is not None:
                self._consumed.append(seq)
            else:
                self._tx.execute(SQL["drop_message"], (ref, message_id))
        for message_id in checkpoint.deferred:
            given.pop(message_id, None)
            self._tx.execute(SQL["delay_message"], (self._tx.now, ref, message_id))

    def _record(
        self,
        checkpoint: Checkpoint,
        state: InstanceState,
        version: HistoryVersion,
        ref: int,
        grant: Grant | None,
        steady: bool,
    ) -> None:
        base = checkpoint.base
        replaces = base is None or version.generation > base.generation
        if replaces and base is not None:
            self._replaced.append(ref)
        if checkpoint.events:
            first = 0 if base is None or replaces else base.length
            self._history.append((ref, first, encode_events(checkpoint.events)))
        for index, event in checkpoint.amended:
            self._amend(ref, index, event)
        hold = checkpoint.hold
        newer = base is None or version > base or bool(checkpoint.amended)
        if not newer and not self._takes_back(checkpoint, ref):
            (self._kept if hold else self._released).append(ref)
            return
        state = shown_state(state)
        self._tx.changed[checkpoint.lease.key] = state
        status, execution_id = state.status.value, state.execution_id
        same = steady and grant is not None and (grant.status, grant.execution_id) == (status, execution_id)
        payloads = payloads_of(state)
        if same and hold and newer and state.status not in TERMINAL and payloads[3] is None:
            columns, mask = inline(ref, (None, None, payloads[2], None), self._large)
            updated = to_micros(state.updated_at)
            self._advances.append(
                (ref, version.generation, version.length, updated, state_text(state), columns[2], mask)
            )
            return
        # The input of an execution never changes, and may be large.
        with_input = replaces or not same
        columns, mask = inline(ref, payloads if with_input else (None, *payloads[1:]), self._large)
        if with_input:
            self._tagged.append((ref, state))
        if grant is not None:
            grant.status, grant.execution_id = status, execution_id
        self._projections.append(
            (
                ref,
                version.generation,
                version.length,
                to_micros(state.updated_at),
                to_micros(state.created_at),
                status,
                execution_id,
                state.name,
                None if state.parent is None else state.parent.instance_id,
                state_text(state),
                columns[1],
                columns[2],
                columns[3],
                columns[0],
                with_input,
                mask,
                hold,
            )
        )

    def _takes_back(self, checkpoint: Checkpoint, ref: int) -> bool:
        # A start that was to replace the instance shows as Pending, over a history that still stands. Only the
        # checkpoint that drops this very start may put the old projection back.
        if not checkpoint.consumed:
            return False
        start_id, is_place, is_pending = self._tx.execute(SQL["pending_start"], (ref,)).fetchone()
        return bool(is_place or (is_pending and start_id in checkpoint.consumed))

    def _amend(self, ref: int, index: int, event: HistoryEvent) -> None:
        run: tuple[Any, ...] | None = self._tx.execute(SQL["run_with_event"], (ref, index)).fetchone()
        if run is None:
            raise ValueError(f"history has no event {index} to amend")
        number, first, text = run
        events = decode_events(text)
        events[index - first] = event
        self._tx.execute(SQL["amend_run"], (number, encode_events(events)))

    def write(self) -> None:
        """Execute the statements: what is replaced goes first, the rows of the instances come last."""
        tx, execute = self._tx, self._tx.execute
        if self._replaced:
            _DROP_HISTORY.do(execute, self._replaced)
        if self._history:
            _ADD_HISTORY.do(execute, self._history)
        if self._consumed:
            _DROP_MESSAGES.do(execute, self._consumed)
        if self._folded:
            _FOLD_ACTIVITIES.do(execute, self._folded)
        if self._activities:
            self._locking.add_activities(tx, self._activities)
        tx.deliver()
        tx.committing = {}
        if self._large:
            _ADD_PAYLOADS.do(execute, self._large)
        if self._tagged:
            write_tags(tx, self._tagged, [ref for ref, _ in self._tagged])
        if self._advances:
            _ADVANCE.do(execute, self._advances)
        if self._projections:
            _PROJECT.do(execute, self._projections, tx.now, tx.until)
            tx.woken = tx.woken or not all(row[-1] for row in self._projections)
        if self._kept:
            _KEEP.do(execute, self._kept, tx.until, tx.now)
        if self._released:
            _RELEASE.do(execute, self._released)
            tx.woken = True
        if self._empty:
            _DROP_PLACES.do(execute, self._empty)
        if self._held and self._has_inboxes:
            for cursor in _EARLIEST.run(execute, self._held):
                for ref, due in cursor:
                    tx.grants.look(ref, due, tx.now)


def _numbers(lists: Iterable[str | None]) -> set[int]:
    return set(chain.from_iterable(map(int, each.split(",")) for each in lists if each))
