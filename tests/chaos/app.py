"""What the hosts of a chaos run execute: one orchestrator for each thing that can be interrupted.

Every run of an activity writes one line to the run log, its *token*, before it returns the token: the task it was asked
for and an id of its own. So the verdict can tell which run's result an instance used, that it was used once, and that
it answers what was asked. Outputs are lists of tokens and plain words.
"""

from __future__ import annotations

import asyncio
import os
import threading
import zlib
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.environment import system_environment
from durable_host.errors import TaskFailedError
from durable_host.model.retry import RetryOptions

__all__ = ["ACTIVITIES", "ORCHESTRATORS", "Bench", "task_of"]

Steps = Generator[Any, Any, Any]


class Bench:
    """Where activities work in this process.

    Attributes:
        folder: holds the run log and the attempts of those that fail on purpose.
        lease: length of a lease in seconds; some activities take longer.
    """

    folder = Path()
    lease = 5.0


_ids = system_environment().ids


def task_of(token: str) -> str:
    """What a token answers."""
    return token.partition("#")[0]


def _append(file: Path, text: str) -> int:
    """Add to a file that other processes write, too; returns its size then."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, text.encode())
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def _acted(task: str) -> str:
    token = f"{task}#{_ids.new_id()}"
    _append(Bench.folder / "runs.log", f"{token}\n")
    return token


def _seconds(task: str) -> float:
    """How long a task takes: long enough that much is held when a host is struck; sometimes longer than a lease."""
    chance = zlib.crc32(task.encode()) % 1000
    if chance < 500:
        return 0.0
    if chance < 900:
        return (chance - 500) / 1000
    return (chance - 900) / 50 if chance < 990 else 1.4 * Bench.lease


# Activities.


async def step(task: str) -> str:
    await asyncio.sleep(_seconds(task))
    return _acted(task)


def blocking_step(task: str) -> str:
    threading.Event().wait(_seconds(task))
    return _acted(task)


async def flaky(task: str) -> str:
    """Fails as often as the last word of the task says, counted over all processes."""
    attempts = Bench.folder / "attempts" / f"{zlib.crc32(task.encode()):08x}-{len(task)}"
    if _append(attempts, ".") <= int(task.rpartition(" ")[2]):
        raise ValueError(f"{task} is not ready")
    return _acted(task)


# Orchestrators. `key` begins the names of all tasks of an instance, so that no two tasks have one name.


async def chain(context: Context) -> list[str]:
    """Steps one after another, on the loop and on threads in turn."""
    key, length = context.get_input()
    tokens: list[str] = []
    for number in range(length):
        name = "blocking_step" if number % 2 else "step"
        tokens.append(await context.call_activity(name, f"{key}/{number}"))
        context.set_custom_status(number)
    return tokens


def fan(context: Context) -> Steps:
    """Many steps at once, a timer, and as many again."""
    key, width = context.get_input()
    one = yield context.task_all([context.call_activity("step", f"{key}/a{number}") for number in range(width)])
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=1))
    two = yield context.task_all([context.call_activity("step", f"{key}/b{number}") for number in range(width)])
    return [*one, *two]


def timers(context: Context) -> Steps:
    """Timers that fire, one that is cancelled, and one that wins against an event that never comes."""
    key = context.get_input()
    tokens: list[str] = []
    for number in range(3):
        yield context.create_timer(context.current_utc_datetime + timedelta(seconds=number * 0.7))
        tokens.append((yield context.call_activity("step", f"{key}/{number}")))
    late = context.create_timer(context.current_utc_datetime + timedelta(days=1))
    work = context.call_activity("step", f"{key}/work")
    first = yield context.task_any([work, late])
    late.cancel()
    tokens.append(first.result)
    due = context.create_timer(context.current_utc_datetime + timedelta(seconds=2))
    never = context.wait_for_external_event("never")
    won = yield context.task_any([never, due])
    tokens.append("due" if won is due else "never")
    return tokens


def gate(context: Context) -> Steps:
    """Events of three names; what is done depends on the order in which they arrive."""
    key, count = context.get_input()
    left, right = context.wait_for_external_event("left"), context.wait_for_external_event("right")
    first = yield context.task_any([left, right])
    way = "left" if first is left else "right"
    tokens = [(yield context.call_activity("step", f"{key}/{way} {first.result}"))]
    other = yield (right if first is left else left)
    tokens.append((yield context.call_activity("blocking_step", f"{key}/then {other}")))
    more: list[str] = []
    for _ in range(count):
        value = yield context.wait_for_external_event("more")
        more.append((yield context.call_activity("step", f"{key}/more {value}")))
    return [*tokens, *sorted(more)]


async def collect(context: Context) -> list[str]:
    """Each event is taken by an execution of its own."""
    key, wanted, earlier = context.get_input()
    tokens: list[str] = earlier or []
    value = await context.wait_for_external_event("item")
    tokens = [*tokens, await context.call_activity(step, f"{key}/item {value}")]
    if len(tokens) < wanted:
        context.continue_as_new([key, wanted, tokens])
    return sorted(tokens)


async def rounds(context: Context) -> list[str]:
    """Some executions of two steps each, one of them without any."""
    key, number, earlier = context.get_input()
    tokens: list[str] = earlier or []
    if number != 2:
        tokens = [*tokens, await context.call_activity(step, f"{key}/{number}a")]
        tokens = [*tokens, await context.call_activity(blocking_step, f"{key}/{number}b")]
    if number < 5:
        context.continue_as_new([key, number + 1, tokens])
    return tokens


async def parent(context: Context) -> list[str]:
    """A step, children at once of which one fails and one has a child itself, a step."""
    key, depth = context.get_input()
    tokens = [await context.call_activity(step, f"{key}/before")]
    children = [
        context.call_sub_orchestrator(chain, [f"{key}/chain", 3]),
        context.call_sub_orchestrator(fan, [f"{key}/fan", 3]),
        context.call_sub_orchestrator(rounds, [f"{key}/rounds", 0, None]),
    ]
    if depth:
        children.append(context.call_sub_orchestrator(parent, [f"{key}/parent", depth - 1]))
    doomed = context.call_sub_orchestrator(failing, f"{key}/failing")
    for found in await context.task_all(children):
        tokens += found
    try:
        await doomed
        tokens.append("?")
    except TaskFailedError:
        tokens.append("failed")
    return [*tokens, await context.call_activity(blocking_step, f"{key}/after")]


async def failing(context: Context) -> None:
    """A step, and then a failure that nobody catches."""
    key = context.get_input()
    await context.call_activity(step, f"{key}/before")
    await context.call_activity(flaky, f"{key}/never 1000000")


async def retrying(context: Context) -> list[str]:
    """An activity that succeeds in the end, and one that does not."""
    key = context.get_input()
    patient = RetryOptions(first_retry_interval=timedelta(seconds=0.2), max_number_of_attempts=8)
    tokens = [await context.call_activity(flaky, f"{key}/soon 3", retry=patient)]
    hasty = RetryOptions(first_retry_interval=timedelta(seconds=0.1), max_number_of_attempts=3, backoff_coefficient=2)
    try:
        await context.call_activity(flaky, f"{key}/never 1000000", retry=hasty)
        tokens.append("?")
    except TaskFailedError:
        tokens.append("gave up")
    return tokens


async def rewound(context: Context) -> list[str]:
    """Fails until somebody rewinds it often enough; the deeper one below its parent, which fails by it."""
    key, depth, failures = context.get_input()
    tokens = [await context.call_activity(step, f"{key}/before")]
    if depth:
        tokens += await context.call_sub_orchestrator(rewound, [f"{key}/child", depth - 1, failures])
    else:
        tokens.append(await context.call_activity(flaky, f"{key}/fails {failures}"))
    return [*tokens, await context.call_activity(step, f"{key}/after")]


async def once(context: Context) -> list[str]:
    """A step; for ids that have several lives."""
    return [await context.call_activity(step, context.get_input())]


def talking(context: Context) -> Steps:
    """Starts two others and exchanges events with them."""
    me = context.instance_id
    for number in range(2):
        context.start_detached("guest", [me, number], instance_id=f"{me}-guest-{number}")
    heard: list[int] = []
    for _ in range(2):
        heard.append((yield context.wait_for_external_event("hello")))
    for number in heard:
        context.send_event(f"{me}-guest-{number}", "thanks", number)
    return [str(number) for number in sorted(heard)]


async def guest(context: Context) -> list[str]:
    host, number = context.get_input()
    token = await context.call_activity(step, f"{context.instance_id}/step")
    context.send_event(host, "hello", number)
    return [token, str(await context.wait_for_external_event("thanks"))]


async def patient(context: Context) -> list[str]:
    """Is suspended and resumed while it runs."""
    key = context.get_input()
    tokens = [await context.call_activity(step, f"{key}/{number}") for number in range(3)]
    value = await context.wait_for_external_event("go")
    return [*tokens, await context.call_activity(step, f"{key}/go {value}")]


def doomed(context: Context) -> Steps:
    """Is terminated, with its children."""
    key = context.get_input()
    yield context.task_all([context.call_sub_orchestrator("waiting", f"{key}/{number}") for number in range(2)])


async def waiting(context: Context) -> None:
    await context.wait_for_external_event("never")


ORCHESTRATORS: tuple[Callable[..., Any], ...] = (
    chain,
    fan,
    timers,
    gate,
    collect,
    rounds,
    parent,
    failing,
    retrying,
    rewound,
    once,
    talking,
    guest,
    patient,
    doomed,
    waiting,
)

ACTIVITIES: tuple[Callable[..., Any], ...] = (step, blocking_step, flaky)
