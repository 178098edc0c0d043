"""Lock calls that wait, and what is locked for them.

A call that makes work may lock it for a lock call that waits: it reserves room, and what it has locked goes to the
waiting calls, oldest first, when the database has answered. A waiting call may have been answered meanwhile by somebody
else; then the next one, which comes at once as a rule, gets it. What nobody asks for is given back after a moment.

A call may wait together with a function that takes items: the first half of what it has asked for may go there, one by
one, and the call waits on. Then it is answered, and the next one says how much room there is really.

Where items are taken fast, a little more is locked than calls wait for: as much as will be taken within a part of that
moment, by the rate of late. What is worked off in milliseconds would cost more on the way through the database, and far
more on the way to another host.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Desk", "Waiter"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MOMENT = 0.02
"""Seconds that something locked waits for a lock call, at least."""

_SURPLUS = 0.01
"""Seconds for which there may be work beside what calls wait for."""


class Waiter(Generic[T]):
    """A lock call that waits."""

    __slots__ = ("deliver", "end", "future", "least", "limit")

    def __init__(self, limit: int, deliver: Callable[[T], bool] | None) -> None:
        self.limit = limit
        self.least = max(1, limit // 2)
        self.deliver = deliver
        self.end = 0.0
        self.future: asyncio.Future[Sequence[T]] = asyncio.get_running_loop().create_future()


class Desk(Generic[T]):
    """The waiting calls of one kind.

    Args:
        give_back: unlocks items that nobody took.
        surplus: so many items at most may wait for calls.
    """

    def __init__(self, give_back: Callable[[Sequence[T]], object], *, surplus: int = 0) -> None:
        self._give_back = give_back
        self._surplus = surplus
        self._taken = 0
        self._since = 0.0
        self._rate = 0.0
        self._waiters: deque[Waiter[T]] = deque()
        self._ready: deque[T] = deque()
        self._reserved = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._aged = 0
        self._bell: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        while self._waiters and self._waiters[0].future.done():
            self._waiters.popleft()
        return bool(self._waiters)

    @property
    def room(self) -> int:
        """How many items those who wait would take, beside what is on its way to them."""
        return max(0, self._free())

    def _free(self) -> int:
        """The same; negative: so many are ready or promised beyond those who wait."""
        if not self:
            return -len(self._ready) - self._reserved
        wanted = sum(waiter.limit for waiter in self._waiters if not waiter.future.done())
        return wanted - len(self._ready) - self._reserved

    def reserve(self, most: int, *, surplus: bool = False) -> int:
        """Promise up to so many items; returns how many. `settle` must follow.

        Args:
            surplus: it costs nothing to lock what will be asked for soon.
        """
        free = self._free()
        if surplus and free < most:
            # What is ready or promised beyond those who wait takes a part of what will soon be asked for.
            free = max(free, 0) + max(0, self._soon() + min(free, 0))
        count = min(most, max(0, free))
        self._reserved += count
        return count

    def _soon(self) -> int:
        """How many items more will soon be asked for."""
        now = asyncio.get_running_loop().time()
        if now - self._since > _MOMENT:
            self._rate = self._taken / (now - self._since)
            self._since, self._taken = now, 0
        return min(self._surplus, int(self._rate * _SURPLUS))

    def settle(self, reserved: int, items: Sequence[T]) -> None:
        """What became of a reservation."""
        self._reserved -= reserved
        self.put(items)

    def put(self, items: Sequence[T]) -> None:
        """Hand locked items out."""
        self._ready.extend(items)
        while self._ready and self and not self._delivered(self._waiters[0]):
            waiter = self._waiters.popleft()
            waiter.future.set_result(self._take(waiter.limit))
        if self._ready and self._alarm is None:
            self._arm()

    def _delivered(self, waiter: Waiter[T]) -> bool:
        """Whether all that is ready has gone to the call without ending it."""
        if waiter.deliver is None or waiter.limit - len(self._ready) < waiter.least:
            return False
        try:
            while self._ready and waiter.deliver(self._ready[0]):
                self._ready.popleft()
                self._taken += 1
                self._aged -= 1
                waiter.limit -= 1
        except Exception:  # who takes items is going down, and hears of this one by the call
            logger.debug("an item could not be delivered", exc_info=True)
        return not self._ready

    def _arm(self) -> None:
        self._aged = len(self._ready)
        self._alarm = asyncio.get_running_loop().call_later(_MOMENT, self._expire)

    def wait(self, limit: int, deliver: Callable[[T], bool] | None = None) -> Waiter[T]:
        """A new lock call; it may be answered already.

        Args:
            deliver: takes an item before the call is answered; False: it does not want this one so.
        """
        waiter: Waiter[T] = Waiter(limit, deliver)
        if self._ready:
            waiter.future.set_result(self._take(limit))
        else:
            self._waiters.append(waiter)
        return waiter

    def limit(self, waiter: Waiter[T], seconds: float) -> None:
        """Answer the call with nothing after this time. One timer serves all calls that wait."""
        loop = asyncio.get_running_loop()
        waiter.end = loop.time() + seconds
        if self._bell is None or waiter.end < self._bell.when():
            if self._bell is not None:
                self._bell.cancel()
            self._bell = loop.call_at(waiter.end, self._ring)

    def _ring(self) -> None:
        self._bell = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waiter in self._waiters:
            if waiter.end <= now and not waiter.future.done():
                waiter.future.set_result(())
        ends = [waiter.end for waiter in self._waiters if not waiter.future.done()]
        if ends:
            self._bell = loop.call_at(min(ends), self._ring)

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
        for handle in (self._alarm, self._bell):
            if handle is not None:
                handle.cancel()
        self._alarm = self._bell = None
        return left

    def _take(self, limit: int) -> list[T]:
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._taken += len(taken)
        self._aged -= len(taken)
        return taken

    def _expire(self) -> None:
        self._alarm = None
        left = [self._ready.popleft() for _ in range(max(0, self._aged))]
        if self._ready:
            self._arm()
        if left:
            self._give_back(left)
