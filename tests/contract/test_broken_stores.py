"""Every promise has tests that notice when it is broken.

Each class below is the memory store with one promise broken, in a way that a provider might. The suite's tests of that
promise run on it, and at least one must fail: a test that cannot fail proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import msgspec
import pytest

from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host.storage.contract import (
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    HistoryCache,
    Lease,
    OrchestrationWorkItem,
)
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment, promised_tests
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.records import InstanceRecord, MessageRecord, TaskRecord
from durable_host_providers.memory.store import MemoryTaskHubStore
from durable_host_providers.memory.waiting import Holder, Waiter

NOTHING = timedelta(0)

Fetch = Callable[[Waiter], list[Any]]
Poll = Callable[[int], list[Any]]


# Promise 1.


class LocksTheLocked(HubState):
    """A lease keeps nobody out."""

    def lease_to(self, instance: InstanceRecord, holder: Holder) -> int:
        token = super().lease_to(instance, holder)
        instance.leased = False
        return token


class LocksTheInvisible(HubState):
    """What is not visible yet makes an instance eligible."""

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        super().put(msgspec.structs.replace(message, visible_at=None), now, by)


class HoldsNothing(MemoryTaskHubStore):
    """The lease ends with every checkpoint."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit([msgspec.structs.replace(each, hold=False) for each in checkpoints])


class TopsUpAgainAndAgain(MemoryTaskHubStore):
    """The holder gets its whole inbox whenever it asks."""

    def _top_up(self, instance: InstanceRecord) -> OrchestrationWorkItem:
        instance.take_back()
        return super()._top_up(instance)


class NeverTopsUp(MemoryTaskHubStore):
    """What arrives for a held instance waits for the end of the hold."""

    def _lock_ready(self, room: int, cache: HistoryCache) -> list[OrchestrationWorkItem]:
        self._holder.top_ups.clear()
        return super()._lock_ready(room, cache)


class IgnoresTheLimit(MemoryTaskHubStore):
    """A call takes all there is."""

    def _lock_ready(self, room: int, cache: HistoryCache) -> list[OrchestrationWorkItem]:
        return super()._lock_ready(1_000, cache)


# Promise 2.


class DoesNotWait(MemoryTaskHubStore):
    """A call returns at once."""

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        return await super().lock_orchestrations(limit, wait=NOTHING, cache=cache)


class SleepsThroughArrivals(MemoryTaskHubStore):
    """A call looks once at the beginning and once at the end."""

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        items = await super().lock_orchestrations(limit, wait=NOTHING, cache=cache)
        if items or not wait:
            return items
        await asyncio.sleep(wait.total_seconds())
        return await super().lock_orchestrations(limit, wait=NOTHING, cache=cache)


class SleepsThroughTimers(HubState):
    """Waiting calls know nothing of what becomes visible by itself, nor of leases that end."""

    def next_due(self) -> datetime | None:
        return None

    def seconds_to_lease_end(self) -> float:
        return 1e6


# Promise 3.


class KeepsWhatItWasHanded(MemoryTaskHubStore):
    """A cancelled call keeps what was locked for it."""

    def _return(self, waiter: Waiter) -> None:
        pass


class KeepsWhatItLocked(MemoryTaskHubStore):
    """A failing call keeps what it has locked."""

    def _lock_ready(self, room: int, cache: HistoryCache) -> list[OrchestrationWorkItem]:
        items: list[OrchestrationWorkItem] = []
        while len(items) < room and (ready := self._hub.next_ready()) is not None:
            self._hub.lease_to(ready, self._holder)
            items.append(self._item(ready, cache, handed_over=False))
        return items


# Promise 4.


class FailsTheWholeBatch(MemoryTaskHubStore):
    """One lost lease fails all."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        lost = [each for each in checkpoints if self._locked(each.lease) is None]
        return [CommitOutcome.LEASE_LOST] * len(checkpoints) if lost else await super().commit(checkpoints)


class SortsOutcomes(MemoryTaskHubStore):
    """Outcomes are in the order of the instances."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit(sorted(checkpoints, key=lambda each: each.lease.key))


# Promise 5.


