"""An event loop on virtual time, with a seeded order.

Rules:

* Nothing ever blocks. When no callback is ready, time jumps to the next timer; a week passes in a microsecond.
* Callbacks that are ready at once run in an order drawn from the seed. The same seed gives the same order, so a failing
  run can be replayed; another seed looks for another interleaving.
* When nothing is ready and no timer is set, nobody can ever wake anybody: the loop raises `DeadlockError` with the
  stack of every task, instead of hanging until somebody's timeout.
* `run_in_executor` and `asyncio.to_thread` run the function on the loop's own thread: threads would bring back the
  non-determinism that this loop removes. Sockets, subprocesses and signals are refused.

The loop builds on `asyncio.BaseEventLoop` and leans on five of its private members: `_selector` and `_process_events`
(where it would wait), `_ready` (what runs next), `_scheduled` (the heap of timers) and `_clock_resolution` (how much
too early a timer may be). The tests in `tests/unit/testing/test_loop.py` pin them on every supported version of
CPython. Writing a loop of our own instead was considered: `call_soon`, `call_at`, tasks, the shutdown of generators and
debug mode are 600 lines that asyncio keeps right for us.

Iterating a set of futures (the result of `asyncio.wait`) goes by memory address, which no seed controls: code that must
be reproducible iterates its own list and asks `done()`.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["DeadlockError", "SimulatedLoop", "run_simulated"]

T = TypeVar("T")

_LIVELOCK = 1_000_000
"""Rounds without a step of time after which tasks are taken to wake each other for ever."""


class DeadlockError(RuntimeError):
    """Nothing can run and no timer is set, or time stands still while callbacks run; carries the tasks' stacks."""


class _Ready(deque["asyncio.Handle"]):
    """The loop's ready queue. Shuffles what one round will run, due timers included, when the round takes its first."""

    def __init__(self, order: random.Random | None) -> None:
        super().__init__()
        self.order = order
        self.new_round = False

    def popleft(self) -> asyncio.Handle:
        if self.new_round:
            self.new_round = False
            if self.order is not None and len(self) > 1:
                handles = list(self)
                self.order.shuffle(handles)
                self.clear()
                self.extend(handles)
        return super().popleft()


class _JumpingSelector:
    """Where asyncio would wait for sockets: moves the loop's time instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise DeadlockError(_describe(self._loop, "Deadlock: nothing can run and no timer is set."))
        if timeout > 0:
            self._rounds = 0
            self._loop.jump()
        else:
            self._rounds += 1
            if self._rounds > _LIVELOCK:
                raise DeadlockError(_describe(self._loop, "Livelock: callbacks run for ever and time stands still."))
        self._loop.begin_round()
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop whose time is virtual and whose order is drawn from a seed.

    Args:
        seed: of the order of callbacks; None keeps asyncio's own first-in-first-out order.

    Use it through `run_simulated`, or `asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed))`.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.seed = seed
        self._now = 0.0
        self._ready = _Ready(None if seed is None else random.Random(seed))
        self._scheduled: list[asyncio.TimerHandle] = []  # INVARIANT: a heap by `when`, kept by call_at and _run_once
        self._selector = _JumpingSelector(self)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def jump(self) -> None:
        """Move time to the next timer; never backwards."""
        # The timer's own instant, not now + timeout: far from zero the sum may round to just before it, for ever.
        self._now = max(self._now, self._scheduled[0].when())
        # asyncio runs what is due before now + resolution; where that sum is now itself, nothing would ever be due.
        self._clock_resolution = max(1e-9, 2 * math.ulp(self._now))

    def begin_round(self) -> None:
        """Let the next round's callbacks be shuffled."""
        self._ready.new_round = True

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Run the function on this thread, in a callback of its own."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(call, context=contextvars.copy_context())
        return future

    def _process_events(self, event_list: list[object]) -> None:
        """Nothing: the selector never reports events."""

    def _write_to_self(self) -> None:
        """Nothing: `call_soon_threadsafe` needs no wake-up, since the loop never sleeps."""


def run_simulated(main: Coroutine[Any, Any, T], *, seed: int | None = 0) -> T:
    """Run a coroutine to its end on a fresh `SimulatedLoop` and return its result.

    Raises:
        DeadlockError: nothing could run any more.
    """
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed)) as runner:
        return runner.run(main)


def _describe(loop: SimulatedLoop, headline: str) -> str:
    text = io.StringIO()
    print(f"{headline} Virtual time {loop.time():.6f} s, seed {loop.seed}.", file=text)
    for task in sorted(asyncio.all_tasks(loop), key=lambda each: each.get_name()):
        task.print_stack(file=text)
    return text.getvalue()
