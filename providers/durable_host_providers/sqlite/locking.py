"""Leases: who waits for work, what is given out, renewed and given back.

All of it happens on the writer thread. A lock call becomes a waiter; at the end of every transaction that may have made
something eligible, what is there goes to the waiters, oldest first. That is the hand-over: a checkpoint's activities
are inserted with their lease when somebody waits for them, and an instance that was woken is locked in the transaction
that woke it. Between transactions `probe` finds out, without the write lock, whether a transaction is worth beginning.

Instances that wait at once and instances whose time has come are two ranges of one index; each gets half of the places
if both have enough, so that neither starves the other.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

from msgspec import MsgspecError

from durable_host.model.codec import decode_task, encode_task
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.messages import ActivityTask, Message
from durable_host.storage.contract import ActivityWorkItem, Lease, OrchestrationWorkItem
from durable_host_providers._sql.rows import message_of

from .grants import ActivityToken, Grant, Grants, InstanceToken
from .transaction import AT_ONCE, SQL, Transaction, pairs, rows, values
from .waiting import ActivityWaiter, InstanceWaiter, Waiter

__all__ = ["Delivery", "Locking", "Unloaded"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SPOILT_TASK = 600_000_000
"""Microseconds until a task that cannot be decoded is looked at again."""

_LEASE_INSTANCES = values("lease_instances")
_RELEASE_INSTANCES = values("release_instances")
_END_INSTANCES = values("end_instances")
_POSTPONE_INSTANCES = values("postpone_instances")
_EXTEND_INSTANCES = values("extend_instances")
_LEASED_INSTANCES = rows("leased_instances")
_LIVE_INSTANCES = rows("live_instances")
_LEASED_ACTIVITIES = rows("leased_activities")
_DROP_PLACES = values("drop_places")
_READ_INBOX = values("read_inbox")
_NEXT_MESSAGES = values("next_messages")
_COUNT_DELIVERIES = values("count_deliveries")
_ADD_ACTIVITIES = rows("add_activities")
_STORED = values("stored_activities")
_LEASE_ACTIVITIES = values("lease_activities")
_RELEASE_ACTIVITIES = values("release_activities")
_DELAY_ACTIVITIES = values("delay_activities")
_EXTEND_ACTIVITIES = values("extend_activities")


class Unloaded:
    """A locked instance whose history is still to be read, once the transaction is committed."""

    __slots__ = ("inbox", "instance_id", "lease", "ref", "version")

    def __init__(
        self, ref: int, instance_id: InstanceId, version: HistoryVersion, inbox: Sequence[Message], lease: Lease
    ) -> None:
        self.ref = ref
        self.instance_id = instance_id
        self.version = version
        self.inbox = inbox
        self.lease = lease


class Delivery:
    """What a transaction gives to one waiter when it is committed."""

    def __init__(self, waiter: InstanceWaiter | ActivityWaiter) -> None:
        self.waiter = waiter
        self.instances: list[OrchestrationWorkItem | Unloaded] = []
        self.activities: list[ActivityWorkItem] = []
        self.error: Exception | None = None

    @property
    def room(self) -> int:
        """How many more items it takes."""
        return self.waiter.limit - len(self.instances) - len(self.activities)

    def unloaded(self) -> list[int]:
        """Rows of the instances whose history has to be read."""
        return [each.ref for each in self.instances if isinstance(each, Unloaded)]


class Locking:
    """Waiters and what may be there for them.

    Attributes:
        instances_expected, activities_expected: something eligible may be in the file that nobody has looked at.
        deliveries: of the transaction in progress.
    """

    def __init__(self, grants: Grants, lease: timedelta) -> None:
        self._grants = grants
        self._lease = lease
        self._instance_waiters: deque[InstanceWaiter] = deque()
        self._activity_waiters: deque[ActivityWaiter] = deque()
        self.instances_expected = True
        self.activities_expected = True
        self.deliveries: list[Delivery] = []

    # Waiters.

    def wait(self, waiter: Waiter[Any], *, first: bool = False) -> None:
        """Take up a lock call; `first`: it was here before."""
        waiters: deque[Any] = self._instance_waiters if isinstance(waiter, InstanceWaiter) else self._activity_waiters
        if first:
            waiters.appendleft(waiter)
        else:
            waiters.append(waiter)

    def is_awaited(self) -> bool:
        """Whether any lock call is open."""
        return _any_open(self._instance_waiters) or _any_open(self._activity_waiters)

    def take_all(self, *, only_at_once: bool = False) -> Iterator[InstanceWaiter | ActivityWaiter]:
        """Take open waiters away: all of them, or those that do not want to wait."""
        waiters: list[InstanceWaiter | ActivityWaiter] = [*self._instance_waiters, *self._activity_waiters]
        for waiter in waiters:
            if (waiter.at_once or not only_at_once) and waiter.take():
                yield waiter

    def is_worthwhile(self) -> bool:
        """Whether a call waits for something that may be there."""
        return ((self.instances_expected or bool(self._grants.arrived)) and _any_open(self._instance_waiters)) or (
            self.activities_expected and _any_open(self._activity_waiters)
        )

    def is_idle(self) -> bool:
        """Nothing is eligible, as far as is known."""
        return not (self.instances_expected or self.activities_expected or self._grants.arrived)

    def probe(self, execute: Callable[..., sqlite3.Cursor], now: int) -> tuple[int | None, int]:
        """Look, without the write lock, whether anything is eligible.

        Returns when the next thing will be, and the file's data version.
        """
        instance, instance_due, activity, activity_due, version = execute(SQL["probe"], (AT_ONCE,)).fetchone()
        self.instances_expected = instance is not None or (instance_due is not None and instance_due <= now)
        self.activities_expected = activity is not None or (activity_due is not None and activity_due <= now)
        due = [each for each in (instance_due, activity_due, self._grants.next_due(now)) if each and each > now]
        return min(due, default=None), version

    def _room(self, waiters: Iterable[Waiter[Any]], kind: type[Waiter[Any]]) -> int:
        begun = sum(each.room for each in self.deliveries if isinstance(each.waiter, kind))
        return begun + sum(waiter.limit for waiter in waiters if waiter.is_open)

    def _places(self, waiters: deque[Any], kind: type[Waiter[Any]], wanted: int) -> list[Delivery]:
        """Places for items, one entry for each: as many as are wanted, as far as calls wait."""
        places: list[Delivery] = []
        for delivery in self.deliveries:
            if isinstance(delivery.waiter, kind):
                places += [delivery] * delivery.room
        while len(places) < wanted and waiters:
            waiter = waiters.popleft()
            if waiter.take():
                delivery = Delivery(waiter)
                self.deliveries.append(delivery)
                places += [delivery] * delivery.room
        return places[:wanted]

    # Giving out.

    def give_out(self, tx: Transaction) -> None:
        """Lock what is eligible for those who wait."""
        self.instances_expected = self.instances_expected or tx.woken
        self.activities_expected = self.activities_expected or tx.tasks_added
        self._grants.next_due(tx.now)
        if self._grants.arrived:
            self._top_up(tx)
        if self.instances_expected:
            self._lock_instances(tx)
        if self.activities_expected:
            self._lock_activities(tx)

    def _top_up(self, tx: Transaction) -> None:
        """Tell holders what has arrived for the instances they hold."""
        room = self._room(self._instance_waiters, InstanceWaiter)
        refs = list(self._grants.arrived)[:room]
        if not refs:
            return
        for ref in refs:
            del self._grants.arrived[ref]
        inboxes = _inboxes(tx, refs)
        for cursor in _NEXT_MESSAGES.run(tx.execute, refs, tx.now):
            for ref, due in cursor:
                self._grants.look(ref, due, tx.now)
        held = [grant for ref in refs if (grant := self._grants.by_ref.get(ref)) is not None and grant.held]
        # A lease that has ended may be anybody's next; if it is renewed, there will be another look.
        live = set(pairs(_LIVE_INSTANCES.run(tx.execute, [(grant.ref, grant.lease) for grant in held], tx.now)))
        arrivals: list[tuple[Grant, list[_Row]]] = []
        for grant in held:
            if (grant.ref, grant.lease) in live:
                inbox = [row for row in inboxes.get(grant.ref, ()) if row[2] not in grant.given]
                if inbox:
                    arrivals.append((grant, inbox))
        places = self._places(self._instance_waiters, InstanceWaiter, len(arrivals))
        counted: list[int] = []
        for delivery, (grant, inbox) in zip(places, arrivals, strict=False):
            tx.touched.append(grant.ref)
            messages = self._messages(tx, grant, inbox, counted)
            if messages is not None:
                delivery.instances.append(
                    OrchestrationWorkItem(InstanceId(grant.instance_id), grant.version, None, messages, self._of(grant))
                )
        for grant, _ in arrivals[len(places) :]:  # the call's time ran out meanwhile
            self._grants.arrived[grant.ref] = None
        _COUNT_DELIVERIES.do(tx.execute, counted)

    def _lock_instances(self, tx: Transaction) -> None:
        room = self._room(self._instance_waiters, InstanceWaiter)
        if not room:
            return
        at_once = tx.execute(SQL["immediate_instances"], (AT_ONCE, room)).fetchall()
        due = tx.execute(SQL["due_instances"], (AT_ONCE, tx.now, room)).fetchall()
        chosen = _mixed(at_once, due, room)
        self.instances_expected = len(at_once) + len(due) >= room
        if not chosen:
            return
        inboxes = _inboxes(tx, [row[0] for row in chosen])
        idle = [row[0] for row in chosen if row[0] not in inboxes]
        if idle:
            _END_INSTANCES.do(tx.execute, idle)
            _DROP_PLACES.do(tx.execute, idle)
            chosen = [row for row in chosen if row[0] in inboxes]
        places = self._places(self._instance_waiters, InstanceWaiter, len(chosen))
        counted: list[int] = []
        locked: list[int] = []
        for delivery, (ref, instance_id, generation, length, status, execution_id) in zip(places, chosen, strict=False):
            version = None if generation is None else HistoryVersion(generation, length)
            grant = Grant(ref, instance_id, tx.lease, version, status, execution_id)
            tx.touched.append(ref)
            self._grants.drop(ref)
            messages = self._messages(tx, grant, inboxes[ref], counted)
            if messages is None:
                continue
            locked.append(ref)
            self._grants.add(grant)
            delivery.instances.append(self._item(grant, messages, delivery))
        _LEASE_INSTANCES.do(tx.execute, locked, tx.lease, tx.until)
        _COUNT_DELIVERIES.do(tx.execute, counted)

    def _messages(
        self, tx: Transaction, grant: Grant, inbox: Sequence[_Row], counted: list[int]
    ) -> list[Message] | None:
        """The messages of an inbox; notes which deliveries are to be counted. What is handed over is not.

        None: one of them cannot be decoded. That takes its instance out of circulation, and nothing else.
        """
        messages: list[Message] = []
        for _, seq, message_id, text, execution_id, visible_at, deliveries, *_ in inbox:
            handed_over = tx.is_new(seq)
            try:
                message = message_of(
                    message_id,
                    grant.instance_id,
                    text,
                    execution_id,
                    visible_at,
                    deliveries if handed_over else deliveries + 1,
                )
            except MsgspecError as error:
                self._quarantine(tx, grant.ref, grant.instance_id, f"message {message_id}", error)
                return None
            if not handed_over:
                counted.append(seq)
            grant.given[message_id] = seq
            messages.append(message)
        return messages

    def _quarantine(self, tx: Transaction, ref: int, instance_id: str, what: str, error: MsgspecError) -> None:
        tx.execute(SQL["quarantine"], (ref, f"{what} cannot be decoded: {error}"))
        tx.touched.append(ref)
        tx.changed[instance_id] = None
        self._grants.drop(ref)
        logger.error(
            "instance %s is quarantined: %s cannot be decoded (%s). Repair or remove the row, then release the "
            "instance with `durable-host instances release`",
            instance_id,
            what,
            error,
            extra={"event": "quarantined", "instance": instance_id},
        )

    def _set_task_aside(self, tx: Transaction, seq: int, error: MsgspecError) -> None:
        """Let a task wait that cannot be decoded, and take its instance out of circulation until it is repaired."""
        _DELAY_ACTIVITIES.do(tx.execute, [seq], tx.now + _SPOILT_TASK)
        owner = tx.execute(SQL["owner_of_task"], (seq,)).fetchone()
        if owner is not None:
            ref, instance_id, dispatch_id = owner
            self._quarantine(tx, ref, instance_id, f"activity {dispatch_id}", error)

    def _item(self, grant: Grant, inbox: Sequence[Message], delivery: Delivery) -> OrchestrationWorkItem | Unloaded:
        instance_id, version = InstanceId(grant.instance_id), grant.version
        if version is None:
            return OrchestrationWorkItem(instance_id, None, (), inbox, self._of(grant))
        assert isinstance(delivery.waiter, InstanceWaiter)
        try:
            if delivery.waiter.cache.holds(instance_id, version):
                return OrchestrationWorkItem(instance_id, version, None, inbox, self._of(grant))
        except Exception as error:  # the caller's own: it fails that call, not this transaction
            delivery.error = error
        return Unloaded(grant.ref, instance_id, version, inbox, self._of(grant))

    def _of(self, grant: Grant) -> Lease:
        return Lease(grant.instance_id, InstanceToken(grant.lease, grant.ref), self._lease)

    def add_activities(self, tx: Transaction, tasks: Sequence[tuple[int, ActivityTask]]) -> None:
        """Store the tasks of checkpoints, locked as far as somebody waits for them."""
        first = tx.new_activities(len(tasks))
        # What waits already goes first.
        places = [] if self.activities_expected else self._places(self._activity_waiters, ActivityWaiter, len(tasks))
        found: list[Sequence[object]] = []
        for seq, (ref, task) in enumerate(tasks, first):
            if seq - first < len(places):
                found.append((seq, ref, tx.until, tx.lease, 0, tx.now, task.dispatch_id, encode_task(task)))
                lease = Lease(task.dispatch_id, ActivityToken(tx.lease, seq), self._lease)
                places[seq - first].activities.append(ActivityWorkItem(task, lease, 0))
            else:
                found.append((seq, ref, seq, None, 0, tx.now, task.dispatch_id, encode_task(task)))
        added = sum(cursor.rowcount for cursor in _ADD_ACTIVITIES.run(tx.execute, found))
        if added < len(tasks):
            stored = {row[0] for cursor in _STORED.run(tx.execute, range(first, first + len(tasks))) for row in cursor}
            for delivery in self.deliveries:
                delivery.activities = [each for each in delivery.activities if _row(each.lease) in stored]
        tx.tasks_added = tx.tasks_added or len(places) < len(tasks)

    def _lock_activities(self, tx: Transaction) -> None:
        room = self._room(self._activity_waiters, ActivityWaiter)
        if not room:
            return
        at_once = tx.execute(SQL["immediate_activities"], (AT_ONCE, room)).fetchall()
        due = tx.execute(SQL["due_activities"], (AT_ONCE, tx.now, room)).fetchall()
        chosen = _mixed(at_once, due, room)
        self.activities_expected = len(at_once) + len(due) >= room
        places = self._places(self._activity_waiters, ActivityWaiter, len(chosen))
        locked: list[int] = []
        for delivery, (seq, text, deliveries) in zip(places, chosen, strict=False):
            try:
                task = decode_task(text)
            except MsgspecError as error:
                self._set_task_aside(tx, seq, error)
                continue
            locked.append(seq)
            lease = Lease(task.dispatch_id, ActivityToken(tx.lease, seq), self._lease)
            delivery.activities.append(ActivityWorkItem(task, lease, deliveries + 1))
        _LEASE_ACTIVITIES.do(tx.execute, locked, tx.lease, tx.until)

    # Keeping and giving back.

    def renew(self, tx: Transaction, leases: Sequence[Lease]) -> list[Lease | None]:
        """Extend those that are current, also those that have ended if nobody has taken the work since."""
        current = self._current(tx, leases)
        instances = [each for each in current if isinstance(each, InstanceToken)]
        for token in instances:
            grant = tx.grants.find(token)
            if grant is not None and grant.held:
                tx.grants.look(token.ref, tx.now, tx.now)
        _EXTEND_INSTANCES.do(tx.execute, [each.ref for each in instances], tx.until)
        _EXTEND_ACTIVITIES.do(tx.execute, [each.seq for each in current if isinstance(each, ActivityToken)], tx.until)
        return [Lease(lease.key, lease.token, self._lease) if lease.token in current else None for lease in leases]

    def abandon(self, tx: Transaction, leases: Sequence[Lease], delay: timedelta) -> None:
        """Give work back; lost leases are passed over."""
        current = self._current(tx, leases)
        late = tx.now + delay // timedelta(microseconds=1)
        postponed: list[int] = []
        released: list[int] = []
        tasks: list[int] = []
        live: set[tuple[int, int]] = set()
        if late > tx.now:  # the end of a lease has brought everything back already
            asked = [(token.ref, token.lease) for token in current if isinstance(token, InstanceToken)]
            live.update(pairs(_LIVE_INSTANCES.run(tx.execute, asked, tx.now)))
        for token in current:
            if isinstance(token, ActivityToken):
                tasks.append(token.seq)
                continue
            grant = tx.grants.find(token)
            waits = (token.ref, token.lease) in live and (grant is None or grant.given)
            (postponed if waits else released).append(token.ref)
            tx.grants.drop(token.ref)
            tx.touched.append(token.ref)
        _POSTPONE_INSTANCES.do(tx.execute, postponed, late, tx.now)
        _RELEASE_INSTANCES.do(tx.execute, released)
        if late > tx.now:
            _DELAY_ACTIVITIES.do(tx.execute, tasks, late)
        else:
            _RELEASE_ACTIVITIES.do(tx.execute, tasks)
        tx.woken = tx.woken or bool(postponed or released)
        tx.tasks_added = tx.tasks_added or bool(tasks)

    def _current(self, tx: Transaction, leases: Sequence[Lease]) -> dict[InstanceToken | ActivityToken, None]:
        """Those of the leases that are current, in the order of their rows."""
        tokens = [lease.token for lease in leases]
        instances = [(token.ref, token.lease) for token in tokens if isinstance(token, InstanceToken)]
        tasks = [(token.seq, token.lease) for token in tokens if isinstance(token, ActivityToken)]
        current: dict[InstanceToken | ActivityToken, None] = {}
        for ref, lease in pairs(_LEASED_INSTANCES.run(tx.execute, instances)):
            current[InstanceToken(lease, ref)] = None
        for seq, lease in pairs(_LEASED_ACTIVITIES.run(tx.execute, tasks)):
            current[ActivityToken(lease, seq)] = None
        return current


_Row = tuple[int, int, str, str, str | None, int | None, int, int, int]


def _inboxes(tx: Transaction, refs: Sequence[int]) -> dict[int, list[_Row]]:
    """What is visible in the inboxes of instances, oldest first."""
    found: dict[int, list[_Row]] = {}
    for cursor in _READ_INBOX.run(tx.execute, refs, tx.now):
        for row in cursor:
            found.setdefault(row[0], []).append(row)
    for inbox in found.values():
        if len(inbox) > 1:
            inbox.sort(key=_age)
    return found


def _age(row: _Row) -> tuple[int, int]:
    # A message is as old as the moment since which it is visible; `due` of one that was visible at once is a number.
    return max(row[7], row[8]), row[1]


def _mixed(at_once: Sequence[T], due: Sequence[T], room: int) -> list[T]:
    """Some of both as far as there is room."""
    if not due:
        return list(at_once)
    pairs = zip_longest(due, at_once)
    return [row for pair in pairs for row in pair if row is not None][:room]


def _row(lease: Lease) -> int | None:
    match lease.token:
        case InstanceToken(ref=row) | ActivityToken(seq=row):
            return row
        case _:
            return None


def _any_open(waiters: deque[Any]) -> bool:
    while waiters and not waiters[0].is_open:
        waiters.popleft()
    return bool(waiters)
