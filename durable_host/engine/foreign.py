"""What an orchestrator may not yield or await, and what to write instead."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, cast

from durable_host.errors import ForeignAwaitableError

__all__ = ["refused"]

_RULE = (
    "An orchestrator may wait only for what its context returns: everything else would be gone, or different, when the "
    "orchestrator is replayed."
)


def refused(yielded: object) -> ForeignAwaitableError:
    """The error to throw into code that yielded or awaited something else than a task of its context.

    What would go on by itself is stopped: a future is cancelled, a coroutine closed.
    """
    if isinstance(yielded, asyncio.Future):
        yielded.cancel()
        what = "an asyncio future"
        advice = (
            "Instead of asyncio.sleep use context.create_timer, instead of asyncio.gather or asyncio.wait "
            "context.when_all or context.when_any, instead of asyncio.wait_for a timer in when_any; do I/O and "
            "other asynchronous work in an activity."
        )
    elif inspect.iscoroutine(yielded):
        what = f"the coroutine {yielded.__qualname__!r}"
        yielded.close()
        advice = (
            "In a generator call an activity; for helpers of your own write `async def` orchestrators and await them."
        )
    elif inspect.isgenerator(yielded):
        what = f"the generator {yielded.__qualname__!r}"
        yielded.close()
        advice = "Write `yield from` to run a helper that yields tasks itself."
    elif isinstance(yielded, (list, tuple, set, frozenset)):
        what = f"a {type(cast(object, yielded)).__name__}"
        advice = "Use context.task_all (or when_all) to wait for all tasks of a list, task_any for the first."
    elif yielded is None:
        what = "None"
        advice = (
            "A bare `yield`, asyncio.sleep(0) and the like wait for nothing; use context.create_timer to let time pass."
        )
    elif callable(yielded):
        name = getattr(cast("Callable[..., Any]", yielded), "__name__", type(yielded).__name__)
        what = f"the function {name!r}"
        advice = (
            f"Call it: context.call_activity({name}, ...) for an activity, `context.{name}(...)` for a context method."
        )
    elif inspect.isawaitable(yielded):
        what = f"a {type(yielded).__module__}.{type(yielded).__qualname__}"
        advice = "Do asynchronous work in an activity and wait for context.call_activity."
    else:
        what = f"a value of type {type(yielded).__name__}"
        advice = "Yield the task that a context method returns; to end with a value, return it."
    return ForeignAwaitableError(f"The orchestrator waits for {what}. {_RULE} {advice}")
