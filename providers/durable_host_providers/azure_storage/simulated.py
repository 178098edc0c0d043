"""A storage account in memory, with faults on both sides of each primitive.

`SimulatedService` is what survives: queues, tables and containers, on a clock of its own. Each process reaches it
through a `SimulatedAccount`, whose `Interference` is told before and after each request: it may let time pass, raise
(the effect is unknown to the caller), or never come back (the process is gone). So every row of a crash table can be
reached from a seed. Queues may be shuffled and may deliver twice, as the service reserves itself the right to.

Also for tests of users' own: a hub on it needs no emulator.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from random import Random
from types import TracebackType
from typing import Protocol, Self, TypeVar

from durable_host_providers.azure_storage.simulated_blobs import ContainerState, SimulatedBlobs
from durable_host_providers.azure_storage.simulated_queue import QueueState, SimulatedQueue
from durable_host_providers.azure_storage.simulated_table import SimulatedTable, TableState

__all__ = ["Interference", "SimulatedAccount", "SimulatedCaller", "SimulatedRequest", "SimulatedService"]

T = TypeVar("T")


class Interference(Protocol):
    """What stands between a process and the service."""

    async def before(self, kind: str) -> None:
        """Nothing has happened yet. May raise."""
        ...

    async def after(self, kind: str, effect: bool) -> None:
        """It has happened, and the caller does not know yet. May raise. `effect` False: there was nothing to do."""
        ...


class _Calm:
    async def before(self, kind: str) -> None:
        await asyncio.sleep(0)

    async def after(self, kind: str, effect: bool) -> None:
        await asyncio.sleep(0)


class SimulatedService:
    """The account itself.

    Args:
        now: the service's clock; that of its callers may be off.
        random: order of queues and second deliveries; None: oldest first, once.
        twice: probability that a message which is got stays visible.
        page_size: most rows of a page; small ones bring continuations into play.

    Attributes:
        queues, tables, containers: what is stored; tables by lower-case name.
    """

    blob_endpoint = "https://simulated.blob.core.windows.net"

    def __init__(
        self, now: Callable[[], datetime], *, random: Random | None = None, twice: float = 0.0, page_size: int = 1_000
    ) -> None:
        self.now = now
        self.page_size = page_size
        self.queues: dict[str, QueueState] = {}
        self.tables: dict[str, TableState] = {}
        self.containers: dict[str, ContainerState] = {}
        self._random = random
        self._twice = twice
        self._counter = 0
        self._watchers: list[Callable[[], None]] = []

    def number(self) -> int:
        """1, 2, 3, … for ids and ETags."""
        self._counter += 1
        return self._counter

    def shuffle(self, items: list[T]) -> None:
        """Bring them into the order in which the service finds them."""
        if self._random is not None:
            self._random.shuffle(items)

    def delivers_twice(self) -> bool:
        """Whether a message that is being got stays visible."""
        return self._random is not None and self._twice > 0 and self._random.random() < self._twice

    def watch(self, watcher: Callable[[], None]) -> None:
        """Tell whenever something was stored; for tests that would else poll through idle weeks."""
        self._watchers.append(watcher)

    def notify(self) -> None:
        """Something was stored."""
        for watcher in self._watchers:
            watcher()


class SimulatedRequest:
    """One request under way; `effect` False when it found nothing to do."""

    __slots__ = ("_caller", "_kind", "effect")

    def __init__(self, caller: SimulatedCaller, kind: str) -> None:
        self._caller = caller
        self._kind = kind
        self.effect = True

    async def __aenter__(self) -> Self:
        self._caller.requests[self._kind] += 1
        await self._caller.interference.before(self._kind)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None:
            await self._caller.interference.after(self._kind, self.effect)


class SimulatedCaller:
    """One process as the service's parts see it."""

    def __init__(self, service: SimulatedService, interference: Interference) -> None:
        self.service = service
        self.interference = interference
        self.requests: Counter[str] = Counter()

    def request(self, kind: str) -> SimulatedRequest:
        """Around the effect of one request."""
        return SimulatedRequest(self, kind)


class SimulatedAccount:
    """One process's way to a simulated service; a `StorageAccount`."""

    def __init__(self, service: SimulatedService, interference: Interference | None = None) -> None:
        self.service = service
        self._caller = SimulatedCaller(service, interference or _Calm())

    @property
    def location(self) -> str:
        return "a simulated account"

    @property
    def requests(self) -> Counter[str]:
        return self._caller.requests

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    def queue(self, name: str) -> SimulatedQueue:
        return SimulatedQueue(self._caller, name)

    def table(self, name: str) -> SimulatedTable:
        return SimulatedTable(self._caller, name)

    def blobs(self, container: str) -> SimulatedBlobs:
        return SimulatedBlobs(self._caller, container)

    async def queue_names(self, prefix: str) -> list[str]:
        async with self._caller.request("queue.list"):
            return sorted(name for name in self.service.queues if name.startswith(prefix))
