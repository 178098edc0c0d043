"""Calls that wait for the writer: futures of any loop, and lock calls that sleep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from durable_host.model.instance import InstanceState
from durable_host.storage.contract import ActivityWorkItem, HistoryCache, OrchestrationWorkItem

__all__ = ["ActivityWaiter", "InstanceWaiter", "Outbox", "Promise", "Waiter", "Watch"]

T = TypeVar("T")


class Promise(Generic[T]):
    """A future of the calling loop that another thread completes, through an `Outbox`."""

    __slots__ = ("future", "loop", "on_refused")

    def __init__(self, on_refused: Callable[[T], None] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.on_refused = on_refused
        """What to do with a result that nobody waits for any more."""

    def settle(self, value: T | BaseException) -> None:
        """Complete the future; on its loop."""
        if not self.future.done():
            if isinstance(value, BaseException):
                self.future.set_exception(value)
            else:
                self.future.set_result(value)
        else:
            self.refuse(value)

    def refuse(self, value: T | BaseException) -> None:
        """Nobody waits for this result."""
        if self.on_refused is not None and not isinstance(value, BaseException):
            self.on_refused(value)


Watch = Promise[InstanceState | None]
"""What is told of changes of an instance."""


class Outbox:
    """Results of one batch, delivered with one wake-up per loop."""

    def __init__(self) -> None:
        self._results: dict[asyncio.AbstractEventLoop, list[tuple[Promise[Any], Any]]] = {}

    def settle(self, promise: Promise[Any], value: object) -> None:
        """Complete this promise when the batch is delivered."""
        self._results.setdefault(promise.loop, []).append((promise, value))

    def deliver(self) -> None:
        """Wake the loops; from any thread."""
        results, self._results = self._results, {}
        for loop, settled in results.items():
            try:
                if _running_here(loop):
                    _settle(settled)
                else:
                    loop.call_soon_threadsafe(_settle, settled)
            except RuntimeError:  # the loop is closed: nobody waits any more, but what was locked must be given back
                for promise, value in settled:
                    promise.refuse(value)


def _running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _settle(settled: Iterable[tuple[Promise[Any], Any]]) -> None:
    for promise, value in settled:
        promise.settle(value)


class Waiter(Promise[T]):
    """A lock call. Either the writer takes it, and will settle it, or its time runs out first; never both."""

    __slots__ = ("_expired", "_mutex", "_taken", "at_once", "limit")

    def __init__(self, limit: int, at_once: bool, on_refused: Callable[[T], None]) -> None:
        super().__init__(on_refused)
        self.limit = limit
        self.at_once = at_once
        self._mutex = threading.Lock()
        self._taken = False
        self._expired = False

    @property
    def is_open(self) -> bool:
        """Nobody has taken it."""
        return not self._taken

    def take(self) -> bool:
        """For the writer: claim the right to settle it. False: it is taken, or its time ran out."""
        with self._mutex:
            if self._taken:
                return False
            self._taken = True
            return True

    def put_back(self) -> bool:
        """For the writer: let it wait on. False: its time ran out meanwhile, and it must be settled with nothing."""
        with self._mutex:
            self._taken = self._expired
            return not self._expired

    def expire(self) -> bool:
        """For the caller: its time is over. False: the writer has taken it and will settle it."""
        with self._mutex:
            self._expired = True
            if self._taken:
                return False
            self._taken = True
            return True


class InstanceWaiter(Waiter[Sequence[OrchestrationWorkItem]]):
    """A call of lock_orchestrations."""

    __slots__ = ("cache",)

    def __init__(
        self,
        limit: int,
        at_once: bool,
        cache: HistoryCache,
        on_refused: Callable[[Sequence[OrchestrationWorkItem]], None],
    ) -> None:
        super().__init__(limit, at_once, on_refused)
        self.cache = cache


class ActivityWaiter(Waiter[Sequence[ActivityWorkItem]]):
    """A call of lock_activities."""

    __slots__ = ()