class AcceptsAnyToken(MemoryTaskHubStore):
    """Whoever commits last wins."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit([self._with_current_token(each) for each in checkpoints])

    def _with_current_token(self, checkpoint: Checkpoint) -> Checkpoint:
        instance = self._hub.instances.get(checkpoint.lease.key)
        if instance is None:
            return checkpoint
        lease = Lease(checkpoint.lease.key, instance.token, checkpoint.lease.remaining)
        return msgspec.structs.replace(checkpoint, lease=lease)


class AcceptsAnyBase(MemoryTaskHubStore):
    """Nobody looks where history stands."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for each in checkpoints:
            instance = self._locked(each.lease)
            if instance is not None:
                instance.version = each.base
        return await super().commit(checkpoints)


class SendsBeforeItLooks(MemoryTaskHubStore):
    """The outbox of a lost checkpoint is sent, though the store says that it is atomic."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for each in checkpoints:
            await self.send(each.messages)
        return await super().commit(checkpoints)


class RepliesForTheLost(MemoryTaskHubStore):
    """A worker whose activity was taken over completes it all the same."""

    def _locked_task(self, lease: Lease) -> TaskRecord | None:
        return self._hub.tasks.get(lease.key)


# Promise 6.


class ForgetsToConsume(HubState):
    """The inbox stays."""

    def consume(self, instance: InstanceRecord, message_id: MessageId) -> None:
        pass


class ForgetsTheOutbox(MemoryTaskHubStore):
    """Messages are lost."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit([msgspec.structs.replace(each, messages=()) for each in checkpoints])


class ForgetsActivities(HubState):
    """Activities are lost."""

    def add_task(self, task: ActivityTask, now: datetime, by: Holder | None) -> None:
        pass


# Promise 7.


class OverwritesTheProjection(MemoryTaskHubStore):
    """Any checkpoint's projection is taken."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        outcomes = await super().commit(checkpoints)
        for each, outcome in zip(checkpoints, outcomes, strict=True):
            instance = self._hub.instances.get(each.lease.key)
            if outcome is CommitOutcome.COMMITTED and instance is not None and each.state is not None:
                self._hub.set_state(instance, each.state)
        return outcomes


class ProjectionGoesByLength(HubState):
    """A newer generation with a shorter history does not count as newer."""

    def set_state(self, instance: InstanceRecord, state: InstanceState | None) -> None:
        old = instance.state.version if instance.state is not None else None
        if old and state and state.version and state.version.length < old.length:
            return
        super().set_state(instance, state)


# Promise 8.


class EverybodyHearsTrue(MemoryTaskHubStore):
    """A start under an id in use is dropped silently."""

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        await super().create_instance(start, replaceable=replaceable, transaction=transaction)
        return True


class ForgetsWhoStarted(MemoryTaskHubStore):
    """The same start again is somebody else's."""

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        standing = self._hub.instances.get(start.target)
        if standing is not None:
            standing.start_id = None
        return await super().create_instance(start, replaceable=replaceable, transaction=transaction)


class LooksBeforeItWaits(MemoryTaskHubStore):
    """Between the look and the insert others may create, too."""

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        standing = await self.get_instance(start.target)
        await asyncio.sleep(0.001)
        if standing is None:
            return await super().create_instance(start, replaceable=list(RuntimeStatus), transaction=transaction)
        return await super().create_instance(start, replaceable=replaceable, transaction=transaction)


# Promise 9.


class StoresTwice(HubState):
    """A message that waits is stored under a second name."""

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        if self.require(message.target).knows(message.id):
            message = msgspec.structs.replace(message, id=MessageId(f"{message.id} again"))
        super().put(message, now, by)


class CountsNoDeliveries(HubState):
    """Every delivery says that it is the first."""

    def lease_to(self, instance: InstanceRecord, holder: Holder) -> int:
        for record in instance.fresh.values():
            record.deliveries = record.token = 0
        return super().lease_to(instance, holder)


class NewestFirst(HubState):
    """The inbox is a stack."""

    def lease_to(self, instance: InstanceRecord, holder: Holder) -> int:
        instance.fresh = dict(reversed(instance.fresh.items()))
        return super().lease_to(instance, holder)


