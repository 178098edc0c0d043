"""How many requests a hub on Azure Storage takes, counted in Azurite's access log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.environment import Environment
from durable_host.storage.contract import StorageOptions
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage import provider
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live

TRIES = 4
"""A look into a queue or a renewal may fall into one; the quietest counts."""


async def step(value: int) -> int:
    return value + 1


async def chain(context: DurableOrchestrationContext) -> int:
    value = 0
    for _ in range(context.get_input(int)):
        value = await context.call_activity(step, value)
    return value


async def test_a_start_and_its_activities_stay_within_their_requests(azurite: Azurite, tmp_path: Path) -> None:
    with Azurite(tmp_path) as server:
        settings = {"AzureWebJobsStorage": server.connection_string}
        options = StorageOptions("Requests", {}, tmp_path, setting=settings.get)
        worker = TaskHubWorker(provider.open(options, Environment()).hub)
        worker.orchestrator(chain)
        worker.activity(step)
        async with worker:
            assert await worker.client.result(await worker.client.start("chain", 1), int) == 1

            counts = {length: await _quietest(worker, server, length) for length in (1, 3, 7)}

    assert counts[1] <= 11
    assert counts[3] <= 18
    assert (counts[7] - counts[3]) / 4 <= 4


async def _quietest(worker: TaskHubWorker, server: Azurite, length: int) -> int:
    counts: list[int] = []
    for _ in range(TRIES):
        mark = server.mark()
        assert await worker.client.result(await worker.client.start("chain", length), int) == length
        await asyncio.sleep(0.5)  # what is written late
        counts.append(len(server.requests(mark)))
    return min(counts)
