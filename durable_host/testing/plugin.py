"""Pytest fixtures for tests of your own orchestrators. Loaded by its entry point wherever durable_host is installed.

* `durable_simulation` runs a scenario on virtual time, in memory, from a plain `def` test, and then replays every
  instance that completed, so that an orchestrator which is not deterministic fails its test:

      def test_reminds_after_half_a_day(durable_simulation):
          async def scenario(worker):
              id = await worker.client.start(reminder)
              assert await worker.client.result(id) == "remember the dentist"

          durable_simulation(scenario, orchestrators=[reminder], activities=[remind])

* `durable_worker` makes started workers on a hub in memory for tests that bring a loop of their own (`async def` tests
  of pytest-asyncio or anyio):

      async def test_greets(durable_worker):
          async with durable_worker(orchestrators=[hello], activities=[greet]) as worker:
              assert await worker.client.result(await worker.client.start(hello)) == "Hello Tokyo"

The plugin adds these two fixtures and nothing else: no hooks, no options, no markers, and durable_host is imported when
a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

if TYPE_CHECKING:  # a session without these fixtures must not pay for the engine
    from durable_host.environment import Environment
    from durable_host.worker import TaskHubWorker

__all__ = ["DurableSimulation", "DurableWorker", "durable_simulation", "durable_worker"]

T = TypeVar("T")


class DurableWorker(Protocol):
    """What the fixture `durable_worker` is."""

    def __call__(
        self,
        *,
        orchestrators: Iterable[Callable[..., Any]] = (),
        activities: Iterable[Callable[..., Any]] = (),
    ) -> AbstractAsyncContextManager[TaskHubWorker]:
        """A started worker on a hub of its own in memory; stopped and forgotten at the end."""
        ...


class DurableSimulation(Protocol):
    """What the fixture `durable_simulation` is."""

    def __call__(
        self,
        scenario: Callable[[TaskHubWorker], Awaitable[T]],
        *,
        orchestrators: Iterable[Callable[..., Any]] = (),
        activities: Iterable[Callable[..., Any]] = (),
        seed: int = 0,
    ) -> T:
        """Run a scenario against a worker on virtual time and return its result.

        Args:
            scenario: an `async def` with one parameter, the started `TaskHubWorker`.
            seed: of the order of callbacks and of all ids; the same seed gives the same run.

        Raises:
            ReplayError: an instance that completed does something else when it is replayed.
            DeadlockError: nothing can run any more; the text shows the stack of every task.
        """
        ...


@pytest.fixture
def durable_worker() -> DurableWorker:
    """Makes started workers on a hub in memory, on the test's own event loop."""
    return _real_worker


@pytest.fixture
def durable_simulation() -> DurableSimulation:
    """Runs a scenario against a worker on virtual time, then replays what completed."""
    return _simulate


@asynccontextmanager
async def _real_worker(
    *, orchestrators: Iterable[Callable[..., Any]] = (), activities: Iterable[Callable[..., Any]] = ()
) -> AsyncGenerator[TaskHubWorker]:
    from durable_host.environment import system_environment

    async with _worker(system_environment(), orchestrators, activities, lease_thread=True) as worker:
        yield worker


def _simulate(
    scenario: Callable[[TaskHubWorker], Awaitable[T]],
    *,
    orchestrators: Iterable[Callable[..., Any]] = (),
    activities: Iterable[Callable[..., Any]] = (),
    seed: int = 0,
) -> T:
    from durable_host.testing.environment import simulated_environment
    from durable_host.testing.loop import run_simulated

    async def main() -> T:
        async with _worker(simulated_environment(seed), orchestrators, activities, lease_thread=False) as worker:
            result = await scenario(worker)
            await _replay_completed(worker)
            return result

    return run_simulated(main(), seed=seed)


@asynccontextmanager
async def _worker(
    environment: Environment,
    orchestrators: Iterable[Callable[..., Any]],
    activities: Iterable[Callable[..., Any]],
    *,
    lease_thread: bool,
) -> AsyncGenerator[TaskHubWorker]:
    from durable_host.storage.registry import open_hub
    from durable_host.worker import TaskHubWorker

    worker = TaskHubWorker(
        open_hub("memory", environment=environment), environment=environment, lease_thread=lease_thread
    )
    for function in orchestrators:
        worker.orchestrator(function)
    for function in activities:
        worker.activity(function)
    async with worker:
        yield worker


async def _replay_completed(worker: TaskHubWorker) -> None:
    from durable_host.executors.native import NativeOrchestrations
    from durable_host.model.instance import InstanceQuery
    from durable_host.model.status import RuntimeStatus
    from durable_host.testing.replaying import ReplayError, replay_problems

    executor = NativeOrchestrations(worker.registry)
    completed = InstanceQuery(statuses=frozenset({RuntimeStatus.COMPLETED}), limit=1_000, with_payloads=False)
    page = await worker.store.query_instances(completed)
    problems: list[str] = []
    for state in page.instances:
        history = await worker.store.get_history(state.instance_id)
        if history is not None:
            found = await replay_problems(history, executor)
            problems += [f"{state.name} {state.instance_id!r}: {each}" for each in found]
    if problems:
        raise ReplayError(problems)