class SplitsWhatWasGivenBack(HubState):
    """What arrives later comes alone, ahead of what was given back."""

    def give_back(self, instance: InstanceRecord, now: datetime, delay: timedelta) -> None:
        held_back = list(instance.given.values())
        instance.given = {}
        for record in held_back:
            self.messages -= 1
            super().put(msgspec.structs.replace(record.message, visible_at=now + delay), now, None)
        self.release(instance)


class NewestTaskFirst(MemoryTaskHubStore):
    """Activities come newest first."""

    def _lock_tasks(self, room: int) -> list[ActivityWorkItem]:
        return super()._lock_tasks(room)[::-1]


# Promise 10.


class RenewsNothing(MemoryTaskHubStore):
    """A lease is as long as its first grant."""

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return list(leases)


class RenewsTheLost(MemoryTaskHubStore):
    """Whoever asks hears that the lease is his."""

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        renewed = await super().renew(leases)
        return [new or old for new, old in zip(renewed, leases, strict=True)]


class RenewsOnTheMainLoopOnly(MemoryTaskHubStore):
    """A thread with a loop of its own gets nothing."""

    _main: asyncio.AbstractEventLoop | None = None

    async def create(self) -> None:
        self._main = asyncio.get_running_loop()
        await super().create()

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        if self._main is not None and asyncio.get_running_loop() is not self._main:
            return [None] * len(leases)
        return await super().renew(leases)


# Promise 11.


class PurgesTheLiving(MemoryTaskHubStore):
    """Purge does not look at the status."""

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        return await super().purge(instance_ids, force=True)


class PurgeLeavesMessages(HubState):
    """Messages of a purged instance wait on."""

    def purge(self, purged: Sequence[InstanceRecord]) -> None:  # type: ignore[override]  # narrower is enough here
        left = [record.message for each in purged for record in (*each.fresh.values(), *each.delayed.values())]
        super().purge(purged)
        for message in left:
            self.put(message, self.sweep(), None)


class CountsWhatItWasAsked(MemoryTaskHubStore):
    """Purge says how many it was given."""

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        await super().purge(instance_ids, force=force)
        return len(instance_ids)


# Promise 12.


class PagesByOffset(MemoryTaskHubStore):
    """The cursor counts rows, so that what comes and goes moves the pages."""

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        everything = msgspec.structs.replace(query, cursor=None, limit=1_000_000)
        found = (await super().query_instances(everything)).instances
        at = int(query.cursor or 0)
        cursor = str(at + query.limit) if at + query.limit < len(found) else None
        return InstancePage(found[at : at + query.limit], cursor)


class ReadsAnyCursor(MemoryTaskHubStore):
    """A cursor that cannot be read is the beginning."""

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        try:
            return await super().query_instances(query)
        except ValueError:
            return await super().query_instances(msgspec.structs.replace(query, cursor=None))


class IgnoresCase(MemoryTaskHubStore):
    """The prefix is compared without case."""

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        everything = msgspec.structs.replace(query, prefix="", limit=1_000_000)
        found = (await super().query_instances(everything)).instances
        prefix = query.prefix.lower()
        return InstancePage(tuple(each for each in found if each.instance_id.lower().startswith(prefix)))


class ExcludesTheUpperBound(MemoryTaskHubStore):
    """Bounds of time are half open."""

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        if query.created_to is not None:
            query = msgspec.structs.replace(query, created_to=query.created_to - timedelta(microseconds=1))
        return await super().query_instances(query)


# Promise 13.


class ShortHorizon(HubState):
    """Nothing can be further ahead than a queue's seven days."""

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        if message.visible_at is not None:
            message = msgspec.structs.replace(message, visible_at=min(message.visible_at, now + timedelta(days=7)))
        super().put(message, now, by)


class CapsTimers(HubState):
    """A timer comes after a day at the latest."""

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        if message.visible_at is not None:
            message = msgspec.structs.replace(message, visible_at=min(message.visible_at, now + timedelta(days=1)))
        super().put(message, now, by)


# Promise 14.


class HandsOverTwice(MemoryTaskHubStore):
    """Work goes to every waiting call."""

    async def _lock(self, limit: int, wait: timedelta, waiters: list[Waiter], fetch: Fetch, poll: Poll) -> Any:
        def fetch_and_share(waiter: Waiter) -> list[Any]:
            for other in waiters:
                other.instances += waiter.instances
            items = fetch(waiter)
            for instance, _ in waiter.instances:
                instance.take_back()
            return items

        return await super()._lock(limit, wait, waiters, fetch_and_share, poll)


