"""The storage contract: work items in, one immutable checkpoint out.

`lock → episode → commit(Checkpoint)`. A provider persists checkpoints and never interprets an event; the engine never
asks which provider it has. The numbered promises below are tested, one by one, by
`durable_host/testing/store_contract.py`, which every provider runs.

1.  *Eligible* = at least one visible message, no live lease, no quarantine. One lease per instance at a time; the items
    of one call are distinct. An instance that this store object holds (`Checkpoint.hold`) and that has received visible
    messages is delivered again by this object's own lock call, with the same lease key and token, once per new
    arrival: only messages that the holder has not been given under this lease yet.
2.  *Waiting* happens in the provider: a lock call returns as soon as something is eligible, else `()` after `wait`.
3.  *Cancellation and failure strand nothing*: a lock call that is cancelled or raises gives back what it had locked.
4.  `commit` is independent per checkpoint, outcomes in order. After an exception every effect is *unknown*; the caller
    drops its leases and lets redelivery sort it out. Nobody retries a commit blindly.
5.  *Fence*: if `lease.token` is no longer current, or history is no longer at `base`, nothing of that checkpoint
    becomes visible, except, in stores with `atomic_commit = False`, its outgoing messages.
6.  *Order of effects* where not atomic: outgoing messages → history → projection → inbox → `completed`. `COMMITTED`
    means that history is in; what follows it may still be on its way, in order per instance, and ends before the
    instance is released; where it fails, redelivery repairs it.
7.  *The projection is monotone*: a state row is overwritten only by a newer state, or by one of equal version whose
    checkpoint amends.
8.  *Starts are idempotent*: a start for an instance that lives is dropped when admitted and never fails the sender's
    checkpoint. Of several creators of one id at once exactly one hears True; the same start sent again (same message
    id, same execution id) hears what it heard before.
9.  *Delivery is at least once*, with stable ids, in any order, oldest first where nothing failed; `deliveries` counts.
    A message whose id waits in the store already is not stored a second time.
10. *Leases can be renewed* any number of times until lost; `max_lease` bounds one grant, not the work. `renew` may be
    called from a thread with an event loop of its own, so that a blocked main loop loses nothing.
11. *Purge* removes instance, history, payloads, and messages where the store can find them; only terminal instances
    unless `force`; says how many.
12. *Queries* are stable under paging; the cursor is opaque text. A cursor that cannot be read raises `ValueError`.
13. `visible_at` of a timer is at most 6 days ahead. Starts and signals may be years ahead.
14. *Hand-over*: what `commit`, `complete_activities`, `create_instance` and `send` insert or make eligible may be
    locked at once for a lock call of the same store object that is waiting with free slots; it is locked as if fetched,
    delivered before anything else, to one lock call only. Closing releases what was not fetched.
15. *Deferred* messages come back after `min(2^deliveries, 600)` seconds.
16. *Amended* events stand at their index when history is next read; all others, and the length, are as before.
17. *Completed* activities leave with the checkpoint that records their results; on `LEASE_LOST` they stay locked.
18. *Quarantine* keeps history and inbox; nothing makes the instance eligible but `release_quarantined`. Its status is
    Failed with the reason until then; afterwards what it was before. It gives way to no start, but may be purged.
19. *A caller's transaction* decides alone whether a start or a send happened. A store without
    `traits.caller_transactions` raises `UnsupportedError` when it is given one.
20. `get_instance` tells output and completion time of terminal instances only.

Every method may raise `StoreUnavailableError` when the store cannot be reached; the effect of the call is unknown then,
and the call may be repeated with the same ids, except `commit` (promise 4). After `complete_activities` the leases
stand unless it had its effect: whoever repeats it hears `LEASE_LOST` then, and only a store that is not atomic may have
sent the reply twice.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

import msgspec

from durable_host.environment import Environment
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus

__all__ = [
    "ActivityCompletion",
    "ActivityWorkItem",
    "AppLeaseOptions",
    "Checkpoint",
    "CommitOutcome",
    "HandedBack",
    "HistoryCache",
    "HostStateStore",
    "HubStatistics",
    "Lease",
    "NamedLease",
    "OpenedProvider",
    "OrchestrationWorkItem",
    "StorageOptions",
    "StorageProvider",
    "StoreTraits",
    "TaskHubStore",
    "VersionedValue",
    "has_changed",
]


class Lease(msgspec.Struct, frozen=True):
    """A lock with an end.

    Attributes:
        key: what is locked; the instance id, or the activity's dispatch id.
        token: the provider's fence, opaque.
        remaining: how long it holds, counted from the moment of the call that gave it; never an instant.
    """

    key: str
    token: object
    remaining: timedelta


class OrchestrationWorkItem(msgspec.Struct, frozen=True):
    """An instance with its inbox, locked.

    Attributes:
        version: where committed history stands; None: nothing committed yet.
        history: all events of the present generation; None: the worker said that it holds this version, or the item
            tops up the inbox of an instance that the worker holds, or what is stored is no history: `get_history` fails
            then, for this instance alone.
        inbox: visible messages, oldest first, at least one.
    """

    instance_id: InstanceId
    version: HistoryVersion | None
    history: Sequence[HistoryEvent] | None
    inbox: Sequence[Message]
    lease: Lease


class ActivityWorkItem(msgspec.Struct, frozen=True):
    """An activity task, locked. `deliveries` counts fetches, this one included; 0: handed over."""

    task: ActivityTask
    lease: Lease
    deliveries: int = 1


class ActivityCompletion(msgspec.Struct, frozen=True):
    """The end of an activity: its reply is sent and the task removed, as one step (or the reply first)."""

    lease: Lease
    reply: Message


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything one episode changes.

    Attributes:
        lease: of the instance.
        base: the version it was computed from; the fence.
        state: full projection, carries the new version; None: nothing to project, version stays.
        events: appended; if `state.version.generation > base.generation` they replace the history.
        amended: put in place of the event at that index; length and generation stay.
        activities: to be run.
        messages: timers to self, starts, events, replies to parents.
        consumed: leave the inbox.
        deferred: come back after `min(2^deliveries, 600)` s.
        completed: activities whose results are among `events`; they leave with this checkpoint, last.
        hold: keep the lease after `COMMITTED`; the worker expects results that it will fold into the next checkpoint.
            The lease ends with the next checkpoint that does not hold, or with `abandon`.
    """

    lease: Lease
    base: HistoryVersion | None
    state: InstanceState | None
    events: Sequence[HistoryEvent] = ()
    amended: Sequence[tuple[int, HistoryEvent]] = ()
    activities: Sequence[ActivityTask] = ()
    messages: Sequence[Message] = ()
    consumed: Sequence[MessageId] = ()
    deferred: Sequence[MessageId] = ()
    completed: Sequence[Lease] = ()
    hold: bool = False


