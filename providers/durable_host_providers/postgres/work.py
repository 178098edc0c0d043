"""The inside of an open store: what waits, what is fetched for it, and what follows from the answers of calls.

Each call is one statement and one transaction. It may lock what it makes for lock calls that wait here (`desk`); what
it leaves for others is told to them afterwards (`signals`). Leases are numbered by this object, a new number for each
call, so that nobody else ever gives the same one, and what a call may have locked whose answer got lost can be given
back by its number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from durable_host.environment import Environment
from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.storage.contract import ActivityWorkItem, Lease
from durable_host_providers._sql.watching import Watchers

from .answers import AT, KIND, LEASE, REF, Answer, Kind
from .connection import Connection, Pool
from .desk import Desk, Waiter
from .early import EarlyStarts
from .giving import GivingBack
from .grants import LEASE_BITS, Grants, InstanceToken
from .items import Locked, locked_instances, locked_tasks
from .settings import Settings
from .signals import Note, Signals
from .statements import statements
from .warming import warm
from .watching import Watch, settle

__all__ = ["Work"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SECOND = 1_000_000
_LOCK_BATCH = 256
_REPLAN = 60.0
"""Seconds for which plans are kept at most, while there is work."""

_WARM = 3
"""Connections that a worker has in use as a rule."""


class Work:
    """The state of one open store object. Everything happens on the loop that opened it."""

    def __init__(self, settings: Settings, environment: Environment, pool: Pool, watchers: Watchers[Watch]) -> None:
        self.settings = settings
        self.sql = statements(settings.schema)
        self.pool = pool
        self.grants = Grants()
        self.watchers = watchers
        self.hub = 0
        self.owner = 0
        self._clock = environment.clock
        self.length = settings.lease // timedelta(microseconds=1)
        self._calls = 0
        self._replans = 0
        self._planned = (0.0, 0)
        self.giving = GivingBack(self)
        self.early = EarlyStarts(self)
        self.instances: Desk[Locked] = Desk(self.giving.put_back_instances)
        self.activities: Desk[ActivityWorkItem] = Desk(self.giving.put_back_activities, surplus=_LOCK_BATCH)
        self.instances_expected = self.activities_expected = True
        self._fetching: set[str] = set()
        self._alarms: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._under_way = 0
        self._quiet: asyncio.Future[None] | None = None
        self.signals = Signals(settings, send=self._notify, heard=self._heard)
        self._poll: asyncio.TimerHandle | None = None
        self._open = False
        self.loop: asyncio.AbstractEventLoop | None = None

    # Life.

    def start(self, hub: int, owner: int) -> None:
        """Begin."""
        self.loop = asyncio.get_running_loop()
        self.hub, self.owner = hub, owner
        self.signals.start(hub, owner)
        self._open = True

    def listen(self) -> None:
        """Somebody waits for news: see to it that they come, by themselves or when we look."""
        if self._poll is None and self._open and self.loop is not None:
            self.signals.listen()
            if self.settings.worker:
                self.track(self._warm())
                self.early.refill()
            self._poll = self.loop.call_later(self._pause(), self._look)

    async def _warm(self) -> None:
        async def first(connection: Connection, number: int) -> None:
            await warm(connection, self.sql, f"{self.owner}.{number}")

        try:
            await self.pool.prepare(_WARM, first)
        except StoreError as error:
            logger.debug("connections could not be prepared: %s", error)

    async def stop(self) -> None:
        """Finish what was begun, answer who waits, give leases back."""
        self._open = False
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        for _, alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()
        self.instances.close()
        self.activities.close()
        self.watchers.tell_all(settle)
        while self._tasks or self._under_way:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._under_way:
                self._quiet = asyncio.get_running_loop().create_future()
                await self._quiet
        self.instances.close()
        self.activities.close()
        if self._calls:
            try:
                await self.pool.fetch(
                    *(self.sql["disown"], self.hub, self.owner << LEASE_BITS, self.newest_lease(), None),
                    repeatable=True,
                )
                self.signals.tell(instances=True, activities=True)
            except StoreError as error:
                logger.warning(
                    "leases could not be given back and will run out: %s", error, extra={"event": "close_failed"}
                )
        await self.signals.stop()

    def track(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a call to its end, even if its caller does not wait for it any more; closing waits for it."""
        task = asyncio.get_running_loop().create_task(work, name="durable-host-postgres-call")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def begin(self) -> None:
        """A call begins that runs in its caller's task; closing waits for its `end`."""
        self._under_way += 1

    def end(self) -> None:
        """It has ended."""
        self._under_way -= 1
        if not self._under_way and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has heard, or has gone

    @property
    def is_open(self) -> bool:
        """Whether calls are taken."""
        return self._open

    def require_open(self) -> None:
        """Refuse a call to a store that is not entered.

        Raises:
            StoreUnavailableError: it is not.
        """
        if not self._open:
            raise StoreUnavailableError(f"{self.settings.location} is not open.")

    # Leases.

    def lease_of(self, key: str, token: object, until: float | None = None) -> Lease:
        """A lease as a caller gets it; `until`: by the loop's time, when it is not new."""
        remaining = self.settings.lease
        if until is not None:
            remaining = max(timedelta(0), timedelta(seconds=until - self.now()))
        return Lease(key, token, remaining)

    def next_lease(self) -> int:
        self._calls += 1
        return self.newest_lease()

    def newest_lease(self) -> int:
        return (self.owner << LEASE_BITS) + self._calls

    def is_ours(self, lease: int) -> bool:
        """Whether this object has given the lease."""
        return lease >> LEASE_BITS == self.owner

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def until(self) -> float:
        return self.now() + self.settings.lease.total_seconds()

    async def call(self, name: str, lease: int, arguments: Sequence[object]) -> Sequence[Answer]:
        """Run a function that may give leases."""
        self.require_open()
        try:
            return await self.pool.fetch(self.sql[name], self.hub, lease, self.length, *arguments)
        except BaseException as error:
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.giving.owe(lease)
            raise

    # Fetching.

    async def fetch_instances(self, limit: int, *, everything: bool) -> list[Locked]:
        """Lock eligible instances and top up held ones.

        Args:
            everything: look at all held instances, and whether anything is eligible, whatever is known.
        """
        self.require_open()
        now = self.now()
        if everything:
            self.grants.look_at_all()
        self.grants.next_due(now)
        looked = self.grants.to_look_at(limit)
        room = limit - len(looked) if everything or self.instances_expected else 0
        if room:
            self.instances_expected = False
        if not looked and not room:
            return []
        lease, until = self.next_lease(), self.until()
        try:
            answers = await self.pool.fetch(
                self.sql["fetch_instances"],
                self.hub,
                room,
                lease,
                self.length,
                [grant.ref for grant in looked],
                [grant.lease for grant in looked],
                [seq for grant in looked for seq in grant.given.values()],
            )
        except BaseException as error:
            self.instances_expected = True
            self.grants.arrived.update(
                {grant.ref: None for grant in looked if self.grants.by_ref.get(grant.ref) is grant}
            )
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.giving.owe(lease)
            raise
        locked = self.absorb(answers, until, lease)
        if room and sum(not each.top_up for each in locked) >= room:
            self.instances_expected = True
        return locked

    async def fetch_activities(self, limit: int) -> list[ActivityWorkItem]:
        """Lock activities."""
        self.require_open()
        self.activities_expected = False
        lease = self.next_lease()
        try:
            answers = await self.pool.fetch(self.sql["fetch_activities"], self.hub, limit, lease, self.length)
        except BaseException as error:
            self.activities_expected = True
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.giving.owe(lease)
            raise
        found, spoilt = locked_tasks(answers, self.lease_of("", None))
        for each in spoilt:
            self.track(self.giving.set_aside(each))
        if len(found) + len(spoilt) >= limit:
            self.activities_expected = True
        for answer in answers:
            if answer[KIND] == Kind.WOKEN:
                self._expect("activities", answer[AT])
            elif answer[KIND] == Kind.WAITING:
                # It was carried by an instance whose lease has ended, and which this call hid from who looked for it.
                self.instances_expected = True
        return found

    def consider(self) -> None:
        """Fetch for those who wait, if there may be something."""
        if not self._open:
            return
        if self.instances and "instances" not in self._fetching:
            due = self.grants.next_due(self.now()) if self.grants.has_later else None
            if self.instances_expected or self.grants.wants_look():
                self._fetching.add("instances")
                self.track(self._serve_instances())
            elif due is not None:
                self._expect("held", max(0, int((due - self.now()) * _SECOND)))
        if self.activities_expected and self.activities and "activities" not in self._fetching:
            self._fetching.add("activities")
            self.track(self._serve_activities())

    async def _serve_instances(self) -> None:
        reserved = self.instances.reserve(_LOCK_BATCH)
        found: list[Locked] = []
        try:
            if reserved:
                found = await self.fetch_instances(reserved, everything=False)
        except Exception as error:
            self.instances.fail(error)
        finally:
            self._fetching.discard("instances")
            self.instances.settle(reserved, found)
        if reserved:
            self.consider()

    async def _serve_activities(self) -> None:
        reserved = self.activities.reserve(_LOCK_BATCH)
        found: list[ActivityWorkItem] = []
        try:
            if reserved:
                found = await self.fetch_activities(reserved)
        except Exception as error:
            self.activities.fail(error)
        finally:
            self._fetching.discard("activities")
            self.activities.settle(reserved, found)
        if reserved:
            self.consider()

    async def waited(self, desk: Desk[T], waiter: Waiter[T], wait: timedelta) -> Sequence[T]:
        """What a lock call that waits gets."""
        desk.limit(waiter, wait.total_seconds())
        try:
            return await waiter.future
        except asyncio.CancelledError:
            desk.leave(waiter)
            raise

    def awaited(self) -> None:
        """A new lock call waits."""
        self.listen()
        self.consider()

    # Answers.

    def absorb(self, answers: Sequence[Answer], until: float, lease: int | None = None) -> list[Locked]:
        """Take note of what a call has brought about; returns the instances it has locked.

        Args:
            lease: that of a call that may have brought something for held instances, too.
        """
        if not answers:
            return []
        now = self.now()
        woken = False
        elsewhere: list[int] = []
        for answer in answers:
            kind = answer[KIND]
            if kind == Kind.ARRIVED:
                token = InstanceToken(answer[LEASE], answer[REF])
                if self.is_ours(token.lease):
                    self.grants.heard(token, now + answer[AT] / _SECOND, now)
                elif answer[AT] <= 0:
                    elsewhere.append(token.ref)
            elif kind == Kind.WOKEN:
                if answer[AT] <= 0:
                    self.instances_expected = woken = True
                else:
                    self._expect("instances", answer[AT])
            elif kind == Kind.WAITING:
                if answer[AT] <= 0:
                    self.activities_expected = True
                    self.signals.tell(activities=True)
                else:
                    self._expect("activities", answer[AT])
        locked, spoilt, stale = locked_instances(answers, self.grants, until, lease)
        if stale:  # a commit failed meanwhile, say, and may have had its effect
            self.giving.give_back([self.lease_of("", token) for token in stale])
        for answer in answers:
            if answer[KIND] == Kind.LATER:
                self.grants.look(answer[REF], now + answer[AT] / _SECOND, now)
        for each in spoilt:
            self.track(self.giving.set_aside(each))
        self.signals.tell(instances=woken and not locked, refs=elsewhere)
        return locked

    def changed(self, *instance_ids: str) -> None:
        """Something else than a checkpoint changed these instances."""
        self.watchers.tell(dict.fromkeys(instance_ids), settle)
        self.signals.tell(changed=instance_ids)

    def made_eligible(self) -> None:
        """Something is eligible."""
        self.instances_expected = True
        self.signals.tell(instances=True)
        self.consider()

    def woken(self, answers: Sequence[Answer]) -> None:
        """What a call that gives work back has brought about."""
        self.absorb(answers, 0.0)
        self.consider()

    # Time, news and debts.

    def _expect(self, what: str, micros: int) -> None:
        """Look when something becomes due."""
        if self.loop is None or not self._open:
            return
        at = self.loop.time() + micros / _SECOND
        earlier = self._alarms.get(what)
        if earlier is not None:
            if earlier[0] <= at:
                return
            earlier[1].cancel()
        self._alarms[what] = (at, self.loop.call_at(at, self._due, what))

    def _due(self, what: str) -> None:
        self._alarms.pop(what, None)
        if what == "activities":
            self.activities_expected = True
        elif what == "instances":
            self.instances_expected = True
        self.consider()

    def _pause(self) -> float:
        pause = self.settings.poll.total_seconds()
        return pause if self.signals.is_listening else min(pause, 0.5)

    def _look(self) -> None:
        """The safety net: look, even if nobody has told us anything."""
        if self.loop is None or not self._open:
            return
        self._poll = self.loop.call_later(self._pause(), self._look)
        if self._calls != self._planned[1] and self.loop.time() >= self._planned[0]:
            # Soon at first, when tables grow from nothing, then once a minute.
            self._replans += 1
            self._planned = (self.loop.time() + min(_REPLAN, 2.0**self._replans), self._calls)
            self.track(self.pool.replan())
        self._heard(Note(all=True, i=True, a=True))

    def _heard(self, note: Note) -> None:
        if not self._open:
            return
        if note.all:
            self.grants.look_at_all()
            self.watchers.tell_all(settle)
        for ref in note.r:
            if ref in self.grants.by_ref:
                self.grants.arrived[ref] = None
        self.instances_expected = self.instances_expected or note.i
        self.activities_expected = self.activities_expected or note.a
        self.watchers.tell(dict.fromkeys(note.c), settle)
        self.giving.pay()
        self.consider()

    async def _notify(self, payload: str) -> None:
        await self.pool.fetch(self.sql["notify"], f"durable_host_{self.hub}", payload)
