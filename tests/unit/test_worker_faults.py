"""Faults of our own and of stores: no worker ends by them, no result and no lease is lost, none is met for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from durable_host.engine.committer import GroupCommit
from durable_host.engine.leases import LeaseKeeper
from durable_host.errors import StoreUnavailableError
from durable_host.model.history import TaskCompleted
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome, Lease
from durable_host.telemetry.metrics import Metrics
from durable_host.testing.environment import simulated_environment
from tests.unit.one_activity import App

pytestmark = pytest.mark.simulated
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def test_only_the_culprit_of_a_batch_fails() -> None:
    batches: list[Sequence[int]] = []

    async def write(items: Sequence[int]) -> Sequence[CommitOutcome]:
        batches.append(items)
        if 3 in items:
            raise ValueError("three cannot be written")
        return [CommitOutcome.COMMITTED] * len(items)

    commits: GroupCommit[int] = GroupCommit(write, batch=10, concurrency=1)
    outcomes = await asyncio.gather(*(commits.put(item) for item in range(5)), return_exceptions=True)

    assert [str(each) for each in outcomes if isinstance(each, Exception)] == ["three cannot be written"]
    assert outcomes.count(CommitOutcome.COMMITTED) == 4
    assert sorted(map(len, batches)) == [1, 1, 1, 1, 1, 5]


async def test_a_store_that_fails_is_not_asked_again_item_by_item() -> None:
    batches: list[Sequence[int]] = []

    async def write(items: Sequence[int]) -> Sequence[CommitOutcome]:
        batches.append(items)
        raise StoreUnavailableError("gone")

    commits: GroupCommit[int] = GroupCommit(write, batch=10, concurrency=1)
    outcomes = await asyncio.gather(*(commits.put(item) for item in range(3)), return_exceptions=True)

    assert all(isinstance(each, StoreUnavailableError) for each in outcomes)
    assert len(batches) == 1


async def test_instance_whose_checkpoint_cannot_be_written_is_quarantined_and_its_neighbours_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker()
    original = worker.store.commit

    async def commit(checkpoints: Any) -> Any:
        if any(each.lease.key == "bad" for each in checkpoints):
            raise ValueError("this cannot be written")
        return await original(checkpoints)

    monkeypatch.setattr(worker.store, "commit", commit)
    async with worker:
        for name in ("good", "bad", "fine"):
            await worker.client.start("once", 1, instance_id=name)
        assert await worker.client.result("good", timeout=MINUTE) == 1
        assert await worker.client.result("fine", timeout=MINUTE) == 1
        state = await worker.client.wait_for_completion("bad", timeout=HOUR)
        problem = worker.problem

    assert state.status is RuntimeStatus.FAILED
    assert "this cannot be written" in (state.quarantined or "")
    assert problem is None


async def test_result_of_an_activity_survives_a_checkpoint_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker()
    original = worker.store.commit
    refused = 0

    async def commit(checkpoints: Any) -> Any:
        nonlocal refused
        if any(each.completed for each in checkpoints) and not refused:
            refused += 1
            raise ValueError("this cannot be written")
        return await original(checkpoints)

    monkeypatch.setattr(worker.store, "commit", commit)
    async with worker:
        instance = await worker.client.start("once", 1)
        assert await worker.client.result(instance, timeout=HOUR) == 1

    assert refused == 1
    assert app.calls == [1]


async def test_result_that_cannot_be_stored_fails_the_call_instead_of_running_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker(hold_idle=timedelta(seconds=1))
    original = worker.store.complete_activities

    async def complete(completions: Any) -> Any:
        if any(isinstance(each.reply.event, TaskCompleted) for each in completions):
            raise ValueError("no such letter")
        return await original(completions)

    monkeypatch.setattr(worker.store, "complete_activities", complete)
    async with worker:
        state = await worker.client.wait_for_completion(await worker.client.start("once", 60), timeout=HOUR)
        problem = worker.problem

    assert state.status is RuntimeStatus.FAILED
    assert "could not be stored: ValueError: no such letter" in (state.output or "")
    assert app.calls == [60]
    assert problem is None


async def test_results_that_wait_for_a_commit_go_to_the_store_when_the_worker_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker(drain=timedelta(seconds=5))
    original = worker.store.commit

    async def commit(checkpoints: Any) -> Any:
        if any(each.completed for each in checkpoints):
            await asyncio.sleep(60)
            raise StoreUnavailableError("gone")
        return await original(checkpoints)

    monkeypatch.setattr(worker.store, "commit", commit)
    async with worker:
        instance = await worker.client.start("once", 1)
        await asyncio.sleep(10)
    async with app.worker() as successor:
        assert await successor.client.result(instance, timeout=HOUR) == 1

    assert app.calls == [1]


async def test_worker_goes_on_fetching_after_any_failure_of_a_lock_call(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    worker = app.worker()
    original = worker.store.lock_activities
    failures = iter([ValueError("a stored task cannot be read"), StoreUnavailableError("gone")])

    async def lock(limit: int, *, wait: timedelta) -> Any:
        for failure in failures:
            raise failure
        return await original(limit, wait=wait)

    monkeypatch.setattr(worker.store, "lock_activities", lock)
    async with worker:
        await asyncio.sleep(0.01)
        assert str(worker.problem) == "a stored task cannot be read"
        assert await worker.client.result(await worker.client.start("once", 1), timeout=MINUTE) == 1
        assert worker.problem is None


@pytest.mark.parametrize("failure", [StoreUnavailableError("gone"), RuntimeError("a bug of ours")])
async def test_leases_are_renewed_again_after_any_failure(failure: Exception) -> None:
    environment = simulated_environment()
    renewals = 0

    async def renew(leases: Sequence[Lease]) -> Sequence[Lease | None]:
        nonlocal renewals
        renewals += 1
        if renewals == 1:
            raise failure
        return leases

    keeper = LeaseKeeper(renew, clock=environment.clock, watchdog=MINUTE, metrics=Metrics(), thread=False)
    keeper.start()
    held = keeper.hold(Lease("key", "token", timedelta(seconds=30)))
    await asyncio.sleep(25)
    await keeper.stop()

    assert renewals == 3  # refused when a third was left, repeated with the next tick, due again ten seconds later
    assert not held.lost


async def test_lease_that_was_lost_is_told_once_and_another_grant_of_its_key_lives_on() -> None:
    environment = simulated_environment()
    told: list[str] = []

    async def renew(leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return [None if lease.token == "old" else lease for lease in leases]

    keeper = LeaseKeeper(renew, clock=environment.clock, watchdog=MINUTE, metrics=Metrics(), thread=False)
    keeper.start()
    old = keeper.hold(Lease("key", "old", timedelta(seconds=30)), lambda: told.append("old"))
    new = keeper.hold(Lease("key", "new", timedelta(seconds=30)), lambda: told.append("new"))
    await asyncio.sleep(60)
    keeper.release(old)
    await asyncio.sleep(60)
    await keeper.stop()

    assert told == ["old"]
    assert old.lost
    assert not new.lost
