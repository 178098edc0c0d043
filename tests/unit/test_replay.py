"""The driver: order of events, the end, suspension, termination, non-determinism, rewinds, dropped positions."""

# pyright: reportUnknownLambdaType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from durable_host.engine import closing
from durable_host.engine.closing import drop
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.decide import Rules, decide
from durable_host.engine.identity import activity_dispatch_id, child_dispatch_id
from durable_host.engine.index import HistoryIndex
from durable_host.engine.replay import Replay
from durable_host.engine.tasks import Task
from durable_host.errors import ActivityFailedError, ForeignAwaitableError, OrchestratorError
from durable_host.model.actions import CompleteOrchestration, ContinueAsNew, CreateTimer, ScheduleActivity, StartChild
from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import InstanceId, dispatch_id
from durable_host.model.retry import RetryOptions
from durable_host.model.status import RuntimeStatus
from tests.unit.scripted import BEGINNING, EXECUTION, INSTANCE, Script

Code = Generator[Task[Any], Any, Any]


def chain(context: Context) -> Code:
    first = yield context.call_activity("a")
    second = yield context.call_activity("b", first)
    return second


# Results, one after the other.


def test_results_lead_the_generator_on() -> None:
    script = Script(chain)
    assert script.actions == [ScheduleActivity(0, "a")]
    assert script.complete(0, "x") == [ScheduleActivity(1, "b", '"x"')]
    script.complete(1, "y")

    assert script.actions == [CompleteOrchestration(2, RuntimeStatus.COMPLETED, '"y"')]


def test_a_coroutine_is_driven_like_a_generator() -> None:
    async def helper(context: Context) -> Any:
        return await context.call_activity("b")

    async def code(context: Context) -> list[Any]:
        return [await context.call_activity("a"), await helper(context)]

    script = Script(code)
    script.complete(0, 1)
    script.complete(1, 2)

    assert script.output == [1, 2]


def test_a_plain_function_completes_with_its_return_value() -> None:
    assert Script(lambda context: {"input": context.input}, 5).output == {"input": 5}


def test_a_function_without_a_result_completes_with_nothing() -> None:
    script = Script(lambda context: None)

    assert script.actions == [CompleteOrchestration(0, RuntimeStatus.COMPLETED, None)]


def test_a_failed_call_is_raised_where_it_is_awaited() -> None:
    def code(context: Context) -> Code:
        try:
            yield context.call_activity("a")
        except ActivityFailedError as error:
            return [error.name, error.task_id, error.reason, error.details, error.failure and error.failure.type]
        return None

    script = Script(code)
    script.fail(0, "boom")

    assert script.output == ["a", 0, "Activity function 'a' failed: ValueError: boom", "trace", "ValueError"]


def test_replies_that_nobody_waits_for_are_ignored() -> None:
    script = Script(chain)
    script.complete(0, "x")
    again: list[HistoryEvent] = [
        TaskCompleted(timestamp=script.now, task_id=0, result='"second"'),
        TaskFailed(timestamp=script.now, task_id=0),
        TimerFired(timestamp=script.now, timer_id=1, fire_at=script.now),
        TaskCompleted(timestamp=script.now, task_id=77),
    ]
    assert script.step(*again) == []
    script.complete(1, "y")

    assert script.output == "y"


def test_a_second_start_is_ignored() -> None:
    script = Script(chain)
    start = script.history[1]

    assert script.step(start) == []


def test_events_of_one_episode_are_applied_one_by_one() -> None:
    seen: list[tuple[Any, bool]] = []

    def code(context: Context) -> Code:
        seen.clear()
        tasks = [context.call_activity("work", at) for at in range(3)]
        for task in (tasks[2], tasks[0], tasks[1]):
            seen.append(((yield task), task.is_completed))
            seen.append((sum(each.is_completed for each in tasks), True))
        return None

    script = Script(code)
    script.step(script.completed(2, "c"), script.completed(0, "a"), script.completed(1, "b"))

    assert seen == [("c", True), (1, True), ("a", True), (2, True), ("b", True), (3, True)]


def test_time_is_that_of_the_episode_and_never_goes_back() -> None:
    def code(context: Context) -> Code:
        times = [context.current_utc_datetime]
        for name in ("a", "b"):
            yield context.call_activity(name)
            times.append(context.current_utc_datetime)
        return [(time - times[0]).total_seconds() for time in times]

    script = Script(code)
    script.step(script.completed(0), after=timedelta(seconds=10))
    script.step(script.completed(1), after=timedelta(seconds=-5))

    assert script.output == [0, 10, 10]