class CommitOutcome(Enum):
    """What became of a checkpoint or a completion."""

    COMMITTED = "committed"
    LEASE_LOST = "lease lost"


class StoreTraits(msgspec.Struct, frozen=True):
    """What kind of store this is.

    Attributes:
        atomic_commit: a checkpoint is all or nothing, and so is a completion.
        caller_transactions: `create_instance` and `send` take the caller's transaction.
        commit_batch: most checkpoints that one `commit` call takes.
        commit_concurrency: how many `commit` calls may run at once.
        commit_patience: how long a `commit` call runs before another one begins beside it: what comes meanwhile shares
            the next call.
        lock_batch: most items that one lock call returns.
        max_lease: longest single grant.
        durable: what is acknowledged survives the process.
    """

    atomic_commit: bool = True
    caller_transactions: bool = False
    commit_batch: int = 256
    commit_concurrency: int = 1
    commit_patience: timedelta = timedelta(0)
    lock_batch: int = 256
    max_lease: timedelta = timedelta(seconds=30)
    durable: bool = True


class HistoryCache(Protocol):
    """What the worker holds already."""

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        """Whether history need not be loaded at this version. Called from any thread; fast."""
        ...


class HandedBack(msgspec.Struct, frozen=True):
    """A work item that was given back and waits: no executor here knows it, or it keeps failing.

    `kind` is `orchestration` or `activity`; `name` is the function's where the store knows it.
    """

    kind: str
    instance_id: InstanceId
    name: str | None
    deliveries: int
    visible_at: datetime | None


class HubStatistics(msgspec.Struct, frozen=True):
    """Depths and ages of a hub's queues, for operators and scaling. Ages are in seconds.

    Attributes:
        instances: number by status name.
        inbox_waiting: messages that are visible now; `inbox_delayed`: those that become visible later.
        activities_waiting, activities_running: tasks without and with a live lease.
        oldest_message_age, oldest_activity_age: of what is visible and not locked; None when there is nothing.
        quarantined: instances that wait for `release_quarantined`.
        handed_back: at most 100 items that came back at least twice, most deliveries first.
    """

    instances: dict[str, int]
    inbox_waiting: int = 0
    inbox_delayed: int = 0
    activities_waiting: int = 0
    activities_running: int = 0
    oldest_message_age: float | None = None
    oldest_activity_age: float | None = None
    quarantined: int = 0
    handed_back: tuple[HandedBack, ...] = ()


