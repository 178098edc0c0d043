"""kill -9 at random points, again and again: every instance completes, each activity's result is used once.

Real processes on one SQLite file. A round starts instances of every kind, lets one or two workers run for a moment and
kills them; most kills must strike while work is unfinished, or the test has shown nothing. An activity may run more
than once, that is the contract; what must not happen is that an instance sees two results of one call, or none.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.model.history import (
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.payloads import decode_payload
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host.storage.contract import TaskHubStore
from tests.hosting import source_environment

pytestmark = pytest.mark.live

SCRIPT = Path(__file__).with_name("killed_worker.py")
KINDS = {"chain": 5, "fan": 8, "parent": 15, "waiter": 2, "rounds": 6}
"""Orchestrators of the worker and how many results each returns."""

ROUNDS = 30
PATIENCE = timedelta(seconds=90)


def _open_store(file: Path) -> TaskHubStore:
    spec = importlib.util.spec_from_file_location("killed_worker", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    store = module.open_store(file, worker=False)
    assert isinstance(store, TaskHubStore)
    return store


class _Workers:
    """Worker processes, all on one file."""

    def __init__(self, file: Path, log: Path) -> None:
        self._command = [sys.executable, str(SCRIPT), str(file), str(log)]
        self._errors = log.with_suffix(".err")
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, number: int) -> None:
        with self._errors.open("ab") as errors:
            for _ in range(number):
                self._running.append(
                    await asyncio.create_subprocess_exec(
                        *self._command, stdout=subprocess.PIPE, stderr=errors, env=source_environment()
                    )
                )
        for process in self._running:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 30)
            assert line == b"ready\n", self.errors()

    async def end(self, number: signal.Signals) -> None:
        for process in self._running:
            if process.returncode is None:
                process.send_signal(number)
        for process in self._running:
            await process.wait()
        self._running.clear()

    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")


async def _unfinished(client: TaskHubClient) -> int:
    running = frozenset(RuntimeStatus) - TERMINAL
    return len([1 async for _ in client.instances(InstanceQuery(statuses=running, with_payloads=False))])


async def _start_instances(client: TaskHubClient, draw: random.Random, round_number: int) -> list[str]:
    started: list[str] = []
    for kind in KINDS:
        for number in range(draw.randint(1, 3)):
            started.append(await client.start(kind, instance_id=f"{kind}-{round_number}-{number}"))
    return started


async def _check(client: TaskHubClient, state: InstanceState, runs: Counter[str], used: Counter[str]) -> None:
    assert state.status is RuntimeStatus.COMPLETED, state
    tokens: list[str] = decode_payload(state.output, list[str])
    assert len(tokens) == KINDS[state.name], state
    assert [token for token in tokens if runs[token] != 1] == [], "a result that no run of the activity returned"
    if state.parent is None:
        used.update(tokens)
    history = await client.history(state.instance_id)
    asked = Counter(
        event.event_id
        for event in history
        if isinstance(event, TaskScheduled | SubOrchestrationInstanceCreated | TimerCreated)
    )
    answered = Counter(
        event.timer_id if isinstance(event, TimerFired) else event.task_id
        for event in history
        if isinstance(event, TaskCompleted | SubOrchestrationInstanceCompleted | TimerFired)
    )
    assert set(asked.values()) <= {1}, state.instance_id
    assert answered == asked, state.instance_id


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_workers_lose_nothing_and_use_each_result_once(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    file, log = tmp_path / "hub.db", tmp_path / "runs.log"
    log.touch()
    store = _open_store(file)
    await store.create()
    workers = _Workers(file, log)
    striking = 0
    expected: set[str] = set()
    async with store:
        client = TaskHubClient(store)
        try:
            for round_number in range(ROUNDS):
                started = await _start_instances(client, draw, round_number)
                expected.update(started)
                await workers.start(2 if draw.random() < 0.3 else 1)
                for instance in started:
                    if instance.startswith("waiter"):
                        await client.raise_event(instance, "go", 1)
                await asyncio.sleep(draw.uniform(0, 0.3))
                striking += bool(await _unfinished(client))
                await workers.end(signal.SIGKILL)
                for instance in started:
                    if instance.startswith("waiter"):
                        await client.raise_event(instance, "go", 2)
            assert striking >= ROUNDS / 2, f"only {striking} of {ROUNDS} kills struck while work was unfinished"

            await workers.start(1)
            for instance in sorted(expected):
                await client.wait_for_completion(instance, timeout=PATIENCE)
            await workers.end(signal.SIGTERM)
        finally:
            await workers.end(signal.SIGKILL)

        runs = Counter(log.read_text(encoding="utf-8").splitlines())
        used: Counter[str] = Counter()
        seen = {state.instance_id: state async for state in client.instances()}
        assert expected <= set(seen)
        for state in seen.values():
            await _check(client, state, runs, used)

    assert set(used.values()) == {1}, "a result was used twice"
    print(
        f"seed {seed}: {ROUNDS} kills, {striking} while work was unfinished; {len(seen)} instances, "
        f"{sum(runs.values())} runs of activities, {len(used)} results used"
    )
