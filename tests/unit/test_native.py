# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial, wraps
from typing import Any

import pytest

from durable_host.engine.executor import ActivityResult, Episode
from durable_host.environment import Environment, SerialThread, Threads, system_environment
from durable_host.errors import OrchestratorError
from durable_host.executors.native import FunctionRegistry, NativeActivities, NativeOrchestrations
from durable_host.model.actions import CompleteOrchestration, ScheduleActivity
from durable_host.model.history import ExecutionStarted, HistoryEvent, OrchestratorStarted, TaskCompleted
from durable_host.model.ids import DispatchId
from durable_host.model.messages import ActivityTask
from durable_host.model.names import function_name
from tests.unit.scripted import BEGINNING, EXECUTION, INSTANCE

FIRST = OrchestratorStarted(timestamp=BEGINNING)


def start(name: str) -> ExecutionStarted:
    return ExecutionStarted(timestamp=BEGINNING, instance_id=INSTANCE, execution_id=EXECUTION, name=name)


def task(name: str, input: str | None = None) -> ActivityTask:
    return ActivityTask(DispatchId("d"), INSTANCE, EXECUTION, 0, name, input)


async def run(function: Callable[..., Any], input: str | None = None, **more: Any) -> ActivityResult:
    registry = FunctionRegistry()
    name = registry.add_activity(function, name="work", **more)
    activities = NativeActivities(registry, system_environment(), threads=2)
    try:
        return await activities.execute(task(name, input))
    finally:
        activities.close()


# The registry.


def chain(context: Any) -> Any:
    yield context.call_activity("a")


def test_names_default_to_the_functions_and_compare_without_case() -> None:
    registry = FunctionRegistry()
    assert registry.add_orchestrator(chain) == "chain"
    assert registry.add_activity(function_name, name="NameOf") == "NameOf"

    assert registry.orchestrator_names == ["chain"]
    assert registry.activity_names == ["NameOf"]
    assert registry.orchestrator("CHAIN") is registry.orchestrator("chain") is not None
    assert registry.activity("nameof") is not None
    assert registry.activity("chain") is None


def test_a_duplicate_names_both_places() -> None:
    registry = FunctionRegistry()
    registry.add_activity(chain_of_two)
    with pytest.raises(ValueError, match="Two activity functions are called 'CHAIN_OF_TWO'") as caught:
        registry.add_activity(lambda: 1, name="CHAIN_OF_TWO")

    assert str(caught.value).count(f"{__file__}:") == 2
    registry.add_orchestrator(chain, name="chain_of_two")  # of another kind: no duplicate


def chain_of_two(given: int) -> int:
    return given


def test_calls_by_function_find_the_registered_name() -> None:
    def work() -> None: ...

    FunctionRegistry().add_activity(work, name="Hello")

    assert function_name(work) == "Hello"


async def agen(context: Any) -> Any:
    yield 1


def two(a: int, b: int) -> int:
    return a + b


def keyword(*, a: int) -> int:
    return a


@pytest.mark.parametrize(
    ("kind", "function", "words"),
    [
        ("orchestrator", agen, "`async def` with `yield`"),
        ("orchestrator", lambda: 1, "takes no parameter"),
        ("orchestrator", two, "needs a, b"),
        ("activity", two, "needs a, b; it can be given only one argument, its input"),
        ("activity", keyword, "needs a"),
        ("activity", chain, "is a generator"),
        ("activity", agen, "is a generator"),
    ],
)
def test_functions_of_the_wrong_shape_are_refused_with_their_place(
    kind: str, function: Callable[..., Any], words: str
) -> None:
    registry = FunctionRegistry()
    add = registry.add_orchestrator if kind == "orchestrator" else registry.add_activity

    with pytest.raises(TypeError) as caught:
        add(function, name="wrong")

    assert words in str(caught.value)
    assert f"{__file__}:" in str(caught.value)


class Callables:
    def method(self, given: int) -> int:
        return given + 1

    def __call__(self, given: int) -> int:
        return given + 2


CALLABLES: list[tuple[Callable[..., Any], str]] = [
    (Callables().method, "2"),
    (Callables(), "3"),
    (partial(two, 5), "6"),
    (lambda given, more=3: given + more, "4"),
    (lambda *given: given[0] + 4, "5"),
    (lambda: 7, "7"),
    (int, "1"),
]


@pytest.mark.parametrize(("function", "result"), CALLABLES)
async def test_anything_that_can_be_called_with_one_argument_is_an_activity(
    function: Callable[..., Any], result: str
) -> None:
    assert await run(function, "1") == ActivityResult(result)


async def test_a_decorated_function_keeps_its_annotation() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def inner(*args: Any) -> Any:
            return function(*args)

        return inner

    assert await run(logged(year), '"2026-01-02T00:00:00Z"') == ActivityResult("2026")


# Activities.


def year(at: datetime) -> int:
    return at.year


@dataclass
class Point:
    x: int


async def test_the_input_is_decoded_by_annotation_or_as_said() -> None:
    assert await run(year, '"2026-01-02T00:00:00Z"') == ActivityResult("2026")
    assert await run(lambda point: point.x, '{"x":5}', input_type=Point) == ActivityResult("5")
    assert await run(lambda given: given, '{"x":5}') == ActivityResult('{"x":5}')
    assert await run(lambda given: [given], None) == ActivityResult("[null]")
    assert await run(lambda given: None, "1") == ActivityResult(None)


async def test_an_input_that_does_not_fit_is_a_failure() -> None:
    failure = (await run(year, '"x"')).failure

    assert failure is not None
    assert failure.short_type == "PayloadError"
    assert failure.message.startswith("The input of activity 'work' does not fit: $: Invalid")