def test_is_replaying_is_true_for_past_events_only() -> None:
    seen: list[bool] = []

    def code(context: Context) -> Code:
        seen.append(context.is_replaying)
        yield context.call_activity("a")
        seen.append(context.is_replaying)
        yield context.call_activity("b")
        seen.append(context.is_replaying)

    script = Script(code)
    script.complete(0)
    seen.clear()
    fresh = script.fresh()
    fresh.episode(script.history, [OrchestratorStarted(timestamp=script.now), script.completed(1)])

    assert seen == [True, True, False]


# The end.


def test_code_that_has_ended_waits_for_activities_children_and_timers() -> None:
    def code(context: Context) -> str:
        context.call_activity("a")
        context.call_sub_orchestrator("b")
        context.create_timer(timedelta(hours=1))
        return "left"

    script = Script(code)
    assert [type(action).__name__ for action in script.actions] == ["ScheduleActivity", "StartChild", "CreateTimer"]
    assert script.fail(1) == []
    assert script.fire(2) == []
    script.complete(0)

    assert script.actions == [CompleteOrchestration(3, RuntimeStatus.COMPLETED, '"left"')]


def test_code_that_has_failed_waits_for_what_is_open_as_well() -> None:
    def code(context: Context) -> Code:
        context.call_activity("open")
        yield context.call_activity("a")
        raise ValueError("broken")

    script = Script(code)
    assert script.complete(1) == []
    script.complete(0)

    assert script.failure.message == "broken"


def test_cancelled_timers_detached_children_sent_events_and_waits_hold_nothing_up() -> None:
    def code(context: Context) -> str:
        timer = context.create_timer(timedelta(hours=1))
        timer.cancel()
        timer.cancel()
        context.start_detached("other")
        context.send_event("somebody", "hello")
        context.wait_for_external_event("never")
        return "done"

    script = Script(code)

    assert [type(action).__name__ for action in script.actions] == [
        "CreateTimer",
        "StartChild",
        "SendEvent",
        "CompleteOrchestration",
    ]
    assert script.output == "done"


def test_retries_go_on_after_the_code_has_ended() -> None:
    def code(context: Context) -> str:
        context.call_activity("a", retry=RetryOptions(1000, 2))
        return "left"

    script = Script(code)
    script.fail(0)
    script.fire(1)
    script.complete(2)

    assert script.output == "left"


class Unspeakable(Exception):
    def __str__(self) -> str:
        return str(1 // 0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("broken"), "broken"),
        (ValueError(), "<class 'ValueError'>"),
        (SystemExit(3), "3"),
        (ValueError("no file 'a\udcff'"), "no file 'a\\udcff'"),
        (Unspeakable(), "<no text: ZeroDivisionError in __str__>"),
    ],
)
def test_a_failure_is_worded_as_in_the_sdk(error: BaseException, text: str) -> None:
    def code(context: Context) -> None:
        raise error

    script = Script(code)

    assert script.completion is not None
    assert script.completion.result == f"Orchestrator function 'Tested' failed: {text}"


def test_a_failure_keeps_its_cause_and_a_stack_that_begins_in_user_code() -> None:
    def code(context: Context) -> Code:
        try:
            yield context.call_activity("a")
        except ActivityFailedError as error:
            raise RuntimeError("gave up") from error

    script = Script(code)
    script.fail(0, KeyError("lost"))

    failure = script.failure
    assert [each.type for each in failure.chain()] == [
        "RuntimeError",
        "durable_host.errors.ActivityFailedError",
        "KeyError",
    ]
    assert failure.stack is not None
    first = failure.stack.splitlines()[1]
    assert __file__ in first
    assert first.endswith("in code")


def test_an_output_that_json_cannot_carry_fails_the_instance() -> None:
    assert "set" in Script(lambda context: {"a": {1}}).failure.message


def test_returning_a_task_is_refused_with_advice() -> None:
    def code(context: Context) -> object:
        return context.wait_for_external_event("x")

    assert "yield or await it" in Script(code).failure.message


def test_an_asynchronous_generator_is_refused() -> None:
    async def code(context: Context) -> Any:
        yield context.call_activity("a")

    assert "not both" in Script(code).failure.message


