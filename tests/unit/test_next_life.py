"""What comes before the start of an instance, or of the next life of its id, waits for that start."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.environment import Environment
from durable_host.errors import InvalidStateError
from durable_host.model.history import EventRaised
from durable_host.model.ids import InstanceId, MessageId, forwarded_id, postponed_id
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.memory import MemoryHub
from tests.contract.azure_shared import SharedPartitions, SharedStore
from tests.unit.azure.hub_in_memory import SETTINGS

pytestmark = pytest.mark.simulated
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def memory(environment: Environment) -> TaskHubStore:
    return MemoryHub(environment).open()


def azure(environment: Environment) -> TaskHubStore:
    account = SimulatedAccount(SimulatedService(environment.clock.now))
    return SharedStore(account, SETTINGS, environment, SharedPartitions())


async def waits(context: Context) -> object:
    return [context.get_input(), await context.wait_for_external_event("go")]


@asynccontextmanager
async def second_life(make: Callable[[Environment], TaskHubStore]) -> AsyncGenerator[TaskHubClient]:
    """An instance that has ended, and starts again in an hour."""
    environment = simulated_environment()
    worker = TaskHubWorker(make(environment), environment=environment, lease_thread=False)
    worker.orchestrator(waits, name="waits")
    async with worker:
        client = worker.client
        await client.start("waits", 1, instance_id="again")
        await client.raise_event("again", "go", "first")
        assert await client.result("again", timeout=HOUR) == [1, "first"]
        await client.start("waits", 2, instance_id="again", start_at=HOUR)
        yield client


@pytest.mark.parametrize("make", [memory, azure])
async def test_event_before_the_start_of_the_next_life_is_kept_for_it(
    make: Callable[[Environment], TaskHubStore],
) -> None:
    async with second_life(make) as client:
        await client.raise_event("again", "go", "second")

        assert await client.result("again", timeout=DAY) == [2, "second"]


@pytest.mark.parametrize("make", [memory, azure])
async def test_next_life_that_is_terminated_before_its_start_does_not_begin(
    make: Callable[[Environment], TaskHubStore],
) -> None:
    async with second_life(make) as client:
        await client.terminate("again", "enough")
        state = await client.wait_for_completion("again", timeout=timedelta(minutes=5))
        history = await client.history("again")
        with pytest.raises(InvalidStateError):
            await client.raise_event("again", "go", "second")

        assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "enough")
        assert list(history) == []
        assert (await client.wait_for_completion("again", timeout=DAY)).status is RuntimeStatus.TERMINATED

        await client.start("waits", 3, instance_id="again")
        await client.raise_event("again", "go", "third")
        assert await client.result("again", timeout=HOUR) == [3, "third"]


@pytest.mark.parametrize("make", [memory, azure])
@pytest.mark.parametrize("times", [1, 2])
async def test_event_that_comes_early_again_is_kept(make: Callable[[Environment], TaskHubStore], times: int) -> None:
    """It waited, and was delivered to a host whose clock is behind."""
    environment = simulated_environment()
    worker = TaskHubWorker(make(environment), environment=environment, lease_thread=False)
    worker.orchestrator(waits, name="waits")
    async with worker:
        client = worker.client
        await client.start("waits", 1, instance_id="later", start_at=HOUR)
        event = EventRaised(timestamp=environment.clock.now(), name="go", input='"early"')
        waited = postponed_id(MessageId("m"))
        again = waited if times == 1 else forwarded_id(waited, environment.clock.now())
        await worker.store.send([Message(id=again, target=InstanceId("later"), event=event, deliveries=0)])

        assert await client.result("later", timeout=2 * HOUR) == [1, "early"]
        raised = [each for each in await client.history("later") if isinstance(each, EventRaised)]
        assert [each.message_id for each in raised] == ["m"]
