"""SimulatedLoop: virtual time, seeded order, deadlocks, and the private members of asyncio it leans on."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from durable_host.testing.loop import DeadlockError, SimulatedLoop, run_simulated


async def _order(tasks: int = 8) -> list[int]:
    seen: list[int] = []

    async def work(number: int) -> None:
        for _ in range(3):
            seen.append(number)
            await asyncio.sleep(number % 2)

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
    return seen


def test_a_week_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(7 * 24 * 3600)
        return asyncio.get_running_loop().time()

    assert run_simulated(main()) == 7 * 24 * 3600


def test_time_far_from_zero_still_reaches_its_timers() -> None:
    async def main() -> int:
        await asyncio.sleep(1e9)
        for _ in range(100):
            await asyncio.sleep(0.1)
        return round(asyncio.get_running_loop().time())

    assert run_simulated(main()) == 10**9 + 10


def test_same_seed_same_order() -> None:
    assert run_simulated(_order(), seed=5) == run_simulated(_order(), seed=5)


def test_other_seeds_give_other_orders() -> None:
    assert len({tuple(run_simulated(_order(), seed=seed)) for seed in range(10)}) > 5


def test_without_a_seed_the_order_is_that_of_asyncio() -> None:
    assert run_simulated(_order(4), seed=None)[:4] == [0, 1, 2, 3]


def test_timers_due_at_one_instant_are_shuffled_too() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        for number in range(6):
            loop.call_at(1.0, seen.append, number)
        await asyncio.sleep(2)
        return seen

    orders = [run_simulated(main(), seed=seed) for seed in range(5)]

    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_a_deadlock_is_an_error_with_the_stacks_of_all_tasks() -> None:
    async def stuck_on_purpose() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="stuck_on_purpose"):
        run_simulated(stuck_on_purpose())


def test_a_livelock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable_host.testing.loop._LIVELOCK", 100)

    async def spin() -> None:
        for _ in range(1_000):
            await asyncio.sleep(0)

    with pytest.raises(DeadlockError, match="time stands still"):
        run_simulated(spin())


def test_blocking_work_runs_on_the_loops_own_thread() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def main() -> tuple[int, bool]:
        variable.set(7)
        seen = await asyncio.to_thread(variable.get)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return seen, asyncio.get_running_loop().time() == 0

    assert run_simulated(main()) == (7, True)


def test_a_timeout_interrupts_on_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return asyncio.get_running_loop().time()

    assert run_simulated(main()) == 30


def test_private_members_of_asyncio_are_where_the_loop_expects_them() -> None:
    loop = asyncio.BaseEventLoop()
    try:
        handle = loop.call_at(loop.time() + 60, print)
        assert vars(loop)["_scheduled"] == [handle]
        assert not vars(loop)["_ready"]
        used = set(vars(asyncio.BaseEventLoop)["_run_once"].__code__.co_names)
        assert used >= {
            "_selector",
            "_process_events",
            "_ready",
            "_scheduled",
            "_clock_resolution",
            "popleft",
            "select",
        }
    finally:
        loop.close()


def test_sockets_are_refused() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises((NotImplementedError, AttributeError)):
        run_simulated(main())


@pytest.mark.simulated(seed=3)
async def test_marked_tests_run_on_the_simulated_loop() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    assert loop.seed == 3


@pytest.mark.simulated
@pytest.mark.parametrize("seed", [11, 12])
async def test_the_seed_may_be_a_parameter(seed: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    assert loop.seed == seed


async def test_unmarked_tests_run_on_a_real_loop() -> None:
    assert not isinstance(asyncio.get_running_loop(), SimulatedLoop)
