"""The only door to time, randomness and blocking work.

Whatever the engine or a provider decides depends on its inputs and on these three: a `Clock`, an `IdSource` and
`Threads`. Production code gets the system versions; the simulation hands in its own and owns every source of
non-determinism. Lint bans `time.time`, `datetime.now`, `uuid.uuid4` and their kin everywhere else.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import ParamSpec, Protocol, TypeVar

__all__ = [
    "Clock",
    "Environment",
    "IdSource",
    "SerialThread",
    "SystemClock",
    "SystemIds",
    "SystemSerialThread",
    "SystemThreads",
    "Threads",
    "system_environment",
]

P = ParamSpec("P")
T = TypeVar("T")


class Clock(Protocol):
    """Wall time and elapsed time."""

    def now(self) -> datetime:
        """The current time, aware, UTC. May step back; order must not depend on it."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back, for measuring durations within one process."""
        ...


class IdSource(Protocol):
    """Random identities."""

    def new_id(self) -> str:
        """32 lower-case hexadecimal digits, unique."""
        ...

    def token(self, size: int) -> bytes:
        """`size` random bytes fit for secrets."""
        ...

    def uniform(self) -> float:
        """A random number in [0, 1), for jitter."""
        ...


class SerialThread(Protocol):
    """One thread that runs jobs one after another, in the order in which they were submitted."""

    def submit(self, job: Callable[[], None], /) -> None:
        """Run `job` after all earlier ones. Called from any thread, returns at once; the job must not raise.

        Raises:
            RuntimeError: the thread was closed.
        """
        ...

    def when_idle(self, job: Callable[[], None] | None, seconds: float) -> None:
        """Run `job` again and again, whenever nothing was submitted for so long; None: no longer.

        Called by the thread's own jobs. A tick of the thread costs half of one that comes from an event loop.
        """
        ...

    def close(self) -> None:
        """End the thread after the jobs that were submitted so far; does not wait. Idempotent."""
        ...


class Threads(Protocol):
    """Blocking work."""

    def serial(self, name: str, /) -> SerialThread:
        """A thread of its own for work that must not interleave, for example one database connection.

        The simulation runs the jobs on its loop, in order, one per turn.
        """
        ...

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function away from the event loop and return its result."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemIds:
    """Identities from the operating system's random source.

    Ids are cut from a block of random bytes: one system call for 256 ids. A forked child starts a block of its own.
    """

    _BLOCK = 256

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._pid = os.getpid()

    def new_id(self) -> str:
        if not self._ids or self._pid != os.getpid():
            digits = os.urandom(16 * self._BLOCK).hex()
            self._ids = [digits[at : at + 32] for at in range(0, len(digits), 32)]
            self._pid = os.getpid()
        return self._ids.pop()

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def uniform(self) -> float:
        return random.random()


class SystemSerialThread:
    """A daemon thread that starts with its first job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = False
        self._closed = False
        self._idle: tuple[Callable[[], None], float] | None = None

    def submit(self, job: Callable[[], None], /) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"thread {self._name!r} is closed")
            self._jobs.put(job)
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)

    def when_idle(self, job: Callable[[], None] | None, seconds: float) -> None:
        self._idle = None if job is None else (job, seconds)

    def _run(self) -> None:
        while True:
            idle = self._idle
            try:
                job = self._jobs.get(timeout=None if idle is None else idle[1])
            except Empty:
                job = idle[0] if idle is not None else None
            if job is None:
                return
            job()
            del job  # what it closed over must not live until the next one comes


class SystemThreads:
    """A pool of daemon-like threads of the process; `workers` bounds it."""

    def __init__(self, workers: int | None = None, name: str = "durable-host") -> None:
        self._executor: Executor = ThreadPoolExecutor(workers, thread_name_prefix=name)

    def serial(self, name: str, /) -> SerialThread:
        return SystemSerialThread(name)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class Environment:
    """What a component is handed instead of taking it."""

    clock: Clock = field(default_factory=SystemClock)
    ids: IdSource = field(default_factory=SystemIds)
    threads: Threads = field(default_factory=SystemThreads)


def system_environment() -> Environment:
    """The environment of a production process."""
    return Environment()
