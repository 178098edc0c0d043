"""Who waits here: lock calls, and how many of them take what is put now; clients, for what becomes of an instance."""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import datetime

from durable_host.model.instance import InstanceState

__all__ = ["Waiter", "Waiters", "Watcher", "whole_seconds_until"]


def whole_seconds_until(when: datetime | None, now: datetime) -> int:
    """A delay as queues take it: rounded up, so that nothing comes early (azure-storage-task-hub.md 9.3 item 34)."""
    return 0 if when is None else max(0, math.ceil((when - now).total_seconds()))


class Waiter:
    """One lock call; `free`: how many items it would take that are handed over to it now."""

    __slots__ = ("_event", "free")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.free = 0

    def wake(self) -> None:
        """Something may have become lockable."""
        self._event.set()

    def clear(self) -> None:
        """Whatever has happened so far is known."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until woken, or until the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass


class Waiters:
    """The lock calls of one kind.

    Args:
        demand: set while there are any.
    """

    def __init__(self, demand: asyncio.Event) -> None:
        self._demand = demand
        self._waiters: list[Waiter] = []

    def join(self) -> Waiter:
        """A call begins."""
        waiter = Waiter()
        self._waiters.append(waiter)
        self._demand.set()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """A call ends."""
        self._waiters.remove(waiter)
        if not self._waiters:
            self._demand.clear()

    @property
    def any(self) -> bool:
        """Whether a call waits."""
        return bool(self._waiters)

    def take_slot(self) -> bool:
        """Whether a call would take one more item; then it is promised to it."""
        for waiter in self._waiters:
            if waiter.free > 0:
                waiter.free -= 1
                return True
        return False

    def wake(self) -> None:
        """Something may have become lockable."""
        for waiter in self._waiters:
            waiter.wake()


class Watcher:
    """Somebody who waits for what this process writes into an instance's row.

    Attributes:
        ends_only: nothing but the end is of interest.
    """

    __slots__ = ("_event", "_state", "ends_only")

    def __init__(self, ends_only: bool) -> None:
        self._event = asyncio.Event()
        self._state: InstanceState | None = None
        self.ends_only = ends_only

    def tell(self, state: InstanceState | None) -> None:
        """It was written, and reads like this; None: whoever wants to know has to look."""
        self._state = state
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until it is written, or until the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def take(self) -> InstanceState | None:
        """What was written since the last call; None: nothing, or one has to look."""
        state, self._state = self._state, None
        self._event.clear()
        return state
