"""Lock calls that wait, and what is handed out to them."""

from __future__ import annotations

import asyncio

import pytest

from durable_host_providers.postgres.desk import Desk

pytestmark = pytest.mark.simulated


def desk(surplus: int = 0) -> tuple[Desk[str], list[str]]:
    given_back: list[str] = []
    return Desk(given_back.extend, surplus=surplus), given_back


async def test_room_is_what_waits_beside_what_is_promised() -> None:
    counter, _ = desk()
    counter.wait(3)
    counter.wait(2)

    assert counter.room == 5
    assert counter.reserve(4) == 4
    assert counter.room == 1
    assert counter.reserve(4) == 1
    assert counter.reserve(4) == 0


async def test_nothing_is_promised_while_nobody_waits() -> None:
    counter, _ = desk()
    gone = counter.wait(3)
    counter.leave(gone)

    assert not counter
    assert counter.reserve(1) == 0


async def test_items_go_to_the_oldest_call_up_to_its_limit() -> None:
    counter, _ = desk()
    first, second = counter.wait(2), counter.wait(2)
    reserved = counter.reserve(3)
    counter.settle(reserved, ["a", "b", "c"])

    assert (first.future.result(), second.future.result()) == (["a", "b"], ["c"])


async def test_what_comes_too_late_for_a_call_goes_to_the_next_one() -> None:
    counter, given_back = desk()
    waiting = counter.wait(2)
    one, other = counter.reserve(1), counter.reserve(1)
    counter.settle(one, ["a"])
    counter.settle(other, ["b"])

    assert waiting.future.result() == ["a"]
    assert counter.wait(2).future.result() == ["b"]
    await asyncio.sleep(1)
    assert given_back == []


async def test_what_nobody_asks_for_is_given_back() -> None:
    counter, given_back = desk()
    waiting = counter.wait(2)
    reserved = counter.reserve(2)
    counter.leave(waiting)
    counter.settle(reserved, ["a"])
    await asyncio.sleep(1)

    assert given_back == ["a"]
    assert counter.room == 0


async def test_what_a_cancelled_call_was_given_is_given_back() -> None:
    counter, given_back = desk()
    waiting = counter.wait(1)
    counter.put(["a"])
    counter.leave(waiting)

    assert given_back == ["a"]


async def test_closing_answers_who_waits_and_tells_what_is_left() -> None:
    counter, _ = desk()
    counter.put(["a"])
    assert counter.close() == ["a"]
    waiting = counter.wait(1)
    assert counter.close() == []

    assert waiting.future.result() == ()


async def test_a_failure_reaches_all_who_wait() -> None:
    counter, _ = desk()
    calls = [counter.wait(1), counter.wait(1)]
    counter.fail(OSError("gone"))

    for call in calls:
        with pytest.raises(OSError, match="gone"):
            await call.future


async def _take(counter: Desk[str], items: int, *, each: float) -> None:
    """Calls that take one item after the other, so many seconds apart."""
    for _ in range(items):
        waiting = counter.wait(1)
        counter.settle(counter.reserve(1), ["fast"])
        assert waiting.future.done()
        await asyncio.sleep(each)


async def test_where_items_are_taken_fast_more_is_locked_than_calls_wait_for() -> None:
    counter, given_back = desk(surplus=32)
    await _take(counter, 40, each=0.001)

    promised = counter.reserve(100, surplus=True)
    assert 5 <= promised <= 10
    assert counter.reserve(100, surplus=True) == 0
    assert counter.reserve(100) == 0
    counter.settle(promised, [str(number) for number in range(promised)])

    assert counter.wait(promised).future.result() == [str(number) for number in range(promised)]
    assert given_back == []


async def test_where_items_are_taken_slowly_or_not_at_all_nothing_is_locked_for_later() -> None:
    counter, _ = desk(surplus=32)
    assert counter.reserve(100, surplus=True) == 0
    await _take(counter, 10, each=0.2)
    assert counter.reserve(100, surplus=True) == 0
    await _take(counter, 40, each=0.001)
    await asyncio.sleep(5)
    assert counter.reserve(100, surplus=True) == 0


async def test_the_surplus_has_a_limit() -> None:
    counter, _ = desk(surplus=3)
    await _take(counter, 100, each=0.0005)

    assert counter.reserve(100, surplus=True) == 3


async def test_what_came_a_moment_later_waits_a_moment_longer() -> None:
    counter, given_back = desk()
    counter.put(["old", "older"])
    await asyncio.sleep(0.015)
    counter.put(["new"])
    assert counter.wait(1).future.result() == ["old"]
    await asyncio.sleep(0.010)
    assert given_back == ["older"]
    await asyncio.sleep(0.010)
    assert given_back == ["older"]
    await asyncio.sleep(0.010)

    assert given_back == ["older", "new"]


async def test_each_call_is_answered_with_nothing_when_its_time_is_over() -> None:
    counter, _ = desk()
    loop = asyncio.get_running_loop()
    began = loop.time()
    ended: dict[float, float] = {}

    async def call(seconds: float) -> None:
        waiting = counter.wait(1)
        counter.limit(waiting, seconds)
        assert await waiting.future == ()
        ended[seconds] = loop.time() - began

    await asyncio.gather(*(call(seconds) for seconds in (30.0, 2.0, 7.0)))

    assert ended == {seconds: pytest.approx(seconds, abs=0.01) for seconds in (2.0, 7.0, 30.0)}
    assert not counter


async def test_a_call_after_others_are_over_has_its_own_time() -> None:
    counter, _ = desk()
    first = counter.wait(1)
    counter.limit(first, 5)
    counter.put(["a"])
    await asyncio.sleep(3)
    second = counter.wait(1)
    counter.limit(second, 5)
    await asyncio.sleep(4)
    assert not second.future.done()
    await asyncio.sleep(2)

    assert (first.future.result(), second.future.result()) == (["a"], ())
