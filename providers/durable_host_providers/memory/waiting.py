"""Calls that sleep until there is something for them, and the store objects they belong to."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import datetime

from durable_host_providers.memory.records import InstanceRecord, TaskRecord

__all__ = ["Holder", "Sleeper", "Waiter"]


class Sleeper:
    """One sleeping call; woken once, from any thread."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.get_ident()

    def wake(self) -> None:
        """End the sleep; waking twice is harmless."""
        if self._thread == threading.get_ident():
            if not self._future.done():
                self._future.set_result(None)
        else:
            with suppress(RuntimeError):  # its loop is closed, so nobody sleeps there any more
                self._loop.call_soon_threadsafe(self.wake)

    async def sleep(self, seconds: float) -> None:
        """Return when woken or when the time is over."""
        alarm = self._loop.call_later(seconds, self.wake)
        try:
            await self._future
        finally:
            alarm.cancel()


class Waiter(Sleeper):
    """A lock call that found nothing.

    Attributes:
        free: how many more items it takes.
        instances, tasks: handed over to it: locked, with the token of that lock.
        due: when it wakes by itself to look at timers; None: no timer is set.
    """

    __slots__ = ("due", "free", "instances", "tasks")

    def __init__(self, limit: int, due: datetime | None) -> None:
        super().__init__()
        self.free = limit
        self.due = due
        self.instances: list[tuple[InstanceRecord, int]] = []
        self.tasks: list[tuple[TaskRecord, int]] = []


class Holder:
    """One store object as its hub sees it: its waiting lock calls and what arrived for instances that it holds."""

    __slots__ = ("orchestrations", "tasks", "top_ups")

    def __init__(self) -> None:
        self.orchestrations: list[Waiter] = []
        self.tasks: list[Waiter] = []
        self.top_ups: dict[InstanceRecord, None] = {}
