"""A task hub store that measures another one.

Per call: how long it took, how it ended, how many things it carried. Waiting lock calls are measured by what they
return, not by how long they waited. The cost is two dictionary updates a call; calls carry batches.

Series: `durable_store_seconds{op}`, `durable_store_batch_size{op}`, `durable_store_calls_total{op,outcome}`,
`durable_store_lease_lost_total{op}`, and `durable_store_requests_total{kind}` of stores that count their requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from durable_host.environment import Clock
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
    TaskHubStore,
)
from durable_host.telemetry.metrics import Metrics

__all__ = ["ObservedStore", "observe"]

T = TypeVar("T")


def observe(store: TaskHubStore, metrics: Metrics, clock: Clock) -> TaskHubStore:
    """The store, measured. Everything it promises holds unchanged."""
    # `traits` is a class variable of the contract, so each measured kind of store is a class of its own.
    kind = type("ObservedStore", (ObservedStore,), {"traits": store.traits})
    metrics.follow("durable_store_requests_total", "kind", store.requests)
    measured: TaskHubStore = kind(store, metrics, clock)
    return measured


class ObservedStore(TaskHubStore):
    """See the module; made by `observe`."""

    def __init__(self, store: TaskHubStore, metrics: Metrics, clock: Clock) -> None:
        self.inner = store
        self._metrics = metrics
        self._monotonic = clock.monotonic

    async def _measured(self, op: str, call: Awaitable[T], size: int | None = None) -> T:
        metrics = self._metrics
        begun = self._monotonic()
        try:
            result = await call
        except StoreUnavailableError:
            metrics.count("durable_store_calls_total", op=op, outcome="unavailable")
            raise
        except Exception:
            metrics.count("durable_store_calls_total", op=op, outcome="error")
            raise
        metrics.observe("durable_store_seconds", self._monotonic() - begun, op=op)
        metrics.count("durable_store_calls_total", op=op, outcome="ok")
        if size is not None:
            metrics.observe("durable_store_batch_size", size, op=op)
        return result

    async def create(self) -> None:
        await self._measured("create", self.inner.create())

    async def delete(self) -> None:
        await self._measured("delete", self.inner.delete())

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.inner.__aexit__(exc_type, exc, tb)

    async def check(self) -> None:
        await self._measured("check", self.inner.check())

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        call = self.inner.lock_orchestrations(limit, wait=wait, cache=cache)
        return await self._locked("lock_orchestrations", call)

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        return await self._locked("lock_activities", self.inner.lock_activities(limit, wait=wait))

    async def receive_orchestrations(
        self,
        limit: int,
        *,
        wait: timedelta,
        cache: HistoryCache,
        deliver: Callable[[OrchestrationWorkItem], None],
    ) -> Sequence[OrchestrationWorkItem]:
        call = self.inner.receive_orchestrations(limit, wait=wait, cache=cache, deliver=deliver)
        return await self._locked("lock_orchestrations", call)

    async def receive_activities(
        self, limit: int, *, wait: timedelta, deliver: Callable[[ActivityWorkItem], None]
    ) -> Sequence[ActivityWorkItem]:
        call = self.inner.receive_activities(limit, wait=wait, deliver=deliver)
        return await self._locked("lock_activities", call)

    async def _locked(self, op: str, call: Awaitable[Sequence[T]]) -> Sequence[T]:
        try:
            items = await call
        except StoreUnavailableError:
            self._metrics.count("durable_store_calls_total", op=op, outcome="unavailable")
            raise
        if items:
            self._metrics.observe("durable_store_batch_size", len(items), op=op)
        return items

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        outcomes = await self._measured("commit", self.inner.commit(checkpoints), len(checkpoints))
        self._count_lost("commit", outcomes)
        return outcomes

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        call = self.inner.complete_activities(completions)
        outcomes = await self._measured("complete_activities", call, len(completions))
        self._count_lost("complete_activities", outcomes)
        return outcomes

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        renewed = await self._measured("renew", self.inner.renew(leases), len(leases))
        lost = sum(each is None for each in renewed)
        if lost:
            self._metrics.count("durable_store_lease_lost_total", lost, op="renew")
        return renewed

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        await self._measured("abandon", self.inner.abandon(leases, delay=delay), len(leases))

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        return await self._measured("quarantine", self.inner.quarantine(lease, reason))

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        call = self.inner.create_instance(start, replaceable=replaceable, transaction=transaction)
        return await self._measured("create_instance", call)

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        await self._measured("send", self.inner.send(messages, transaction=transaction), len(messages))

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        return await self._measured("release_quarantined", self.inner.release_quarantined(instance_ids))

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        call = self.inner.get_instance(instance_id, with_payloads=with_payloads)
        return await self._measured("get_instance", call)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        return await self._measured("query_instances", self.inner.query_instances(query))

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        return await self._measured("get_history", self.inner.get_history(instance_id))

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        return await self._measured("purge", self.inner.purge(instance_ids, force=force), len(instance_ids))

    async def statistics(self) -> HubStatistics:
        return await self._measured("statistics", self.inner.statistics())

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        return self.inner.fits_at_once(events)

    def requests(self) -> Mapping[str, int]:
        return self.inner.requests()

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        return await self.inner.wait_for_change(instance_id, after=after, timeout=timeout)

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        return await self.inner.wait_for_end(instance_id, timeout=timeout)

    def _count_lost(self, op: str, outcomes: Sequence[CommitOutcome]) -> None:
        lost = sum(each is CommitOutcome.LEASE_LOST for each in outcomes)
        if lost:
            self._metrics.count("durable_store_lease_lost_total", lost, op=op)
