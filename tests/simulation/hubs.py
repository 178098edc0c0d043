"""The hubs that the suites run on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from random import Random

from durable_host.environment import Environment
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.environment import simulated_environment
from durable_host.testing.faults import FaultPlan
from durable_host.testing.simulation import CRASH_TABLE, SimulatedHub
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.store import MemoryTaskHubStore
from tests.simulation.azure_account import PORT_POINTS, Account
from tests.simulation.azure_shaped import AzureShapedStore
from tests.simulation.sqlite_hub import SqliteHub

__all__ = ["HUBS", "AzureShapedHub", "MemoryHub"]

ATOMIC_ROWS = (
    "before anything",
    "with a finished activity not yet committed",
    "with work handed over, not fetched",
    "lease lost while computing",
)
"""What a store can show whose commits are all or nothing."""


class _PatientState(HubState):
    """Looks for leases that nobody has taken yet once an hour, not every 30 s: idle weeks then cost nothing."""

    def seconds_to_lease_end(self) -> float:
        return super().seconds_to_lease_end() if self.instance_leases or self.task_leases else 3600.0


class MemoryHub(SimulatedHub):
    """The memory provider: one hub, one store object for each process."""

    name = "memory"
    rows = ATOMIC_ROWS

    def __init__(self, random: Random) -> None:
        self.state = _PatientState(simulated_environment(), timedelta(seconds=30))

    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        return MemoryTaskHubStore(self.state)

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        assert isinstance(store, MemoryTaskHubStore)
        holder = store._holder  # pyright: ignore[reportPrivateUsage]
        if any(waiter.instances or waiter.tasks for waiter in (*holder.orchestrations, *holder.tasks)):
            yield "with work handed over, not fetched"


class AzureShapedHub(SimulatedHub):
    """The non-atomic model store; faults sit between its primitive effects."""

    name = "azure"
    points = PORT_POINTS
    rows = CRASH_TABLE
    call_rates = False
    store: type[AzureShapedStore] = AzureShapedStore

    def __init__(self, random: Random) -> None:
        self.account = Account(random)

    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        return self.store(self.account, environment, plan, random=random, crash=crash)

    def vanish(self, store: TaskHubStore) -> None:
        assert isinstance(store, AzureShapedStore)
        store.ports.crashed = True
        store.vanish()

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        assert isinstance(store, AzureShapedStore)
        return store.stages()


HUBS: dict[str, type[MemoryHub] | type[SqliteHub] | type[AzureShapedHub]] = {
    "memory": MemoryHub,
    "sqlite": SqliteHub,
    "azure": AzureShapedHub,
}
