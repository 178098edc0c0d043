from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID, uuid5

import pytest

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.replay import Replay
from durable_host.engine.tasks import EventTask, Task
from durable_host.engine.timers import TimerTask
from durable_host.model.actions import ScheduleActivity, SendEvent, StartChild
from durable_host.model.history import EventRaised, ExecutionStarted, ParentInstance, TaskCompleted
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.retry import RetryOptions
from tests.unit.scripted import BEGINNING, EXECUTION, INSTANCE, Script

Code = Generator[Task[Any], Any, Any]


@dataclass
class Order:
    id: UUID
    count: int = 1


def price(order: Order) -> float:
    return order.count * 1.5


async def ship(order: Order) -> datetime:
    raise NotImplementedError


def tick() -> int:
    raise NotImplementedError


def child(context: Context) -> Generator[Task[Any], Any, Order]:
    yield context.call_activity("x")
    return Order(UUID(int=1))


async def async_child(context: Context) -> Order:
    raise NotImplementedError


ORDER = Order(UUID(int=7), 2)


def test_the_context_tells_who_when_and_why() -> None:
    def code(context: Context) -> Any:
        return [
            context.instance_id,
            context.execution_id,
            context.parent_instance_id,
            context.name,
            context.version,
            dict(context.tags),
            context.input,
            context.current_utc_datetime,
            vars(context.function_context),
            context.will_continue_as_new,
        ]

    parent = ParentInstance(InstanceId("p"), ExecutionId("e"), 3)
    script = Script(code, {"a": 1}, tags={"team": "red"}, parent=parent, version="2.0")

    assert script.output == [
        INSTANCE,
        EXECUTION,
        "p",
        "Tested",
        "2.0",
        {"team": "red"},
        {"a": 1},
        "2026-01-01T00:00:00Z",
        {},
        False,
    ]


def test_tags_and_parent_are_empty_without_any() -> None:
    assert Script(lambda context: [dict(context.tags), context.parent_instance_id, context.input]).output == [
        {},
        None,
        None,
    ]


def test_the_input_takes_the_shape_that_is_asked_for() -> None:
    def code(context: Context) -> Any:
        order = context.get_input(Order)
        return [order == ORDER, context.get_input() == {"id": str(ORDER.id), "count": 2}]

    assert Script(code, ORDER).output == [True, True]


def test_an_input_that_does_not_fit_fails_the_instance() -> None:
    failure = Script(lambda context: context.get_input(int), "x").failure

    assert failure.short_type == "PayloadError"


