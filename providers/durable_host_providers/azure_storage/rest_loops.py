"""Connections belong to the event loop that opened them; this keeps a set of them for each loop that asks.

The loop that enters keeps its own until it leaves. Any other loop, such as that of the thread that renews leases, has
one while it has requests: a burst shares it, and nothing is left behind when the thread ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class _Shared(Generic[T]):
    def __init__(self, resource: T) -> None:
        self.resource = resource
        self.users = 0


class PerLoop(Generic[T]):
    """One resource per event loop. May be entered several times; the last to leave closes it.

    Args:
        open: makes one, on the loop that will use it.
        close: ends one, on the same loop.
    """

    def __init__(self, open: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> None:
        self._open = open
        self._close = close
        self._home: asyncio.AbstractEventLoop | None = None
        self._own: T | None = None
        self._entered = 0
        self._others: dict[asyncio.AbstractEventLoop, _Shared[T]] = {}

    async def __aenter__(self) -> Self:
        self._entered += 1
        if self._entered == 1:
            self._own = self._open()
            self._home = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered:
            return
        own, self._own, self._home = self._own, None, None
        if own is not None:
            await self._close(own)

    @property
    def own(self) -> T | None:
        """The resource, if this is the loop that entered."""
        return self._own if asyncio.get_running_loop() is self._home else None

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[T]:
        """The resource of this loop, for as long as the block runs."""
        own = self.own
        if own is not None:
            yield own
            return
        loop = asyncio.get_running_loop()
        shared = self._others.get(loop)
        if shared is None:
            shared = self._others[loop] = _Shared(self._open())
        shared.users += 1
        try:
            yield shared.resource
        finally:
            shared.users -= 1
            if shared.users == 0:
                self._others.pop(loop, None)
                await self._close(shared.resource)