class HandsOverUnlocked(MemoryTaskHubStore):
    """What is handed over is not locked."""

    def _item(self, instance: InstanceRecord, cache: HistoryCache, *, handed_over: bool) -> OrchestrationWorkItem:
        item = super()._item(instance, cache, handed_over=handed_over)
        if handed_over:
            self._hub.release(instance)
        return item


class HandsOverBeyondTheLimit(HubState):
    """Waiting calls have room for everything."""

    def offer_task(self, task: TaskRecord, by: Holder | None = None) -> None:
        if by is not None:
            for waiter in by.tasks:
                waiter.free = 1_000
        super().offer_task(task, by)


class ClosingKeepsHandOvers(MemoryTaskHubStore):
    """What was handed over stays locked when the store object is closed."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for lease in list(self._hub.instance_leases.values()):
            if lease.holder is self._holder:
                lease.holder = None
        await super().__aexit__(exc_type, exc, tb)


# Promises 15 to 17.


class DefersForASecond(HubState):
    """Deferred messages come back after a second, always."""

    def defer(self, instance: InstanceRecord, message_id: MessageId, now: datetime) -> None:
        record = instance.given.get(message_id)
        deliveries = 0 if record is None else record.deliveries
        if record is not None:
            record.deliveries = 0
        super().defer(instance, message_id, now)
        if record is not None:
            record.deliveries = deliveries


class DefersWithoutEnd(HubState):
    """The back-off doubles beyond ten minutes."""

    def defer(self, instance: InstanceRecord, message_id: MessageId, now: datetime) -> None:
        record: MessageRecord | None = instance.given.get(message_id)
        later = now + timedelta(seconds=max(0, 2 ** (record.deliveries if record else 0) - 600))
        super().defer(instance, message_id, later)


class IgnoresDeferral(HubState):
    """Deferred messages come back at once."""

    def defer(self, instance: InstanceRecord, message_id: MessageId, now: datetime) -> None:
        pass


class AppendsAmendments(MemoryTaskHubStore):
    """Amended events stand at the end."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        before = {each.lease.key: list(self._hub.instances[each.lease.key].history) for each in checkpoints}
        outcomes = await super().commit(checkpoints)
        for each in checkpoints:
            if each.amended:
                amended = [event for _, event in each.amended]
                self._hub.instances[each.lease.key].history = before[each.lease.key] + amended
        return outcomes


class IgnoresAmendments(MemoryTaskHubStore):
    """History is append-only."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit([msgspec.structs.replace(each, amended=()) for each in checkpoints])


class KeepsTheCompleted(MemoryTaskHubStore):
    """Activities whose results are in history run again."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await super().commit([msgspec.structs.replace(each, completed=()) for each in checkpoints])


class DropsTheCompletedOfTheLost(MemoryTaskHubStore):
    """Activities leave although their results were not recorded."""

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for each in checkpoints:
            for lease in each.completed:
                if (task := self._locked_task(lease)) is not None:
                    self._hub.remove_task(task)
        return await super().commit(checkpoints)


# Promises 18 to 20.


class QuarantineDropsTheInbox(HubState):
    """What waits is lost."""

    def quarantine(self, instance: InstanceRecord, reason: str) -> None:
        super().quarantine(instance, reason)
        instance.given, instance.fresh = {}, {}


class ArrivalsEndQuarantine(HubState):
    """A message makes a quarantined instance eligible."""

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        self.require(message.target).quarantined = None
        super().put(message, now, by)


class QuarantineDoesNotShow(MemoryTaskHubStore):
    """Readers see a running instance."""

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        instance = self._hub.instances.get(instance_id)
        return None if instance is None else instance.state


class ReleaseLeavesItFailed(HubState):
    """The status before is forgotten."""

    def end_quarantine(self, instance: InstanceRecord, by: Holder) -> bool:
        if instance.quarantined is not None:
            instance.state = instance.shown
        return super().end_quarantine(instance, by)


