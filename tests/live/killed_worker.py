"""The process that tests/live/test_kill.py starts and kills: one TaskHubWorker on an SQLite file.

    python killed_worker.py FILE LOG

Every run of an activity appends one line `<task> <token>` to LOG before it returns the token, so the test can tell
results that were used from runs whose result was lost with the process.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.environment import system_environment
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.worker import TaskHubWorker
from durable_host_providers.sqlite import provider

__all__ = ["open_store"]


class _Runs:
    """Where runs of activities are noted."""

    log = Path()


def open_store(file: Path, *, worker: bool) -> TaskHubStore:
    options = StorageOptions(hub="kill", settings={}, folder=file.parent, url=f"sqlite:///{file}", worker=worker)
    return provider.open(options, system_environment()).hub


def _acted(task: str) -> str:
    token = f"{task} {uuid.uuid4().hex}"
    file = os.open(_Runs.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{token}\n".encode())
    finally:
        os.close(file)
    return token


def blocking_step(task: str) -> str:
    time.sleep(random.uniform(0, 0.02))
    return _acted(task)


async def async_step(task: str) -> str:
    await asyncio.sleep(random.uniform(0, 0.02))
    return _acted(task)


async def chain(context: DurableOrchestrationContext) -> list[str]:
    """Five steps, blocking and async in turn, with a timer between."""
    tokens: list[str] = []
    for number in range(5):
        task = f"{context.instance_id}/{number}"
        if number % 2:
            tokens.append(await context.call_activity(blocking_step, task))
        else:
            tokens.append(await context.call_activity(async_step, task))
        if number == 2:
            await context.create_timer(context.current_utc_datetime + timedelta(milliseconds=50))
    return tokens


def fan(context: DurableOrchestrationContext) -> Generator[Any, Any, list[str]]:
    """Eight steps at once, joined."""
    tokens: list[str] = yield context.task_all(
        [context.call_activity("async_step", f"{context.instance_id}/{number}") for number in range(8)]
    )
    return tokens


async def parent(context: DurableOrchestrationContext) -> list[str]:
    """A step, two children at once, a step."""
    tokens = [await context.call_activity(async_step, f"{context.instance_id}/0")]
    for child in await context.when_all([context.call_sub_orchestrator(chain), context.call_sub_orchestrator(fan)]):
        tokens += child
    tokens.append(await context.call_activity(blocking_step, f"{context.instance_id}/1"))
    return tokens


async def waiter(context: DurableOrchestrationContext) -> list[str]:
    """Two external events, each with a step after it."""
    tokens: list[str] = []
    for number in range(2):
        value = await context.wait_for_external_event("go")
        tokens.append(await context.call_activity(async_step, f"{context.instance_id}/{number}:{value}"))
    return tokens


async def rounds(context: DurableOrchestrationContext) -> list[str]:
    """Three executions of two steps each."""
    tokens: list[str] = context.get_input() or []
    for number in range(2):
        tokens.append(await context.call_activity(async_step, f"{context.instance_id}/{len(tokens)}:{number}"))
    if len(tokens) < 6:
        context.continue_as_new(tokens)
        return []
    return tokens


async def _main(file: Path) -> None:
    worker = TaskHubWorker(open_store(file, worker=True))
    for orchestrator in (chain, fan, parent, waiter, rounds):
        worker.orchestrator(orchestrator)
    for activity in (blocking_step, async_step):
        worker.activity(activity)
    async with worker:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _Runs.log = Path(sys.argv[2])
    asyncio.run(_main(Path(sys.argv[1])))
