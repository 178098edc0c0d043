from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from durable_host.engine.composites import when_all, when_any
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.execution import Execution
from durable_host.engine.tasks import CallTask, Task, TaskState
from durable_host.errors import ActivityFailedError, ForeignAwaitableError, OrchestratorError, PayloadError
from tests.unit.scripted import EXECUTION, INSTANCE, Script

Code = Generator[Task[Any], Any, Any]


def calls(context: Context, n: int) -> list[Task[Any]]:
    return [context.call_activity("work", at) for at in range(n)]


def test_all_gives_results_in_argument_order_whatever_the_order_of_completion() -> None:
    def code(context: Context) -> Code:
        return (yield context.task_all(calls(context, 3)))

    script = Script(code)
    script.complete(2, "c")
    script.complete(0, "a")
    script.complete(1, "b")

    assert script.output == ["a", "b", "c"]


def test_all_raises_the_first_failure_at_once_and_the_rest_is_awaited_before_the_end() -> None:
    def code(context: Context) -> Code:
        try:
            yield context.task_all(calls(context, 3))
        except ActivityFailedError as error:
            return error.task_id
        return None

    script = Script(code)
    script.fail(1)
    assert script.actions == []
    script.step(script.completed(0), script.completed(2))

    assert script.output == 1


def test_all_of_nothing_is_an_empty_list_at_once() -> None:
    def code(context: Context) -> Code:
        return [(yield context.task_all([])), (yield context.when_all_settled([]))]

    assert Script(code).output == [[], []]


def test_all_of_separate_tasks_is_a_tuple_in_order() -> None:
    async def code(context: Context) -> object:
        first, second = await context.when_all(context.call_activity("a"), context.call_activity("b"))
        return [second, first]

    script = Script(code)
    script.step(script.completed(1, 2), script.completed(0, 1))

    assert script.output == [2, 1]


def test_any_gives_the_first_finished_task() -> None:
    def code(context: Context) -> Code:
        tasks = calls(context, 3)
        first = yield context.task_any(tasks)
        yield context.task_all(tasks)
        return [tasks.index(first), first.result]

    script = Script(code)
    script.complete(1, "b")
    script.step(script.completed(0), script.completed(2))

    assert script.output == [1, "b"]


def test_any_gives_a_failed_task_without_raising() -> None:
    def code(context: Context) -> Code:
        first = yield context.task_any(calls(context, 2))
        return [first.is_failed, first.state.name, type(first.result).__name__, str(first.exception)[:26]]

    script = Script(code)
    script.step(script.failed(0), script.completed(1))

    assert script.output == [True, "FAILED", "ActivityFailedError", "Activity function 'work' f"]


def test_any_of_nothing_is_refused() -> None:
    def code(context: Context) -> Code:
        yield context.task_any([])

    assert "at least one task" in Script(code).failure.message


def test_settled_collects_successes_and_failures() -> None:
    async def code(context: Context) -> object:
        tasks = await context.when_all_settled(calls(context, 3))
        return [task.result if not task.is_failed else "failed" for task in tasks]

    script = Script(code)
    script.step(script.failed(1), script.completed(2, 2))
    script.complete(0, 0)

    assert script.output == [0, "failed", 2]


def test_composites_of_composites_resolve_inside_out() -> None:
    def code(context: Context) -> Code:
        pairs = [context.when_all(calls(context, 2)), context.when_all(calls(context, 2))]
        either = yield context.when_any([*pairs, context.create_timer(timedelta(hours=1))])
        return [either is pairs[1], either.result]

    script = Script(code)
    script.complete(0, "x")
    script.step(script.completed(2, "y"), script.completed(3, "z"))
    script.complete(1)
    script.fire(4)

    assert script.output == [True, ["y", "z"]]


def test_one_task_may_stand_in_several_composites_and_twice_in_one() -> None:
    def code(context: Context) -> Code:
        task = context.call_activity("work")
        return [(yield context.task_all([task, task])), (yield task), (yield task)]

    script = Script(code)
    script.complete(0, 7)

    assert script.output == [[7, 7], 7, 7]


def test_a_loser_of_many_races_collects_no_listeners() -> None:
    execution = Execution(INSTANCE, EXECUTION)
    slow: CallTask[int] = CallTask(execution, "slow", int)
    for _ in range(50):
        quick: CallTask[int] = CallTask(execution, "quick", int)
        race = when_any(slow, quick)
        quick.succeed(1)
        assert race.get_result() is quick

    assert not slow._listeners  # pyright: ignore[reportPrivateUsage]


def test_ten_thousand_members_are_done_with_the_last() -> None:
    execution = Execution(INSTANCE, EXECUTION)
    tasks: list[CallTask[int]] = [CallTask(execution, "work", int) for _ in range(10_000)]
    all_of_them = when_all(tasks)
    for at, task in enumerate(tasks):
        assert not all_of_them.is_completed
        task.on_result(str(at))

    assert all_of_them.get_result() == list(range(10_000))


def test_a_task_tells_how_it_stands() -> None:
    task: CallTask[int] = CallTask(Execution(INSTANCE, EXECUTION), "work", int)
    assert (task.state, task.is_completed, task.result, task.exception) == (TaskState.RUNNING, False, None, None)
    assert repr(task) == "<CallTask running>"
    with pytest.raises(OrchestratorError, match="has not finished"):
        task.get_result()

    task.on_result("5")

    assert (task.state, task.is_completed, task.get_result()) == (TaskState.SUCCEEDED, True, 5)


def test_get_result_of_a_failed_task_raises() -> None:
    task: CallTask[int] = CallTask(Execution(INSTANCE, EXECUTION), "work", int)
    task.on_failure(ActivityFailedError("work", 0, "reason"))

    with pytest.raises(ActivityFailedError, match="reason"):
        task.get_result()


def test_a_result_that_does_not_fit_its_annotation_fails_the_task() -> None:
    def work(given: int) -> int:
        return given

    async def code(context: Context) -> object:
        try:
            return await context.call_activity(work, 1)
        except PayloadError as error:
            return str(error)

    script = Script(code)
    script.complete(0, {"a": 1})

    assert script.output == "The result of 'work' does not fit: $: Expected `int`, got `object`, as int wants it"


@pytest.mark.parametrize("wrong", ["text", 5, None, [1], ["task"], [None]])
def test_composites_of_something_else_are_refused_with_advice(wrong: Any) -> None:
    with pytest.raises(ForeignAwaitableError, match="when_all takes tasks"):
        when_all(wrong)


def test_yield_from_gives_what_yield_gives() -> None:
    def code(context: Context) -> Code:
        first = yield from context.call_activity("a")
        second = yield from context.when_all(context.call_activity("b"), context.call_activity("c"))
        return [first, second]

    script = Script(code)
    script.complete(0, 1)
    script.step(script.completed(1, 2), script.completed(2, 3))

    assert script.output == [1, [2, 3]]