class IgnoresTransactions(MemoryTaskHubStore):
    """What the caller may roll back has happened."""

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        return await super().create_instance(start, replaceable=replaceable)

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        await super().send(messages)


class TellsOutputOfTheRunning(HubState):
    """The output of an earlier execution stays in its column."""

    def set_state(self, instance: InstanceRecord, state: InstanceState | None) -> None:
        super().set_state(instance, state)
        if state is not None and instance.shown is not None and state.status not in TERMINAL:
            kept = (state.output, state.completed_at)
            instance.shown = msgspec.structs.replace(instance.shown, output=kept[0], completed_at=kept[1])


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise, and how it is broken."""

    promise: int
    how: type[HubState] | type[MemoryTaskHubStore]

    def __str__(self) -> str:
        return f"{self.promise}-{self.how.__name__}"


BROKEN = [
    Broken(number, how)
    for number, ways in {
        1: (LocksTheLocked, LocksTheInvisible, HoldsNothing, TopsUpAgainAndAgain, NeverTopsUp, IgnoresTheLimit),
        2: (DoesNotWait, SleepsThroughArrivals, SleepsThroughTimers),
        3: (KeepsWhatItWasHanded, KeepsWhatItLocked),
        4: (FailsTheWholeBatch, SortsOutcomes),
        5: (AcceptsAnyToken, AcceptsAnyBase, SendsBeforeItLooks, RepliesForTheLost),
        6: (ForgetsToConsume, ForgetsTheOutbox, ForgetsActivities),
        7: (OverwritesTheProjection, ProjectionGoesByLength),
        8: (EverybodyHearsTrue, ForgetsWhoStarted, LooksBeforeItWaits),
        9: (StoresTwice, CountsNoDeliveries, NewestFirst, SplitsWhatWasGivenBack, NewestTaskFirst),
        10: (RenewsNothing, RenewsTheLost, RenewsOnTheMainLoopOnly),
        11: (PurgesTheLiving, PurgeLeavesMessages, CountsWhatItWasAsked),
        12: (PagesByOffset, ReadsAnyCursor, IgnoresCase, ExcludesTheUpperBound),
        13: (ShortHorizon, CapsTimers),
        14: (HandsOverTwice, HandsOverUnlocked, HandsOverBeyondTheLimit, ClosingKeepsHandOvers),
        15: (DefersForASecond, DefersWithoutEnd, IgnoresDeferral),
        16: (AppendsAmendments, IgnoresAmendments),
        17: (KeepsTheCompleted, DropsTheCompletedOfTheLost),
        18: (QuarantineDropsTheInbox, ArrivalsEndQuarantine, QuarantineDoesNotShow, ReleaseLeavesItFailed),
        19: (IgnoresTransactions,),
        20: (TellsOutputOfTheRunning,),
    }.items()
    for how in ways
]


def suite_on(broken: Broken) -> StoreContract:
    """The suite over a broken store."""

    class OnBroken(StoreContract):
        @asynccontextmanager
        async def new_hub(self) -> AsyncGenerator[ContractHub]:
            environment = contract_environment()
            state_type = broken.how if issubclass(broken.how, HubState) else HubState
            store_type = broken.how if issubclass(broken.how, MemoryTaskHubStore) else MemoryTaskHubStore
            state = state_type(environment, timedelta(seconds=30))
            yield ContractHub(open=lambda: store_type(state), environment=environment)

    return OnBroken()


def failing(broken: Broken) -> list[str]:
    """Which of the suite's tests of the promise fail."""
    suite = suite_on(broken)
    failed: list[str] = []
    for name in promised_tests(StoreContract, broken.promise):
        try:
            getattr(suite, name)()
        except (Exception, pytest.fail.Exception):
            failed.append(name)
    return failed


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_store_that_breaks_a_promise_fails_its_tests(broken: Broken) -> None:
    assert failing(broken)


def test_every_promise_is_broken_by_some_store() -> None:
    assert {broken.promise for broken in BROKEN} == set(range(1, 21))


@pytest.mark.parametrize("number", range(1, 21))
def test_the_unbroken_store_passes_by_the_same_means(number: int) -> None:
    assert failing(Broken(number, MemoryTaskHubStore)) == []
