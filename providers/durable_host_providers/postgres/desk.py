"""Lock calls that wait, and what is locked for them.

A call that makes work may lock it for a lock call that waits: it reserves room, and what it has locked goes to the
waiting calls, oldest first, when the database has answered. A waiting call may have been answered meanwhile by somebody
else; then the next one, which comes at once as a rule, gets it. What nobody asks for is given back after a moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Desk", "Waiter"]

T = TypeVar("T")

_MOMENT = 0.02
"""Seconds that something locked waits for a lock call."""


class Waiter(Generic[T]):
    """A lock call that waits."""

    __slots__ = ("future", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.future: asyncio.Future[Sequence[T]] = asyncio.get_running_loop().create_future()


class Desk(Generic[T]):
    """The waiting calls of one kind.

    Args:
        give_back: unlocks items that nobody took.
    """

    def __init__(self, give_back: Callable[[Sequence[T]], object]) -> None:
        self._give_back = give_back
        self._waiters: deque[Waiter[T]] = deque()
        self._ready: deque[T] = deque()
        self._reserved = 0
        self._alarm: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        while self._waiters and self._waiters[0].future.done():
            self._waiters.popleft()
        return bool(self._waiters)

    @property
    def room(self) -> int:
        """How many items those who wait would take, beside what is on its way to them."""
        if not self:
            return 0
        wanted = sum(waiter.limit for waiter in self._waiters if not waiter.future.done())
        return max(0, wanted - len(self._ready) - self._reserved)

    def reserve(self, most: int) -> int:
        """Promise up to so many items; returns how many. `settle` must follow."""
        count = min(most, self.room)
        self._reserved += count
        return count

    def settle(self, reserved: int, items: Sequence[T]) -> None:
        """What became of a reservation."""
        self._reserved -= reserved
        self.put(items)

    def put(self, items: Sequence[T]) -> None:
        """Hand locked items out."""
        self._ready.extend(items)
        while self._ready and self:
            waiter = self._waiters.popleft()
            waiter.future.set_result(self._take(waiter.limit))
        if self._ready and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_MOMENT, self._expire)

    def wait(self, limit: int) -> Waiter[T]:
        """A new lock call; it may be answered already."""
        waiter: Waiter[T] = Waiter(limit)
        if self._ready:
            waiter.future.set_result(self._take(limit))
        else:
            self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: Waiter[T]) -> None:
        """A lock call that does not wait any more, and whose items, if it has any, nobody takes."""
        if not waiter.future.done():
            waiter.future.cancel()
        elif not waiter.future.cancelled() and waiter.future.exception() is None:
            self._give_back(waiter.future.result())

    def fail(self, error: Exception) -> None:
        """Tell those who wait that nothing can be locked."""
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def close(self) -> Sequence[T]:
        """Answer those who wait; returns what nobody has fetched."""
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_result(())
        left = list(self._ready)
        self._ready.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return left

    def _take(self, limit: int) -> list[T]:
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    def _expire(self) -> None:
        self._alarm = None
        left = list(self._ready)
        self._ready.clear()
        if left:
            self._give_back(left)
