"""Several hosts on one simulated account, each with a partition manager, and a watch on what they may fetch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.testing.environment import SimulatedClock, simulated_environment
from durable_host_providers.azure_storage.partitions import (
    OwnedPartition,
    PartitionContext,
    PartitionManager,
    PartitionSettings,
)
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService

__all__ = ["Cluster", "Faults", "Host", "MakeManager"]

_LOOK_S = 0.1
"""How often the watch looks, in virtual seconds."""


@dataclass
class Faults:
    """What happens to a host's requests; an `Interference`."""

    random: Random
    error: float = 0.0
    latency: float = 0.0
    cut_off: bool = False
    """No request gets through, in either direction."""
    only: str = ""
    """What kinds `cut_off` concerns, by their beginning."""
    once: str = ""
    """The answer to the next request of this kind is lost."""

    async def before(self, kind: str) -> None:
        await asyncio.sleep(self.random.random() * self.latency)
        if self.cut_off and kind.startswith(self.only):
            await asyncio.sleep(1.0)
            raise StoreUnavailableError("cut off")
        self._strike()

    async def after(self, kind: str, effect: bool) -> None:
        await asyncio.sleep(self.random.random() * self.latency)
        if self.cut_off and kind.startswith(self.only):
            await asyncio.sleep(1.0)
            raise StoreUnavailableError("cut off")
        if kind == self.once:
            self.once = ""
            raise StoreUnavailableError("answer lost")
        self._strike()

    def _strike(self) -> None:
        if self.random.random() < self.error:
            raise StoreUnavailableError("injected")


MakeManager = Callable[[PartitionContext], PartitionManager]


@dataclass
class Host:
    """One process: its manager, and a store that does nothing but drain slowly."""

    name: str
    account: SimulatedAccount
    faults: Faults
    environment: Environment
    drain_s: Callable[[], float] = lambda: 0.0
    held: dict[str, OwnedPartition] = field(default_factory=dict[str, OwnedPartition])
    draining: set[str] = field(default_factory=set[str])
    drains: Counter[str] = field(default_factory=Counter[str])
    lost: list[str] = field(default_factory=list[str])
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    manager: PartitionManager | None = None

    def begin(self, partition: OwnedPartition) -> None:
        assert partition.queue not in self.held, "begun twice"
        self.held[partition.queue] = partition

    async def drain(self, partition: OwnedPartition) -> None:
        assert self.held[partition.queue] is partition
        assert not partition.may_fetch
        self.draining.add(partition.queue)
        try:
            await asyncio.sleep(self.drain_s())
            self.drains[partition.queue] += 1
        finally:
            self.draining.discard(partition.queue)

    def end(self, partition: OwnedPartition) -> None:
        assert self.held.pop(partition.queue) is partition, "ended what was not begun"
        assert not partition.may_fetch
        self.lost.append(partition.queue)

    @property
    def fetching(self) -> set[str]:
        return {queue for queue, partition in self.held.items() if partition.may_fetch}

    @property
    def clock(self) -> SimulatedClock:
        assert isinstance(self.environment.clock, SimulatedClock)
        return self.environment.clock


class Cluster:
    """The service, its hosts and the watch."""

    def __init__(
        self, make: MakeManager, *, seed: int = 0, partitions: int = 4, settings: PartitionSettings | None = None
    ) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.queues = [f"hub-control-{number:02d}" for number in range(partitions)]
        self.clock = SimulatedClock()
        self.service = SimulatedService(self.clock.now, random=Random(seed + 1))
        self.hosts: list[Host] = []
        self.overlaps: list[tuple[float, str, list[str]]] = []
        self.hasty: list[tuple[float, str, list[str]]] = []
        """Where somebody fetched what another had not drained yet; may be where leases were lost."""
        self.unread_since: dict[str, float] = {}
        self.longest_unread = 0.0
        self._make = make
        self._settings = settings or PartitionSettings()
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Cluster]:
        """Watch until the end; then everybody is killed."""
        async with asyncio.TaskGroup() as self._tasks:
            watch = self._tasks.create_task(self._watch())
            try:
                yield self
            finally:
                watch.cancel()
                for host in list(self.hosts):
                    self.kill(host)

    def account(self) -> SimulatedAccount:
        """A way to the service without faults."""
        return SimulatedAccount(self.service)

    def start(
        self,
        name: str,
        *,
        skew: float = 0.0,
        error: float = 0.0,
        latency: float = 0.01,
        drain_s: Callable[[], float] = lambda: 0.0,
        make: MakeManager | None = None,
    ) -> Host:
        """Another process; `make`: with a manager of its own."""
        assert self._tasks is not None
        number = self.random.randrange(1 << 30)
        faults = Faults(Random(number), error, latency)
        environment = simulated_environment(number, skew=timedelta(seconds=skew))
        host = Host(name, SimulatedAccount(self.service, faults), faults, environment, drain_s)
        context = PartitionContext(host.account, self.queues, name, host, environment, self._settings)
        host.manager = (make or self._make)(context)
        host.task = self._tasks.create_task(self._run(host), name=name)
        self.hosts.append(host)
        return host

    async def _run(self, host: Host) -> None:
        assert host.manager is not None
        await host.manager.run(host.stop)
        assert not host.held
        assert not host.manager.owned

    async def stop(self, host: Host) -> float:
        """Stop a process as it should be; how long it took."""
        assert host.task is not None
        began = self.now()
        host.stop.set()
        await host.task
        self.hosts.remove(host)
        return self.now() - began

    def kill(self, host: Host) -> None:
        """End a process at whatever await it is."""
        assert host.task is not None
        host.task.cancel()
        self.hosts.remove(host)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def readers(self) -> dict[str, list[str]]:
        """Who may fetch from which queue at this moment."""
        return {queue: [host.name for host in self.hosts if queue in host.fetching] for queue in self.queues}

    def shares(self) -> list[int]:
        """How many partitions each host may fetch from, sorted."""
        return sorted(len(host.fetching) for host in self.hosts)

    def settled(self) -> bool:
        """Everything is read, by one host each, evenly."""
        shares = self.shares()
        return sum(shares) == len(self.queues) and max(shares) - min(shares) <= 1

    async def until(self, condition: Callable[[], bool], limit: float) -> float:
        """Wait for it; how long it took. Fails after `limit` virtual seconds."""
        began = self.now()
        while not condition():
            assert self.now() - began < limit, f"not within {limit} s, seed {self.seed}: {self.readers()}"
            await asyncio.sleep(_LOOK_S)
        return self.now() - began

    async def _watch(self) -> None:
        while True:
            now = self.now()
            for queue, readers in self.readers().items():
                if len(readers) > 1:
                    self.overlaps.append((now, queue, readers))
                drainers = [host.name for host in self.hosts if queue in host.draining]
                if readers and drainers:
                    self.hasty.append((now, queue, readers + drainers))
                if readers:
                    self.unread_since.pop(queue, None)
                else:
                    since = self.unread_since.setdefault(queue, now)
                    self.longest_unread = max(self.longest_unread, now - since)
            await asyncio.sleep(_LOOK_S)
