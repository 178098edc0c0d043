"""W8 and W9: one and two worker processes on one hub, and a client process that starts instances and reads results.

    python -m benchmarks.hosts work FAMILY PROVIDER URL          a worker; says `ready`, ends with its standard input
    python -m benchmarks.hosts drive FAMILY SIZE PROVIDER URL    the client; prints one JSON object with the figures

Where activities wait, each worker has few slots, so that slots are the limit and not the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

from benchmarks.ours import CHAIN, IN_FLIGHT, open_store
from benchmarks.places import ROOT, Figures, Places
from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.engine.settings import EngineSettings
from durable_host.worker import TaskHubWorker

__all__ = ["drive_for", "main", "measure_hosts", "running_worker"]

WAIT_SECONDS = 0.020
SLOTS = 8
LANES = 64
"""Chains that run at once where the time is given and not their number."""

_READY = "ready"


async def wait_and_add(value: int) -> int:
    await asyncio.sleep(WAIT_SECONDS)
    return value + 1


async def add(value: int) -> int:
    return value + 1


async def waiting(context: DurableOrchestrationContext) -> int:
    value = 0
    for _ in range(context.get_input(int)):
        value = await context.call_activity(wait_and_add, value)
    return value


async def nothing(context: DurableOrchestrationContext) -> int:
    value = 0
    for _ in range(context.get_input(int)):
        value = await context.call_activity(add, value)
    return value


async def _work(family: str, provider: str, url: str) -> None:
    settings = EngineSettings(max_concurrent_activities=SLOTS) if family == "waiting" else EngineSettings()
    worker = TaskHubWorker(open_store(provider, url), settings=settings)
    for orchestrator in (waiting, nothing):
        worker.orchestrator(orchestrator)
    for activity in (wait_and_add, add):
        worker.activity(activity)
    async with worker:
        print(_READY, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _drive(family: str, size: int, provider: str, url: str) -> Figures:
    async with open_store(provider, url) as store:
        client = TaskHubClient(store)
        numbers = iter(range(size))

        async def starter() -> None:
            for number in numbers:
                await client.start(family, CHAIN, instance_id=f"host-{number}")

        began = time.perf_counter()
        await asyncio.gather(*(starter() for _ in range(IN_FLIGHT)))
        results = await asyncio.gather(*(client.result(f"host-{number}", int) for number in range(size)))
        seconds = time.perf_counter() - began
        assert results == [CHAIN] * size
    return {"seconds": seconds, "per_second": size / seconds}


async def _after(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def drive_for(url: str, prefix: str, until: float | asyncio.Future[Any]) -> float:
    """Keep chains running on the hub; returns how many ended per second.

    Args:
        prefix: of the instances' ids.
        until: seconds, or what to wait for.
    """
    stop: asyncio.Future[Any] = until if isinstance(until, asyncio.Future) else asyncio.ensure_future(_after(until))
    ended = 0

    async def chain_after_chain(client: TaskHubClient, lane: int) -> None:
        nonlocal ended
        number = 0
        while not stop.done():
            instance = await client.start("nothing", CHAIN, instance_id=f"{prefix}-{lane}-{number}")
            assert await client.result(instance, int) == CHAIN
            ended += not stop.done()
            number += 1

    async with open_store("postgres", url) as store:
        began = time.perf_counter()
        lanes = asyncio.gather(*(chain_after_chain(TaskHubClient(store), lane) for lane in range(LANES)))
        await asyncio.wait({stop, lanes}, return_when=asyncio.FIRST_COMPLETED)
        seconds = time.perf_counter() - began
        figure = ended / seconds
        await lanes
    return figure


@contextlib.contextmanager
def running_worker(places: Places, family: str, url: str) -> Generator[None, None, None]:
    """A worker process on the hub, ready; ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hosts", "work", family, places.provider, url],
        cwd=ROOT,
        env=places.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        try:
            if process.stdout.readline().strip() != _READY:
                raise SystemExit(f"a worker did not start: exit code {process.wait()}")
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _with_workers(places: Places, family: str, size: int, workers: int) -> Figures:
    with places.fresh() as url, contextlib.ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(running_worker(places, family, url))
        arguments = [family, str(size), places.provider, url]
        return places.call([sys.executable, "-m", "benchmarks.hosts", "drive", *arguments])


def measure_hosts(places: Places, family: str, size: int) -> Figures:
    """Instances per second with one worker and with two, and their ratio.

    Args:
        family: `waiting` or `nothing`, what the activities do.
    """
    one = _with_workers(places, family, size, 1)["per_second"]
    two = _with_workers(places, family, size, 2)["per_second"]
    return {"one_per_second": one, "two_per_second": two, "two_to_one": two / one}


def main(arguments: list[str]) -> None:
    """Be a worker, or the client."""
    action, *rest = arguments
    if action == "work":
        family, provider, url = rest
        asyncio.run(_work(family, provider, url))
    else:
        family, size, provider, url = rest
        print(json.dumps(asyncio.run(_drive(family, int(size), provider, url))))


if __name__ == "__main__":
    main(sys.argv[1:])
