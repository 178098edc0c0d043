"""The one writer: calls of any thread become jobs, and all jobs that wait become one transaction.

    caller ── job ──▶ queue ──▶ writer thread:  BEGIN IMMEDIATE
                                                commits, completions, starts, sends, other calls
                                                inboxes and wake-ups
                                                locks for those who wait (the hand-over)
                                                COMMIT, one sync to disk
           ◀── one wake-up per loop ──────────  results

While one transaction is being synced, the next batch collects: at low load a call costs one sync, at high load hundreds
share it. Nobody hears of a result before COMMIT has returned and the path was seen to lead to the same file still.

If a batch fails because of one job's values (a text that is no Unicode, say), its jobs are run again one by one, so
that only the culprit fails. If it fails because of the file, all its jobs fail with StoreUnavailableError, and the
next batch tries anew.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

from durable_host.environment import Environment, SerialThread
from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.model.history import HistoryEvent
from durable_host.storage.contract import CommitOutcome, Lease, OrchestrationWorkItem
from durable_host_providers._sql.rows import to_micros
from durable_host_providers._sql.watching import Watchers

from .checkpoints import commit, complete
from .grants import Grants
from .hub_file import HubFile
from .instances import create
from .locking import Delivery, Locking, Unloaded
from .settings import Settings
from .transaction import Marks, Transaction
from .waiting import ActivityWaiter, InstanceWaiter, Outbox, Promise, Waiter, Watch

__all__ = ["Job", "Writer"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

Kind = Literal["commit", "complete", "create", "send", "call"]
_LOOK_AROUND_EVERY = 0.25
"""Seconds between two looks at the clocks, the file's identity and the lock files of other owners."""

_STEP = 1_000_000
"""Microseconds that the wall clock may fall behind elapsed time before it counts as set back."""


class Job:
    """Something to be written."""

    __slots__ = ("durable", "kind", "payload", "promise")

    def __init__(self, kind: Kind, payload: Any, promise: Promise[Any] | None, durable: bool) -> None:
        self.kind = kind
        self.payload = payload
        self.promise = promise
        self.durable = durable