def test_stop_iteration_in_user_code_is_a_failure() -> None:
    def code(context: Context) -> Code:
        yield context.call_activity("a")
        return next(iter(()))

    script = Script(code)
    script.complete(0)

    assert "StopIteration" in script.failure.message


# Continue as new.


def test_continue_as_new_carries_events_nobody_took_in_order() -> None:
    def code(context: Context) -> Code:
        yield context.wait_for_external_event("go")
        context.send_event("other", "bye")
        context.continue_as_new({"n": 1})
        assert context.will_continue_as_new
        return "ignored"

    script = Script(code)
    script.raise_event("b", 1)
    script.raise_event("a", 2)
    last = script.raised("B", 3)
    script.step(script.raised("go"), last)

    continuation = script.continuation
    assert continuation is not None
    assert continuation.input == '{"n":1}'
    assert [(event.name, event.input) for event in continuation.carried] == [("b", "1"), ("a", "2"), ("B", "3")]
    assert [type(action).__name__ for action in script.actions] == ["SendEvent", "ContinueAsNew"]


def test_an_event_that_comes_after_continue_as_new_is_carried_though_the_code_left_a_wait_for_it() -> None:
    def code(context: Context) -> Code:
        stop = context.wait_for_external_event("stop")
        won = yield context.task_any([stop, context.wait_for_external_event("tick")])
        if won is stop:
            return "stopped"
        context.continue_as_new()
        return None

    script = Script(code)
    script.step(script.raised("tick"), script.raised("stop", 1))

    continuation = script.continuation
    assert continuation is not None
    assert [(event.name, event.input) for event in continuation.carried] == [("stop", "1")]


def test_continue_as_new_may_drop_events_and_open_tasks() -> None:
    def code(context: Context) -> None:
        context.call_activity("open")
        context.continue_as_new(preserve_unprocessed_events=False)

    def eventful(context: Context) -> Code:
        yield context.wait_for_external_event("go")
        context.continue_as_new(preserve_unprocessed_events=False)

    assert Script(code).continuation == ContinueAsNew(None)
    script = Script(eventful)
    script.step(script.raised("other"), script.raised("go"))
    assert script.continuation == ContinueAsNew(None)


def test_a_failure_after_continue_as_new_wins() -> None:
    def code(context: Context) -> None:
        context.continue_as_new(1)
        raise ValueError("broken")

    assert Script(code).failure.message == "broken"


def test_a_new_generation_begins_with_its_own_completed_mark() -> None:
    events: list[HistoryEvent] = [
        OrchestratorStarted(timestamp=BEGINNING),
        ExecutionStarted(timestamp=BEGINNING, instance_id=INSTANCE, execution_id=EXECUTION, name="Tested"),
        EventRaised(timestamp=BEGINNING, name="go", input="1"),
        OrchestratorCompleted(timestamp=BEGINNING),
    ]
    result = Replay(chain, INSTANCE, EXECUTION).episode((), events)

    assert result.actions == [ScheduleActivity(0, "a")]


# Suspension and termination.


def suspended(script: Script) -> HistoryEvent:
    return ExecutionSuspended(timestamp=script.now, reason="wait")


def resumed(script: Script) -> HistoryEvent:
    return ExecutionResumed(timestamp=script.now)


def test_while_suspended_events_are_queued_and_applied_in_order_on_resume() -> None:
    script = Script(chain)
    assert script.step(suspended(script)) == []
    assert script.complete(0, "x") == []
    assert script.step(resumed(script)) == [ScheduleActivity(1, "b", '"x"')]
    script.complete(1, "y")

    assert script.output == "y"


def test_actions_of_an_episode_that_ends_suspended_are_held_back() -> None:
    script = Script(chain)
    assert script.step(script.completed(0, "x"), suspended(script)) == []
    assert script.step(script.raised("noise")) == []
    assert script.step(resumed(script)) == [ScheduleActivity(1, "b", '"x"')]


def test_a_completion_is_held_back_while_suspended() -> None:
    def code(context: Context) -> Code:
        return (yield context.wait_for_external_event("go"))

    script = Script(code)
    assert script.step(script.raised("go", 1), suspended(script)) == []
    script.step(resumed(script))

    assert script.output == 1


def test_suspended_and_resumed_in_one_episode_changes_nothing() -> None:
    script = Script(chain)
    new = [suspended(script), script.completed(0, "x"), suspended(script), resumed(script)]
    assert script.step(*new) == []
    assert script.step(resumed(script)) == [ScheduleActivity(1, "b", '"x"')]


