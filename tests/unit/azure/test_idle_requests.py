"""What a host costs that has nothing to do: requests of the whole store, counted on the simulated account."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import AppLeaseOptions
from durable_host.testing.environment import simulated_environment
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ownership import partition_runs
from durable_host_providers.azure_storage.partitions import ManagerKind
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.store import AzureTaskHubStore


class NoCache:
    """A worker that holds nothing."""

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


async def fetch_orchestrations(store: AzureTaskHubStore) -> None:
    while True:
        assert not await store.lock_orchestrations(10, wait=timedelta(seconds=30), cache=NoCache())


async def fetch_activities(store: AzureTaskHubStore) -> None:
    while True:
        assert not await store.lock_activities(10, wait=timedelta(seconds=30))


# The reference, measured: 43, 223 and 91.
@pytest.mark.parametrize(("kind", "limit"), [(ManagerKind.TABLE, 25), (ManagerKind.SAFE, 82), (ManagerKind.LEGACY, 45)])
@pytest.mark.simulated
async def test_an_idle_host_with_four_partitions_makes_few_requests(kind: ManagerKind, limit: int) -> None:
    environment = simulated_environment()
    account = SimulatedAccount(SimulatedService(environment.clock.now))
    layout = Layout("Idle")
    hub = TaskHub(account, layout, kind, environment)
    runs = partition_runs(hub, account, layout, kind, "me", environment, app_lease=AppLeaseOptions())
    store = AzureTaskHubStore(account, AzureSettings(layout), environment, hub, runs)
    await store.create()

    async with store, asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(fetch_orchestrations(store)), tasks.create_task(fetch_activities(store))]
        await asyncio.sleep(300)
        before = account.requests.copy()
        await asyncio.sleep(3_000)
        made = account.requests - before
        for loop in loops:
            loop.cancel()

    assert made["queue.get"] / 50 <= 10.1
    assert made.total() / 50 <= limit, made
