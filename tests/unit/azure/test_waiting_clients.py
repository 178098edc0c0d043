"""Clients that wait for the end of what their own process works on: what they ask for, and what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.errors import InstanceNotFoundError
from durable_host.model.instance import InstanceState
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from tests.unit.azure.hub_in_memory import SETTINGS, HubInMemory, new_hub

pytestmark = pytest.mark.simulated

HOUR = timedelta(hours=1)


async def step(text: str) -> str:
    await asyncio.sleep(1)
    return text


async def say(context: DurableOrchestrationContext) -> str:
    context.set_custom_status({"saying": 1})
    return await context.call_activity(step, context.get_input(str))


async def fail(context: DurableOrchestrationContext) -> str:
    raise ValueError(await context.call_activity(step, "why"))


@asynccontextmanager
async def _working() -> AsyncGenerator[tuple[HubInMemory, TaskHubWorker]]:
    environment = simulated_environment()
    hub = new_hub(environment)
    await hub.store.create()
    worker = TaskHubWorker(hub.store, environment=environment, lease_thread=False)
    worker.orchestrator(say)
    worker.orchestrator(fail)
    worker.activity(step)
    async with worker:
        await asyncio.sleep(1)  # until partitions are owned, and lock calls wait
        yield hub, worker


async def _end(worker: TaskHubWorker, instance_id: str) -> InstanceState:
    return await worker.client.wait_for_completion(instance_id, timeout=HOUR)


@pytest.mark.parametrize("name", ["say", "fail"])
async def test_what_a_client_hears_of_its_own_process_is_what_the_row_says(name: str) -> None:
    async with _working() as (hub, worker):
        started = await worker.client.start(name, "text", tags={"a": "b"})
        before = hub.store.requests().get("table.get", 0)

        heard = await _end(worker, started)

        assert hub.store.requests().get("table.get", 0) == before, "nothing was asked for"
        assert heard == await worker.client.get(started)


@pytest.mark.parametrize("size", [5_000, 100_000])
async def test_a_long_output_is_read(size: int) -> None:
    async with _working() as (_, worker):
        started = await worker.client.start("say", "x" * size)

        heard = await _end(worker, started)

        assert heard == await worker.client.get(started)
        assert await worker.client.result(started, str) == "x" * size


async def test_a_text_that_reads_like_the_place_of_another_is_followed() -> None:
    async with _working() as (hub, worker):
        started = await worker.client.start("say", f"{hub.container_url}/nowhere")

        assert await _end(worker, started) == await worker.client.get(started)


async def test_a_client_hears_when_another_writer_removes_the_instance() -> None:
    async with _working() as (hub, worker):
        started = await worker.client.start("say", "text", start_at=timedelta(hours=2))
        waiting = asyncio.ensure_future(_end(worker, started))
        await asyncio.sleep(1)

        await hub.account.table(SETTINGS.layout.instances).delete()
        await hub.account.table(SETTINGS.layout.instances).create()

        with pytest.raises(InstanceNotFoundError):
            await asyncio.wait_for(waiting, 10)
