"""The Azure Storage provider itself under simulation: its wire formats, partition manager and order of effects.

Only the account is made up. Faults strike before and after each request, queues are shuffled and deliver twice now and
then, batches of history are tiny, and partitions move while workers die.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from random import Random

import msgspec

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceState
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.environment import simulated_environment
from durable_host.testing.faults import FaultKind, FaultPlan, WorkerCrashedError
from durable_host.testing.simulation import CRASH_TABLE, SimulatedHub
from durable_host_providers.azure_storage.app_lease import AppLeaseOptions
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ownership import partition_runs
from durable_host_providers.azure_storage.partitions import ManagerKind, PartitionSettings
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.store import AzureTaskHubStore

__all__ = ["PORT_POINTS", "AzureStorageHub", "PatientHub"]

_KINDS = (
    "queue.get",
    "queue.put",
    "queue.update",
    "queue.remove",
    "table.get",
    "table.query",
    "table.write",
    "table.transact",
    "blob.list",
    "blob.read",
    "blob.write",
    "blob.acquire_lease",
    "blob.renew_lease",
    "blob.change_lease",
    "blob.release_lease",
)
PORT_POINTS: tuple[str, ...] = tuple(f"{kind}:{side}" for kind in _KINDS for side in ("before", "after"))
"""Every fault point of the account."""

_WEIGHTS = {
    "blob.list": 0.3,
    "blob.read": 0.3,
    "blob.write": 3.0,
    "blob.acquire_lease": 2.0,
    "blob.renew_lease": 2.0,
    "blob.change_lease": 6.0,
    "blob.release_lease": 20.0,
}
"""Managers by blob leases look all the time, steal now and then, and release when they give away or stop."""

_TROUBLE = 400.0
"""Seconds for which idle hosts are struck, too: without an end every poll of an idle week would be."""

_BATCH = 5
"""Events of one transaction; 99 in the original."""

_WHOLE = 8
"""Events of one whose events must stay together; 99 in the original."""


class _LongLeases(PartitionSettings, frozen=True):
    """The usual times while there is trouble, hours afterwards: partitions of idle weeks then cost next to nothing."""

    @property
    def lease(self) -> timedelta:  # type: ignore[override]
        return timedelta(hours=6) if _is_calm() else timedelta(seconds=30)

    @property
    def acquire(self) -> timedelta:  # type: ignore[override]
        return timedelta(hours=2) if _is_calm() else timedelta(seconds=10)


def _is_calm() -> bool:
    return asyncio.get_running_loop().time() > _TROUBLE + 100


class _Trouble:
    """What stands between one process and the service; see `Interference`."""

    def __init__(self, plan: FaultPlan, crash: Callable[[], None] | None, random: Random) -> None:
        self.crashed = False
        self._plan = plan
        self._crash = crash
        self._random = random

    async def before(self, kind: str) -> None:
        if self.crashed:
            raise WorkerCrashedError
        await self._latency()
        await self._strike(f"{kind}:before")

    async def after(self, kind: str, effect: bool) -> None:
        if effect:
            await self._strike(f"{kind}:after")
        await self._latency()

    async def _latency(self) -> None:
        await asyncio.sleep(self._random.random() * 0.2 if self._random.random() < 0.1 else 0)

    async def _strike(self, point: str) -> None:
        if point not in PORT_POINTS or asyncio.get_running_loop().time() > _TROUBLE:
            return
        if self._crash is None and point.startswith("table.query"):
            return  # scenarios repeat what their client does, not what it asks for
        kind = self._plan.strike(point, crashes=self._crash is not None)
        if kind is FaultKind.ERROR:
            raise StoreUnavailableError(f"injected at {point}")
        if kind is FaultKind.CRASH:
            assert self._crash is not None
            self.crashed = True
            self._crash()
            await asyncio.get_running_loop().create_future()


class _Process(AzureTaskHubStore):
    """One process's store object, with what can be done to it."""

    def __init__(
        self,
        service: SimulatedService,
        settings: AzureSettings,
        kind: ManagerKind,
        partitions: PartitionSettings,
        environment: Environment,
        trouble: _Trouble,
        *,
        worker: bool,
    ) -> None:
        account = SimulatedAccount(service, trouble)
        self.trouble = trouble
        hub = TaskHub(account, settings.layout, kind, environment, worker=False)
        runs = partition_runs(
            hub,
            account,
            settings.layout,
            kind,
            environment.ids.new_id(),
            environment,
            app_lease=AppLeaseOptions(use=False),
            settings=partitions,
        )
        # Opening is calm: what a host does that cannot open its hub is no matter of the store.
        calm = TaskHub(SimulatedAccount(service), settings.layout, kind, environment, worker=False)
        super().__init__(
            account,
            settings,
            environment,
            calm,
            runs if worker else None,
            history_batch=_BATCH,
            history_whole=_WHOLE,
        )

    def vanish(self) -> None:
        """The process is gone."""
        self.trouble.crashed = True
        self.tasks.abort()

    def stages(self) -> Iterable[str]:
        """The rows of the crash table that the death of this process would show now."""
        for held in self.locks.held.values():
            yield held.stage or "before anything"
            if held.late is not None:
                yield "before a late row write"
        if self.inbox.has_handed_over or self.activities.has_handed_over:
            yield "with work handed over, not fetched"


