"""Two storage accounts as one: queues in the first, tables and blobs in the second (`trackingStoreConnectionName`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from durable_host_providers.azure_storage.ports import Blobs, Queue, StorageAccount, Table

__all__ = ["SplitAccount"]


class SplitAccount:
    """See the module; a `StorageAccount`."""

    def __init__(self, queues: StorageAccount, tracking: StorageAccount) -> None:
        self._queues = queues
        self._tracking = tracking

    @property
    def location(self) -> str:
        return f"{self._queues.location}, tables and blobs at {self._tracking.location}"

    @property
    def requests(self) -> Mapping[str, int]:
        return Counter(self._queues.requests) + Counter(self._tracking.requests)

    async def __aenter__(self) -> Self:
        await self._queues.__aenter__()
        await self._tracking.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._tracking.__aexit__(exc_type, exc, tb)
        finally:
            await self._queues.__aexit__(exc_type, exc, tb)

    def queue(self, name: str) -> Queue:
        return self._queues.queue(name)

    def table(self, name: str) -> Table:
        return self._tracking.table(name)

    def blobs(self, container: str) -> Blobs:
        return self._tracking.blobs(container)

    async def queue_names(self, prefix: str) -> Sequence[str]:
        return await self._queues.queue_names(prefix)
