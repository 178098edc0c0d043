"""The storage contract on Azure Storage: the parts put together.

Layout and formats are those of DurableTask.AzureStorage; what is ours alone travels in members and columns that it
ignores. See `checkpoint` for the order of effects and `locking` for what a lock is.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeVar

from durable_host.environment import Environment
from durable_host.errors import UnsupportedError
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
from durable_host_providers.azure_storage.activities import Activities
from durable_host_providers.azure_storage.checkpoint import Committer
from durable_host_providers.azure_storage.client import Client
from durable_host_providers.azure_storage.handed_back import HandedBackTable
from durable_host_providers.azure_storage.history_table import HistoryTable
from durable_host_providers.azure_storage.inbox import Inbox
from durable_host_providers.azure_storage.instances_table import InstancesTable
from durable_host_providers.azure_storage.locking import InstanceLocks
from durable_host_providers.azure_storage.mail import Mail
from durable_host_providers.azure_storage.outbox import Handed, Outbox
from durable_host_providers.azure_storage.partitions import PartitionListener, PartitionManager
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.tasks import TaskOwner
from durable_host_providers.azure_storage.waiting import Waiters

T = TypeVar("T")

__all__ = ["AzureTaskHubStore", "HubArtefacts"]


class HubArtefacts(Protocol):
    """How a hub is made, recognised and removed; see `hub.TaskHub`."""

    async def create(self) -> None:
        """Make what is missing; idempotent."""
        ...

    async def delete(self) -> None:
        """Remove everything; idempotent."""
        ...

    async def check(self) -> None:
        """Refuse what is no hub, or not as configured."""
        ...


class AzureTaskHubStore(TaskHubStore):
    """A hub on Azure Storage as one process sees it.

    Args:
        manager: makes a run of the partition manager; None: a client, which processes nothing.
        history_batch: most events of one transaction; simulations make it small.
        history_whole: most events of one whose events must stay together.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        atomic_commit=False, commit_batch=1, commit_concurrency=64, lock_batch=256, max_lease=timedelta(hours=1)
    )

    def __init__(
        self,
        account: StorageAccount,
        settings: AzureSettings,
        environment: Environment,
        artefacts: HubArtefacts,
        manager: Callable[[PartitionListener], PartitionManager] | None,
        *,
        history_batch: int = 99,
        history_whole: int = 99,
    ) -> None:
        layout = settings.layout
        self._account = account
        self._settings = settings
        self._environment = environment
        self._artefacts = artefacts
        self._make_manager = manager
        self._stop = asyncio.Event()
        self._managing: asyncio.Task[None] | None = None
        mine = environment.ids.new_id()[:12]
        tokens = (f"{mine}-{number}" for number in itertools.count(1))  # no two locks of any process have the same
        demand = asyncio.Event()
        waiters = Waiters(demand)
        self.tasks = TaskOwner()
        self.blobs = PayloadBlobs(account, layout.large_messages)
        self.handed_back = HandedBackTable(account, layout.handed_back, environment)
        self.mail = Mail(account, settings, environment, self.blobs, self.handed_back)
        self.history = HistoryTable(
            account, layout.history, environment, self.blobs, batch=history_batch, whole=history_whole
        )
        self.instances = InstancesTable(account, layout.instances, layout.hub, environment, self.blobs)
        self.activities = Activities(account, settings, self.mail, environment, self.tasks, tokens)
        self.locks = InstanceLocks(settings, environment, self.history, self.instances, waiters, tokens)
        self.inbox = Inbox(
            account,
            settings,
            self.mail,
            environment,
            self.tasks,
            demand,
            changed=waiters.wake,
            in_hand=self.locks.in_hand,
            lost=self.locks.partition_lost,
        )
        self.locks.inbox = self.inbox
        self.outbox = Outbox(settings, environment, self.mail, self.inbox, waiters, self.activities, self.tasks)
        self.committer = Committer(
            environment, self.locks, self.history, self.instances, self.blobs, self.outbox, self.activities, self.tasks
        )
        self.client = Client(
            account,
            settings,
            environment,
            self.locks,
            self.history,
            self.instances,
            self.blobs,
            self.outbox,
            self.handed_back,
        )

    # Life cycle.

    async def create(self) -> None:
        async with self._account:
            await self._artefacts.create()

    async def delete(self) -> None:
        async with self._account:
            await self._artefacts.delete()

    async def __aenter__(self) -> Self:
        await self._account.__aenter__()
        try:
            await self._artefacts.check()
        except BaseException:
            await self._account.__aexit__(None, None, None)
            raise
        if self._make_manager is not None:
            self.activities.start()
            manager = self._make_manager(self.inbox)
            self._managing = self.tasks.start(manager.run(self._stop), "partitions")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.locks.settle()
            await self.committer.flush()
            await self.locks.close()
            await self.activities.close()
            self._stop.set()
            if self._managing is not None:
                await asyncio.wait([self._managing])
            await self.inbox.close()
            await self.tasks.finish()
        finally:
            await self.tasks.cancel()
            await self._account.__aexit__(exc_type, exc, tb)

    async def check(self) -> None:
        await self._artefacts.check()

    # Worker.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        return await self.locks.lock(limit, wait, cache)

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        return await self.activities.lock(limit, wait)

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        if len(checkpoints) == 1:
            return [await self.committer.commit(checkpoints[0])]
        return await _all(self.committer.commit(checkpoint) for checkpoint in checkpoints)

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        return self.history.fits(events)

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        return await _all(self._complete(each, self.outbox.number()) for each in completions)

    async def _complete(self, completion: ActivityCompletion, number: int) -> CommitOutcome:
        running = self.activities.find(completion.lease)
        if running is None or running.completing:
            return CommitOutcome.LEASE_LOST
        # It stays ours until it is gone: while the store is out of reach its lease is renewed, and the call repeated.
        running.completing = True
        try:
            if not running.replied:
                handed = Handed()
                await self.outbox.send(completion.reply, running.fetched.origin, handed, number)
                running.replied = True
                self.outbox.deliver(handed)
            removed = await running.fetched.remove()
        finally:
            running.completing = False
        self.activities.forget(running)
        return CommitOutcome.COMMITTED if removed else CommitOutcome.LEASE_LOST

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return await _all(self._renew(lease) for lease in leases)

    async def _renew(self, lease: Lease) -> Lease | None:
        running = self.activities.find(lease)
        if running is not None:
            return await self.activities.renew(lease, running)
        return await self.locks.renew(lease)

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        seconds = math.ceil(delay.total_seconds())
        await _all(self._abandon(lease, seconds) for lease in leases)

    async def _abandon(self, lease: Lease, seconds: int) -> None:
        running = self.activities.find(lease)
        if running is not None:
            await self.activities.abandon(running, seconds)
            await self.handed_back.note_task(running.fetched, seconds)
            return
        held = self.locks.require(lease)
        await self.committer.abandon(lease, seconds)
        if held is not None:
            await self.handed_back.note_instance(held, seconds)

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        held = self.locks.require(lease)
        if held is None or not await self.locks.quarantine(held, reason):
            return CommitOutcome.LEASE_LOST
        return CommitOutcome.COMMITTED

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        _refuse(transaction)
        return await self.client.create(start, replaceable)

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        _refuse(transaction)
        await self.client.send(messages)

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        return await self.client.release(instance_ids)

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        return await self.client.get(instance_id, with_payloads=with_payloads)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        return await self.client.query(query)

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        return await self.client.history(instance_id)

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        return await self.client.purge(instance_ids, force=force)

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        return await self.client.wait_for_change(instance_id, after, timeout)

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        return await self.client.wait_for_end(instance_id, timeout)

    async def statistics(self) -> HubStatistics:
        return await self.client.statistics()

    def requests(self) -> Mapping[str, int]:
        return self._account.requests


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them, whatever becomes of one; then the first failure."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    done: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        done.append(outcome)
    return done


def _refuse(transaction: object | None) -> None:
    if transaction is not None:
        raise UnsupportedError("Azure Storage has no transactions; call without transaction=.")
