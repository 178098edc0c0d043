"""The pytest plugin: fixtures for users' own orchestrators, and nothing that touches their other tests."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from durable_host.testing import plugin
from durable_host.testing.plugin import DurableSimulation, DurableWorker
from durable_host.testing.replaying import ReplayError
from durable_host.worker import TaskHubWorker


@pytest.fixture
def simulation() -> DurableSimulation:
    return plugin._simulate  # pyright: ignore[reportPrivateUsage]  # as the fixture, also where it is not installed


@pytest.fixture
def worker_factory() -> DurableWorker:
    return plugin._real_worker  # pyright: ignore[reportPrivateUsage]


async def remind(of: str) -> str:
    return f"remember {of}"


async def reminder(context: Any) -> str:
    await context.create_timer(timedelta(hours=12))
    result: str = await context.call_activity(remind, "the dentist")
    return result


async def test_a_worker_runs_on_the_tests_own_loop(worker_factory: DurableWorker) -> None:
    async def hello(context: Any) -> Any:
        return await context.call_activity(remind, "Tokyo")

    async with worker_factory(orchestrators=[hello], activities=[remind]) as worker:
        assert await worker.client.result(await worker.client.start(hello)) == "remember Tokyo"


def test_a_scenario_runs_on_virtual_time(simulation: DurableSimulation) -> None:
    async def scenario(worker: TaskHubWorker) -> tuple[str, float]:
        result: str = await worker.client.result(await worker.client.start(reminder))
        return result, asyncio.get_running_loop().time()

    result, elapsed = simulation(scenario, orchestrators=[reminder], activities=[remind], seed=3)

    assert result == "remember the dentist"
    assert 12 * 3600 <= elapsed < 12 * 3600 + 60


def test_an_orchestrator_that_is_not_deterministic_fails_its_scenario(simulation: DurableSimulation) -> None:
    counter = itertools.count()

    async def random_orchestrator(context: Any) -> int:
        return next(counter)

    async def scenario(worker: TaskHubWorker) -> None:
        await worker.client.result(await worker.client.start(random_orchestrator))

    with pytest.raises(ReplayError, match="random_orchestrator"):
        simulation(scenario, orchestrators=[random_orchestrator])


def test_the_plugin_has_fixtures_and_nothing_else() -> None:
    hooks = [name for name in vars(plugin) if name.startswith("pytest_")]

    assert hooks == []


def test_loading_the_plugin_loads_nothing_of_the_engine() -> None:
    code = "import sys, durable_host.testing.plugin; print([m for m in sys.modules if m.startswith('durable_host.')])"

    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert found.strip() == "['durable_host.testing', 'durable_host.testing.plugin']"
