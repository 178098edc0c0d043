from __future__ import annotations

from typing import Any

import pytest

from durable_host.engine.executor import ActivityResult, Episode
from durable_host.environment import system_environment
from durable_host.executors.native import FunctionRegistry, NativeActivities, NativeOrchestrations
from durable_host.executors.router import ActivityRouter, OrchestrationRouter
from durable_host.model.actions import CompleteOrchestration
from durable_host.model.history import ExecutionStarted, HistoryEvent, OrchestratorStarted, TaskCompleted
from durable_host.model.ids import DispatchId
from durable_host.model.messages import ActivityTask
from tests.unit.scripted import BEGINNING, EXECUTION, INSTANCE

FIRST = OrchestratorStarted(timestamp=BEGINNING)


def registry(answer: str, *names: str) -> FunctionRegistry:
    def code(context: Any) -> Any:
        yield context.call_activity("a")
        return answer

    def work() -> str:
        return answer

    functions = FunctionRegistry()
    for name in names:
        functions.add_orchestrator(code, name=name)
        functions.add_activity(work, name=name)
    return functions


ONE, TWO = registry("one", "a", "b"), registry("two", "b", "c")
ROUTER = OrchestrationRouter([NativeOrchestrations(ONE), NativeOrchestrations(TWO)])


def episode(name: str) -> Episode:
    start = ExecutionStarted(timestamp=BEGINNING, instance_id=INSTANCE, execution_id=EXECUTION, name=name)
    return Episode(INSTANCE, EXECUTION, (), [FIRST, start])


@pytest.mark.parametrize(("name", "answer"), [("a", "one"), ("b", "one"), ("C", "two")])
async def test_the_first_executor_that_knows_the_name_runs_all_episodes(name: str, answer: str) -> None:
    first = await ROUTER.execute(episode(name))
    assert first.session is not None
    assert first.session.size() > 0
    kept = Episode(INSTANCE, EXECUTION, (), [FIRST], first.session)
    second = await ROUTER.execute(kept)
    assert second.session is first.session
    done: list[HistoryEvent] = [FIRST, TaskCompleted(timestamp=BEGINNING, task_id=0)]
    third = await ROUTER.execute(Episode(INSTANCE, EXECUTION, (), done, second.session))

    (completion,) = third.actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.result == f'"{answer}"'
    assert third.session is None


async def test_a_replay_is_routed_by_the_start_in_the_past() -> None:
    start = episode("c").new
    result = await ROUTER.execute(Episode(INSTANCE, EXECUTION, start, [FIRST]))

    assert len(result.actions) == 1
    assert result.session is not None
    result.session.close()


async def test_a_name_that_nobody_knows_lists_those_that_are_known() -> None:
    assert ROUTER.names() == ["a", "b", "c"]
    assert not ROUTER.handles("d", None)
    with pytest.raises(LookupError, match="'a', 'b', 'c'"):
        await ROUTER.execute(episode("d"))
    with pytest.raises(LookupError, match="no ExecutionStarted"):
        await ROUTER.execute(Episode(INSTANCE, EXECUTION, (), [FIRST]))


async def test_activities_are_routed_by_name() -> None:
    executors = [NativeActivities(each, system_environment()) for each in (ONE, TWO)]
    router = ActivityRouter(executors)

    def task(name: str) -> ActivityTask:
        return ActivityTask(DispatchId("d"), INSTANCE, EXECUTION, 0, name)

    assert router.names() == ["a", "b", "c"]
    assert router.handles("B")
    assert await router.execute(task("b")) == ActivityResult('"one"')
    assert await router.execute(task("c")) == ActivityResult('"two"')
    with pytest.raises(LookupError, match="'a', 'b', 'c'"):
        await router.execute(task("d"))
    for each in executors:
        each.close()
