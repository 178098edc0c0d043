"""Time, ids and threads of a simulated process."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durable_host.testing.environment import START, SeededIds, SimulatedClock, simulated_environment

SECOND = timedelta(seconds=1)


@pytest.mark.simulated
async def test_the_clock_follows_the_loops_time() -> None:
    clock = SimulatedClock()

    await asyncio.sleep(90)

    assert (clock.now(), clock.monotonic()) == (START + 90 * SECOND, 90)


@pytest.mark.simulated
async def test_a_step_of_the_wall_clock_leaves_elapsed_time_alone() -> None:
    clock = SimulatedClock(skew=10 * SECOND)

    clock.step(-60 * SECOND)

    assert (clock.now(), clock.monotonic()) == (START - 50 * SECOND, 0)


def test_a_clock_may_be_moved_by_hand_and_never_back() -> None:
    clock = SimulatedClock(lambda: 5.0)

    clock.advance(3 * SECOND)

    assert (clock.now(), clock.monotonic()) == (START + 8 * SECOND, 8)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-SECOND)


@pytest.mark.simulated
async def test_two_processes_on_one_loop_have_clocks_of_their_own() -> None:
    one, other = simulated_environment("one"), simulated_environment("other", skew=5 * SECOND)

    assert other.clock.now() - one.clock.now() == 5 * SECOND
    assert one.ids.new_id() != other.ids.new_id()


def test_ids_are_drawn_from_the_seed() -> None:
    first, again, other = SeededIds(1), SeededIds(1), SeededIds(2)

    drawn = [first.new_id() for _ in range(100)]

    assert drawn == [again.new_id() for _ in range(100)]
    assert other.new_id() not in drawn
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in drawn)
    assert (len(first.token(7)), 0 <= first.uniform() < 1) == (7, True)


@pytest.mark.simulated
async def test_blocking_work_runs_on_the_loop() -> None:
    threads = simulated_environment().threads

    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)