class TaskHubStore(ABC):
    """A task hub in some store. Used as a context manager; `create` works without entering."""

    traits: ClassVar[StoreTraits]

    # Life cycle.

    @abstractmethod
    async def create(self) -> None:
        """Make the hub ready: idempotent, runs migrations.

        Raises:
            StoreMismatchError: what is there is not a hub, belongs to another one, or is newer than this code.
        """

    @abstractmethod
    async def delete(self) -> None:
        """Remove the hub and everything in it; idempotent."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open connections; `create` must have been called by somebody, sometime.

        Raises:
            StoreMismatchError: there is no such hub, or it is not ours.
        """

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish late writes, release leases and hand-overs that were not fetched, close."""

    async def check(self) -> None:
        """Prove that the store can be read and written, for readiness; cheap.

        Raises:
            StoreUnavailableError: it cannot; the text says what to do.
        """
        await self.statistics()

    # Worker.

    @abstractmethod
    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        """Lock up to `limit` eligible instances, with their inboxes; `()` when `wait` is over. Promises 1 to 3."""

    @abstractmethod
    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        """Lock up to `limit` activity tasks, oldest first; `()` when `wait` is over. Promises 2 and 3."""

    async def receive_orchestrations(
        self,
        limit: int,
        *,
        wait: timedelta,
        cache: HistoryCache,
        deliver: Callable[[OrchestrationWorkItem], None],
    ) -> Sequence[OrchestrationWorkItem]:
        """`lock_orchestrations` for a caller that takes items one by one, too.

        While the call waits, the store may give what its own calls lock for it to `deliver`, instead of ending the
        call: each item counts against `limit`, with which the call ends, and belongs to the caller from then on, even
        if the call is cancelled. A store need not do so. Promise 14.

        Args:
            deliver: takes an item, inside another call of the store; fast, and does not fail.
        """
        return await self.lock_orchestrations(limit, wait=wait, cache=cache)

    async def receive_activities(
        self, limit: int, *, wait: timedelta, deliver: Callable[[ActivityWorkItem], None]
    ) -> Sequence[ActivityWorkItem]:
        """`lock_activities` for a caller that takes items one by one, too, as with `receive_orchestrations`."""
        return await self.lock_activities(limit, wait=wait)

    @abstractmethod
    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        """Make each checkpoint durable, or none of it. Promises 4 to 7 and 14 to 17.

        Args:
            checkpoints: 1 to `traits.commit_batch` items, at most one per instance.
        """

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        """How many of the first events of a new generation `commit` writes as one; by default all of them.

        What a generation carries over is recorded nowhere else, so a crash must not cut it. The worker begins a
        generation with what fits and sends the rest of the carried events to the instance again, as messages of the
        same checkpoint. Only stores that are not atomic have a limit. Fast; asks nobody.
        """
        return len(events)

    @abstractmethod
    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        """Send each reply and remove its task; `LEASE_LOST` sends nothing where the store is atomic."""

    @abstractmethod
    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        """Extend leases of either kind; None: lost. Promise 10."""

    @abstractmethod
    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        """Give work back unfinished; it comes back after `delay`, `deliveries` counted. Lost leases are ignored.

        For a held instance without undelivered messages this only ends the hold.
        """

    @abstractmethod
    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        """Take the instance out of circulation, keeping history and inbox. Promise 18."""

    # Client.

    @abstractmethod
    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        """Store a start and its Pending projection, visible to `get_instance` when this returns.

        Args:
            replaceable: statuses in which an existing instance gives way; empty for a generated id.

        Returns:
            True when this call, or an earlier one with the same message, created the instance. Promise 8.
        """

    @abstractmethod
    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        """Put messages into inboxes. Those to instances that do not exist are dropped when admitted. Promise 9."""

    @abstractmethod
    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        """Make quarantined instances eligible again; says how many there were."""

    @abstractmethod
    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        """The projection, or None. Promise 20."""

    @abstractmethod
    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        """One page of projections, by instance id in code point order. Promise 12."""

    @abstractmethod
    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        """Events of the present generation, `()` before the first commit; None: no such instance."""

    @abstractmethod
    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        """Remove instances; says how many. Promise 11."""

    @abstractmethod
    async def statistics(self) -> HubStatistics:
        """Depths and ages."""

    def requests(self) -> Mapping[str, int]:
        """How many requests this store object made so far, by kind; for stores whose service charges by the request.

        Called from any thread; fast. The default counts nothing.
        """
        return {}

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        """The instance's projection as soon as it differs from `after` in version, revision or status.

        Returns at the latest when `timeout` is over, with whatever stands then. Stores with notifications override
        this; the default polls with back-off.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        pause = _FIRST_POLL
        while True:
            state = await self.get_instance(instance_id)
            left = end - loop.time()
            if has_changed(after, state) or left <= 0:
                return state
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _LAST_POLL)

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        """The instance's projection as soon as it has ended; None as soon as it is gone.

        Returns at the latest when `timeout` is over, with whatever stands then. Waits for an instance that does not
        exist yet. Stores with notifications override this, so that nobody is woken at every step of the instance; the
        default builds on `wait_for_change`.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        state = await self.get_instance(instance_id)
        while state is None or not state.status.is_terminal:
            left = end - loop.time()
            if left < _MOMENT:
                break  # less than a timedelta can say would be no wait at all, and on virtual time a loop for ever
            before = state
            state = await self.wait_for_change(instance_id, after=before, timeout=timedelta(seconds=left))
            if state is None and before is not None:
                break
        return state


_MOMENT = 1e-6
_FIRST_POLL = 0.02
_LAST_POLL = 2.0


def has_changed(before: InstanceState | None, now: InstanceState | None) -> bool:
    """Whether `wait_for_change` has something to tell."""
    if before is None or now is None:
        return before is not now
    return (now.version, now.revision, now.status, now.execution_id) != (
        before.version,
        before.revision,
        before.status,
        before.execution_id,
    )


class NamedLease(msgspec.Struct, frozen=True):
    """A named lock of the host."""

    name: str
    token: str
    remaining: timedelta


class VersionedValue(msgspec.Struct, frozen=True):
    """A document and the version to expect when it is next written."""

    value: bytes
    version: str


class HostStateStore(ABC):
    """Named leases and small documents for the host: timers, singletons, keys. Lives as long as its task hub store."""

    @abstractmethod
    async def acquire(self, name: str, *, duration: timedelta) -> NamedLease | None:
        """Take the lease if nobody holds it; None: somebody does."""

    @abstractmethod
    async def renew(self, lease: NamedLease, *, duration: timedelta) -> NamedLease | None:
        """Extend it; None: lost."""

    @abstractmethod
    async def release(self, lease: NamedLease) -> None:
        """Give it back; a lost one is ignored."""

    @abstractmethod
    async def read(self, path: str) -> VersionedValue | None:
        """The document at a path such as `keys/host`, or None."""

    @abstractmethod
    async def write(self, path: str, value: bytes, *, expected: str | None) -> VersionedValue | None:
        """Write if the stored version is `expected` (None: only if absent); None: it was not, nothing was written."""

    @abstractmethod
    async def delete(self, path: str) -> bool:
        """Remove the document; False: there was none."""

    @abstractmethod
    async def list(self, prefix: str) -> Sequence[str]:
        """Paths that start with the prefix, in order."""


class AppLeaseOptions(msgspec.Struct, frozen=True):
    """How a store that several apps can reach lets one at a time process a hub: `useAppLease`, `appLeaseOptions`.

    Attributes:
        use: False: any app may process the hub at any time.
        lease: how long the lease holds without a renewal, 15 to 60 seconds.
        renew: how often it is renewed.
        acquire: how often an app that does not have it tries; None: as the provider finds best.
    """

    use: bool = True
    lease: timedelta = timedelta(seconds=60)
    renew: timedelta = timedelta(seconds=25)
    acquire: timedelta | None = None


class StorageOptions(msgspec.Struct, frozen=True):
    """What a provider is opened with.

    Attributes:
        hub: the task hub's name.
        settings: the keys of `storageProvider` except `type`, as in host.json; names compared without case.
        folder: the app folder; relative paths are relative to it.
        url: what `--storage` said after the provider was chosen by its scheme, for example `sqlite:///x.db`; else None.
        lease: length of a lease.
        app: identity of the app that uses the hub, to tell two apps on one hub; empty: not checked.
        setting: looks up an app setting or environment variable by name.
        worker: opens the hub to process work, not only as a client.
        app_lease: for stores that have such a thing.
    """

    hub: str
    settings: Mapping[str, object]
    folder: Path
    url: str | None = None
    lease: timedelta = timedelta(seconds=30)
    app: str = ""
    setting: Callable[[str], str | None] = lambda name: None
    worker: bool = True
    app_lease: AppLeaseOptions = AppLeaseOptions()


class OpenedProvider(msgspec.Struct, frozen=True):
    """The two stores of one hub, not yet entered, and what to print about them.

    `location` names the place without secrets, for example `.durable/TestHubName.db`.
    """

    hub: TaskHubStore
    host_state: HostStateStore
    location: str


class StorageProvider(Protocol):
    """A provider, found by entry point `durable_host.providers`."""

    @property
    def name(self) -> str:
        """The name in `storageProvider.type`, compared without case."""
        ...

    @property
    def schemes(self) -> Collection[str]:
        """URL schemes for `--storage`, for example `{"sqlite"}`."""
        ...

    def problems(self, options: StorageOptions) -> Sequence[str]:
        """Everything wrong with the settings, as sentences with the setting's path; empty when all is well."""
        ...

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        """Make the stores; connects nothing yet."""
        ...
