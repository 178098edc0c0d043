"""The calls that lock and write, and what follows from their answers.

Each call is one statement and one transaction. It may lock what it makes for lock calls that wait here (`desk`); what
it leaves for others is told to them afterwards (`signals`). Leases are numbered by this object, a new number for each
call, so that nobody else ever gives the same one, and what a call may have locked whose answer got lost can be given
back by its number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from durable_host.environment import Environment
from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.model.instance import InstanceState
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import ActivityCompletion, ActivityWorkItem, Checkpoint, CommitOutcome, Lease

from .answers import AT, KIND, LEASE, MESSAGE, REF, Answer, Kind
from .checkpoints import Batch, Run, message_columns, run_of_rows
from .connection import NotAsRememberedError, Pool
from .desk import Desk, Waiter
from .grants import LEASE_BITS, ActivityToken, Grants, InstanceToken
from .items import Locked, Spoilt, locked_instances, locked_tasks
from .settings import Settings
from .signals import Note, Signals
from .statements import statements
from .steps import Steps, is_step
from .watching import Watchers

__all__ = ["Work"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SECOND = 1_000_000
_LOCK_BATCH = 256
_SPOILT_TASK = 600 * _SECOND


class Work:
    """The state of one open store object. Everything happens on the loop that opened it."""

    def __init__(self, settings: Settings, environment: Environment, pool: Pool, watchers: Watchers) -> None:
        self.settings = settings
        self.sql = statements(settings.schema)
        self.pool = pool
        self.grants = Grants()
        self.watchers = watchers
        self.hub = 0
        self.owner = 0
        self._clock = environment.clock
        self._length = settings.lease // timedelta(microseconds=1)
        self._calls = 0
        self.instances: Desk[Locked] = Desk(self.put_back_instances)
        self.activities: Desk[ActivityWorkItem] = Desk(self.put_back_activities)
        self._instances_expected = self._activities_expected = True
        self._fetching: set[str] = set()
        self._alarms: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owed: dict[int, None] = {}
        self._owed_tokens: dict[InstanceToken | ActivityToken, None] = {}
        self._paying = False
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
            self._poll = self.loop.call_later(self._pause(), self._look)

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
        self.watchers.tell_all()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self.instances.close()
        self.activities.close()
        if self._calls:
            try:
                await self.pool.fetch(
                    *(self.sql["disown"], self.hub, self.owner << LEASE_BITS, self._newest(), None), repeatable=True
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

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has heard, or has gone

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
            remaining = max(timedelta(0), timedelta(seconds=until - self._now()))
        return Lease(key, token, remaining)

    def _next_lease(self) -> int:
        self._calls += 1
        return self._newest()

    def _newest(self) -> int:
        return (self.owner << LEASE_BITS) + self._calls

    def is_ours(self, lease: int) -> bool:
        """Whether this object has given the lease."""
        return lease >> LEASE_BITS == self.owner

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _until(self) -> float:
        return self._now() + self.settings.lease.total_seconds()

    # Writing.

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> list[CommitOutcome]:
        """Apply each checkpoint or nothing of it."""
        outcomes = [CommitOutcome.LEASE_LOST] * len(checkpoints)
        steps: dict[object, int] = {}
        others: list[int] = []
        for at, each in enumerate(checkpoints):
            if isinstance(each.lease.token, InstanceToken):
                if each.lease.token not in steps and is_step(each, self.grants):
                    steps[each.lease.token] = at
                else:
                    others.append(at)
        if steps and others:
            await asyncio.gather(
                self._commit_steps(checkpoints, list(steps.values()), outcomes),
                self._commit_others(checkpoints, others, outcomes),
            )
        elif steps:
            await self._commit_steps(checkpoints, list(steps.values()), outcomes)
        elif others:
            await self._commit_others(checkpoints, others, outcomes)
        return outcomes

    async def _commit_steps(
        self, checkpoints: Sequence[Checkpoint], which: Sequence[int], outcomes: list[CommitOutcome]
    ) -> None:
        steps = Steps(self.grants, [checkpoints[at] for at in which])
        lease = self._next_lease()
        handed = self._hand_over(len(steps.tasks))
        tasks: list[ActivityWorkItem] = []
        try:
            known = await self._call("step", lease, steps.arguments(locked=handed))
            states = steps.applied()
            tasks = self._handed_over(steps.tasks[:handed], lease, {row[0] for row in known})
            self.watchers.tell(states)
            self._left_over(len(steps.tasks) - handed, states)
        except NotAsRememberedError:
            self.activities.settle(handed, ())
            handed = 0
            await self._commit_others(checkpoints, which, outcomes)
            return
        except BaseException:
            for ref in steps.refs:
                self.grants.drop(ref)
            raise
        finally:
            self.activities.settle(handed, tasks)
            self._consider()
        for at in which:
            outcomes[at] = CommitOutcome.COMMITTED

    async def _commit_others(
        self, checkpoints: Sequence[Checkpoint], which: Sequence[int], outcomes: list[CommitOutcome]
    ) -> None:
        left = list(which)
        bring: set[int] = set()
        while left:
            batch = Batch(self.grants, bring)
            chosen: dict[int, int] = {}
            later: list[int] = []
            for at in left:
                token = checkpoints[at].lease.token
                assert isinstance(token, InstanceToken)
                if token.ref in chosen:
                    later.append(at)  # a second checkpoint from the same base finds another one
                else:
                    chosen[token.ref] = at
                    batch.add(checkpoints[at], token)
            lost, changed = await self._commit(batch)
            if not lost and not changed:
                for at in chosen.values():
                    outcomes[at] = CommitOutcome.COMMITTED
                left = later
                continue
            bring |= changed
            for ref in lost:
                self.grants.drop(ref)
                chosen.pop(ref, None)
            left = sorted([*chosen.values(), *later])

    def _hand_over(self, count: int) -> int:
        """How many activities to lock for those who wait; what waits already goes first."""
        return self.activities.reserve(count) if count and not self._activities_expected else 0

    def _handed_over(self, tasks: Sequence[ActivityTask], lease: int, known: Collection[str]) -> list[ActivityWorkItem]:
        return [
            ActivityWorkItem(task, self.lease_of(task.dispatch_id, ActivityToken(lease, task.dispatch_id)), 0)
            for task in tasks
            if task.dispatch_id not in known
        ]

    def _left_over(self, tasks: int, changed: Iterable[str]) -> None:
        """Tell what was committed and not handed over."""
        if tasks:
            self._activities_expected = True
        self.signals.tell(activities=tasks > 0, changed=changed)

    async def _commit(self, batch: Batch) -> tuple[set[int], set[int]]:
        """Apply a batch, or learn why not: which leases are lost, and which projections must be brought whole."""
        if (amendments := batch.amendments()) and (lost := await self._read_runs(batch, amendments)):
            return lost, set()
        lease, until = self._next_lease(), self._until()
        handed = self._hand_over(len(batch.tasks))
        room = 0
        if batch.messages or batch.releases:
            room = self.instances.reserve(len(batch.messages) + len(batch.refs))
        locked: list[Locked] = []
        tasks: list[ActivityWorkItem] = []
        try:
            answers = await self._call("commit", lease, batch.arguments(locked=handed, room=room))
            lost = {answer[REF] for answer in answers if answer[KIND] == Kind.LOST}
            changed = {answer[REF] for answer in answers if answer[KIND] == Kind.CHANGED}
            if lost or changed:
                return lost, changed
            restored = {answer[REF] for answer in answers if answer[KIND] == Kind.RESTORED}
            known = {answer[MESSAGE] for answer in answers if answer[KIND] == Kind.KNOWN}
            states = batch.applied(restored, lambda token: self.is_ours(token.lease))
            tasks = self._handed_over(batch.tasks[:handed], lease, known)
            self.watchers.tell(states)
            locked = self._absorb(answers, until)
            self._left_over(len(batch.tasks) - handed, states)
            return set(), set()
        except BaseException:
            for ref in batch.refs:
                self.grants.drop(ref)
            raise
        finally:
            self.activities.settle(handed, tasks)
            self.instances.settle(room, locked)
            self._consider()

    async def _read_runs(self, batch: Batch, wanted: Sequence[tuple[int, int]]) -> set[int]:
        """Amend what is stored; returns whose lease is lost, where there is nothing to amend."""
        # Nobody but the holder of the lease, which the commit will compare, writes this history.
        found: dict[tuple[int, int], Run] = {}
        runs: dict[tuple[int, int], Run] = {}
        lost: set[int] = set()
        leases = {ref: each.lease.token for ref, each in zip(batch.refs, batch.checkpoints, strict=True)}
        for ref, index in wanted:
            for first, events in await self.pool.fetch(self.sql["run_with_event"], ref, index):
                run = runs.setdefault((ref, first), run_of_rows(ref, first, events))
                if index < first + len(run.events):
                    found[ref, index] = run
            if (ref, index) not in found:
                token = leases[ref]
                assert isinstance(token, InstanceToken)
                if not await self.pool.fetch(self.sql["is_current"], ref, token.lease):
                    lost.add(ref)
        if not lost:
            batch.amend(lambda ref, index: found.get((ref, index)))
        return lost

    async def complete(self, completions: Sequence[ActivityCompletion]) -> list[CommitOutcome]:
        """Send the reply of each activity whose lease is current, and remove the task."""
        outcomes = [CommitOutcome.LEASE_LOST] * len(completions)
        left: dict[str, int] = {}
        for at, each in enumerate(completions):
            token = each.lease.token
            if isinstance(token, ActivityToken):
                left.setdefault(token.dispatch_id, at)  # a second completion of the same lease finds nothing
        while left:
            chosen = [completions[at] for at in left.values()]
            lost = await self._complete(chosen)
            if not lost:
                for at in left.values():
                    outcomes[at] = CommitOutcome.COMMITTED
                break
            for dispatch_id in lost:
                left.pop(dispatch_id, None)
        return outcomes

    async def _complete(self, completions: Sequence[ActivityCompletion]) -> set[str]:
        lease, until = self._next_lease(), self._until()
        room = self.instances.reserve(len(completions))
        tokens = [each.lease.token for each in completions]
        locked: list[Locked] = []
        try:
            arguments = [
                [token.dispatch_id for token in tokens if isinstance(token, ActivityToken)],
                [token.lease for token in tokens if isinstance(token, ActivityToken)],
                *message_columns([each.reply for each in completions]),
                room,
            ]
            answers = await self._call("complete", lease, arguments)
            locked = self._absorb(answers, until)
            return {answer[MESSAGE] for answer in answers if answer[KIND] == Kind.LOST}
        finally:
            self.instances.settle(room, locked)
            self._consider()

    async def send(self, columns: Sequence[object], count: int) -> None:
        """Put messages, as columns, into inboxes."""
        lease, until = self._next_lease(), self._until()
        room = self.instances.reserve(count)
        locked: list[Locked] = []
        try:
            locked = self._absorb(await self._call("send", lease, [*columns, room]), until)
        finally:
            self.instances.settle(room, locked)
            self._consider()

    async def start_instances(self, columns: Sequence[object], states: Sequence[InstanceState], make: Any) -> set[str]:
        """Store starts; returns the message ids of those that were taken.

        Args:
            make: the work item of a start that is new: message id, row → `Locked`.
        """
        lease, until = self._next_lease(), self._until()
        handed = 0 if self._instances_expected else self.instances.reserve(len(states))
        locked: list[Locked] = []
        try:
            answers = await self._call("start", lease, [handed, *columns])
            taken = {answer[MESSAGE]: answer for answer in answers if answer[KIND] == Kind.CREATED}
            waiting = False
            for answer in taken.values():
                if answer[LEASE] is not None:
                    item: Locked = make(answer[MESSAGE], InstanceToken(answer[LEASE], answer[REF]), until)
                    locked.append(item)
                elif answer[REF] is not None:
                    waiting = True
            if waiting:
                self._instances_expected = True
            self.signals.tell(instances=waiting)
            locked += self._absorb(answers, until)
            return set(taken)
        finally:
            self.instances.settle(handed, locked)
            self._consider()

    async def _call(self, name: str, lease: int, arguments: Sequence[object]) -> Sequence[Answer]:
        """Run a function that may give leases."""
        self.require_open()
        try:
            return await self.pool.fetch(self.sql[name], self.hub, lease, self._length, *arguments)
        except BaseException as error:
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.owe(lease)
            raise

    # Fetching.

    async def fetch_instances(self, limit: int, *, everything: bool) -> list[Locked]:
        """Lock eligible instances and top up held ones.

        Args:
            everything: look at all held instances, and whether anything is eligible, whatever is known.
        """
        self.require_open()
        now = self._now()
        if everything:
            self.grants.look_at_all()
        self.grants.next_due(now)
        looked = self.grants.to_look_at(limit)
        room = limit - len(looked) if everything or self._instances_expected else 0
        if room:
            self._instances_expected = False
        if not looked and not room:
            return []
        lease, until = self._next_lease(), self._until()
        try:
            answers = await self.pool.fetch(
                self.sql["fetch_instances"],
                self.hub,
                room,
                lease,
                self._length,
                [grant.ref for grant in looked],
                [grant.lease for grant in looked],
                [seq for grant in looked for seq in grant.given.values()],
            )
        except BaseException as error:
            self._instances_expected = True
            self.grants.arrived.update(
                {grant.ref: None for grant in looked if self.grants.by_ref.get(grant.ref) is grant}
            )
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.owe(lease)
            raise
        locked = self._absorb(answers, until)
        if room and sum(not each.top_up for each in locked) >= room:
            self._instances_expected = True
        return locked

    async def fetch_activities(self, limit: int) -> list[ActivityWorkItem]:
        """Lock activities."""
        self.require_open()
        self._activities_expected = False
        lease = self._next_lease()
        try:
            answers = await self.pool.fetch(self.sql["fetch_activities"], self.hub, limit, lease, self._length)
        except BaseException as error:
            self._activities_expected = True
            if isinstance(error, StoreUnavailableError | asyncio.CancelledError):
                self.owe(lease)
            raise
        found, spoilt = locked_tasks(answers, self.lease_of("", None))
        for each in spoilt:
            self.track(self._set_aside(each))
        if len(found) + len(spoilt) >= limit:
            self._activities_expected = True
        for answer in answers:
            if answer[KIND] == Kind.WOKEN:
                self._expect("activities", answer[AT])
        return found

    def _consider(self) -> None:
        """Fetch for those who wait, if there may be something."""
        if not self._open:
            return
        if self.instances and "instances" not in self._fetching:
            due = self.grants.next_due(self._now())
            if self._instances_expected or self.grants.wants_look():
                self._fetching.add("instances")
                self.track(self._serve_instances())
            elif due is not None:
                self._expect("held", max(0, int((due - self._now()) * _SECOND)))
        if self.activities and self._activities_expected and "activities" not in self._fetching:
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
            self._consider()

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
            self._consider()

    async def waited(self, desk: Desk[T], waiter: Waiter[T], wait: timedelta) -> Sequence[T]:
        """What a lock call that waits gets."""
        alarm = asyncio.get_running_loop().call_later(wait.total_seconds(), _expire, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            desk.leave(waiter)
            raise
        finally:
            alarm.cancel()

    def awaited(self) -> None:
        """A new lock call waits."""
        self.listen()
        self._consider()

    # Answers.

    def _absorb(self, answers: Sequence[Answer], until: float) -> list[Locked]:
        """Take note of what a call has brought about; returns the instances it has locked."""
        if not answers:
            return []
        now = self._now()
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
                    self._instances_expected = woken = True
                else:
                    self._expect("instances", answer[AT])
        locked, spoilt = locked_instances(answers, self.grants, until)
        for answer in answers:
            if answer[KIND] == Kind.LATER:
                self.grants.look(answer[REF], now + answer[AT] / _SECOND, now)
        for each in spoilt:
            self.track(self._set_aside(each))
        self.signals.tell(instances=woken and not locked, refs=elsewhere)
        return locked

    async def _set_aside(self, spoilt: Spoilt) -> None:
        """Take an instance out of circulation of which something cannot be decoded, until it is repaired."""
        reason = f"{spoilt.what} cannot be decoded: {spoilt.error}"
        instance_id = spoilt.instance_id
        try:
            if spoilt.task is not None:
                await self.pool.fetch(
                    self.sql["abandon"],
                    *(self.hub, _SPOILT_TASK, [], [], []),
                    *([spoilt.task.dispatch_id], [spoilt.task.lease]),
                )
            lease = None if spoilt.token is None else spoilt.token.lease
            rows = await self.pool.fetch(self.sql["quarantine_spoilt"], self.hub, spoilt.ref, lease, reason)
            instance_id = rows[0][0] if rows else instance_id
        except Exception as error:
            logger.warning("an unreadable row could not be set aside: %s", error, extra={"event": "set_aside_failed"})
            return
        self.grants.drop(spoilt.ref)
        self.changed(instance_id)
        logger.error(
            "instance %s is quarantined: %s cannot be decoded (%s). Repair or remove the row, then release the "
            "instance with `durable-host instances release`",
            instance_id,
            spoilt.what,
            spoilt.error,
            extra={"event": "quarantined", "instance": instance_id},
        )

    def changed(self, *instance_ids: str) -> None:
        """Something else than a checkpoint changed these instances."""
        self.watchers.tell(dict.fromkeys(instance_ids))
        self.signals.tell(changed=instance_ids)

    def made_eligible(self) -> None:
        """Something is eligible."""
        self._instances_expected = True
        self.signals.tell(instances=True)
        self._consider()

    def woken(self, answers: Sequence[Answer]) -> None:
        """What a call that gives work back has brought about."""
        self._absorb(answers, 0.0)
        for answer in answers:
            if answer[KIND] == Kind.WAITING:
                if answer[AT] <= 0:
                    self._activities_expected = True
                    self.signals.tell(activities=True)
                else:
                    self._expect("activities", answer[AT])
        self._consider()

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
            self._activities_expected = True
        elif what == "instances":
            self._instances_expected = True
        self._consider()

    def _pause(self) -> float:
        pause = self.settings.poll.total_seconds()
        return pause if self.signals.is_listening else min(pause, 0.5)

    def _look(self) -> None:
        """The safety net: look, even if nobody has told us anything."""
        if self.loop is None or not self._open:
            return
        self._poll = self.loop.call_later(self._pause(), self._look)
        self._heard(Note(all=True, i=True, a=True))

    def _heard(self, note: Note) -> None:
        if note.all:
            self.grants.look_at_all()
            self.watchers.tell_all()
        for ref in note.r:
            if ref in self.grants.by_ref:
                self.grants.arrived[ref] = None
        self._instances_expected = self._instances_expected or note.i
        self._activities_expected = self._activities_expected or note.a
        self.watchers.tell_to_look(note.c)
        if (self._owed or self._owed_tokens) and not self._paying:
            self._paying = True
            self.track(self._pay())
        self._consider()

    async def _notify(self, payload: str) -> None:
        await self.pool.fetch(self.sql["notify"], f"durable_host_{self.hub}", payload)

    def owe(self, lease: int) -> None:
        """A call under this lease number failed, and may have locked something."""
        self._owed[lease] = None
        self.listen()

    async def _pay(self) -> None:
        """Give back what failed calls may have locked, and what could not be given back."""
        owed, tokens = list(self._owed), list(self._owed_tokens)
        try:
            if owed:
                await self.pool.fetch(self.sql["disown"], self.hub, min(owed), max(owed), owed, repeatable=True)
            for lease in owed:
                self._owed.pop(lease, None)
            if tokens:
                await self.pool.fetch(self.sql["abandon"], self.hub, 0, *_tokens(tokens, lambda _: False))
            for token in tokens:
                self._owed_tokens.pop(token, None)
            self._instances_expected = self._activities_expected = True
            self.signals.tell(instances=True, activities=True)
        except StoreError:
            return  # later
        finally:
            self._paying = False
        self._consider()

    def put_back_instances(self, items: Sequence[Locked]) -> asyncio.Task[None] | None:
        """Nobody takes these; returns what is being done about it."""
        leases = [self.lease_of(item.instance_id, item.token) for item in items]
        return self.give_back(leases, top_ups=[item for item in items if item.top_up])

    def put_back_activities(self, items: Sequence[ActivityWorkItem]) -> asyncio.Task[None] | None:
        """Nobody takes these; returns what is being done about it."""
        return self.give_back([item.lease for item in items])

    def give_back(self, leases: Sequence[Lease], top_ups: Sequence[Locked] = ()) -> asyncio.Task[None] | None:
        """Unlock items that nobody took. Held instances stay held: what they were topped up with is given again."""
        held = {item.token for item in top_ups}
        for item in top_ups:
            grant = self.grants.find(item.token)
            if grant is not None:
                for message in item.inbox:
                    grant.given.pop(message.id, None)
                self.grants.arrived[grant.ref] = None
        left = [lease for lease in leases if lease.token not in held]
        if left and self._open:
            return self.track(self._abandon_quietly(left))
        self._consider()
        return None

    async def _abandon_quietly(self, leases: Sequence[Lease]) -> None:
        try:
            await self.abandon(leases, timedelta(0))
        except StoreError as error:
            logger.debug("%d leases could not be given back now: %s", len(leases), error)

    async def abandon(self, leases: Sequence[Lease], delay: timedelta) -> None:
        """Give work back; lost leases are passed over."""
        tokens = [lease.token for lease in leases if isinstance(lease.token, InstanceToken | ActivityToken)]
        grants = {token: self.grants.find(token) for token in tokens if isinstance(token, InstanceToken)}

        def waits(token: InstanceToken) -> bool:
            grant = grants[token]
            return grant is None or bool(grant.given)

        arguments = _tokens(tokens, waits)
        for token, grant in grants.items():
            if grant is not None:
                self.grants.drop(token.ref)
        micros = max(0, delay // timedelta(microseconds=1))
        try:
            answers = await self.pool.fetch(self.sql["abandon"], self.hub, micros, *arguments, repeatable=True)
        except StoreUnavailableError:
            self._owed_tokens.update(dict.fromkeys(token for token in tokens if self.is_ours(token.lease)))
            self.listen()
            raise
        self.woken(answers)

    async def renew(self, leases: Sequence[Lease], pool: Pool | None = None) -> list[Lease | None]:
        """Extend those that are current."""
        tokens = [lease.token for lease in leases if isinstance(lease.token, InstanceToken | ActivityToken)]
        refs, numbers, _, ids, their_numbers = _tokens(tokens, lambda _: False)
        answers = await (pool or self.pool).fetch(
            self.sql["renew"], self.hub, self._length, refs, numbers, ids, their_numbers, repeatable=True
        )
        current: set[object] = set()
        for answer in answers:
            if answer[REF] is None:
                current.add(ActivityToken(answer[LEASE], answer[MESSAGE]))
            else:
                current.add(InstanceToken(answer[LEASE], answer[REF]))
        return [Lease(each.key, each.token, self.settings.lease) if each.token in current else None for each in leases]

    def renewed(self, leases: Sequence[Lease | None]) -> None:
        """These leases were renewed: if one had ended, what came meanwhile was not told to the holder."""
        for lease in leases:
            if lease is not None and isinstance(lease.token, InstanceToken):
                grant = self.grants.find(lease.token)
                if grant is not None and grant.held:
                    self.grants.arrived[grant.ref] = None
        self._consider()


def _expire(waiter: Waiter[Any]) -> None:
    if not waiter.future.done():
        waiter.future.set_result(())


def _tokens(
    tokens: Sequence[InstanceToken | ActivityToken], waits: Callable[[InstanceToken], bool]
) -> tuple[list[int], list[int], list[bool], list[str], list[int]]:
    """Leases of both kinds as columns."""
    instances = [token for token in tokens if isinstance(token, InstanceToken)]
    tasks = [token for token in tokens if isinstance(token, ActivityToken)]
    return (
        [token.ref for token in instances],
        [token.lease for token in instances],
        [waits(token) for token in instances],
        [token.dispatch_id for token in tasks],
        [token.lease for token in tasks],
    )
