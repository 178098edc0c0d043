from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.tasks import Task
from durable_host.model.actions import CreateTimer, ScheduleActivity
from tests.unit.scripted import BEGINNING, Script

Code = Generator[Task[Any], Any, Any]
DAY = timedelta(days=1)


def sleep(until: Any) -> Any:
    def code(context: Context) -> Code:
        yield context.create_timer(until)
        return "awake"

    return code


@pytest.mark.parametrize(
    ("given", "due"),
    [
        (datetime(2026, 1, 1, 5), datetime(2026, 1, 1, 5, tzinfo=UTC)),  # noqa: DTZ001 - naive means UTC
        (datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 1, 1, 3, tzinfo=UTC)),
        (timedelta(hours=1), BEGINNING + timedelta(hours=1)),
        (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)),
        (6 * DAY, BEGINNING + 6 * DAY),
        (6 * DAY + timedelta(microseconds=1), BEGINNING + 3 * DAY),
        (datetime.max.replace(tzinfo=UTC), BEGINNING + 3 * DAY),
        (timedelta.max, BEGINNING + 3 * DAY),
    ],
)
def test_a_timer_is_due_at_an_aware_instant_six_days_ahead_at_most(given: Any, due: datetime) -> None:
    assert Script(sleep(given)).actions == [CreateTimer(0, due)]


def test_something_else_than_a_time_is_refused() -> None:
    assert "datetime" in Script(sleep(5)).failure.message


def test_ten_days_are_four_links_counted_from_the_time_each_is_set() -> None:
    script = Script(sleep(10 * DAY))
    late = timedelta(hours=1)
    assert script.actions == [CreateTimer(0, BEGINNING + 3 * DAY)]
    assert script.step(script.fired(0), after=3 * DAY + late) == [CreateTimer(1, BEGINNING + 6 * DAY + late)]
    assert script.step(script.fired(1), after=3 * DAY) == [CreateTimer(2, BEGINNING + 9 * DAY + late)]
    assert script.step(script.fired(2), after=3 * DAY) == [CreateTimer(3, BEGINNING + 10 * DAY)]
    script.step(script.fired(3), after=DAY)

    assert script.output == "awake"


def test_the_last_link_ends_the_wait_even_when_it_fires_early() -> None:
    script = Script(sleep(timedelta(hours=1)))
    script.step(script.fired(0), after=timedelta(minutes=59))
    assert script.output == "awake"

    script = Script(sleep(7 * DAY))
    script.step(script.fired(0), after=3 * DAY)
    script.step(script.fired(1), after=3 * DAY)
    script.step(script.fired(2), after=DAY - timedelta(seconds=1))
    assert script.output == "awake"


def test_a_link_that_fires_after_the_final_time_is_followed_by_one_due_at_it() -> None:
    script = Script(sleep(7 * DAY))

    assert script.step(script.fired(0), after=30 * DAY) == [CreateTimer(1, BEGINNING + 7 * DAY)]


def test_a_chain_is_cancelled_whole() -> None:
    def code(context: Context) -> Code:
        timer = context.create_timer(10 * DAY)
        yield context.wait_for_external_event("go")
        timer.cancel()
        assert timer.is_cancelled
        return "cancelled"

    script = Script(code)
    script.step(script.fired(0), after=3 * DAY)
    script.raise_event("go")

    assert script.output == "cancelled"


def test_a_cancelled_timer_that_fires_later_is_ignored() -> None:
    def code(context: Context) -> Code:
        timer = context.create_timer(timedelta(hours=1))
        first = yield context.task_any([timer, context.wait_for_external_event("go")])
        assert first is not timer
        timer.cancel()
        return (yield context.call_activity("a"))

    script = Script(code)
    assert script.raise_event("go") == [ScheduleActivity(1, "a")]
    assert script.fire(0) == []
    script.complete(1, "done")

    assert script.output == "done"


def test_cancelling_a_timer_that_has_fired_is_harmless() -> None:
    def code(context: Context) -> Code:
        timer = context.create_timer(timedelta(hours=1))
        yield timer
        timer.cancel()
        return timer.is_cancelled

    script = Script(code)
    script.fire(0)

    assert script.output is False
