"""What the start of an instance costs on Azure Storage, and that the saving of a look costs nothing else."""

from __future__ import annotations

import asyncio

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.errors import InstanceExistsError
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import START, simulated_environment
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.contract.azure_shared import SharedPartitions, SharedStore

pytestmark = pytest.mark.simulated


def _hub() -> tuple[SimulatedService, SharedPartitions]:
    return SimulatedService(simulated_environment().clock.now), SharedPartitions()


def _store(service: SimulatedService, shared: SharedPartitions) -> SharedStore:
    return SharedStore(SimulatedAccount(service), AzureSettings(Layout("Hub", 1)), simulated_environment(), shared)


@pytest.mark.parametrize(("instance_id", "expected"), [(None, 2), ("chosen", 3)])
async def test_a_start_makes_no_more_requests_than_it_needs(instance_id: str | None, expected: int) -> None:
    store = _store(*_hub())
    await store.create()
    async with store:
        before = sum(store.requests().values())

        await TaskHubClient(store).start("f", instance_id=instance_id)

        made = {kind: count for kind, count in store.requests().items() if kind in {"queue.put", "table.get"}}
        assert sum(store.requests().values()) - before - _polls(store) == expected, made


def _polls(store: SharedStore) -> int:
    """Looks into queues, which the start did not ask for."""
    return store.requests().get("queue.get", 0)


async def test_of_two_that_found_nothing_one_starts_the_instance() -> None:
    service, shared = _hub()
    stores = [_store(service, shared) for _ in range(2)]
    await stores[0].create()
    async with stores[0], stores[1]:
        clients = [TaskHubClient(store) for store in stores]
        for client in clients:
            assert await client.get("a") is None

        outcomes = await asyncio.gather(
            *(client.start("f", instance_id="a") for client in clients), return_exceptions=True
        )

        assert sum(outcome == "a" for outcome in outcomes) == 1
        assert sum(isinstance(outcome, InstanceExistsError) for outcome in outcomes) == 1


async def test_what_came_since_the_look_is_met() -> None:
    service, shared = _hub()
    one, other = _store(service, shared), _store(service, shared)
    await one.create()
    async with one, other:
        target = InstanceId("a")
        assert await one.get_instance(target) is None
        await TaskHubClient(other).start("f", instance_id="a")

        event = ExecutionStarted(
            timestamp=START, instance_id=target, execution_id=ExecutionId("mine"), name="g", generation=0
        )
        start = Message(MessageId("m"), target, event, event.execution_id, None, 0)
        assert await one.create_instance(start, replaceable={RuntimeStatus.COMPLETED}) is False

        state = await other.get_instance(target)
        assert state is not None
        assert state.name == "f"
