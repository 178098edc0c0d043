"""A clock that is set back, and processes that die or stand still, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from durable_host.environment import Environment
from durable_host.model.history import EventRaised, ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion
from durable_host.model.messages import Message
from durable_host.storage.contract import Checkpoint, CommitOutcome, OrchestrationWorkItem, StorageOptions, TaskHubStore
from durable_host.testing.environment import SimulatedClock, simulated_environment
from durable_host_providers.sqlite import SqliteTaskHubStore, provider

pytestmark = pytest.mark.simulated

HOUR = timedelta(hours=1)
A = InstanceId("a")


class _Forgetful:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


def opened(folder: Path, environment: Environment) -> SqliteTaskHubStore:
    settings = {"synchronous": "off", "pollInterval": 0.1}
    store = provider.open(StorageOptions("Hub", settings, folder, "sqlite:///hub.db"), environment).hub
    assert isinstance(store, SqliteTaskHubStore)
    return store


@asynccontextmanager
async def hub(environment: Environment) -> AsyncGenerator[tuple[SqliteTaskHubStore, SqliteTaskHubStore]]:
    """Two stores on one file, as two processes have them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        first, second = opened(folder, environment), opened(folder, environment)
        await first.create()
        async with first, second:
            yield first, second


def start(environment: Environment, instance_id: str = "a") -> Message:
    execution = ExecutionId(environment.ids.new_id())
    event = ExecutionStarted(
        timestamp=environment.clock.now(), instance_id=InstanceId(instance_id), execution_id=execution, name="O"
    )
    return Message(MessageId(environment.ids.new_id()), InstanceId(instance_id), event, execution)


def event(environment: Environment, name: str, *, after: float | None = None) -> Message:
    now = environment.clock.now()
    return Message(
        MessageId(name),
        A,
        EventRaised(timestamp=now, name=name),
        visible_at=None if after is None else now + timedelta(seconds=after),
    )


async def lock(store: TaskHubStore, wait: float = 0) -> list[OrchestrationWorkItem]:
    return list(await store.lock_orchestrations(10, wait=timedelta(seconds=wait), cache=_Forgetful()))


def set_back(environment: Environment, by: timedelta) -> None:
    assert isinstance(environment.clock, SimulatedClock)
    environment.clock.step(-by)


async def test_what_is_visible_stays_visible_when_the_clock_is_set_back() -> None:
    environment = simulated_environment()
    async with hub(environment) as (store, _):
        await store.create_instance(start(environment), replaceable=())
        set_back(environment, HOUR)

        assert len(await lock(store)) == 1


async def test_events_keep_their_order_when_the_clock_is_set_back() -> None:
    environment = simulated_environment()
    async with hub(environment) as (store, _):
        await store.send([event(environment, "1"), event(environment, "2")])
        set_back(environment, HOUR)
        await store.send([event(environment, "3")])
        set_back(environment, -2 * HOUR)
        await store.send([event(environment, "4")])

        (item,) = await lock(store)

    assert [message.id for message in item.inbox] == ["1", "2", "3", "4"]


async def test_a_timer_goes_by_the_clock_as_it_stands() -> None:
    environment = simulated_environment()
    async with hub(environment) as (store, _):
        await store.send([event(environment, "timer", after=10)])
        set_back(environment, timedelta(seconds=20))

        assert await lock(store, wait=25) == []
        assert len(await lock(store, wait=10)) == 1


async def test_a_lease_that_nobody_renews_ends_in_time_although_the_clock_is_set_back() -> None:
    environment = simulated_environment()
    async with hub(environment) as (stopped, living):
        await living.create_instance(start(environment), replaceable=())
        (item,) = await lock(stopped)
        assert await lock(living, wait=1) == []
        set_back(environment, HOUR)

        assert await lock(living, wait=25) == []
        (taken,) = await lock(living, wait=10)

        assert taken.lease.token != item.lease.token
        assert await stopped.commit([Checkpoint(item.lease, None, None)]) == [CommitOutcome.LEASE_LOST]


async def test_a_lease_that_is_renewed_holds_although_the_clock_is_set_back() -> None:
    environment = simulated_environment()
    async with hub(environment) as (holder, other):
        await other.create_instance(start(environment), replaceable=())
        (item,) = await lock(holder)
        assert await lock(other, wait=1) == []
        set_back(environment, HOUR)
        for _ in range(5):
            assert await lock(other, wait=20) == []
            assert await holder.renew([item.lease]) != [None]

        assert await holder.commit([Checkpoint(item.lease, None, None)]) == [CommitOutcome.COMMITTED]


async def test_leases_of_an_owner_that_is_gone_are_taken_over_at_once() -> None:
    environment = simulated_environment()
    async with hub(environment) as (gone, living):
        await living.create_instance(start(environment), replaceable=())
        await lock(gone)
        assert await lock(living, wait=5) == []

        owner = gone.writer.file.forsake()  # as the system does when the process ends
        assert owner

        assert len(await lock(living, wait=1)) == 1


async def test_a_clock_set_forward_costs_a_lease_and_nothing_else() -> None:
    environment = simulated_environment()
    async with hub(environment) as (first, second):
        await first.create_instance(start(environment), replaceable=())
        (item,) = await lock(first)
        set_back(environment, -HOUR)

        (taken,) = await lock(second, wait=1)

        assert await first.commit([Checkpoint(item.lease, None, None)]) == [CommitOutcome.LEASE_LOST]
        assert await second.commit([Checkpoint(taken.lease, None, None)]) == [CommitOutcome.COMMITTED]
