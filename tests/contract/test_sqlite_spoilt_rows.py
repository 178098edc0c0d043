"""What is stored and cannot be decoded stops its own instance and no other."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import StorageOptions
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.sqlite import provider

pytestmark = pytest.mark.simulated


def open_worker(folder: Path) -> TaskHubWorker:
    environment = simulated_environment()
    options = StorageOptions(
        "Hub", {"synchronous": "off", "pollInterval": 0}, folder, "sqlite:///hub.db", timedelta(seconds=30)
    )
    worker = TaskHubWorker(provider.open(options, environment).hub, environment=environment, lease_thread=False)

    @worker.orchestrator
    async def wait(context: Context) -> str:
        return await context.wait_for_external_event("go", str)

    @worker.orchestrator
    async def work(context: Context) -> str:
        return await context.call_activity(echo, context.get_input(str))

    @worker.activity
    async def echo(text: str) -> str:
        return text

    return worker


def change_history(folder: Path, instance_id: str, change: Callable[[str], str]) -> None:
    connection = sqlite3.connect(folder / "hub.db")
    with connection:
        seq, events = connection.execute(
            "SELECT id, events FROM history WHERE ref = (SELECT ref FROM instances WHERE instance_id = ?)",
            (instance_id,),
        ).fetchone()
        connection.execute("UPDATE history SET events = ? WHERE id = ?", (change(events), seq))
    connection.close()


async def test_spoilt_history_quarantines_its_instance_and_its_neighbour_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with open_worker(tmp_path) as worker:
        for name in ("spoilt", "sound"):
            await worker.client.start("wait", instance_id=name)
            await worker.client.wait_for_start(name)
        await asyncio.sleep(10)
    change_history(tmp_path, "spoilt", lambda text: text.replace("ExecutionStarted", "Nonsense"))

    async with open_worker(tmp_path) as worker:
        client = worker.client
        for name in ("spoilt", "sound"):
            await client.raise_event(name, "go", "went")
        assert await client.result("sound", str, timeout=timedelta(minutes=1)) == "went"
        state = await client.wait_for_completion("spoilt", timeout=timedelta(hours=1))
        assert state.status is RuntimeStatus.FAILED
        assert "Nonsense" in (state.quarantined or "")
        assert worker.problem is None

        change_history(tmp_path, "spoilt", lambda text: text.replace("Nonsense", "ExecutionStarted"))
        await client.release_quarantined(["spoilt"])
        await asyncio.sleep(1000)  # the event was put off while it failed
        assert await client.result("spoilt", str, timeout=timedelta(minutes=1)) == "went"


async def change_rows(folder: Path, statement: str, *values: str) -> None:
    connection = sqlite3.connect(folder / "hub.db")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


SPOIL_MESSAGE = """
    UPDATE messages SET event = replace(event, ?, ?)
    WHERE ref = (SELECT ref FROM instances WHERE instance_id = 'spoilt')
"""
SPOIL_TASK = """
    UPDATE activities SET task = replace(task, ?, ?)
    WHERE ref = (SELECT ref FROM instances WHERE instance_id = 'spoilt')
"""


async def test_a_spoilt_message_quarantines_its_instance_and_its_neighbours_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with open_worker(tmp_path) as worker:
        for name in ("spoilt", "sound"):
            await worker.client.start("wait", instance_id=name)
            await worker.client.wait_for_start(name)
    store = open_worker(tmp_path).store
    async with store:
        for name in ("spoilt", "sound"):
            await TaskHubClient(store, simulated_environment()).raise_event(name, "go", "went")
    await change_rows(tmp_path, SPOIL_MESSAGE, "EventRaised", "Nonsense")

    async with open_worker(tmp_path) as worker:
        client = worker.client
        assert await client.result("sound", str, timeout=timedelta(minutes=1)) == "went"
        state = await client.wait_for_completion("spoilt", timeout=timedelta(minutes=1))
        assert state.status is RuntimeStatus.FAILED
        assert "cannot be decoded" in (state.quarantined or "")
        assert worker.problem is None

        await change_rows(tmp_path, SPOIL_MESSAGE, "Nonsense", "EventRaised")
        assert await client.release_quarantined(["spoilt"]) == 1
        assert await client.result("spoilt", str, timeout=timedelta(minutes=1)) == "went"


async def test_a_message_spoilt_while_its_instance_is_held_quarantines_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with open_worker(tmp_path) as worker:
        client = worker.client
        await client.start("wait", instance_id="spoilt")
        await client.wait_for_start("spoilt")
        await client.raise_event("spoilt", "other", "waits in the history")
        await asyncio.sleep(1)
        connection = sqlite3.connect(tmp_path / "hub.db")
        with connection:
            connection.execute(
                "INSERT INTO messages (seq, ref, due, arrived_at, id, event) "
                "SELECT 1000, ref, 1000, 0, 'm', 'no event' FROM instances"
            )
            connection.execute("UPDATE instances SET wake_at = 1000 WHERE lease IS NULL")
        connection.close()
        await client.start("wait", instance_id="another")  # makes the store look
        state = await client.wait_for_completion("spoilt", timeout=timedelta(minutes=2))
        assert "message m cannot be decoded" in (state.quarantined or "")
        assert worker.problem is None


async def test_a_spoilt_task_quarantines_its_instance_and_its_neighbours_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    store = open_worker(tmp_path).store
    await store.create()
    environment = simulated_environment()
    async with store:
        client = TaskHubClient(store, environment)
        for name in ("spoilt", "sound"):
            await client.start("work", name, instance_id=name)
        worker = TaskHubWorker(store, environment=environment, lease_thread=False)

        @worker.orchestrator
        async def work(context: Context) -> str:
            return await context.call_activity(echo, context.get_input(str))

        @worker.activity
        async def echo(text: str) -> str:
            await asyncio.sleep(10_000)  # until the worker goes
            return text

        async with worker:
            await asyncio.sleep(20)
    await change_rows(tmp_path, SPOIL_TASK, "echo", 'e"o')

    async with open_worker(tmp_path) as worker:
        client = worker.client
        assert await client.result("sound", str, timeout=timedelta(minutes=30)) == "sound"
        state = await client.wait_for_completion("spoilt", timeout=timedelta(minutes=30))
        assert state.status is RuntimeStatus.FAILED
        assert "cannot be decoded" in (state.quarantined or "")
        assert worker.problem is None

        await change_rows(tmp_path, SPOIL_TASK, 'e"o', "echo")
        await client.release_quarantined(["spoilt"])
        assert await client.result("spoilt", str, timeout=timedelta(hours=1)) == "spoilt"
