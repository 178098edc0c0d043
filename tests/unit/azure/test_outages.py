"""What an outage of the account costs running work, and what it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.settings import EngineSettings
from durable_host.errors import StoreUnavailableError
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.contract.azure_shared import SharedPartitions, SharedStore
from tests.unit.azure.hub_in_memory import SETTINGS

pytestmark = pytest.mark.simulated

HOUR = timedelta(hours=1)


class Outage:
    """Requests of some kinds fail between two times."""

    def __init__(self, begin: float, end: float, *kinds: str) -> None:
        self.failed = 0
        self._times = begin, end
        self._kinds = kinds

    async def before(self, kind: str) -> None:
        begin, end = self._times
        if begin <= asyncio.get_running_loop().time() < end and (not self._kinds or kind in self._kinds):
            self.failed += 1
            raise StoreUnavailableError("gone")
        await asyncio.sleep(0)

    async def after(self, kind: str, effect: bool) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("kinds", [(), ("queue.put",), ("queue.remove",)])
async def test_activity_that_ends_in_an_outage_does_not_run_again(kinds: tuple[str, ...]) -> None:
    environment = simulated_environment()
    # Less than the visibility timeout, or another host may have the request.
    outage = Outage(50, 200, *kinds)
    account = SimulatedAccount(SimulatedService(environment.clock.now), outage)
    settings = replace(SETTINGS, control_visibility_s=300, work_item_visibility_s=300)
    store = SharedStore(account, settings, environment, SharedPartitions())
    worker = TaskHubWorker(
        store, environment=environment, settings=EngineSettings(hold_idle=timedelta(seconds=5)), lease_thread=False
    )
    calls: list[str] = []

    async def work(name: str) -> str:
        calls.append(name)
        await asyncio.sleep(100)
        return name

    async def twice(context: Context) -> object:
        return [await context.call_activity("work", name) for name in ("one", "two")]

    worker.activity(work)
    worker.orchestrator(twice, name="twice")
    async with worker:
        instance = await worker.client.start("twice")
        await asyncio.sleep(400)
        assert await worker.client.result(instance, timeout=HOUR) == ["one", "two"]

    assert outage.failed > 2
    assert calls == ["one", "two"]