def test_queued_events_are_applied_at_the_time_of_the_resume() -> None:
    def code(context: Context) -> Code:
        yield context.wait_for_external_event("go")
        return (context.current_utc_datetime - BEGINNING).total_seconds()

    script = Script(code)
    script.step(suspended(script))
    script.raise_event("go")
    script.step(resumed(script), after=timedelta(seconds=60))

    assert script.output == 62


def terminated(script: Script) -> HistoryEvent:
    return ExecutionTerminated(timestamp=script.now, reason="enough")


TERMINATED = CompleteOrchestration(1, RuntimeStatus.TERMINATED, "enough")


def test_termination_ends_at_once_whatever_is_open() -> None:
    script = Script(chain)
    script.step(terminated(script))

    assert script.actions == [TERMINATED]


def test_termination_acts_while_suspended() -> None:
    script = Script(chain)
    script.step(suspended(script))
    script.complete(0)
    script.step(terminated(script))

    assert script.actions == [TERMINATED]


def test_nothing_new_is_scheduled_beside_a_termination() -> None:
    script = Script(chain)
    script.step(script.completed(0), terminated(script))
    assert script.actions == [CompleteOrchestration(2, RuntimeStatus.TERMINATED, "enough")]

    script = Script(chain)
    script.step(terminated(script), script.completed(0))
    assert script.actions == [TERMINATED]


def test_termination_wins_over_continue_as_new_but_not_over_an_earlier_end() -> None:
    def renews(context: Context) -> Code:
        yield context.wait_for_external_event("go")
        context.continue_as_new()

    def ends(context: Context) -> Code:
        yield context.wait_for_external_event("go")
        return "end"

    script = Script(renews)
    script.step(script.raised("go"), terminated(script))
    assert script.completion is not None
    assert script.completion.status is RuntimeStatus.TERMINATED
    script = Script(ends)
    script.step(script.raised("go"), terminated(script))
    assert script.output == "end"


def test_a_terminated_history_replays_to_nothing() -> None:
    script = Script(chain)
    script.step(script.completed(0), terminated(script))

    assert script.replay().actions == ()


# Non-determinism.


def changed(context: Context) -> Code:
    yield context.call_activity("a")
    yield context.call_activity("other", {"order": 5})


def test_another_activity_is_reported_with_both_sides_and_the_line() -> None:
    script = Script(chain)
    script.complete(0, "x")

    result = Replay(changed, INSTANCE, EXECUTION).episode(script.history, ())

    (completion,) = result.actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.status is RuntimeStatus.FAILED
    assert completion.failure is not None
    assert completion.failure.short_type == "NonDeterminismError"
    line = changed.__code__.co_firstlineno + 2
    for part in (
        "the call of activity 'b' as action 1",
        """activity 'other' with input {"order":5}""",
        f"{__file__}:{line} in changed",
        "Orchestrator 'Tested' is not deterministic",
    ):
        assert part in completion.failure.message
    assert result.session is None


OTHERS: list[tuple[Callable[[Context], Any], str]] = [
    (lambda context: (yield context.create_timer(timedelta(hours=1))), "a timer due at 2026-01-01T01:00"),
    (lambda context: (yield context.call_sub_orchestrator("a")), "orchestrator 'a'"),
    (lambda context: "returned", "asks for nothing under this id; it stands at its end"),
    (lambda context: (yield context.wait_for_external_event("x")), "in <lambda>"),
    (lambda context: context.send_event("x", "a"), "sending the event 'a' to 'x'"),
]


@pytest.mark.parametrize(("code", "words"), OTHERS)
def test_another_kind_of_action_or_none_is_reported(code: Any, words: str) -> None:
    script = Script(chain)

    result = Replay(code, INSTANCE, EXECUTION).episode(script.history, ())

    (completion,) = result.actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.result is not None
    assert words in completion.result


@pytest.mark.parametrize(
    "event",
    [
        SubOrchestrationInstanceCreated(
            timestamp=BEGINNING, event_id=0, name="child", instance_id=InstanceId("another")
        ),
        EventSent(timestamp=BEGINNING, event_id=0, instance_id=InstanceId("x"), name="child"),
        TimerCreated(timestamp=BEGINNING, event_id=0, fire_at=BEGINNING),
        TaskScheduled(timestamp=BEGINNING, event_id=0, name="child"),
    ],
)
def test_a_child_must_have_the_id_that_the_code_chose(event: HistoryEvent) -> None:
    def code(context: Context) -> Code:
        yield context.call_sub_orchestrator("child", instance_id="chosen")

    script = Script(code)
    history = [*script.history[:2], event]

    (completion,) = Replay(code, INSTANCE, EXECUTION).episode(history, ()).actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.result is not None
    assert "with instance id 'chosen'" in completion.result


