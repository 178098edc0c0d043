"""The instruments themselves: faults strike where, when and as often as planned."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random

import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.model.history import EventRaised
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host.testing.environment import START, simulated_environment
from durable_host.testing.faults import FaultKind, FaultPlan, FaultyStore, Rates, StoreCall, WorkerCrashedError
from tests.simulation.azure_account import Account
from tests.simulation.azure_shaped import AzureShapedStore

MESSAGE = Message(MessageId("m"), InstanceId("i"), EventRaised(timestamp=START, name="x"))


def _store() -> tuple[AzureShapedStore, Account]:
    account = Account(Random(0))
    return AzureShapedStore(account, simulated_environment(), FaultPlan(Random(0)), random=Random(0)), account


def _stored(account: Account) -> int:
    return sum(map(len, account.control))


@pytest.mark.simulated
async def test_error_before_a_call_keeps_it_from_the_store() -> None:
    inner, account = _store()
    store = FaultyStore(inner, FaultPlan(Random(0), at={("send:before", 1): FaultKind.ERROR}))

    with pytest.raises(StoreUnavailableError):
        await store.send([MESSAGE])

    assert _stored(account) == 0


@pytest.mark.simulated
async def test_error_after_a_call_hides_an_effect_that_it_had() -> None:
    inner, account = _store()
    store = FaultyStore(inner, FaultPlan(Random(0), at={("send:after", 1): FaultKind.ERROR}))

    with pytest.raises(StoreUnavailableError):
        await store.send([MESSAGE])

    assert _stored(account) == 1


@pytest.mark.simulated
async def test_crash_ends_the_worker_and_makes_its_store_deaf() -> None:
    inner, account = _store()
    crashed: list[bool] = []
    plan = FaultPlan(Random(0), at={("send:before", 1): FaultKind.CRASH})
    store = FaultyStore(inner, plan, crash=lambda: crashed.append(True))
    task = asyncio.get_running_loop().create_task(store.send([MESSAGE]))
    await asyncio.sleep(1)

    assert crashed == [True]
    assert not task.done()
    task.cancel()
    with pytest.raises(WorkerCrashedError):
        await store.send([MESSAGE])
    assert _stored(account) == 0


@pytest.mark.simulated
async def test_lock_call_that_fails_after_its_effect_gives_back_what_it_locked() -> None:
    inner, _ = _store()
    await inner.send([MESSAGE])
    store = FaultyStore(inner, FaultPlan(Random(0), at={("lock_orchestrations:after", 1): FaultKind.ERROR}))

    with pytest.raises(StoreUnavailableError):
        await store.lock_orchestrations(1, wait=timedelta(0), cache=_Nothing())

    assert len(await store.lock_orchestrations(1, wait=timedelta(0), cache=_Nothing())) == 1


@pytest.mark.simulated
async def test_stalled_store_answers_when_the_stall_is_over() -> None:
    inner, _ = _store()
    store = FaultyStore(inner, FaultPlan(Random(0)))
    store.stalled_until = 50.0

    await store.send([MESSAGE])

    assert asyncio.get_running_loop().time() == 50.0


@pytest.mark.simulated
async def test_observer_hears_the_true_result_of_a_call_that_seems_to_fail() -> None:
    inner, _ = _store()
    calls: list[StoreCall] = []
    plan = FaultPlan(Random(0), at={("get_instance:after", 1): FaultKind.ERROR})
    store = FaultyStore(inner, plan, observe=calls.append)

    with pytest.raises(StoreUnavailableError):
        await store.get_instance(InstanceId("i"))

    assert [(call.method, call.error) for call in calls] == [("get_instance", None)]


def test_same_seed_strikes_at_the_same_passes() -> None:
    def strikes() -> list[FaultKind | None]:
        plan = FaultPlan(Random(3), rates=Rates(error=0.2, crash=0.2))
        return [plan.strike("commit:before") for _ in range(50)]

    assert strikes() == strikes()
    assert set(strikes()) == {None, FaultKind.ERROR, FaultKind.CRASH}


def test_plan_counts_passes_and_hits_and_strikes_nothing_while_disabled() -> None:
    plan = FaultPlan(Random(0), points={"commit:before": Rates(error=1.0)})

    plan.strike("commit:before")
    plan.strike("commit:after")
    plan.enabled = False
    plan.strike("commit:before")

    assert plan.passes == {"commit:before": 2, "commit:after": 1}
    assert plan.hits == {("commit:before", FaultKind.ERROR): 1}


def test_a_point_may_be_struck_more_often_than_the_others() -> None:
    plan = FaultPlan(Random(0), rates=Rates(error=0.1))
    plan.weigh("seldom", 0.0)
    plan.weigh("often", 20.0)

    assert [plan.strike(point) for point in ("seldom", "often")] == [None, FaultKind.ERROR]


class _Nothing:
    def holds(self, instance_id: object, version: object) -> bool:
        return False
