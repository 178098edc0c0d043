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

TRIES = 12
"""Looks into queues, frequent at first, and renewals fall into some; the quietest counts."""

POLL_S = 4
SECONDS = 32


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

            one = await _quietest(worker, server, 1, enough=9)
            three = await _quietest(worker, server, 3, enough=15)
            seven = await _quietest(worker, server, 7, enough=three + 12)

    assert one <= 9
    assert three <= 15
    assert (seven - three) / 4 <= 3


async def test_an_idle_host_stays_within_its_requests(azurite: Azurite, tmp_path: Path) -> None:
    """At most 25 a minute: ten looks into five queues, and 15 others. Looks come more often here, to save time."""
    with Azurite(tmp_path) as server:
        settings = {"AzureWebJobsStorage": server.connection_string}
        provided = {"maxQueuePollingInterval": f"00:00:{POLL_S:02}"}
        worker = TaskHubWorker(
            provider.open(StorageOptions("Idle", provided, tmp_path, setting=settings.get), Environment()).hub
        )
        async with worker:
            await asyncio.sleep(12)  # until looks are as rare as they may be
            mark = server.mark()
            await asyncio.sleep(SECONDS)
            made = server.requests(mark)

    looks = [each for each in made if each.method == "GET" and "/messages?" in each.target]
    assert len(looks) <= 5 * (SECONDS / POLL_S + 1)
    assert len(made) - len(looks) <= 15 * SECONDS / 60 + 2, made  # two of them may fall just within


async def _quietest(worker: TaskHubWorker, server: Azurite, length: int, *, enough: int) -> int:
    counts: list[int] = []
    while len(counts) < TRIES and (not counts or min(counts) > enough):
        mark = server.mark()
        assert await worker.client.result(await worker.client.start("chain", length), int) == length
        await asyncio.sleep(0.5)  # what is written late
        counts.append(len(server.requests(mark)))
    return min(counts)
