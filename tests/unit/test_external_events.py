from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.external_events import ExternalEvents
from durable_host.engine.tasks import Task
from durable_host.errors import PayloadError, WaitTimeoutError
from durable_host.model.actions import CreateTimer
from durable_host.model.history import EventRaised
from tests.unit.scripted import BEGINNING, Script

Code = Generator[Task[Any], Any, Any]
HOUR = timedelta(hours=1)


def test_events_before_the_wait_are_kept_in_order_and_each_goes_to_one_wait() -> None:
    def code(context: Context) -> Code:
        yield context.call_activity("a")
        return [(yield context.wait_for_external_event("n")), (yield context.wait_for_external_event("n"))]

    script = Script(code)
    script.raise_event("n", 1)
    script.raise_event("n", 2)
    script.complete(0)

    assert script.output == [1, 2]


def test_open_waits_are_served_oldest_first() -> None:
    def code(context: Context) -> Code:
        return (yield context.task_all([context.wait_for_external_event("n") for _ in range(3)]))

    script = Script(code)
    script.step(script.raised("n", 1), script.raised("n", 2))
    script.raise_event("n", 3)

    assert script.output == [1, 2, 3]


def test_names_compare_without_case() -> None:
    def code(context: Context) -> Code:
        return (yield context.wait_for_external_event("Approval"))

    script = Script(code)
    script.raise_event("APPROVAL", "yes")

    assert script.output == "yes"


def test_waiting_takes_no_action_id() -> None:
    def code(context: Context) -> Code:
        context.wait_for_external_event("a")
        yield context.call_activity("b")

    assert [action.id for action in Script(code).actions if not isinstance(action, CreateTimer)] == [0]  # type: ignore[union-attr]


def test_data_takes_the_shape_that_is_asked_for() -> None:
    def code(context: Context) -> Code:
        try:
            return (yield context.wait_for_external_event("n", int))
        except PayloadError as error:
            return str(error)

    script = Script(code)
    script.raise_event("n", "x")
    assert script.output == "The data of event 'n' does not fit: $: Expected `int`, got `str`, as int wants it"
    script = Script(code)
    script.raise_event("n", 5)
    assert script.output == 5


def timed(**more: Any) -> Any:
    def code(context: Context) -> Code:
        try:
            first = yield context.wait_for_external_event("go", timeout=HOUR, **more)
        except WaitTimeoutError as error:
            first = str(error)
        return [first, (yield context.wait_for_external_event("go"))]

    return code


def test_a_timeout_is_a_timer_that_is_given_up_when_the_event_wins() -> None:
    script = Script(timed())
    assert script.actions == [CreateTimer(0, BEGINNING + HOUR)]
    script.raise_event("go", 1)
    script.fire(0)
    script.raise_event("go", 2)

    assert script.output == [1, 2]


def test_after_the_timeout_the_event_goes_to_the_next_wait() -> None:
    script = Script(timed())
    script.fire(0)
    script.raise_event("go", "late")

    assert script.output == ["No event 'go' arrived within 1:00:00.", "late"]


def test_a_default_stands_in_for_the_event_also_none() -> None:
    script = Script(timed(default="nobody"))
    script.fire(0)
    script.raise_event("go")
    assert script.output == ["nobody", None]

    script = Script(timed(default=None))
    script.fire(0)
    script.raise_event("go", 1)
    assert script.output == [None, 1]


def test_the_timer_is_asked_for_even_when_the_event_is_here() -> None:
    def code(context: Context) -> Code:
        yield context.call_activity("a")
        return (yield context.wait_for_external_event("go", timeout=HOUR))

    script = Script(code)
    script.raise_event("go", 1)
    assert isinstance(script.complete(0)[0], CreateTimer)

    assert script.output == 1


def test_a_default_without_a_timeout_is_refused() -> None:
    def code(context: Context) -> Code:
        yield context.wait_for_external_event("go", default=1)  # pyright: ignore[reportCallIssue]

    assert "needs a timeout" in Script(code).failure.message


def test_a_withdrawn_wait_takes_no_event() -> None:
    def code(context: Context) -> Code:
        first = context.wait_for_external_event("go", timeout=HOUR)
        second = context.wait_for_external_event("go")
        first.cancel()
        first.cancel()
        return (yield second)

    script = Script(code)
    script.raise_event("go", 1)

    assert script.output == 1


def test_a_wait_that_is_over_can_be_cancelled() -> None:
    def code(context: Context) -> Code:
        event = context.wait_for_external_event("go")
        yield event
        event.cancel()
        return (yield event)

    script = Script(code)
    script.raise_event("go", 1)

    assert script.output == 1


class Taker:
    def __init__(self) -> None:
        self.taken: list[str | None] = []

    def on_event(self, text: str | None) -> None:
        self.taken.append(text)


def test_many_waits_and_withdrawals_leave_nothing_behind() -> None:
    events = ExternalEvents()
    keeper = Taker()
    for _ in range(1000):
        taker = Taker()
        events.wait("n", taker)
        events.withdraw("N", taker)
        events.withdraw("N", taker)
    events.wait("n", keeper)
    events.deliver(EventRaised(timestamp=BEGINNING, name="n", input="1"))
    events.deliver(EventRaised(timestamp=BEGINNING, name="n", input="2"))

    assert keeper.taken == ["1"]
    assert [event.input for event in events.unprocessed()] == ["2"]
