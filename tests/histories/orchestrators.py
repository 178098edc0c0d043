"""Orchestrators that make the decisions of the recorded ones, as generators and as coroutines."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.tasks import Task
from durable_host.errors import ActivityFailedError
from durable_host.executors.native import FunctionRegistry
from durable_host.model.retry import RetryOptions

__all__ = ["NOT_YET", "registry"]

Code = Generator[Task[Any], Any, Any]

NOT_YET = {
    "UsesCounter", "Transfer", "LocksTwo", "EntityFailure", "SignalsLater", "WorkerEntity", "WorkerLocks",  # entities
    "CallsHttp", "WorkerHttp",  # HTTP calls
    "CallsNobody", "WorkerNoActivity", "WorkerNoChild", "WorkerNoEntity",  # what does not exist fails differently here
}  # fmt: skip


def sequence(context: Context) -> Code:
    greetings: list[str] = []
    for city in ("Tokyo", "Seattle", "London"):
        greetings.append((yield context.call_activity("say_hello", city)))
    return greetings


async def gated_sequence(context: Context) -> list[str]:
    return [
        await context.call_activity("say_hello", "Tokyo"),
        await context.call_activity("gate", "Seattle"),
        await context.call_activity("say_hello", "London"),
    ]


def fan_out(context: Context) -> Code:
    squares = yield context.task_all([context.call_activity("square", n) for n in range(context.get_input())])
    return sum(squares)


async def gated_fan_out(context: Context) -> list[Any]:
    return await context.when_all([context.call_activity("gate" if n % 2 else "square", n) for n in range(5)])


def sleep(context: Context) -> Code:
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    return "awake"


async def approval(context: Context) -> Any:
    return await context.wait_for_external_event("Approval")


def approval_or_timeout(context: Context) -> Code:
    timer = context.create_timer(timedelta(seconds=context.get_input()))
    event = context.wait_for_external_event("Approval")
    first = yield context.task_any([timer, event])
    if first is timer:
        return "timeout"
    timer.cancel()
    return {"approved": event.result}


async def early_event(context: Context) -> list[Any]:
    greeting = await context.call_activity("say_hello", "early")
    await context.create_timer(timedelta(seconds=2))
    return [greeting, await context.wait_for_external_event("approval")]


def parent(context: Context) -> Code:
    given = context.get_input()
    return {"child": (yield context.call_sub_orchestrator(given["child"], given["input"], given["id"]))}


def failing(context: Context) -> Code:
    return (yield context.call_activity("fail", context.get_input()))


def throwing(context: Context) -> None:
    raise ValueError("broken by design")


def leaves_open(context: Context) -> str:
    context.create_timer(timedelta(hours=1))
    context.call_activity("say_hello", "nobody")
    return "left"


async def compensating(context: Context) -> list[Any]:
    try:
        await context.call_activity("fail", context.get_input())
    except ActivityFailedError as error:
        messages = [error.reason]
        if error.details is not None:  # in process, where the reference words the failure anew
            inner = json.loads(error.details)["Message"]
            messages = [
                f"The activity function 'fail' failed: \"{inner}\". "
                "See the function execution logs for additional details.",
                inner,
            ]
        return ["compensated", *messages, await context.call_activity("say_hello", "undo")]
    raise AssertionError("fail did not fail")


def retrying(context: Context) -> Code:
    given = context.get_input()
    policy = RetryOptions(given["first"] * 1000, given["attempts"], backoff_coefficient=2)
    return (yield context.call_activity_with_retry("flaky", policy, given["key"]))


def eternal(context: Context) -> Code:
    n = context.get_input()
    yield context.call_activity("square", n)
    if n < 3:
        context.continue_as_new(n + 1)
        return None
    return [n, (yield context.wait_for_external_event("stop"))]


async def large(context: Context) -> list[Any]:
    given = context.get_input(str)
    echoed = await context.call_activity("echo", given)
    return [len(given), len(echoed), await context.wait_for_external_event("Payload")]


def with_status(context: Context) -> Code:
    context.set_custom_status({"step": 1})
    yield context.call_activity("say_hello", "one")
    context.set_custom_status({"step": 2, "note": "日本語"})
    return (yield context.wait_for_external_event("go"))


def starter(context: Context) -> str:
    return context.start_detached("Sequence", instance_id=context.get_input())


async def flaky(context: Context) -> Any:
    return await context.call_activity("flaky", context.get_input())


def worker_sequence(context: Context) -> Code:
    return [
        (yield context.call_activity("say_hello", "Tokyo")),
        (yield context.call_activity("say_hello", "London")),
    ]


def worker_fan_out(context: Context) -> Code:
    return (yield context.map("square", range(3)))


def worker_race_open(context: Context) -> Code:
    timer = context.create_timer(timedelta(hours=1))
    event = context.wait_for_external_event("Approval")
    first = yield context.task_any([timer, event])
    return first.result


def worker_nothing(context: Context) -> Any:
    return context.get_input()


def worker_retrying(context: Context) -> Code:
    return (yield context.call_activity("flaky", context.get_input(), retry=RetryOptions(200, 3)))


def worker_parent(context: Context) -> Code:
    return {"child": (yield context.call_sub_orchestrator("WorkerSequenceV3", {"n": 1}, "worker-child"))}


def worker_eternal(context: Context) -> Code:
    n = context.get_input()
    yield context.call_activity("square", n)
    if n < 2:
        context.continue_as_new(n + 1)
    return n


def worker_timer_not_awaited(context: Context) -> str:
    context.create_timer(timedelta(hours=1))
    return "left a timer"


async def worker_activity_not_awaited(context: Context) -> str:
    context.call_activity("gate", "left")
    return "left an activity"


def worker_without_actions(context: Context) -> None:
    raise ValueError(
        "Value cannot be null. (Parameter 'Out-of-proc orchestrator schema must have a non-null actions property.')"
    )


async def describing(context: Context) -> list[Any]:
    values = [None, "text", 5, 1.5, True, [1, 2], {"a": "日本"}, '{"a": 1}', ""]
    return [await context.call_activity("describe", value) for value in values]


def registry() -> FunctionRegistry:
    """All of them, under the recorded names."""
    functions = FunctionRegistry()
    for name, function in {
        "Sequence": sequence,
        "GatedSequence": gated_sequence,
        "FanOut": fan_out,
        "GatedFanOut": gated_fan_out,
        "Sleep": sleep,
        "Approval": approval,
        "ApprovalOrTimeout": approval_or_timeout,
        "EarlyEvent": early_event,
        "Parent": parent,
        "Failing": failing,
        "Throwing": throwing,
        "LeavesOpen": leaves_open,
        "Compensating": compensating,
        "Retrying": retrying,
        "Eternal": eternal,
        "Large": large,
        "WithStatus": with_status,
        "Starter": starter,
        "Flaky": flaky,
        "WorkerSequenceV1": worker_sequence,
        "WorkerSequenceV2": worker_sequence,
        "WorkerSequenceV3": worker_sequence,
        "WorkerSequenceV4": worker_sequence,
        "WorkerFanOutV1": worker_fan_out,
        "WorkerFanOutV2": worker_fan_out,
        "WorkerRace": approval_or_timeout,
        "WorkerRaceOpen": worker_race_open,
        "WorkerNothing": worker_nothing,
        "WorkerFailing": failing,
        "WorkerRetrying": worker_retrying,
        "WorkerParent": worker_parent,
        "WorkerEternal": worker_eternal,
        "WorkerStatus": with_status,
        "WorkerEvent": approval,
        "WorkerSleep": sleep,
        "WorkerTimerNotAwaited": worker_timer_not_awaited,
        "WorkerActivityNotAwaited": worker_activity_not_awaited,
        "WorkerWithoutActions": worker_without_actions,
        "Describing": describing,
    }.items():
        functions.add_orchestrator(function, name=name)
    return functions
