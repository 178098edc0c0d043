"""Our side of the in-process workloads: TaskHubWorker and TaskHubClient, shipped defaults, durability on.

    python -m benchmarks.ours run FAMILY SIZE KIND PROVIDER URL      prints one JSON object with the figures
    python -m benchmarks.ours check FAMILY SIZE KIND PROVIDER URL    a new process: reads every result back

What is in memory only is read back by the process that wrote it. `--profile FILE` before the other arguments writes
a cProfile of the run.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds, median, percentile, rss_mib
from benchmarks.workloads import AZURE, KIND_OF_REQUEST, SERVER_PID
from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.environment import system_environment
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.storage.registry import load_provider
from durable_host.worker import TaskHubWorker

__all__ = ["CHAIN", "IDLE_SECONDS", "IN_FLIGHT", "SETTLE_SECONDS", "main", "open_store"]

CHAIN = 5
SETTLE_SECONDS = 2.0
"""After the work, before idleness is measured: a database server puts its own house in order first."""

IDLE_SECONDS = 5.0
IN_FLIGHT = 256
"""Starts that are on their way at once in W4: one process that serves many callers."""


async def async_step(value: int) -> int:
    return value + 1


def sync_step(value: int) -> int:
    return value + 1


async def async_chain(context: DurableOrchestrationContext) -> int:
    value = 0
    for _ in range(context.get_input(int)):
        value = await context.call_activity(async_step, value)
    return value


def sync_chain(context: DurableOrchestrationContext) -> Generator[Any, Any, int]:
    value = 0
    for _ in range(context.get_input(int)):
        value = yield context.call_activity("sync_step", value)
    return value


async def async_fan(context: DurableOrchestrationContext) -> int:
    tasks = [context.call_activity(async_step, number) for number in range(context.get_input(int))]
    return sum(await context.when_all(tasks))


def sync_fan(context: DurableOrchestrationContext) -> Generator[Any, Any, int]:
    tasks = [context.call_activity("sync_step", number) for number in range(context.get_input(int))]
    return sum((yield context.task_all(tasks)))


def open_store(provider: str, url: str) -> TaskHubStore:
    address = None if provider in {"memory", AZURE} else url
    options = StorageOptions(hub="benchmark", settings={}, folder=Path.cwd(), url=address, setting=os.environ.get)
    return load_provider(provider).open(options, system_environment()).hub


def make_worker(store: TaskHubStore) -> TaskHubWorker:
    worker = TaskHubWorker(store)
    for orchestrator in (async_chain, sync_chain, async_fan, sync_fan):
        worker.orchestrator(orchestrator)
    for activity in (async_step, sync_step):
        worker.activity(activity)
    return worker


async def _at_once(client: TaskHubClient, kind: str, size: int) -> dict[str, float]:
    began = time.perf_counter()

    async def one(number: int) -> int:
        instance = await client.start(f"{kind}_chain", CHAIN, instance_id=f"w1-{number}")
        return await client.result(instance, int)

    results = await asyncio.gather(*(one(number) for number in range(size)))
    seconds = time.perf_counter() - began
    assert results == [CHAIN] * size
    return {"seconds": seconds, "per_second": size / seconds, "rss_mib": rss_mib()}


async def _one_at_a_time(client: TaskHubClient, kind: str, size: int) -> dict[str, float]:
    latencies: list[float] = []
    for number in range(size):
        began = time.perf_counter()
        instance = await client.start(f"{kind}_chain", CHAIN, instance_id=f"w2-{number}")
        result = await client.result(instance, int)
        latencies.append((time.perf_counter() - began) * 1000)
        assert result == CHAIN
    return {"p50_ms": median(latencies), "p99_ms": percentile(latencies, 0.99)}


async def _single(client: TaskHubClient, name: str, instance: str, size: int, expected: int) -> float:
    began = time.perf_counter()
    await client.start(name, size, instance_id=instance)
    result = await client.result(instance, int)
    seconds = time.perf_counter() - began
    assert result == expected, (result, expected)
    return seconds


async def _starts(client: TaskHubClient, size: int) -> dict[str, float]:
    waiting = iter(range(size))

    async def starter() -> None:
        for number in waiting:
            await client.start("async_chain", CHAIN, instance_id=f"w4-{number}")

    began = time.perf_counter()
    await asyncio.gather(*(starter() for _ in range(IN_FLIGHT)))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "per_second": size / seconds}


async def _with_worker(client: TaskHubClient, family: str, size: int, kind: str) -> dict[str, float]:
    if family in {"W1", "W5"}:
        figures = await _at_once(client, kind, size)
        if family == "W5":
            server = int(pid) if (pid := os.environ.get(SERVER_PID)) else None
            await asyncio.sleep(SETTLE_SECONDS)
            before = cpu_seconds(server)
            await asyncio.sleep(IDLE_SECONDS)
            figures["idle_cpu_percent"] = (cpu_seconds(server) - before) / IDLE_SECONDS * 100
        return figures
    if family == "W2":
        return await _one_at_a_time(client, kind, size)
    if family == "W3":
        return {"seconds": await _single(client, f"{kind}_fan", "w3", size, size * (size + 1) // 2)}
    if family == "W6":
        seconds = await _single(client, f"{kind}_chain", "w6", size, size)
        return {"seconds": seconds, "step_ms": seconds / size * 1000}
    raise SystemExit(f"unknown workload {family!r}")


async def _check(client: TaskHubClient, family: str, size: int) -> None:
    expected: dict[str, object] = {
        "W1": CHAIN,
        "W2": CHAIN,
        "W3": size * (size + 1) // 2,
        "W4": None,
        "W5": CHAIN,
        "W6": size,
    }
    prefix = {"W5": "w1"}.get(family, family.lower())
    names = [prefix] if family in {"W3", "W6"} else [f"{prefix}-{number}" for number in range(size)]
    wanted = RuntimeStatus.PENDING if family == "W4" else RuntimeStatus.COMPLETED
    found = {str(state.instance_id): state async for state in client.instances(InstanceQuery(limit=1_000))}
    for name in names:
        state = found.pop(name)
        output = None if state.output is None else json.loads(state.output)
        assert (state.status, output) == (wanted, expected[family]), state
    assert not found, sorted(found)


def _requests(store: TaskHubStore, before: Mapping[str, int], size: int) -> dict[str, float]:
    """Requests for each of the workload's units, together and by kind, where the store counts them."""
    made = {kind: count - before.get(kind, 0) for kind, count in store.requests().items()}
    figures = {f"{KIND_OF_REQUEST}{kind}": count / size for kind, count in sorted(made.items()) if count}
    return {"requests": sum(made.values()) / size, **figures} if figures else {}