def test_names_of_other_case_and_other_due_times_are_no_difference() -> None:
    def upper(context: Context) -> Code:
        yield context.call_activity("A")
        yield context.create_timer(timedelta(minutes=2))

    def lower(context: Context) -> Code:
        yield context.call_activity("a")
        yield context.create_timer(timedelta(minutes=1))

    script = Script(upper)
    script.complete(0)

    assert Replay(lower, INSTANCE, EXECUTION).episode(script.history, ()).actions == []


def test_the_id_of_the_failing_completion_is_the_next_one() -> None:
    script = Script(chain)
    script.complete(0, "x")

    (completion,) = Replay(changed, INSTANCE, EXECUTION).episode(script.history, ()).actions

    assert isinstance(completion, CompleteOrchestration)
    assert completion.id == 2


def test_cores_split_timer_is_passed_over() -> None:
    script = Script(chain)
    split = TimerCreated(timestamp=BEGINNING, event_id=-100, fire_at=BEGINNING)

    assert Replay(chain, INSTANCE, EXECUTION).episode([*script.history, split], ()).actions == []


# Rewinds.


def rewound(history: list[HistoryEvent], *taken: int) -> list[HistoryEvent]:
    """The history with these events turned into GenericEvents."""
    events = list(history)
    for at in taken:
        original = events[at]
        events[at] = GenericEvent(
            timestamp=original.timestamp, original=original, reason=f"Rewound: {type(original).__name__}"
        )
    return events


def places(history: list[HistoryEvent], *kinds: type) -> list[int]:
    return [at for at, event in enumerate(history) if isinstance(event, kinds)]


def again(script: Script) -> list[HistoryEvent]:
    return [
        OrchestratorStarted(timestamp=script.now),
        GenericEvent(timestamp=script.now, data="try again"),
    ]


def test_a_rewound_call_is_asked_for_again_under_its_id() -> None:
    script = Script(chain)
    script.complete(0, "x")
    script.fail(1)
    assert script.completion is not None
    scheduled = places(script.history, TaskScheduled)[1]
    history = rewound(script.history, scheduled, *places(script.history, TaskFailed, ExecutionCompleted))
    script.history, script.session = history, None

    new = again(script)
    assert script.step(*new[1:]) == [ScheduleActivity(1, "b", '"x"')]
    script.complete(1, "y")

    assert script.output == "y"


def test_a_rewound_retry_leaves_its_timers_behind() -> None:
    """Delay timers of the attempts that failed stay in history; they meet no action and are passed over."""

    def code(context: Context) -> Code:
        first = yield context.call_activity("a", retry=RetryOptions(1000, 2))
        return [first, (yield context.call_activity("b"))]

    script = Script(code)
    script.fail(0)
    script.fire(1)
    script.fail(2)
    script.fire(3)
    assert script.completion is not None
    assert script.completion.id == 4
    history = rewound(script.history, *places(script.history, TaskScheduled, TaskFailed, ExecutionCompleted))
    script.history, script.session = history, None

    assert script.step(again(script)[1]) == [ScheduleActivity(0, "a")]
    assert script.fail(0) == [CreateTimer(1, script.now + timedelta(seconds=1))]
    assert script.fire(1) == [ScheduleActivity(2, "a")]
    assert script.complete(2, "x") == [ScheduleActivity(3, "b")]
    script.complete(3, "y")

    assert script.output == ["x", "y"]
    assert script.replay().actions == ()


