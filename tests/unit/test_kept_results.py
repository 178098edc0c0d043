"""Results that the store cannot take now: kept and sent again, so that no activity runs a second time for nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.storage.contract import Lease
from tests.unit.one_activity import App

pytestmark = pytest.mark.simulated
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


class Outage:
    """Lets calls of a store fail until it is over; counts them.

    Args:
        late: they have their effect, and fail nevertheless.
    """

    def __init__(self, end: float, *, late: bool = False) -> None:
        self.failed = 0
        self._end = end
        self._late = late

    def strike(self, call: Any) -> Any:
        async def struck(items: Any) -> Any:
            out = asyncio.get_running_loop().time() < self._end
            outcomes = await call(items) if not out or self._late else ()
            if out:
                self.failed += 1
                raise StoreUnavailableError("gone")
            return outcomes

        return struck


@pytest.mark.parametrize("late", [False, True])
async def test_result_waits_for_the_end_of_an_outage_while_its_activity_is_held(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    app = App()
    worker = app.worker(hold_idle=timedelta(seconds=1))
    outage = Outage(400, late=late)
    monkeypatch.setattr(worker.store, "complete_activities", outage.strike(worker.store.complete_activities))
    async with worker:
        instance = await worker.client.start("once", 60)
        assert await worker.client.result(instance, timeout=HOUR) == 60
        await asyncio.sleep(60)
        idle = worker.idle

    assert outage.failed > (0 if late else 30)
    assert app.calls == [60]
    assert idle


async def test_result_of_a_checkpoint_that_an_outage_keeps_away_is_kept_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker()
    outage = Outage(200)
    original = worker.store.commit
    strike = outage.strike(original)

    async def commit(checkpoints: Any) -> Any:
        return await (strike if any(each.completed for each in checkpoints) else original)(checkpoints)

    monkeypatch.setattr(worker.store, "commit", commit)
    monkeypatch.setattr(worker.store, "complete_activities", outage.strike(worker.store.complete_activities))
    async with worker:
        instance = await worker.client.start("once", 1)
        assert await worker.client.result(instance, timeout=HOUR) == 1

    assert outage.failed > 10
    assert app.calls == [1]


async def test_result_that_cannot_be_sent_is_given_up_when_its_activity_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    worker = app.worker(hold_idle=timedelta(seconds=1))
    outage = Outage(200)
    original = worker.store.renew

    async def renew(leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return [None for _ in leases] if asyncio.get_running_loop().time() > 100 else await original(leases)

    monkeypatch.setattr(worker.store, "renew", renew)
    monkeypatch.setattr(worker.store, "complete_activities", outage.strike(worker.store.complete_activities))
    async with worker:
        await worker.client.start("once", 60)
        await asyncio.sleep(125)
        before = outage.failed
        await asyncio.sleep(30)

    assert 0 < outage.failed == before


async def test_worker_stops_although_a_result_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    worker = app.worker(hold_idle=timedelta(seconds=1), drain=timedelta(seconds=5))
    outage = Outage(10_000)
    monkeypatch.setattr(worker.store, "complete_activities", outage.strike(worker.store.complete_activities))
    async with worker:
        instance = await worker.client.start("once", 60)
        await asyncio.sleep(100)
    async with app.worker() as successor:
        assert await successor.client.result(instance, timeout=HOUR) == 60

    assert app.calls == [60, 60]


@pytest.mark.parametrize("folded", [True, False], ids=["with its instance", "by itself"])
async def test_result_that_is_being_written_when_the_worker_stops_is_written(
    monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    app = App()
    worker = app.worker(hold_idle=timedelta(hours=1 if folded else 0, seconds=1), drain=timedelta(0))
    call = "commit" if folded else "complete_activities"
    write = getattr(worker.store, call)

    async def slowly(items: Any) -> Any:
        await asyncio.sleep(1)
        return await write(items)

    monkeypatch.setattr(worker.store, call, slowly)
    async with worker:
        instance = await worker.client.start("once", 60)
        await asyncio.sleep(62.5 if folded else 60.5)
    async with app.worker() as successor:
        assert await successor.client.result(instance, timeout=HOUR) == 60

    assert app.calls == [60]