async def _main(action: str, family: str, size: int, kind: str, provider: str, url: str) -> dict[str, Any]:
    store = open_store(provider, url)
    if action == "check":
        async with store:
            await _check(TaskHubClient(store), family, size)
        return {"checked": True}
    if family == "W4":
        await store.create()
        async with store:
            client = TaskHubClient(store)
            before = dict(store.requests())
            figures = await _starts(client, size)
            figures |= _requests(store, before, size)
            if provider == "memory":
                await _check(client, family, size)
        return figures
    async with make_worker(store) as worker:
        before = dict(store.requests())
        figures = await asyncio.wait_for(_with_worker(worker.client, family, size, kind), timedelta(minutes=5).seconds)
        figures |= _requests(store, before, size)
        if provider == "memory":
            await _check(worker.client, family, size)
    return figures


def main(arguments: list[str]) -> None:
    """Run one half of one workload."""
    profile = None
    if arguments[0] == "--profile":
        profile = arguments[1]
        arguments = arguments[2:]
    action, family, size, kind, provider, url = arguments
    run = _main(action, family, int(size), kind, provider, url)
    if profile is None:
        figures = asyncio.run(run)
    else:
        profiler = cProfile.Profile()
        figures = profiler.runcall(asyncio.run, run)
        profiler.dump_stats(profile)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