def test_a_rewound_fan_out_never_gives_an_item_the_result_of_another() -> None:
    """With the failures gone ids shift: a recorded call counts only if its dispatch id fits the input."""

    def code(context: Context) -> Code:
        return (yield context.map("work", [0, 1, 2], concurrency=1, retry=RetryOptions(1000, 2)))

    script = Script(code)
    script.fail(0)  # timer 1
    script.fire(1)  # item 0 again, 2
    script.complete(2, "r0")  # item 1, 3
    script.fail(3)  # timer 4
    script.fire(4)  # item 1 again, 5
    script.fail(5)  # timer 6
    script.fire(6)
    assert script.completion is not None
    inputs = {0: "0", 2: "0", 3: "1", 5: "1"}
    history = [
        TaskScheduled(
            timestamp=event.timestamp,
            event_id=event.event_id,
            name=event.name,
            dispatch_id=dispatch_id(EXECUTION, event.event_id, "activity", "work", inputs[event.event_id], 0),
        )
        if isinstance(event, TaskScheduled)
        else event
        for event in script.history
    ]
    # The calls that failed are taken away: 0, 3 and 5. That of id 2, which was item 0's second attempt, stays.
    gone = [at for at in places(history, TaskScheduled) if history[at].event_id != 2]
    script.history = rewound(history, *gone, *places(history, TaskFailed, ExecutionCompleted))
    script.session = None

    assert script.step(again(script)[1]) == [ScheduleActivity(0, "work", "0")]
    assert script.complete(0, "s0") == [ScheduleActivity(1, "work", "1")]
    assert script.complete(1, "s1") == [ScheduleActivity(2, "work", "2")]
    script.complete(2, "s2")

    assert script.output == ["s0", "s1", "s2"]


def test_replay_and_decide_agree_on_identities() -> None:
    calls = [ScheduleActivity(0, "a", '{"x":1}'), ScheduleActivity(1, "b")]
    children = [StartChild(2, "c", "5"), StartChild(3, "c", None, InstanceId("chosen"))]
    rules = Rules(unknown=lambda kind, name: None)

    decision = decide(HistoryIndex(), start(), [], [*calls, *children], rules, now=BEGINNING, length=0)

    written = [getattr(event, "dispatch_id", None) for event in decision.events][:4]
    assert written == [
        *(activity_dispatch_id(EXECUTION, call, 0) for call in calls),
        *(child_dispatch_id(EXECUTION, child, 0) for child in children),
    ]


# What may not be awaited.


def test_asyncio_sleep_is_refused_with_advice_inside_the_code() -> None:
    async def code(context: Context) -> str:
        try:
            await asyncio.sleep(10)
        except TypeError as error:
            return str(error)
        return "slept"

    async def drive() -> Script:
        return Script(code)

    assert "create_timer" in asyncio.run(drive()).output


def test_gather_is_refused_and_leaves_nothing_running() -> None:
    async def code(context: Context) -> None:
        await asyncio.gather(context.call_activity("a"), context.call_activity("b"))

    async def drive() -> None:
        script = Script(code)
        script.step(script.completed(0), script.completed(1))
        assert "when_all" in script.failure.message
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(drive())


async def a_coroutine() -> None: ...


def a_generator() -> Any:
    yield


FOREIGN: list[tuple[Callable[[Context], Any], str]] = [
    (lambda context: [context.wait_for_external_event("x")], "task_all"),
    (lambda context: None, "create_timer"),
    (lambda context: 5, "value of type int"),
    (lambda context: a_coroutine(), "coroutine 'a_coroutine'"),
    (lambda context: a_generator(), "yield from"),
    (lambda context: context.call_activity, "function 'call_activity'"),
    (lambda context: a_coroutine, "function 'a_coroutine'"),
]


@pytest.mark.parametrize(("make", "advice"), FOREIGN)
def test_yielding_something_else_is_refused_with_advice(make: Any, advice: str) -> None:
    def code(context: Context) -> Any:
        yield make(context)

    failure = Script(code).failure
    assert failure.short_type == "ForeignAwaitableError"
    assert advice in failure.message


def test_refused_code_may_go_on() -> None:
    def code(context: Context) -> Any:
        try:
            yield 5
        except ForeignAwaitableError:
            return (yield context.call_activity("a"))

    script = Script(code)
    script.complete(0, 1)

    assert script.output == 1


def test_a_task_of_another_orchestrator_is_refused() -> None:
    taken: list[Task[Any]] = []

    def lender(context: Context) -> Any:
        taken[:] = [context.call_activity("a")]
        yield taken[0]

    def borrower(context: Context) -> Any:
        yield taken[0]

    Script(lender)

    assert "another orchestrator" in Script(borrower).failure.message


def test_awaiting_a_cancelled_timer_is_refused_instead_of_waiting_for_ever() -> None:
    async def code(context: Context) -> None:
        timer = context.create_timer(timedelta(hours=1))
        timer.cancel()
        await timer

    assert "the timer was cancelled" in Script(code).failure.message


