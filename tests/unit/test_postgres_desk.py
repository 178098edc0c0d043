"""Lock calls that wait, and what is handed out to them."""

from __future__ import annotations

import asyncio

import pytest

from durable_host_providers.postgres.desk import Desk

pytestmark = pytest.mark.simulated


def desk() -> tuple[Desk[str], list[str]]:
    given_back: list[str] = []
    return Desk(given_back.extend), given_back


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
