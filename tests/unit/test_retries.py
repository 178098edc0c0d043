"""Retried calls in an orchestrator: ids, timers, the end of trying."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.tasks import Task
from durable_host.errors import ActivityFailedError, SubOrchestrationFailedError
from durable_host.model.actions import CreateTimer, ScheduleActivity, StartChild
from durable_host.model.failure import Failure
from durable_host.model.history import TaskFailed
from durable_host.model.ids import InstanceId
from durable_host.model.retry import RetryOptions
from tests.unit.scripted import Script

Code = Generator[Task[Any], Any, Any]
SECOND = timedelta(seconds=1)


def calls(policy: RetryOptions) -> Any:
    def code(context: Context) -> Code:
        try:
            result = yield context.call_activity_with_retry("flaky", policy, "in")
        except ActivityFailedError as error:
            result = f"gave up at {error.task_id}"
        return [result, (yield context.call_activity("next"))]

    return code


def test_attempts_and_delays_take_turns_at_the_ids() -> None:
    script = Script(calls(RetryOptions(1000, 3, backoff_coefficient=2)))
    assert script.actions == [ScheduleActivity(0, "flaky", '"in"')]
    assert script.fail(0) == [CreateTimer(1, script.now + SECOND)]
    assert script.fire(1) == [ScheduleActivity(2, "flaky", '"in"')]
    assert script.fail(2) == [CreateTimer(3, script.now + 2 * SECOND)]
    assert script.fire(3) == [ScheduleActivity(4, "flaky", '"in"')]
    assert script.complete(4, "ok") == [ScheduleActivity(5, "next")]
    script.complete(5, 1)

    assert script.output == ["ok", 1]


def test_the_last_failure_is_raised_after_one_more_timer_due_at_once() -> None:
    script = Script(calls(RetryOptions(1000, 2)))
    script.fail(0)
    script.fire(1)
    assert script.fail(2) == [CreateTimer(3, script.now)]
    assert script.fire(3) == [ScheduleActivity(4, "next")]
    script.complete(4, 1)

    assert script.output == ["gave up at 2", 1]


def test_a_single_attempt_has_this_timer_as_well() -> None:
    script = Script(calls(RetryOptions(1000, 1)))

    assert script.fail(0) == [CreateTimer(1, script.now)]


def test_what_the_filter_refuses_is_raised_at_once() -> None:
    script = Script(calls(RetryOptions(1000, 5, retry_on=OSError)))
    assert script.fail(0, ValueError("no")) == [ScheduleActivity(1, "next")]

    script = Script(calls(RetryOptions(1000, 5)))
    assert script.fail(0, Failure("x", "y", non_retriable=True)) == [ScheduleActivity(1, "next")]


def test_a_predicate_that_fails_is_what_the_code_sees() -> None:
    def handle(failure: Failure) -> bool:
        raise ZeroDivisionError("in the predicate")

    script = Script(calls(RetryOptions(1000, 5, handle=handle)))
    script.fail(0)

    assert script.failure.type == "ZeroDivisionError"


def test_no_attempt_begins_after_the_timeout() -> None:
    script = Script(calls(RetryOptions(1000, 99, retry_timeout=3 * SECOND)))
    assert script.fail(0) == [CreateTimer(1, script.now + SECOND)]  # 1 s after the first attempt
    script.fire(1)
    assert script.fail(2) == [ScheduleActivity(3, "next")]  # 3 s after


def test_a_delay_that_would_pass_the_timeout_is_not_begun() -> None:
    script = Script(calls(RetryOptions(10_000, 99, retry_timeout=9 * SECOND)))

    assert script.fail(0) == [ScheduleActivity(1, "next")]


def test_jitter_is_the_same_on_replay_and_differs_between_attempts() -> None:
    script = Script(calls(RetryOptions(100_000, 9, jitter=0.9)))  # the script replays every step
    delays: list[timedelta] = []
    for attempt in (0, 2, 4):
        (timer,) = script.fail(attempt)
        assert isinstance(timer, CreateTimer)
        delays.append(timer.fire_at - script.now)
        script.fire(timer.id)

    assert len(set(delays)) == 3
    assert all(10 * SECOND <= delay <= 100 * SECOND for delay in delays)


def test_a_delay_beyond_six_days_is_a_chain() -> None:
    script = Script(calls(RetryOptions(first_retry_interval=timedelta(days=8), max_number_of_attempts=2)))
    (first,) = script.fail(0)
    assert first == CreateTimer(1, script.now + timedelta(days=3))
    final = script.now + timedelta(days=8)
    assert script.step(script.fired(1), after=timedelta(days=3)) == [CreateTimer(2, script.now + timedelta(days=3))]
    assert script.step(script.fired(2), after=timedelta(days=3)) == [CreateTimer(3, final)]
    assert script.step(script.fired(3), after=timedelta(days=2)) == [ScheduleActivity(4, "flaky", '"in"')]


def test_retries_in_parallel_take_ids_in_the_order_of_their_failures() -> None:
    def code(context: Context) -> Code:
        policy = RetryOptions(1000, 3)
        return (yield context.task_all([context.call_activity(name, retry=policy) for name in ("a", "b")]))

    script = Script(code)
    assert [
        action.id for action in script.step(script.failed(1), script.failed(0)) if isinstance(action, CreateTimer)
    ] == [
        2,
        3,
    ]
    assert script.fire(2) == [ScheduleActivity(4, "b")]
    assert script.fire(3) == [ScheduleActivity(5, "a")]
    script.step(script.completed(4, "B"), script.completed(5, "A"))

    assert script.output == ["A", "B"]


def test_a_child_with_a_given_id_is_started_again_under_it_others_get_new_ones() -> None:
    def code(context: Context) -> Code:
        policy = RetryOptions(1000, 2)
        given = context.call_sub_orchestrator_with_retry("child", policy, 1, "chosen")
        derived = context.call_sub_orchestrator("child", 2, retry=policy)
        try:
            yield context.task_all([given, derived])
        except SubOrchestrationFailedError as error:
            return error.name
        return None

    script = Script(code)
    assert script.actions == [
        StartChild(0, "child", "1", InstanceId("chosen")),
        StartChild(1, "child", "2"),
    ]
    script.step(script.failed(0), script.failed(1))
    assert script.step(script.fired(2), script.fired(3)) == [
        StartChild(4, "child", "1", InstanceId("chosen")),
        StartChild(5, "child", "2"),
    ]
    script.step(script.completed(5))
    script.fail(4)
    script.fire(6)

    assert script.output == "child"


def test_a_failure_without_structure_counts_by_its_reason() -> None:
    seen: list[Failure] = []

    def handle(failure: Failure) -> bool:
        seen.append(failure)
        return False

    script = Script(calls(RetryOptions(1000, 2, handle=handle)))
    script.step(TaskFailed(timestamp=script.now, task_id=0, reason="boom"))

    assert seen[0].message == "boom"