class Writer:
    """Queue, transactions and waiters of one store object.

    Args:
        load: reads the histories of instances, on the reading thread.
        reading: runs a job on the reading thread.
        wake_at: asks to be poked at a time in microseconds.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        file: HubFile,
        watchers: Watchers[Watch],
        *,
        load: Callable[[Sequence[int]], Mapping[int, Sequence[HistoryEvent] | None]],
        reading: Callable[[Callable[[], None]], None],
        wake_at: Callable[[int], None],
        wrote: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._clock = environment.clock
        self._lease = settings.lease // timedelta(microseconds=1)
        self.file = file
        self._grants = Grants()
        self._locking = Locking(self._grants, settings.lease)
        self._watchers = watchers
        self._load = load
        self._reading = reading
        self._wake_at = wake_at
        self._wrote = wrote
        self._thread: SerialThread | None = None
        self._mutex = threading.Lock()
        self._jobs: list[Job] = []
        self._waiters: list[Waiter[Any]] = []
        self._poked = False
        self._scheduled = False
        self._poll = 0.0 if settings.path is None else settings.poll.total_seconds()
        self._idling: SerialThread | None = None
        self._ticking = False
        self._looked = self._looked_around = -1e9
        self._look_ahead = False
        self._next_due: int | None = None
        self._alarm: int | None = None
        self._settled = False
        self._marks: Marks | None = None
        self._clocks: tuple[int, float] | None = None

    # Called from any thread.

    def start(self, thread: SerialThread) -> None:
        """Begin."""
        self._thread = self._idling = thread

    async def open(self) -> None:
        """Open the file; to process work, become an owner of leases."""
        promise: Promise[None] = Promise()

        def opened() -> None:
            outbox = Outbox()
            try:
                self.file.connection()
                if self._settings.worker:
                    self.file.register()
                outbox.settle(promise, None)
            except sqlite3.Error as error:
                outbox.settle(promise, self.file.failed(error))
            except Exception as error:
                outbox.settle(promise, error)
            outbox.deliver()

        assert self._thread is not None
        self._thread.submit(opened)
        await promise.future

    async def stop(self) -> None:
        """Finish what was asked for, answer who waits, give leases back, close."""
        thread = self._thread
        if thread is None:
            return
        promise: Promise[None] = Promise()
        with self._mutex:
            self._thread = None
        thread.submit(lambda: self._close(promise))
        await promise.future
        thread.close()

    def write(self, kind: Kind, payload: Any, *, durable: bool = True) -> Promise[Any]:
        """Queue a job; its result comes through the promise."""
        promise: Promise[Any] = Promise()
        job = Job(kind, payload, promise, durable)
        with self._mutex:
            self._jobs.append(job)
            self._schedule()
        return promise

    async def call(self, function: Callable[[Transaction], T], *, durable: bool = True) -> T:
        """Run a function inside a transaction."""
        result: T = await self.write("call", function, durable=durable).future
        return result

    def wait(self, waiter: Waiter[Any]) -> None:
        """Queue a lock call. If there is nothing for it, as far as is known, the writer need not wake up."""
        with self._mutex:
            self._waiters.append(waiter)
            if waiter.at_once or not self._settled:
                self._schedule()

    def poke(self) -> None:
        """Look for what time or other processes have brought."""
        with self._mutex:
            if self._thread is not None:
                self._poked = True
                self._schedule()

    def watch(self) -> None:
        """Somebody has begun to watch: see to it that other processes are looked at."""
        if not self._ticking and self._poll:
            self.poke()

    def is_running(self, instance_id: str) -> bool:
        """Whether the instance is locked here and has not ended: who watches will be told when it does."""
        return self._grants.is_running(instance_id)

    def give_back(self, items: Sequence[Any]) -> None:
        """Unlock items that nobody took."""
        leases = [item.lease for item in items]
        if leases:
            with self._mutex:
                if self._thread is None:
                    return  # closing gives everything back
                self._jobs.append(Job("call", self.abandonment(leases, timedelta(0)), None, False))
                self._schedule()

    def _schedule(self) -> None:
        if self._thread is None:
            self._jobs.clear()
            self._waiters.clear()
            raise StoreUnavailableError(f"The hub {self._settings.location} is not open.")
        if not self._scheduled:
            self._scheduled = True
            self._thread.submit(self._drain)

    # On the writer thread.

    def _drain(self) -> None:
        with self._mutex:
            jobs, self._jobs = self._jobs, []
            poked, self._poked = self._poked, False
            self._scheduled = self._settled = False
            waiters, self._waiters = self._waiters, []
        outbox = Outbox()
        at_once = False
        for waiter in waiters:
            self._locking.wait(waiter)
            at_once = at_once or waiter.at_once
        try:
            if jobs:
                self._run(jobs, outbox)
                outbox.deliver()  # before looking for more, which takes as long as a small transaction
            if poked:
                self._alarm, self._look_ahead = None, True
            elapsed = self._clock.monotonic()
            if poked or (self._poll and elapsed - self._looked >= self._poll and self._locking.is_awaited()):
                self._look(elapsed, outbox)
            if at_once or self._look_ahead or self._locking.is_worthwhile():
                self._serve(outbox)
        except Exception as error:
            self._refuse(error, outbox)
        if at_once:
            for waiter in self._locking.take_all(only_at_once=True):
                outbox.settle(waiter, ())
        outbox.deliver()
        self._rest()

    def _tick(self) -> None:
        """Nothing was asked for a while, but somebody waits."""
        outbox = Outbox()
        try:
            self._look(self._clock.monotonic(), outbox)
            if self._look_ahead:
                self._serve(outbox)
        except Exception as error:
            self._refuse(error, outbox)
        outbox.deliver()
        self._rest()

    def _rest(self) -> None:
        """Tick while somebody waits, and know whether a new lock call has to wake this thread."""
        with self._mutex:
            waiting = bool(self._waiters) or self._locking.is_awaited()
            ticking = bool(self._poll) and (waiting or bool(self._watchers))
            self._settled = (ticking or not self._poll) and not self._look_ahead and self._locking.is_idle()
        if ticking is not self._ticking and self._idling is not None:
            self._ticking = ticking
            self._idling.when_idle(self._tick if ticking else None, self._poll)

    def _run(self, jobs: Sequence[Job], outbox: Outbox) -> None:
        """Apply jobs in one transaction, or say to each why not."""
        try:
            try:
                results = self._transact(jobs, outbox)
            except sqlite3.IntegrityError:
                if self._marks is None:
                    raise
                self._marks = None  # another process took a number that we thought was free
                results = self._transact(jobs, outbox)
        except StoreError as error:
            for job in jobs:
                _settle(outbox, job, error)
        except Exception as error:
            if len(jobs) == 1:
                _settle(outbox, jobs[0], error)
                return
            for job in jobs:
                self._run([job], outbox)
        else:
            for job, result in zip(jobs, results, strict=True):
                _settle(outbox, job, result)

    def _serve(self, outbox: Outbox) -> None:
        """Lock for those who wait, if there is anything; else see to it that somebody looks in time."""
        for _ in range(2):
            if not self._locking.is_awaited():
                return
            self._look_ahead = False
            now = to_micros(self._clock.now())
            try:
                due, version = self._locking.probe(self.file.connection().execute, now)
            except sqlite3.Error as error:
                raise self.file.failed(error) from error
            self._compare(version, outbox)
            self._next_due = None
            self._expect(due)
            if not self._locking.is_worthwhile():
                return
            self._transact((), outbox)

    def _expect(self, due: int | None) -> None:
        """Something becomes due: look then."""
        if due is not None and (self._next_due is None or due < self._next_due):
            self._next_due = due
            if self._alarm is None or due < self._alarm:
                self._alarm = due
                self._wake_at(due)

    def _compare(self, version: int, outbox: Outbox) -> None:
        """If another connection has written, anything may have changed."""
        if self.file.has_changed(version):
            self._look_ahead = True
            self._marks = None
            self._grants.look_at_all()
            self._watchers.tell_all(outbox.settle)

    def _transact(self, jobs: Sequence[Job], outbox: Outbox) -> list[Any]:
        """One transaction; raises StoreError if the file is at fault."""
        try:
            connection = self.file.connection_unchecked()
            if not self.file.owner and self._locking.is_awaited():
                self.file.register()
            self.file.set_durable(any(job.durable for job in jobs))
            self.file.begin(connection)
        except sqlite3.Error as error:
            raise self.file.failed(error) from error
        now = to_micros(self._clock.now())
        tx = Transaction(
            connection,
            self._grants,
            owner=self.file.owner,
            now=now,
            until=now + self._lease,
            lease=self.file.next_lease(),
            marks=self._marks,
        )
        self._locking.deliveries = []
        try:
            results = self._apply(tx, jobs)
            self._locking.give_out(tx)
            connection.execute("COMMIT")
            self.file.check()
        except BaseException as error:
            raise self._undo(connection, tx, error, outbox) from error
        self._marks = tx.marks
        self._after(tx, outbox)
        return results

    def _apply(self, tx: Transaction, jobs: Sequence[Job]) -> list[Any]:
        by_kind: dict[str, list[tuple[int, Any]]] = {}
        for index, job in enumerate(jobs):
            by_kind.setdefault(job.kind, []).append((index, job.payload))
        results: list[Any] = [None] * len(jobs)
        if commits := by_kind.get("commit"):
            _scatter(results, commits, commit(tx, self._locking, _joined(commits)))
        if completions := by_kind.get("complete"):
            _scatter(results, completions, complete(tx, _joined(completions)))
        if starts := by_kind.get("create"):
            for (index, _), created in zip(starts, create(tx, [start for _, start in starts]), strict=True):
                results[index] = created
        for _, messages in by_kind.get("send", ()):
            tx.send(messages)
        tx.deliver()
        for index, function in by_kind.get("call", ()):
            results[index] = function(tx)
        return results

    def _undo(
        self, connection: sqlite3.Connection, tx: Transaction, error: BaseException, outbox: Outbox
    ) -> BaseException:
        """Roll back and forget; returns what to raise."""
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        for ref in tx.touched:
            self._grants.drop(ref)
        if not isinstance(error, sqlite3.IntegrityError):
            self._marks = None
        self._locking.instances_expected = self._locking.activities_expected = True
        if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.DataError | sqlite3.ProgrammingError | sqlite3.IntegrityError
        ):
            error = self.file.failed(error)
        deliveries, self._locking.deliveries = self._locking.deliveries, []
        for delivery in reversed(deliveries):
            if isinstance(error, StoreError):
                outbox.settle(delivery.waiter, error)
            elif delivery.waiter.put_back():
                self._locking.wait(delivery.waiter, first=True)
            else:
                outbox.settle(delivery.waiter, ())
        return error

    def _after(self, tx: Transaction, outbox: Outbox) -> None:
        """The transaction stands: tell everybody."""
        deliveries, self._locking.deliveries = self._locking.deliveries, []
        for delivery in reversed(deliveries):
            self._hand_out(delivery, outbox)
        if deliveries:
            self._expect(tx.until)
        if tx.changed:
            self._watchers.tell(tx.changed, outbox.settle)
        if tx.changed or tx.woken or tx.tasks_added:
            self._wrote()
        self._look_ahead = self._look_ahead or tx.woken
        self._expect(self._grants.next_due(tx.now))

    def _hand_out(self, delivery: Delivery, outbox: Outbox) -> None:
        waiter = delivery.waiter
        if not delivery.instances and not delivery.activities:
            if waiter.put_back():
                self._locking.wait(waiter, first=True)
            else:
                outbox.settle(waiter, ())
            return
        if delivery.error is not None:
            outbox.settle(waiter, delivery.error)
            self.give_back(delivery.instances)
        elif isinstance(waiter, ActivityWaiter):
            outbox.settle(waiter, delivery.activities)
        elif refs := delivery.unloaded():
            try:
                self._reading(lambda: self._load_and_hand_out(waiter, delivery.instances, refs))
            except StoreUnavailableError as error:  # closing, which gives everything back
                outbox.settle(waiter, error)
        else:
            outbox.settle(waiter, [each for each in delivery.instances if isinstance(each, OrchestrationWorkItem)])

    def _load_and_hand_out(
        self, waiter: InstanceWaiter, items: Sequence[OrchestrationWorkItem | Unloaded], refs: Sequence[int]
    ) -> None:
        outbox = Outbox()
        try:
            found = self._load(refs)
            loaded = [
                OrchestrationWorkItem(each.instance_id, each.version, found[each.ref], each.inbox, each.lease)
                if isinstance(each, Unloaded)
                else each
                for each in items
            ]
            outbox.settle(waiter, loaded)
        except Exception as error:
            outbox.settle(waiter, error)
            self.give_back(items)
        outbox.deliver()

    def _refuse(self, error: Exception, outbox: Outbox) -> None:
        """Nothing can be locked: those who wait hear why, and may ask again."""
        for waiter in self._locking.take_all():
            outbox.settle(waiter, error)

    def _look(self, elapsed: float, outbox: Outbox) -> None:
        """See what time and other processes have brought: a little each time, all of it now and then."""
        self._looked = elapsed
        try:
            if elapsed - self._looked_around >= _LOOK_AROUND_EVERY:
                self._looked_around = elapsed
                self.file.connection()
                if self._was_set_back(elapsed):
                    self.file.shorten_leases()
                    self._look_ahead = True
                if self.file.bury():
                    self._look_ahead = True
            self._compare(self.file.data_version(), outbox)
        except sqlite3.Error as error:
            raise self.file.failed(error) from error
        if self._next_due is not None and to_micros(self._clock.now()) >= self._next_due:
            self._look_ahead = True

    def _was_set_back(self, elapsed: float) -> bool:
        now = to_micros(self._clock.now())
        before, self._clocks = self._clocks, (now, elapsed)
        return before is not None and now - before[0] < (elapsed - before[1]) * 1_000_000 - _STEP

    def _close(self, promise: Promise[None]) -> None:
        self._drain()
        if self._idling is not None:
            self._idling.when_idle(None, 0.0)
        self._idling = None
        self._ticking = False
        outbox = Outbox()
        for waiter in self._locking.take_all():
            outbox.settle(waiter, ())
        self._watchers.tell_all(outbox.settle)
        self.file.close()
        outbox.settle(promise, None)
        outbox.deliver()

    # Jobs of the store.

    def renewal(self, leases: Sequence[Lease]) -> Callable[[Transaction], list[Lease | None]]:
        """The call that renews leases."""
        return lambda tx: self._locking.renew(tx, leases)

    def abandonment(self, leases: Sequence[Lease], delay: timedelta) -> Callable[[Transaction], None]:
        """The call that gives work back."""
        return lambda tx: self._locking.abandon(tx, leases, delay)


def _settle(outbox: Outbox, job: Job, value: Any) -> None:
    if job.promise is not None:
        outbox.settle(job.promise, value)


def _joined(calls: Sequence[tuple[int, Sequence[T]]]) -> Sequence[T]:
    return calls[0][1] if len(calls) == 1 else [item for _, items in calls for item in items]


def _scatter(
    results: list[Any], calls: Sequence[tuple[int, Sequence[object]]], outcomes: Sequence[CommitOutcome]
) -> None:
    """Give each call the outcomes of its own items."""
    at = 0
    for index, items in calls:
        results[index] = outcomes[at : at + len(items)]
        at += len(items)
