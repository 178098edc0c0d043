from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceQuery
from durable_host.model.messages import Message
from durable_host.storage.contract import Checkpoint, HubStatistics, TaskHubStore
from durable_host.storage.observed import observe
from durable_host.telemetry.metrics import Metrics
from durable_host_providers.memory import MemoryHub, MemoryTaskHubStore


class _HoldsNothing:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


def _start(name: str) -> Message:
    event = ExecutionStarted(
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        instance_id=InstanceId(name),
        execution_id=ExecutionId("e"),
        name="f",
    )
    return Message(id=MessageId(f"m-{name}"), target=InstanceId(name), event=event, deliveries=0)


def _store(metrics: Metrics) -> TaskHubStore:
    environment = Environment()
    return observe(MemoryHub(environment).open(), metrics, environment.clock)


async def test_calls_pass_through_and_are_measured() -> None:
    metrics = Metrics()
    store = _store(metrics)
    await store.create()

    async with store:
        assert await store.create_instance(_start("a"), replaceable=())
        (item,) = await store.lock_orchestrations(10, wait=timedelta(seconds=1), cache=_HoldsNothing())
        (outcome,) = await store.commit([Checkpoint(item.lease, None, None, consumed=[item.inbox[0].id])])
        (late,) = await store.commit([Checkpoint(item.lease, None, None)])
        page = await store.query_instances(InstanceQuery())

    assert outcome.name == "COMMITTED"
    assert late.name == "LEASE_LOST"
    assert [each.instance_id for each in page.instances] == ["a"]
    assert metrics.value("durable_store_calls_total", op="commit", outcome="ok") == 2
    assert metrics.value("durable_store_seconds", op="commit") == 2
    assert metrics.value("durable_store_batch_size", op="lock_orchestrations") == 1
    assert metrics.value("durable_store_lease_lost_total", op="commit") == 1


async def test_failures_are_counted_and_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    store = _store(metrics)

    async def fails(self: MemoryTaskHubStore) -> HubStatistics:
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(MemoryTaskHubStore, "statistics", fails)

    with pytest.raises(StoreUnavailableError, match="gone"):
        await store.statistics()
    assert metrics.value("durable_store_calls_total", op="statistics", outcome="unavailable") == 1


def test_the_traits_are_those_of_the_store() -> None:
    assert _store(Metrics()).traits == MemoryTaskHubStore.traits


def test_every_operation_of_the_contract_is_measured_or_passed_on() -> None:
    own = vars(type(_store(Metrics())).__mro__[1])

    missing = [
        name
        for name, value in vars(TaskHubStore).items()
        if callable(value) and (not name.startswith("_") or name in ("__aenter__", "__aexit__")) and name not in own
    ]

    assert missing == []


def test_requests_that_the_store_counts_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def requests(store: TaskHubStore) -> dict[str, int]:
        return {"queue.get": 3}

    monkeypatch.setattr(MemoryTaskHubStore, "requests", requests)
    metrics = Metrics()

    store = _store(metrics)

    assert store.requests() == {"queue.get": 3}
    assert metrics.value("durable_store_requests_total", kind="queue.get") == 3
