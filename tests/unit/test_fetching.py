"""Fetching work: when it stops, when it begins again, and what a worker says of it."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.errors import StoreUnavailableError
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.simulated


def _worker() -> TaskHubWorker:
    environment = simulated_environment()
    worker = TaskHubWorker(MemoryHub(environment).open(), environment=environment, lease_thread=False)

    @worker.activity
    async def work(text: str) -> str:
        return text

    @worker.orchestrator
    async def once(context: Context) -> str:
        result: str = await context.call_activity("work", context.get_input())
        return result

    return worker


async def _status(worker: TaskHubWorker, instance_id: str) -> RuntimeStatus:
    state = await worker.client.get(instance_id)
    assert state is not None
    return state.status


async def test_a_drained_worker_fetches_nothing_until_it_is_resumed() -> None:
    worker = _worker()
    async with worker:
        assert await worker.drain()
        await worker.client.start("once", "x", instance_id="a")
        await asyncio.sleep(60)
        assert await _status(worker, "a") is RuntimeStatus.PENDING

        worker.resume()
        assert await worker.client.result("a") == "x"
        worker.resume()  # once more changes nothing
        await worker.client.start("once", "y", instance_id="b")
        assert await worker.client.result("b") == "y"


async def test_a_stopped_worker_is_not_resumed() -> None:
    worker = _worker()
    worker.resume()
    async with worker:
        pass
    worker.resume()
    assert worker.idle and worker.problem is None


@pytest.mark.parametrize("verb", ["lock_orchestrations", "lock_activities"])
async def test_a_store_that_works_again_is_noticed_though_there_is_nothing_to_do(
    verb: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    worker = _worker()
    works, original = False, getattr(worker.store, verb)
    waits: list[timedelta] = []

    async def lock(limit: int, *, wait: timedelta, **more: Any) -> Any:
        waits.append(wait)
        if not works:
            raise StoreUnavailableError("the disk is full")
        return await original(limit, wait=wait, **more)

    monkeypatch.setattr(worker.store, verb, lock)
    async with worker:
        await asyncio.sleep(60)
        assert str(worker.problem) == "the disk is full"
        assert len(waits) < 30, "the pauses between tries grow"
        works = True
        await asyncio.sleep(6)
        assert worker.problem is None
        asked = len(waits)
        await asyncio.sleep(20)
        assert len(waits) <= asked + 1, "and then it waits in the store again"