class _PatientProcess(_Process):
    """Its clients ask again after an hour at last."""

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + timeout.total_seconds(), 1.0
        while True:
            state = await super().wait_for_end(instance_id, timeout=timedelta(0))
            left = end - loop.time()
            if state is None or state.status.is_terminal or left <= 0:
                return state
            await asyncio.sleep(min(left, pause))
            pause = min(pause * 2, 3_600)


class AzureStorageHub(SimulatedHub):
    """A hub on a made-up account.

    Attributes:
        without: guards of the committer that are switched off, for negative controls.
    """

    name = "azureStorage"
    points = PORT_POINTS
    rows = CRASH_TABLE
    call_rates = False
    without: tuple[str, ...] = ()
    process: type[_Process] = _Process

    def __init__(self, random: Random) -> None:
        self.service = SimulatedService(simulated_environment().clock.now, random=random, twice=0.01, page_size=7)
        self.settings = AzureSettings(
            Layout("Simulated", 3),
            batch_size=random.choice((2, 8, 32)),
            control_visibility_s=30,
            work_item_visibility_s=30,
            max_polling=timedelta(seconds=random.choice((1, 10, 30))),
        )
        self.kind = random.choice(tuple(ManagerKind))
        self.partitions = PartitionSettings()
        self._made = self._weighed = False

    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        if not self._made:
            self._made = True
            calm = simulated_environment("hub")
            await TaskHub(SimulatedAccount(self.service), self.settings.layout, self.kind, calm).create()
        trouble = _Trouble(plan, crash, random)
        if not self._weighed:
            self._weighed = True
            for kind, weight in _WEIGHTS.items():
                for side in ("before", "after"):
                    plan.weigh(f"{kind}:{side}", weight)
        store = self.process(
            self.service,
            self.settings,
            self.kind,
            self.partitions,
            environment,
            trouble,
            worker=crash is not None,
        )
        for guard in self.without:
            setattr(store.committer, guard, False)
        return store

    def vanish(self, store: TaskHubStore) -> None:
        assert isinstance(store, _Process)
        store.vanish()

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        assert isinstance(store, _Process)
        return store.stages()


class PatientHub(AzureStorageHub):
    """The same for weeks in which next to nothing happens: once the trouble is over it looks around every few hours.

    Blob leases cannot be longer than a minute, so partitions are shared through the table.
    """

    process = _PatientProcess

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.settings = msgspec.structs.replace(self.settings, max_polling=timedelta(hours=2))
        self.kind = ManagerKind.TABLE
        self.partitions = _LongLeases()
