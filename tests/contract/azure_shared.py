"""Hubs on Azure Storage whose partitions move between the store objects of a test as they are needed.

The managers of the provider need seconds to share partitions, and a test of the contract has none. Here a lock call
takes over whatever partition its owner does nothing with, after the owner has drained it as for any other manager.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from durable_host.environment import Environment
from durable_host.errors import StoreMismatchError
from durable_host.storage.contract import Checkpoint, CommitOutcome, HistoryCache, OrchestrationWorkItem, StoreTraits
from durable_host_providers.azure_storage.partitions import OwnedPartition, PartitionListener
from durable_host_providers.azure_storage.ports import NotFoundError, StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.store import AzureTaskHubStore

__all__ = ["LEFT_OUT", "Artefacts", "SharedPartitions", "SharedStore"]

_SLICE = 0.2
_MOMENT = 1e-6  # less than a timedelta can say would be no wait at all, and on virtual time a loop for ever

LEFT_OUT = {
    "test_order_is_by_code_points": "the table orders by UTF-16 code units",
    "test_messages_go_with_their_instance": "a queue cannot be searched: what is left is dropped when admitted",
    "test_tasks_come_oldest_first_and_keep_the_limit": "the requests of one checkpoint are put at once, in no order",
    "test_a_message_arrives_as_it_was_sent": "a client's start without a row is another's, or its row is to come",
    "test_what_comes_back_again_and_again_is_named": "only what is given back with a delay is noted",
}
"""What queues and tables cannot do, or do otherwise."""


class Artefacts:
    """The queues and tables of a hub."""

    def __init__(self, account: StorageAccount, settings: AzureSettings) -> None:
        self._account = account
        self._layout = settings.layout

    async def create(self) -> None:
        for queue in (*self._layout.control_queues, self._layout.work_items):
            await self._account.queue(queue).create()
        for table in (self._layout.history, self._layout.instances):
            await self._account.table(table).create()

    async def delete(self) -> None:
        for queue in (*self._layout.control_queues, self._layout.work_items):
            await self._account.queue(queue).delete()
        for table in (self._layout.history, self._layout.instances):
            await self._account.table(table).delete()

    async def check(self) -> None:
        try:
            await self._account.queue(self._layout.work_items).count()
        except NotFoundError as error:
            raise StoreMismatchError("There is no such hub; create it first.") from error


class SharedPartitions:
    """Who owns what, in a test."""

    def __init__(self) -> None:
        self.owners: dict[str, _Manager] = {}
        self.lock = asyncio.Lock()


class _Manager:
    def __init__(self, shared: SharedPartitions, store: SharedStore, listener: PartitionListener) -> None:
        self._shared = shared
        self._store = store
        self._listener = listener
        self._held: dict[str, OwnedPartition] = {}
        self._stopped = False

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        return tuple(self._held.values())

    @property
    def others(self) -> bool:
        return any(owner is not self for owner in self._shared.owners.values())

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()
        async with self._shared.lock:
            self._stopped = True
            for queue in list(self._held):
                await self._give(queue)

    async def claim(self, queues: Sequence[str], environment: Environment) -> None:
        """Take what is nobody's, and what its owner does nothing with."""
        async with self._shared.lock:
            for queue in () if self._stopped else queues:
                owner = self._shared.owners.get(queue)
                if owner is self or (owner is not None and owner._store.works_on(queue)):
                    continue
                if owner is not None:
                    await owner._give(queue)
                partition = OwnedPartition(queue, environment.clock)
                partition.extend(math.inf)
                self._held[queue] = partition
                self._shared.owners[queue] = self
                self._listener.begin(partition)

    async def _give(self, queue: str) -> None:
        partition = self._held[queue]
        partition.close()
        await self._listener.drain(partition)
        del self._held[queue]
        del self._shared.owners[queue]
        self._listener.end(partition)


class SharedStore(AzureTaskHubStore):
    """A store object that shares partitions with the others of its test."""

    traits: ClassVar[StoreTraits] = AzureTaskHubStore.traits

    def __init__(
        self, account: StorageAccount, settings: AzureSettings, environment: Environment, shared: SharedPartitions
    ) -> None:
        self._queues = settings.layout.control_queues
        self._process = environment

        self._shared = shared
        self.manager: _Manager | None = None
        super().__init__(account, settings, environment, Artefacts(account, settings), self._manage)

    def _manage(self, listener: PartitionListener) -> _Manager:
        self.manager = _Manager(self._shared, self, listener)
        return self.manager

    def works_on(self, queue: str) -> bool:
        """Whether an instance of that queue is locked, or about to be."""
        self.locks.reap()
        pending = any(self._settings.layout.control_queue_for(each) == queue for each in self.inbox.pending)
        return self.locks.in_hand(queue) > 0 or (pending and self.locks.waiters.any)

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        while True:
            if self.manager is not None:
                await self.manager.claim(self._queues, self._process)
            left = max(0.0, end - loop.time())
            some = timedelta(seconds=min(left, _SLICE))
            items = await super().lock_orchestrations(limit, wait=some, cache=cache)
            if items or left <= max(some.total_seconds(), _MOMENT) or self.locks.closed:
                return items

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        outcomes = await super().commit(checkpoints)
        await self.locks.settle()  # other store objects look at once
        return outcomes