@pytest.mark.parametrize("function", [lambda: {1}, lambda: float("nan"), object])
async def test_a_result_that_json_cannot_carry_is_a_failure(function: Callable[..., Any]) -> None:
    failure = (await run(function)).failure

    assert failure is not None
    assert failure.message.startswith("The result of activity 'work' cannot be carried: $: ")


def fails(error: BaseException) -> Callable[..., Any]:
    def work() -> None:
        try:
            raise KeyError("behind")
        except KeyError as behind:
            raise error from behind

    return work


def fails_async(error: BaseException) -> Callable[..., Any]:
    async def work() -> None:
        await asyncio.sleep(0)
        fails(error)()

    return work


@pytest.mark.parametrize("shape", [fails, fails_async])
@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, SystemExit, asyncio.CancelledError, GeneratorExit, TimeoutError]
)
async def test_whatever_an_activity_raises_is_a_failure_with_its_cause(shape: Any, kind: type[BaseException]) -> None:
    failure = (await run(shape(kind("broken")))).failure

    assert failure is not None
    if kind is StopIteration and shape is fails_async:
        failure = failure.cause  # Python's own RuntimeError stands before it
        assert failure is not None
    assert failure.short_type == kind.__name__
    assert failure.message == "broken"
    assert failure.cause is not None
    assert failure.cause.type == "KeyError"


@pytest.mark.parametrize("shape", [fails, fails_async])
async def test_the_stack_of_a_failure_begins_in_user_code(shape: Any) -> None:
    failure = (await run(shape(ValueError("broken")))).failure

    assert failure is not None
    assert failure.stack is not None
    assert __file__ in failure.stack.splitlines()[1]


async def test_cancellation_from_outside_passes_through() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(run(work))
        await begun.wait()
        running.cancel()

    assert running.cancelled()


async def test_blocking_functions_run_in_other_threads_with_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")

    def work() -> Any:
        return [variable.get(), threading.current_thread() is threading.main_thread()]

    assert await run(work) == ActivityResult('["seen",false]')


async def test_asynchronous_functions_run_on_the_loop() -> None:
    loop = asyncio.get_running_loop()

    async def work() -> bool:
        return asyncio.get_running_loop() is loop

    assert await run(work) == ActivityResult("true")
    assert await run(partial(work)) == ActivityResult("true")
    assert await run(lambda more=1: work()) == ActivityResult("true")


async def test_the_pool_is_bounded() -> None:
    running = 0
    most = 0
    lock = threading.Lock()
    barrier = threading.Barrier(2)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait()  # both threads are busy at once, never a third
        with lock:
            running -= 1

    registry = FunctionRegistry()
    registry.add_activity(work)
    activities = NativeActivities(registry, system_environment(), threads=2)
    await asyncio.gather(*(activities.execute(task("work")) for _ in range(8)))
    activities.close()

    assert most == 2


async def test_an_environment_with_threads_of_its_own_is_used() -> None:
    class Inline(Threads):
        def serial(self, name: str, /) -> SerialThread:
            raise NotImplementedError

        async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    registry = FunctionRegistry()
    registry.add_activity(lambda: threading.current_thread() is threading.main_thread(), name="work")

    assert await NativeActivities(registry, Environment(threads=Inline())).execute(task("work")) == ActivityResult(
        "true"
    )


async def test_an_unknown_activity_is_our_own_mistake() -> None:
    activities = NativeActivities(FunctionRegistry(), system_environment())
    with pytest.raises(LookupError, match="No activity functions are currently registered"):
        await activities.execute(task("nobody"))
    assert not activities.handles("nobody")
    assert activities.names() == []


# Orchestrations.


async def test_an_episode_runs_the_orchestrator_of_the_start() -> None:
    registry = FunctionRegistry()
    registry.add_orchestrator(chain, name="Chain")
    executor = NativeOrchestrations(registry)
    assert executor.handles("chain", None)
    assert not executor.handles("other", None)
    assert executor.names() == ["Chain"]

    first = await executor.execute(Episode(INSTANCE, EXECUTION, (), [FIRST, start("CHAIN")]))
    assert first.actions == [ScheduleActivity(0, "a")]
    new: list[HistoryEvent] = [FIRST, TaskCompleted(timestamp=BEGINNING, task_id=0)]
    second = await executor.execute(Episode(INSTANCE, EXECUTION, (), new, first.session))

    assert isinstance(second.actions[-1], CompleteOrchestration)
    assert second.session is None


async def test_an_unknown_orchestrator_or_a_foreign_session_is_our_own_mistake() -> None:
    executor = NativeOrchestrations(FunctionRegistry())
    with pytest.raises(LookupError, match="No orchestrator functions"):
        await executor.execute(Episode(INSTANCE, EXECUTION, (), [FIRST, start("nobody")]))
    with pytest.raises(OrchestratorError, match="no ExecutionStarted"):
        await executor.execute(Episode(INSTANCE, EXECUTION, (), [FIRST]))

    class Foreign:
        def size(self) -> int:
            return 0

        def close(self) -> None: ...

    with pytest.raises(TypeError, match="a session of this executor"):
        await executor.execute(Episode(INSTANCE, EXECUTION, (), [FIRST], Foreign()))


async def test_an_orchestrator_that_names_histories_has_them() -> None:
    def tells(context: Any) -> Any:
        return [type(event).__name__ for event in context.histories]

    registry = FunctionRegistry()
    registry.add_orchestrator(tells)
    episode = Episode(INSTANCE, EXECUTION, (), [FIRST, start("tells")])
    result = await NativeOrchestrations(registry).execute(episode)

    (completion,) = result.actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.result == '["ExecutionStarted"]'
