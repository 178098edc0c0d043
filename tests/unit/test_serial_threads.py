"""A serial thread keeps the order of its jobs, on real threads and on the simulated loop."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from durable_host.environment import SystemThreads, Threads
from durable_host.testing.environment import InlineThreads


async def _order(threads: Threads) -> list[int]:
    thread = threads.serial("test")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    order: list[int] = []

    def finish() -> None:
        loop.call_soon_threadsafe(done.set_result, None)

    for number in range(20):
        thread.submit(partial(order.append, number))
    thread.submit(finish)
    await done
    thread.close()
    thread.close()
    with pytest.raises(RuntimeError, match="'test' is closed"):
        thread.submit(finish)
    return order


async def test_system_thread_runs_jobs_in_order() -> None:
    assert await _order(SystemThreads()) == list(range(20))


@pytest.mark.simulated(seed=7)
async def test_simulated_thread_runs_jobs_in_order_on_the_loops_thread() -> None:
    assert await _order(InlineThreads()) == list(range(20))


async def test_system_thread_is_another_thread() -> None:
    thread = SystemThreads().serial("test")
    done = threading.Event()
    names: list[str] = []

    thread.submit(lambda: names.append(threading.current_thread().name))
    thread.submit(done.set)
    await asyncio.to_thread(done.wait)

    thread.close()
    assert names == ["test"]


async def _ticks(threads: Threads) -> int:
    thread = threads.serial("test")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    ticks: list[None] = []

    def tick() -> None:
        ticks.append(None)
        if len(ticks) == 3:
            thread.when_idle(None, 0.0)
            loop.call_soon_threadsafe(done.set_result, None)

    thread.submit(lambda: thread.when_idle(tick, 0.001))
    await done
    await asyncio.sleep(0.01)
    thread.close()
    return len(ticks)


async def test_idle_system_thread_ticks_until_it_is_told_not_to() -> None:
    assert await _ticks(SystemThreads()) == 3


@pytest.mark.simulated
async def test_idle_simulated_thread_ticks_until_it_is_told_not_to() -> None:
    assert await _ticks(InlineThreads()) == 3