def test_new_uuid_and_new_guid_are_those_of_the_sdk() -> None:
    def code(context: Context) -> Code:
        first = [context.new_uuid(), str(context.new_guid()), context.new_uuid()]
        yield context.call_activity("a")
        return [*first, context.new_uuid()]

    script = Script(code)
    script.complete(0)

    namespace = uuid5(UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8"), "9e952958-5e33-4daf-827f-2fa12937b875")
    url = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    assert script.output == [
        str(uuid5(namespace, "instance_2026-01-01T00:00:00.000000Z_0")),
        str(uuid5(url, "instance_2026-01-01 00:00:00+00:00_1")),
        str(uuid5(namespace, "instance_2026-01-01T00:00:00.000000Z_2")),
        str(uuid5(namespace, "instance_2026-01-01T00:00:01.000000Z_3")),
    ]
    assert all(UUID(each).version == 5 for each in script.output)


def test_a_call_by_function_takes_its_name_and_gives_its_type() -> None:
    async def code(context: Context) -> Any:
        amount = await context.call_activity(price, ORDER)
        at = await context.call_activity(ship, ORDER)
        return [type(amount).__name__, at.year]

    script = Script(code)
    assert script.actions == [ScheduleActivity(0, "price", f'{{"id":"{ORDER.id}","count":2}}')]
    assert isinstance(script.complete(0, 3)[0], ScheduleActivity)
    script.complete(1, "2026-05-05T00:00:00Z")

    assert script.output == ["float", 2026]


def test_the_result_of_a_child_by_function_is_what_it_returns() -> None:
    async def code(context: Context) -> Any:
        one = await context.call_sub_orchestrator(child)
        two = await context.call_sub_orchestrator(async_child)
        return [one == ORDER, two == ORDER]

    script = Script(code)
    assert script.actions == [StartChild(0, "child")]
    script.complete(0, ORDER)
    script.complete(1, ORDER)

    assert script.output == [True, True]


def test_a_call_by_name_gives_plain_values_or_the_expected_type() -> None:
    def code(context: Context) -> Code:
        plain = yield context.call_activity("price")
        shaped = yield context.call_activity("price", expected_type=Order)
        retried = yield context.call_activity_with_retry("price", RetryOptions(1, 1), None, Order)
        return [type(each).__name__ for each in (plain, shaped, retried)]

    script = Script(code)
    for at in range(3):
        script.complete(at, ORDER)

    assert script.output == ["dict", "Order", "Order"]


def test_tags_of_a_call_are_kept_with_the_request() -> None:
    def code(context: Context) -> Any:
        context.call_activity("a", tags={"k": "v"})
        context.call_sub_orchestrator("b", tags={"k": "w"}, version="2")

    first, second = Script(code).actions
    assert isinstance(first, ScheduleActivity)
    assert isinstance(second, StartChild)
    assert (first.tags, second.tags, second.version) == ({"k": "v"}, {"k": "w"}, "2")


def test_no_input_is_no_text() -> None:
    def code(context: Context) -> Any:
        context.call_activity("a")
        context.call_activity("a", 0)

    assert Script(code).actions == [ScheduleActivity(0, "a", None), ScheduleActivity(1, "a", "0")]


WRONG: list[Callable[[Any], Any]] = [
    lambda context: context.call_activity("a", {1}),
    lambda context: context.call_sub_orchestrator("a", float("nan")),
    lambda context: context.start_detached("a", object()),
    lambda context: context.send_event("x", "n", {1}),
    lambda context: context.map("a", [1, {2}]),
    lambda context: context.continue_as_new({1}),
    lambda context: context.set_custom_status({1}),
    lambda context: context.call_sub_orchestrator("a", instance_id="@x"),
    lambda context: context.start_detached("a", instance_id=""),
    lambda context: context.call_activity("a", retry=5),
    lambda context: context.call_activity(5),
    lambda context: context.send_event("", "n"),
    lambda context: context.send_event("no store takes \0", "n"),
    lambda context: context.map("a", [1], concurrency=0),
    lambda context: context.wait_for_external_event(""),
]


@pytest.mark.parametrize("call", WRONG)
def test_a_call_that_cannot_be_made_raises_where_it_is_made_and_takes_no_id(call: Any) -> None:
    def code(context: Context) -> Code:
        with pytest.raises((ValueError, TypeError)):
            call(context)
        yield context.call_activity("fine")

    assert Script(code).actions == [ScheduleActivity(0, "fine")]


def test_a_detached_start_gives_the_id_and_is_not_waited_for() -> None:
    def code(context: Context) -> Any:
        return [context.start_detached(child, {"a": 1}), context.start_detached("other", instance_id="chosen")]

    script = Script(code)

    assert script.actions[:2] == [
        StartChild(0, "child", '{"a":1}', detached=True),
        StartChild(1, "other", None, InstanceId("chosen"), detached=True),
    ]
    assert script.output == [f"{EXECUTION}:0", "chosen"]


def test_an_event_is_sent_to_another_instance() -> None:
    script = Script(lambda context: context.send_event("other", "hello", [1]))

    assert script.actions[0] == SendEvent(0, InstanceId("other"), "hello", "[1]")


def test_a_custom_status_shows_after_each_episode_and_can_be_cleared() -> None:
    def code(context: Context) -> Code:
        context.set_custom_status({"step": 1})
        yield context.call_activity("a")
        assert context.custom_status == {"step": 1}
        context.set_custom_status("日本")
        yield context.call_activity("b")
        context.set_custom_status(None)

    script = Script(code)
    assert script.custom_status == '{"step":1}'
    script.complete(0)
    assert script.custom_status == '"日本"'
    script.complete(1)
    assert script.custom_status == "null"
    assert Script(lambda context: None).custom_status is None


@pytest.mark.parametrize(
    ("text", "fits"), [("x" * 8190, True), ("x" * 8191, False), ("日" * 8190, True), ("😀" * 4096, False)]
)
def test_a_custom_status_has_16_kilobytes_of_utf_16(text: str, fits: bool) -> None:
    script = Script(lambda context: context.set_custom_status(text))

    if fits:
        assert script.output is None
    else:
        assert "16384 are allowed" in script.failure.message


def test_the_logger_is_silent_during_replay(caplog: pytest.LogCaptureFixture) -> None:
    def code(context: Context) -> Code:
        context.logger.info("first %s", 1)
        yield context.call_activity("a")
        context.logger.warning("second", extra={"more": 5})

    caplog.set_level(logging.INFO)
    script = Script(code)
    caplog.clear()
    replay = script.fresh()
    assert replay.episode(script.history, ()).actions == []
    assert caplog.records == []

    replay.episode((), [TaskCompleted(timestamp=script.now, task_id=0)])

    (record,) = caplog.records
    assert record.getMessage() == "second"
    assert record.name == "durable_host.orchestrators.Tested"
    assert (record.__dict__["instance_id"], record.__dict__["more"]) == (INSTANCE, 5)


def test_histories_hold_what_has_happened() -> None:
    def code(context: Context) -> Code:
        yield context.call_activity("a")
        return [type(event).__name__ for event in context.histories]

    replay = Replay(code, INSTANCE, EXECUTION, keep_histories=True)
    start = ExecutionStarted(timestamp=BEGINNING, instance_id=INSTANCE, execution_id=EXECUTION, name="Tested")
    replay.episode((), [start, EventRaised(timestamp=BEGINNING, name="x")])
    result = replay.episode((), [TaskCompleted(timestamp=BEGINNING, task_id=0)])

    assert result.actions[-1].result == '["ExecutionStarted","EventRaised","TaskCompleted"]'  # type: ignore[union-attr]


def test_histories_that_are_not_kept_are_refused_with_advice() -> None:
    assert "in their own body" in Script(lambda context: context.histories).failure.message


@pytest.mark.parametrize("method", ["call_http", "call_entity", "signal_entity"])
def test_what_a_later_version_brings_says_so(method: str) -> None:
    failure = Script(lambda context: getattr(context, method)("x", 1)).failure

    assert failure.short_type == "NotSupportedYetError"
    assert f"context.{method}" in failure.message
    assert "later" in failure.message


# Bounded fan-out.


def test_map_keeps_at_most_so_many_calls_open_and_the_order_of_items() -> None:
    def code(context: Context) -> Code:
        return (yield context.map("work", ["a", "b", "c", "d"], concurrency=2))

    script = Script(code)
    assert script.actions == [ScheduleActivity(0, "work", '"a"'), ScheduleActivity(1, "work", '"b"')]
    assert script.complete(1, "B") == [ScheduleActivity(2, "work", '"c"')]
    assert script.complete(2, "C") == [ScheduleActivity(3, "work", '"d"')]
    assert script.complete(3, "D") == []
    script.complete(0, "A")

    assert script.output == ["A", "B", "C", "D"]


def test_map_over_nothing_and_without_a_bound() -> None:
    def code(context: Context) -> Code:
        empty = yield context.map("work", [])
        return [empty, (yield context.map(price, (each for each in [ORDER, ORDER])))]

    script = Script(code)
    assert len(script.actions) == 2
    script.step(script.completed(0, 1), script.completed(1, 2))

    assert script.output == [[], [1.0, 2.0]]


def test_map_fails_with_the_first_failure_and_begins_nothing_more() -> None:
    def code(context: Context) -> Code:
        try:
            yield context.map("work", range(9), concurrency=2)
        except Exception as error:
            return type(error).__name__

    script = Script(code)
    assert script.fail(0) == []
    script.complete(1)

    assert script.output == "ActivityFailedError"


def test_map_tries_again_by_policy() -> None:
    def code(context: Context) -> Code:
        return (yield context.map("work", [1, 2], concurrency=1, retry=RetryOptions(1000, 2)))

    script = Script(code)
    script.fail(0)
    script.fire(1)
    assert script.complete(2, "one") == [ScheduleActivity(3, "work", "2")]
    script.complete(3, "two")

    assert script.output == ["one", "two"]


# Types, for the type checkers that run over this file.


async def typed(context: Context) -> None:
    assert_type(context.call_activity(price, ORDER), Task[float])
    assert_type(context.call_activity(ship, ORDER), Task[datetime])
    assert_type(context.call_activity(tick), Task[int])
    assert_type(context.call_activity("name", expected_type=Order), Task[Order])
    assert_type(context.call_activity("name", 1), Task[Any])
    assert_type(context.call_sub_orchestrator(child), Task[Order])
    assert_type(context.call_sub_orchestrator(async_child), Task[Order])
    assert_type(context.call_sub_orchestrator("name"), Task[Any])
    assert_type(context.get_input(Order), Order)
    assert_type(context.create_timer(timedelta(1)), TimerTask)
    assert_type(context.wait_for_external_event("x", Order), EventTask[Order])
    assert_type(context.map(price, [ORDER]), Task[list[float]])
    assert_type(context.map(ship, [ORDER]), Task[list[datetime]])
    number, moment = await context.when_all(context.call_activity(price, ORDER), context.call_activity(ship, ORDER))
    assert_type(number, float)
    assert_type(moment, datetime)
    assert_type(await context.when_all([context.call_activity(price, ORDER)]), list[float])
    assert_type(await context.task_any([context.call_activity(price, ORDER)]), Task[float])
    assert_type(await context.call_activity(price, ORDER), float)


def typed_generator(context: Context) -> Generator[Task[Any], Any, float]:
    number = yield from context.call_activity(price, ORDER)
    assert_type(number, float)
    return number


_awaitable: type[Awaitable[Any]] = Task
