"""An app of one orchestrator and one activity, for tests of what a worker does with results."""

from __future__ import annotations

import asyncio
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

__all__ = ["App"]


class App:
    """An orchestrator that calls one activity of so many seconds, and a worker for it."""

    def __init__(self) -> None:
        self.environment: Environment = simulated_environment()
        self.hub = MemoryHub(self.environment)
        self.calls: list[int] = []

    def worker(self, **settings: Any) -> TaskHubWorker:
        worker = TaskHubWorker(
            self.hub.open(), environment=self.environment, settings=EngineSettings(**settings), lease_thread=False
        )
        worker.activity(self.work)
        worker.orchestrator(self.once, name="once")
        return worker

    async def work(self, seconds: int) -> int:
        self.calls.append(seconds)
        await asyncio.sleep(seconds)
        return seconds

    async def once(self, context: Context) -> int:
        result: int = await context.call_activity("work", context.get_input())
        return result
