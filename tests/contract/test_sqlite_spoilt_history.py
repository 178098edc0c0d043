"""A stored history that cannot be decoded stops its own instance and no other."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

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
