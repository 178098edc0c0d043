"""The orchestrators and activities that stood behind the recording, with the same names and decisions.

Those that need entities or HTTP calls are names only: they have to be known, and nothing starts them here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.engine.tasks import Task
from durable_host.executors.native import FunctionRegistry

__all__ = ["reference_registry"]

Steps = Generator[Task[Any], Any, Any]


def reference_registry(gate: asyncio.Event) -> FunctionRegistry:
    """All functions; the activity `gate` ends when the event is set."""
    registry = FunctionRegistry()
    for orchestrator in _ORCHESTRATORS:
        registry.add_orchestrator(orchestrator)
    for name in ("CallsHttp", "UsesCounter", "LocksTwo", "EntityFailure", "SignalsLater"):
        registry.add_orchestrator(_later, name=name)

    async def held(value: Any) -> str:
        await gate.wait()
        return f"passed {value}"

    registry.add_activity(held, name="gate")
    for activity in (say_hello, square, echo, fail, flaky):
        registry.add_activity(activity)
    return registry


async def say_hello(name: str) -> str:
    return f"Hello {name}!"


async def square(number: int) -> int:
    return number * number


async def echo(value: Any) -> Any:
    return value


async def fail(value: Any) -> None:
    raise ValueError(f"boom {value}")


async def flaky(key: str) -> str:
    return key


def Sequence(context: DurableOrchestrationContext) -> Steps:
    greetings: list[str] = []
    for city in ("Tokyo", "Seattle", "London"):
        greetings.append((yield context.call_activity("say_hello", city)))
    return greetings


def GatedSequence(context: DurableOrchestrationContext) -> Steps:
    first = yield context.call_activity("say_hello", "Tokyo")
    second = yield context.call_activity("gate", "Seattle")
    third = yield context.call_activity("say_hello", "London")
    return [first, second, third]


def FanOut(context: DurableOrchestrationContext) -> Steps:
    squares: list[int] = yield context.task_all(
        [context.call_activity("square", each) for each in range(context.get_input())]
    )
    return sum(squares)


def GatedFanOut(context: DurableOrchestrationContext) -> Steps:
    results: list[Any] = yield context.task_all(
        [context.call_activity("gate" if each % 2 else "square", each) for each in range(5)]
    )
    return results


def Sleep(context: DurableOrchestrationContext) -> Steps:
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    return "awake"


def Approval(context: DurableOrchestrationContext) -> Steps:
    data = yield context.wait_for_external_event("Approval")
    return data


def ApprovalOrTimeout(context: DurableOrchestrationContext) -> Steps:
    timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    event = context.wait_for_external_event("Approval")
    winner = yield context.task_any([timer, event])
    if winner is timer:
        return "timeout"
    timer.cancel()
    return {"approved": event.result}


def EarlyEvent(context: DurableOrchestrationContext) -> Steps:
    greeting = yield context.call_activity("say_hello", "early")
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=2))
    data = yield context.wait_for_external_event("Approval")
    return [greeting, data]


def Parent(context: DurableOrchestrationContext) -> Steps:
    asked = context.get_input()
    result = yield context.call_sub_orchestrator(asked["child"], asked["input"], asked["id"])
    return {"child": result}


def Failing(context: DurableOrchestrationContext) -> Steps:
    yield context.call_activity("fail", context.get_input())


def Throwing(context: DurableOrchestrationContext) -> Steps:
    yield from ()
    raise RuntimeError("broken by design")


def CallsNobody(context: DurableOrchestrationContext) -> Steps:
    yield context.call_activity("Nope", None)


def LeavesOpen(context: DurableOrchestrationContext) -> Steps:
    context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    context.call_activity("say_hello", "nobody")
    yield from ()
    return "left"


def Compensating(context: DurableOrchestrationContext) -> Steps:
    try:
        yield context.call_activity("fail", context.get_input())
    except Exception as error:
        greeting = yield context.call_activity("say_hello", "undo")
        return ["compensated", str(error).partition(" \n ")[0], f"boom {context.get_input()}", greeting]


def Retrying(context: DurableOrchestrationContext) -> Steps:
    result = yield context.call_activity("flaky", context.get_input()["key"])
    return result


def Eternal(context: DurableOrchestrationContext) -> Steps:
    number: int = context.get_input()
    yield context.call_activity("square", number)
    if number < 3:
        context.continue_as_new(number + 1)
        return None
    data = yield context.wait_for_external_event("stop")
    return [number, data]


def Large(context: DurableOrchestrationContext) -> Steps:
    text: str = context.get_input()
    echoed: str = yield context.call_activity("echo", text)
    data = yield context.wait_for_external_event("Payload")
    return [len(text), len(echoed), data]


def WithStatus(context: DurableOrchestrationContext) -> Steps:
    context.set_custom_status({"step": 1})
    yield context.call_activity("say_hello", "one")
    context.set_custom_status({"step": 2, "note": "日本語"})
    data = yield context.wait_for_external_event("go")
    return data


def Starter(context: DurableOrchestrationContext) -> Steps:
    yield from ()
    return context.start_detached("Sequence", None, context.get_input())


def ReturnsNothing(context: DurableOrchestrationContext) -> Steps:
    yield from ()


def _later(context: DurableOrchestrationContext) -> Steps:
    yield from ()
    raise NotImplementedError("needs entities or HTTP calls")


_ORCHESTRATORS = (
    Sequence,
    GatedSequence,
    FanOut,
    GatedFanOut,
    Sleep,
    Approval,
    ApprovalOrTimeout,
    EarlyEvent,
    Parent,
    Failing,
    Throwing,
    CallsNobody,
    LeavesOpen,
    Compensating,
    Retrying,
    Eternal,
    Large,
    WithStatus,
    Starter,
    ReturnsNothing,
)
