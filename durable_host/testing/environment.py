"""Time, ids and threads of a simulated process.

`simulated_environment(seed)` makes an `Environment` bound to the running loop: its clock follows the loop's time, which
is virtual on a `SimulatedLoop`; its ids are drawn from the seed; blocking work runs inline. Several environments on one
loop stand for several processes, each with a clock that may be wrong in its own way.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

from durable_host.environment import Environment, SerialThread

__all__ = ["START", "InlineSerialThread", "InlineThreads", "SeededIds", "SimulatedClock", "simulated_environment"]

P = ParamSpec("P")
T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""Wall time when a simulated loop's time is zero."""


class SimulatedClock:
    """A clock on a loop's time, with an error that tests control.

    Args:
        elapsed: seconds since the simulation began; default: the running loop's `time`, so that the clock may be read
            from any thread. `lambda: 0.0` makes a clock that only `advance` moves.
        skew: how far wall time is off.
    """

    def __init__(self, elapsed: Callable[[], float] | None = None, *, skew: timedelta = timedelta(0)) -> None:
        self._elapsed = elapsed or asyncio.get_running_loop().time
        self._advanced = 0.0
        self.skew = skew

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic()) + self.skew

    def monotonic(self) -> float:
        return self._elapsed() + self._advanced

    def step(self, by: timedelta) -> None:
        """Set wall time forward or back; elapsed time knows nothing of it."""
        self.skew += by

    def advance(self, by: timedelta) -> None:
        """Let time pass, wall and elapsed, without moving the loop's."""
        if by < timedelta(0):
            raise ValueError("time does not run backwards; use step for a wall clock that does")
        self._advanced += by.total_seconds()


class SeededIds:
    """Ids, secrets and jitter drawn from a seed."""

    def __init__(self, seed: int | str = 0) -> None:
        self._random = random.Random(seed)

    def new_id(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self) -> float:
        return self._random.random()


class InlineSerialThread:
    """Jobs on the running loop, one per callback, in the order of their submission whatever the loop shuffles."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._closed = False
        self._tick: asyncio.TimerHandle | None = None

    def submit(self, job: Callable[[], None], /) -> None:
        if self._closed:
            raise RuntimeError(f"thread {self._name!r} is closed")
        self._jobs.append(job)
        asyncio.get_running_loop().call_soon(self._turn)

    def when_idle(self, job: Callable[[], None] | None, seconds: float) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if job is not None and not self._closed:
            self._tick = asyncio.get_running_loop().call_later(seconds, self._ticked, job, seconds)

    def close(self) -> None:
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()

    def _ticked(self, job: Callable[[], None], seconds: float) -> None:
        self.when_idle(job, seconds)
        job()

    def _turn(self) -> None:
        self._jobs.popleft()()


class InlineThreads:
    """Blocking work on the caller's own thread, after one turn of the loop."""

    def serial(self, name: str, /) -> SerialThread:
        return InlineSerialThread(name)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return function(*args, **kwargs)


def simulated_environment(seed: int | str = 0, *, skew: timedelta = timedelta(0)) -> Environment:
    """The environment of one simulated process; call it while the loop runs."""
    return Environment(clock=SimulatedClock(skew=skew), ids=SeededIds(seed), threads=InlineThreads())
