"""Seeded faults: a wrapper around any store that fails or kills its worker before or after a call's effect.

A *fault point* is a name with a side: `commit:before` strikes while nothing has happened, `commit:after` when
everything has and the caller does not hear of it. An *error* makes the call raise `StoreUnavailableError`, so that the
effect is unknown to the caller; a *crash* makes the process go away: the worker's tasks are cancelled, its memory is
forgotten, and nothing it does afterwards reaches the store.

`FaultPlan` decides by probability, by rates of single points, or at the n-th pass of a point, and counts what it did.
Stores that consist of several primitive effects (`tests/simulation/azure_shaped.py`) ask the same plan at each of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from random import Random
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from durable_host.errors import StoreUnavailableError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    HistoryCache,
    HubStatistics,
    Lease,
    OrchestrationWorkItem,
    StoreTraits,
    TaskHubStore,
)

__all__ = [
    "CLIENT_POINTS",
    "WORKER_POINTS",
    "FaultKind",
    "FaultPlan",
    "FaultyStore",
    "Rates",
    "StoreCall",
    "WorkerCrashedError",
]

T = TypeVar("T")

_WORKER_METHODS = ("lock_orchestrations", "lock_activities", "commit", "complete_activities", "renew", "abandon")
_CLIENT_METHODS = ("create_instance", "send", "get_instance")

WORKER_POINTS: tuple[str, ...] = tuple(f"{name}:{side}" for name in _WORKER_METHODS for side in ("before", "after"))
"""Where a worker's calls can be struck."""

CLIENT_POINTS: tuple[str, ...] = tuple(f"{name}:{side}" for name in _CLIENT_METHODS for side in ("before", "after"))
"""Where a client's calls can be struck; by errors only, a client is nobody's process here."""


class FaultKind(Enum):
    """What strikes: the call fails and its effect is unknown, or the process is gone."""

    ERROR = "error"
    CRASH = "crash"


class WorkerCrashedError(BaseException):
    """Raised by the store of a worker that has crashed, for whatever its remains still try.

    Not an `Exception`: nothing may take it for a store that is out of reach and try again.
    """


@dataclass(frozen=True, slots=True)
class Rates:
    """Probabilities in [0, 1] with which one pass of a fault point is struck."""

    error: float = 0.0
    crash: float = 0.0


class FaultPlan:
    """Decides, from a seed, which pass of which fault point is struck, and counts.

    Args:
        random: the only source of chance.
        rates: of every point that is not named in `points`.
        points: rates of single points, for example `{"commit:after": Rates(crash=0.2)}`.
        at: faults at the n-th pass (from 1) of a point; they come in addition to chance.

    Attributes:
        enabled: False lets everything pass; a simulation switches it off when only the rest must still be finished.
        passes: how often each point was passed, struck or not.
        hits: how often each point was struck, by `(point, kind)`.
    """

    def __init__(
        self,
        random: Random,
        *,
        rates: Rates | None = None,
        points: Mapping[str, Rates] | None = None,
        at: Mapping[tuple[str, int], FaultKind] | None = None,
    ) -> None:
        self._random = random
        self._rates = rates or Rates()
        self._points = dict(points or {})
        self._at = dict(at or {})
        self.enabled = True
        self.passes: Counter[str] = Counter()
        self.hits: Counter[tuple[str, FaultKind]] = Counter()

    def weigh(self, point: str, factor: float) -> None:
        """Strike a point so many times as often: one that is passed without an end less, one that is rare more."""
        rates = self._points.get(point, self._rates)
        self._points[point] = Rates(min(1.0, rates.error * factor), min(1.0, rates.crash * factor))

    def strike(self, point: str, *, crashes: bool = True) -> FaultKind | None:
        """What strikes at this pass of the point; None: nothing. `crashes` False turns a crash into an error."""
        self.passes[point] += 1
        if not self.enabled:
            return None
        kind = self._at.get((point, self.passes[point]))
        if kind is None:
            rates = self._points.get(point, self._rates)
            chance = self._random.random()
            if chance < rates.crash:
                kind = FaultKind.CRASH
            elif chance < rates.crash + rates.error:
                kind = FaultKind.ERROR
        if kind is FaultKind.CRASH and not crashes:
            kind = FaultKind.ERROR
        if kind is not None:
            self.hits[point, kind] += 1
        return kind


@dataclass(frozen=True, slots=True)
class StoreCall:
    """One finished call of a store, as told to the observer; `error` is the type name of what it raised."""

    method: str
    arguments: object
    result: object = None
    error: str | None = None


