"""A main loop that is kept busy loses no lease, and the log says who keeps it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any

import pytest

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.live


@pytest.mark.parametrize("who", ["activity", "orchestrator"])
async def test_blocked_loop_keeps_its_leases_and_is_reported_by_name(
    who: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    def spin() -> None:
        runs.append(who)
        end = time.monotonic() + 2.6
        while time.monotonic() < end:
            pass

    async def blocking_activity() -> str:
        if who == "activity":
            spin()
        return "done"

    async def blocking_orchestrator(context: DurableOrchestrationContext) -> Any:
        if who == "orchestrator":
            spin()
        return await context.call_activity("blocking_activity")

    hub = MemoryHub(lease=timedelta(seconds=1))
    worker = TaskHubWorker(hub.open())
    worker.activity(blocking_activity)
    worker.orchestrator(blocking_orchestrator)
    thief = TaskHubWorker(hub.open())
    thief.activity(blocking_activity)
    thief.orchestrator(blocking_orchestrator)

    with caplog.at_level(logging.ERROR, logger="durable_host"):
        async with worker:
            instance = await worker.client.start(blocking_orchestrator)
            await asyncio.sleep(0.05)
            async with thief:
                result = await worker.client.result(instance, timeout=timedelta(seconds=20))

    assert result == "done"
    assert runs == [who]
    assert worker.metrics.value("leases_lost") == 0
    assert worker.metrics.value("leases_renewed") > 0
    (report,) = [record for record in caplog.records if getattr(record, "event", "") == "main_loop_blocked"]
    assert "spin (" in report.getMessage()
    assert "test_blocked_loop.py" in report.getMessage()
