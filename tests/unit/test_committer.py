"""Group commit: every item is written, everybody hears of his own, whoever is cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from durable_host.engine.committer import GroupCommit
from durable_host.storage.contract import CommitOutcome


class Recorder:
    """Writes items slowly: even ones are committed, odd ones have lost their lease."""

    def __init__(self, *, batch: int = 4, concurrency: int = 2) -> None:
        self.batches: list[list[int]] = []
        self.written: set[int] = set()
        self.concurrency = concurrency
        self._batch = batch
        self._running = 0

    async def __call__(self, items: Sequence[int]) -> Sequence[CommitOutcome]:
        self._running += 1
        try:
            assert 0 < len(items) <= self._batch
            assert self._running <= self.concurrency
            self.batches.append(list(items))
            await asyncio.sleep(0.01)
            self.written.update(items)
            return [outcome_of(item) for item in items]
        finally:
            self._running -= 1

    def commits(self, patience: timedelta = timedelta(0)) -> GroupCommit[int]:
        return GroupCommit(self, batch=self._batch, concurrency=self.concurrency, patience=patience)


def outcome_of(item: int) -> CommitOutcome:
    return CommitOutcome.LEASE_LOST if item % 2 else CommitOutcome.COMMITTED


@pytest.mark.simulated
async def test_what_becomes_ready_in_one_turn_shares_a_write_and_what_comes_later_the_next() -> None:
    write = Recorder(batch=10, concurrency=1)
    commits = write.commits()
    first = asyncio.gather(*(commits.put(item) for item in range(3)))
    await asyncio.sleep(0.005)
    later = asyncio.gather(*(commits.put(item) for item in range(3, 6)))

    assert [*await first, *await later] == [outcome_of(item) for item in range(6)]
    assert [sorted(batch) for batch in write.batches] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.simulated
async def test_an_item_that_is_alone_is_written_at_once() -> None:
    write = Recorder()
    task = asyncio.ensure_future(write.commits().put(2, alone=True))
    await asyncio.sleep(0)

    assert write.batches == [[2]]
    assert await task is CommitOutcome.COMMITTED


@pytest.mark.simulated
async def test_when_the_writer_is_cancelled_another_one_writes_the_rest_again() -> None:
    write = Recorder(batch=10, concurrency=1)
    commits = write.commits()
    tasks = [asyncio.ensure_future(commits.put(item)) for item in range(4)]
    await asyncio.sleep(0.005)
    late = asyncio.ensure_future(commits.put(8))
    await asyncio.sleep(0)
    writer = write.batches[0][0]
    tasks[writer].cancel()
    others = [item for item in range(4) if item != writer]

    outcomes = await asyncio.gather(*(tasks[item] for item in others), late)

    assert outcomes == [outcome_of(item) for item in (*others, 8)]
    assert tasks[writer].cancelled()
    assert [sorted(batch) for batch in write.batches] == [[0, 1, 2, 3], [*others, 8]]


@pytest.mark.simulated
async def test_a_second_write_begins_beside_one_that_takes_longer_than_usual() -> None:
    write = Recorder(batch=10, concurrency=2)
    commits = GroupCommit(write, batch=10, concurrency=2, patience=timedelta(milliseconds=6))
    tasks = [asyncio.ensure_future(commits.put(1))]
    for item in (2, 3, 4):
        await asyncio.sleep(0.001)
        tasks.append(asyncio.ensure_future(commits.put(item)))
    await asyncio.sleep(0.002)
    assert [sorted(batch) for batch in write.batches] == [[1]]
    await asyncio.sleep(0.0015)
    assert [sorted(batch) for batch in write.batches] == [[1], [2, 3, 4]]

    assert await asyncio.gather(*tasks) == [outcome_of(item) for item in (1, 2, 3, 4)]


@pytest.mark.simulated
@pytest.mark.parametrize("seed", range(200))
async def test_everybody_who_is_not_cancelled_hears_of_his_own_item(seed: int) -> None:
    chance = random.Random(seed)
    write = Recorder(batch=chance.randint(1, 5), concurrency=chance.randint(1, 3))
    patience = timedelta(milliseconds=chance.choice((0, 4)))
    commits = write.commits(patience)
    tasks: list[asyncio.Task[CommitOutcome]] = []
    for item in range(40):
        tasks.append(asyncio.ensure_future(commits.put(item, alone=chance.random() < 0.2)))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice((0, 0, 0.003, 0.01)))

    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    for item, outcome in enumerate(outcomes):
        assert isinstance(outcome, asyncio.CancelledError) or (outcome is outcome_of(item) and item in write.written)
    assert await commits.put(100) is CommitOutcome.COMMITTED