class FaultyStore(TaskHubStore):
    """Any store, struck by a plan.

    Args:
        inner: the store; one object per worker, as each process has its own.
        plan: decides.
        crash: ends the worker that owns this object, see `durable_host.testing.simulation`. None: crashes are errors.
        observe: hears of every finished call, with the true result even when the caller is told of a failure.
        keep_failed_locks: a lock call that fails after its effect keeps what it locked. Breaks promise 3; for a
            negative control.

    Attributes:
        crashed: its process is gone; every call raises WorkerCrashedError.
        patience: lock calls and waits for changes last at least so long when nothing happens. A simulation sets it:
            on virtual time nobody minds, and calls that find nothing are all that an idle week consists of.
        stalled_until: in the loop's time; calls go out and come back only then, as if the process had been frozen or
            its network cut. Leases run out meanwhile.
    """

    def __init__(
        self,
        inner: TaskHubStore,
        plan: FaultPlan,
        *,
        crash: Callable[[], None] | None = None,
        observe: Callable[[StoreCall], None] | None = None,
        keep_failed_locks: bool = False,
    ) -> None:
        self.inner = inner
        self.plan = plan
        self.crashed = False
        self.traits: StoreTraits = inner.traits  # type: ignore[misc]  # the wrapped store's, hence not of the class
        self.patience = timedelta(0)
        self.stalled_until = 0.0
        self._crash = crash
        self._observe = observe
        self._keep_failed_locks = keep_failed_locks

    # Life cycle.

    async def create(self) -> None:
        await self.inner.create()

    async def delete(self) -> None:
        await self.inner.delete()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # A process that is gone closes nothing: leases and hand-overs stay until their time is over.
        if not self.crashed:
            await self.inner.__aexit__(exc_type, exc, tb)

    async def check(self) -> None:
        await self.inner.check()

    # Worker.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        await self._before("lock_orchestrations")
        items = await self.inner.lock_orchestrations(limit, wait=max(wait, self.patience), cache=cache)
        self._tell("lock_orchestrations", limit, items)
        if items:
            await self._after_lock("lock_orchestrations", [item.lease for item in items])
        return items

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        await self._before("lock_activities")
        items = await self.inner.lock_activities(limit, wait=max(wait, self.patience))
        self._tell("lock_activities", limit, items)
        if items:
            await self._after_lock("lock_activities", [item.lease for item in items])
        return items

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return await self._call("commit", checkpoints, lambda: self.inner.commit(checkpoints))

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        return self.inner.fits_at_once(events)

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        return await self._call("complete_activities", completions, lambda: self.inner.complete_activities(completions))

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return await self._call("renew", leases, lambda: self.inner.renew(leases))

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        await self._call("abandon", leases, lambda: self.inner.abandon(leases, delay=delay))

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        return await self._call("quarantine", lease, lambda: self.inner.quarantine(lease, reason))

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        return await self._call(
            "create_instance",
            start,
            lambda: self.inner.create_instance(start, replaceable=replaceable, transaction=transaction),
        )

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        await self._call("send", messages, lambda: self.inner.send(messages, transaction=transaction))

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        return await self.inner.release_quarantined(instance_ids)

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        return await self._call(
            "get_instance",
            instance_id,
            lambda: self.inner.get_instance(instance_id, with_payloads=with_payloads),
        )

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        return await self.inner.query_instances(query)

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        return await self.inner.get_history(instance_id)

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        return await self.inner.purge(instance_ids, force=force)

    async def statistics(self) -> HubStatistics:
        return await self.inner.statistics()

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        return await self.inner.wait_for_change(instance_id, after=after, timeout=max(timeout, self.patience))

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        return await self.inner.wait_for_end(instance_id, timeout=max(timeout, self.patience))

    # Inside.

    async def _call(self, method: str, arguments: object, call: Callable[[], Awaitable[T]]) -> T:
        await self._before(method)
        try:
            result = await call()
        except Exception as error:
            self._tell(method, arguments, None, type(error).__name__)
            raise
        self._tell(method, arguments, result)
        await self._stall()
        await self._strike(f"{method}:after")
        return result

    async def _before(self, method: str) -> None:
        if self.crashed:
            raise WorkerCrashedError
        await self._stall()
        await self._strike(f"{method}:before")

    async def _after_lock(self, method: str, leases: Sequence[Lease]) -> None:
        try:
            await self._stall()
            await self._strike(f"{method}:after")
        except StoreUnavailableError:
            if not self._keep_failed_locks:
                await self.inner.abandon(leases, delay=timedelta(0))
            raise

    async def _strike(self, point: str) -> None:
        kind = self.plan.strike(point, crashes=self._crash is not None)
        if kind is FaultKind.ERROR:
            raise StoreUnavailableError(f"injected at {point}")
        if kind is FaultKind.CRASH:
            await self.die()

    async def _stall(self) -> None:
        # A loop, since the stall may be lengthened or called off meanwhile.
        while (left := self.stalled_until - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 10.0))

    async def die(self) -> NoReturn:
        """Crash the worker here and now."""
        assert self._crash is not None
        self.crashed = True
        self._crash()
        # The crash cancels the task that stands here; should something shield it, it must not go on.
        await asyncio.get_running_loop().create_future()
        raise WorkerCrashedError

    def _tell(self, method: str, arguments: object, result: object, error: str | None = None) -> None:
        if self._observe is not None:
            self._observe(StoreCall(method, arguments, result, error))
