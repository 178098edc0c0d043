"""The recorded hubs, read and taken over: what the reference library left reaches the ends that it would have reached.

Entities come later: their orchestrators are not registered, and their messages stay as they are.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from durable_host.executors.native import FunctionRegistry
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage.app_lease import AppLeaseOptions
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ownership import partition_runs
from durable_host_providers.azure_storage.partitions import ManagerKind
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.store import AzureTaskHubStore
from tests.azure_recordings import HUB, RECORDINGS
from tests.histories import orchestrators
from tests.servers.recorded_hubs import MovedHub, due_at_once, when_recorded

KINDS = {"table": ManagerKind.TABLE, "safe": ManagerKind.SAFE, "legacy": ManagerKind.LEGACY, "more": ManagerKind.TABLE}
PUSHES: dict[str, tuple[str, Any]] = {
    "event-waiting": ("Approval", "resumed"),
    "child-of-waiting": ("Approval", "resumed"),
    "eternal-waiting": ("stop", "resumed"),
    "large-waiting": ("Payload", "y" * 100_000),
    "status-waiting": ("go", "resumed"),
    "start-large-queued": ("Payload", "resumed"),
}
ENDS: dict[str, Any] = {
    "event-waiting": "resumed",
    "race-waiting": "timeout",
    "timer-waiting": "awake",
    "child-of-waiting": "resumed",
    "child-waiting": {"child": "resumed"},
    "retry-waiting": "attempt 3 succeeded",
    "eternal-waiting": [3, "resumed"],
    "large-waiting": [100_000, 100_000, "y" * 100_000],
    "status-waiting": "resumed",
    "suspended": "while suspended",
    "activity-running": ["Hello Tokyo!", "passed Seattle", "Hello London!"],
    "fanout-half": [0, "passed 1", 4, "passed 3", 16],
    "event-queued": {"by": "queue"},
    "start-queued": ["Hello Tokyo!", "Hello Seattle!", "Hello London!"],
    "start-and-event-queued": "before the start",
    "start-scheduled": ["Hello Tokyo!", "Hello Seattle!", "Hello London!"],
    "start-large-queued": [100_000, 100_000, "resumed"],
}


def app() -> FunctionRegistry:
    """The orchestrators of the recordings, and their activities after a resume."""
    functions = orchestrators.registry()

    async def say_hello(name: str) -> str:
        return f"Hello {name}!"

    async def square(number: int) -> int:
        return number * number

    async def echo(value: object) -> object:
        return value

    async def gate(value: object) -> str:
        return f"passed {value}"

    async def fail(value: str) -> None:
        raise ValueError(f"boom {value}")

    async def flaky(key: str) -> str:
        return "attempt 3 succeeded"

    for activity in (say_hello, square, echo, gate, fail, flaky):
        functions.add_activity(activity)
    return functions


class Hub:
    """A recorded hub in an account in memory, under its own name or another."""

    def __init__(self, kind: str, name: str = HUB) -> None:
        self.environment = simulated_environment()
        self.service = SimulatedService(self.environment.clock.now)
        self.account = SimulatedAccount(self.service)
        self.recorded = MovedHub(kind, name)
        self.settings = AzureSettings(
            Layout(self.recorded.hub), base64=kind == "safe", max_polling=timedelta(seconds=5)
        )
        self.hub = TaskHub(self.account, self.settings.layout, KINDS[kind], self.environment)
        self.runs = partition_runs(
            self.hub,
            self.account,
            self.settings.layout,
            KINDS[kind],
            "worker-2",
            self.environment,
            app_lease=AppLeaseOptions(use=False),
        )

    async def load(self, delay: Callable[[int], int] = due_at_once) -> None:
        await self.recorded.load(self.account, delay)

    def store(self, *, worker: bool) -> AzureTaskHubStore:
        return AzureTaskHubStore(self.account, self.settings, self.environment, self.hub, self.runs if worker else None)


def _plain(text: str) -> str:
    return text if text.startswith("{") else base64.b64decode(text).decode()


def _shifted(delay_s: int) -> int:
    """Later than it was recorded."""
    return delay_s + 900


NAMES = (HUB, "MovedElsewhere45")


@pytest.mark.simulated
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", RECORDINGS)
async def test_a_recorded_hub_can_be_read_and_what_has_finished_purged(kind: str, name: str) -> None:
    hub = Hub(kind, name)
    await hub.load()
    async with hub.store(worker=False) as store:
        found = (await store.query_instances(InstanceQuery(limit=1_000))).instances
        for state in found:
            history = await store.get_history(state.instance_id)
            assert history is not None
            assert bool(history) is (state.status is not RuntimeStatus.PENDING)
            assert await store.get_instance(state.instance_id) == state
        finished = [state.instance_id for state in found if state.status.is_terminal]
        if kind != "more":
            assert "odd id ^ % äß 日本" in finished

        assert await store.purge([state.instance_id for state in found]) == len(finished)

        left = (await store.query_instances(InstanceQuery(limit=1_000))).instances
        assert [state.instance_id for state in left] == [
            state.instance_id for state in found if state.instance_id not in finished
        ]
        assert list(left) == [state for state in found if state.instance_id not in finished]


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("name", "delay"), [(HUB, due_at_once), (HUB, when_recorded), (NAMES[1], _shifted)], ids=["now", "later", "moved"]
)
@pytest.mark.parametrize("kind", ["table", "safe", "legacy"])
async def test_a_recorded_hub_is_taken_over_and_reaches_its_ends(
    kind: str, name: str, delay: Callable[[int], int]
) -> None:
    hub = Hub(kind, name)
    await hub.load(delay)
    await asyncio.sleep(60)  # the leases of the dead worker end
    worker = TaskHubWorker(
        hub.store(worker=True), environment=hub.environment, registry=app(), manage_store=False, lease_thread=False
    )
    async with worker.store, worker:
        client = worker.client
        await asyncio.sleep(30)
        for instance_id, (event, data) in PUSHES.items():
            await client.raise_event(instance_id, event, data)
        await client.resume("suspended", "go on")
        ends: dict[str, Any] = {}
        for instance_id in ENDS:
            state = await client.wait_for_completion(instance_id, timeout=timedelta(hours=2))
            ends[instance_id] = json.loads(state.output) if state.output is not None else None
        assert ends == ENDS
        terminated = await client.wait_for_completion("terminate-queued", timeout=timedelta(minutes=5))
        assert (terminated.status, terminated.output) == (RuntimeStatus.TERMINATED, "queued end")
        suspended = await client.require("suspend-queued")
        assert suspended.status is RuntimeStatus.SUSPENDED
        assert any(
            '"InstanceId":"@counter@e"' in _plain(message.text)
            for queue in hub.settings.layout.control_queues
            for message in hub.service.queues[queue].messages.values()
        ), "the signal to an entity is left for a host that has entities"
        status = await client.require("status-waiting")
        assert json.loads(status.custom_status or "") == {"step": 2, "note": "日本語"}


@pytest.mark.simulated
async def test_results_that_wait_in_a_queue_are_taken() -> None:
    hub = Hub("more")
    await hub.load()
    await asyncio.sleep(60)
    worker = TaskHubWorker(
        hub.store(worker=True), environment=hub.environment, registry=app(), manage_store=False, lease_thread=False
    )
    async with worker.store, worker:
        state = await worker.client.wait_for_completion("results-queued", timeout=timedelta(minutes=30))

        assert json.loads(state.output or "") == [0, "passed 1", 4, "passed 3", 16]
        assert (await worker.client.require("lock-holder")).status is RuntimeStatus.RUNNING
