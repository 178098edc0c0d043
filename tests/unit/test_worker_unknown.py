"""Instances whose orchestrator this host does not have wait for one that has it, but only where its code is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from durable_host.engine.client import ANY_STATE
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.settings import EngineSettings
from durable_host.model.history import event_type
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.simulated
HOUR = timedelta(hours=1)


async def waits(context: Context) -> Any:
    context.set_custom_status("waits")
    return await context.wait_for_external_event("go")


async def parent(context: Context) -> Any:
    return await context.call_sub_orchestrator("waits", None, "child")


async def other(context: Context) -> str:
    return "other"


@pytest.fixture(name="host")
def hosts_of_one_hub(caplog: pytest.LogCaptureFixture) -> Callable[..., TaskHubWorker]:
    """Makes workers on the same hub, each with the orchestrators it is given."""
    caplog.set_level(logging.CRITICAL)
    shared: list[Any] = []

    def host(*orchestrators: Any) -> TaskHubWorker:
        if not shared:
            environment = simulated_environment()
            shared.extend((environment, MemoryHub(environment)))
        environment, hub = shared
        settings = EngineSettings(max_cached_sessions=0)
        worker = TaskHubWorker(hub.open(), environment=environment, settings=settings, lease_thread=False)
        for each in orchestrators:
            worker.orchestrator(each)
        return worker

    return host


async def test_instance_can_be_terminated_with_its_children(host: Callable[..., TaskHubWorker]) -> None:
    async with host(waits, parent) as worker:
        await worker.client.start(parent, instance_id="top")
        await worker.client.wait_for_start("child", timeout=HOUR)
        await asyncio.sleep(10)

    async with host() as stranger:
        client = stranger.client
        await client.terminate("top", "enough", recursive=True)
        top = await client.wait_for_completion("top", timeout=HOUR)
        child = await client.wait_for_completion("child", timeout=HOUR)
        await asyncio.sleep(60)
        history = [event_type(event) for event in await client.history("top")]
        left = await client.store.statistics()

    assert (top.status, top.output) == (RuntimeStatus.TERMINATED, "enough")
    assert (child.status, child.custom_status) == (RuntimeStatus.TERMINATED, '"waits"')
    assert history[-3:] == ["ExecutionTerminated", "ExecutionCompleted", "OrchestratorCompleted"]
    # The child's reply to its parent, which has ended, needs no code either.
    assert left.inbox_waiting + left.inbox_delayed == 0


async def test_instance_that_has_not_run_can_be_terminated(host: Callable[..., TaskHubWorker]) -> None:
    async with host() as stranger:
        instance = await stranger.client.start("waits")
        await asyncio.sleep(10)
        await stranger.client.terminate(instance, "enough")
        state = await stranger.client.wait_for_completion(instance, timeout=HOUR)

    assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "enough")


async def test_what_comes_for_an_ended_instance_is_not_kept_for_its_code(host: Callable[..., TaskHubWorker]) -> None:
    async with host(other) as worker:
        instance = await worker.client.start(other)
        await worker.client.wait_for_completion(instance, timeout=HOUR)

    async with host() as stranger:
        event = stranger.client
        # As a client sends it that has seen the instance running.
        state = await event.require(instance)
        await event._send(state.instance_id, (await event.history(instance))[1])  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(60)
        assert (await stranger.store.statistics()).inbox_waiting == 0
        assert stranger.metrics.total("orchestrations_handed_back") == 0


async def test_id_of_an_unknown_orchestrators_instance_can_be_used_again(host: Callable[..., TaskHubWorker]) -> None:
    async with host(waits, other) as worker:
        for name in ("ended", "running"):
            await worker.client.start(waits, instance_id=name)
            await worker.client.wait_for_start(name)
        await worker.client.terminate("ended")
        await worker.client.wait_for_completion("ended", timeout=HOUR)

    async with host(other) as successor:
        client = successor.client
        await client.start(other, instance_id="ended")
        await client.start(other, instance_id="running", replaceable=ANY_STATE)

        assert await client.result("ended", timeout=HOUR) == "other"
        assert await client.result("running", timeout=HOUR) == "other"


async def test_start_of_an_unknown_orchestrator_under_a_known_ones_id_waits(host: Callable[..., TaskHubWorker]) -> None:
    async with host(other) as worker:
        client = worker.client
        await client.start(other, instance_id="same")
        await client.wait_for_completion("same", timeout=HOUR)
        await client.start("waits", instance_id="same")
        await asyncio.sleep(3_000)
        assert (await client.require("same")).status is RuntimeStatus.PENDING
        assert worker.metrics.total("episodes_failed") == 0

    async with host(waits) as successor:
        await successor.client.raise_event("same", "go", "went")
        assert await successor.client.result("same", timeout=HOUR) == "went"