def test_the_context_is_refused_outside_its_code() -> None:
    kept: list[Context] = []

    def code(context: Context) -> Any:
        kept.append(context)
        yield context.call_activity("a")

    Script(code)

    with pytest.raises(OrchestratorError, match="from outside"):
        kept[0].call_activity("b")


# Dropping a position.


def test_finally_blocks_run_without_effect_when_a_position_is_dropped() -> None:
    ran: list[str] = []

    def code(context: Context) -> Any:
        try:
            yield context.call_activity("a")
        finally:
            ran.append("finally")
            context.call_activity("cleanup")
            context.set_custom_status("cleaning")
            yield context.call_activity("more")
            ran.append("never")

    replay = Replay(code, INSTANCE, EXECUTION)
    result = replay.episode((), [OrchestratorStarted(timestamp=BEGINNING), start()])
    replay.close()
    replay.close()

    assert ran == ["finally"]
    assert result.actions == [ScheduleActivity(0, "a")]


def start() -> ExecutionStarted:
    return ExecutionStarted(timestamp=BEGINNING, instance_id=INSTANCE, execution_id=EXECUTION, name="Tested")


def raises_in_finally(context: Context) -> Any:
    try:
        yield context.call_activity("a")
    finally:
        raise ValueError("nobody shall see this")


def swallows_the_exit(context: Context) -> Any:
    try:
        yield context.call_activity("a")
    except GeneratorExit:
        yield context.wait_for_external_event("x")


def yields_in_finally(context: Context) -> Any:
    for _ in range(3):
        try:
            yield context.wait_for_external_event("x")
        except GeneratorExit:
            yield 1


async def awaits_in_finally(context: Context) -> Any:
    try:
        await context.call_activity("a")
    finally:
        await asyncio.sleep(0)


@pytest.mark.parametrize("code", [raises_in_finally, swallows_the_exit, yields_in_finally, awaits_in_finally])
def test_nothing_leaks_from_a_dropped_position(code: Any) -> None:
    replay = Replay(code, INSTANCE, EXECUTION)
    replay.episode((), [OrchestratorStarted(timestamp=BEGINNING), start()])

    replay.close()

    del replay
    gc.collect()  # an exception that nobody can raise any more would fail this test as a warning


@pytest.mark.parametrize("code", [raises_in_finally, yields_in_finally, awaits_in_finally])
def test_nothing_leaks_from_a_position_that_nobody_drops(code: Any) -> None:
    replay = Replay(code, INSTANCE, EXECUTION)
    replay.episode((), [OrchestratorStarted(timestamp=BEGINNING), start()])

    del replay
    gc.collect()


def test_code_that_never_gives_up_is_kept_aside() -> None:
    patient = True

    def code(context: Context) -> Any:
        while patient:
            with suppress(GeneratorExit):
                yield context.wait_for_external_event("x")

    replay = Replay(code, INSTANCE, EXECUTION)
    replay.episode((), [OrchestratorStarted(timestamp=BEGINNING), start()])
    kept = list(closing.undead)

    replay.close()

    del replay
    gc.collect()
    (aside,) = [each for each in closing.undead if each not in kept]
    patient = False
    drop(aside)
    closing.undead.remove(aside)


def test_a_dropped_coroutine_was_awaited() -> None:
    async def code(context: Context) -> None:
        await context.call_activity("a")

    replay = Replay(code, INSTANCE, EXECUTION)
    replay.episode((), [OrchestratorStarted(timestamp=BEGINNING), start()])
    replay.close()
    del replay
    gc.collect()


def test_events_without_a_start_are_our_own_fault() -> None:
    with pytest.raises(OrchestratorError, match="no ExecutionStarted"):
        Replay(chain, INSTANCE, EXECUTION).episode((), [OrchestratorStarted(timestamp=BEGINNING)])


def test_the_size_of_a_session_grows_with_what_it_is_given() -> None:
    script = Script(chain)
    assert script.session is not None
    before = script.session.size()
    script.complete(0, "x" * 10_000)

    assert script.session is not None
    assert script.session.size() >= before + 10_000


def test_a_partial_of_an_orchestrator_is_driven() -> None:
    def code(prefix: str, context: Context) -> Any:
        return prefix + (yield context.call_activity("a"))

    script = Script(partial(code, "p"))
    script.complete(0, "x")

    assert script.output == "px"
