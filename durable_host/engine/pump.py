"""The one loop that fetches work: ask the store for as much as there is room for, hand it over, ask again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from durable_host.environment import IdSource
from durable_host.errors import StoreError

__all__ = ["Pump"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_WAIT = timedelta(seconds=30)
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 5.0


class Pump(Generic[T]):
    """Keeps one lock call waiting while there are free slots.

    Args:
        lock: the store's lock call for at most so many items, which waits for them so long; some of them may come
            while it waits, through `deliver`.
        room: how many items may be taken now.
        deliver: takes an item; must not block.
        name: for logs.
    """

    def __init__(
        self,
        lock: Callable[[int, timedelta, Callable[[T], None]], Awaitable[Sequence[T]]],
        *,
        room: Callable[[], int],
        deliver: Callable[[T], None],
        ids: IdSource,
        name: str,
    ) -> None:
        self._lock = lock
        self._room = room
        self._deliver = deliver
        self._ids = ids
        self._name = name
        self._freed = asyncio.Event()
        self.error: Exception | None = None
        """Why the last lock call failed; None when it did not."""

    def freed(self) -> None:
        """There may be room again."""
        self._freed.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            room = self._room()
            if room <= 0:
                self._freed.clear()
                if self._room() <= 0:
                    await self._freed.wait()
                continue
            try:
                # After a failure without waiting: that all is well again shows at once, though there be nothing to do.
                items = await self._lock(room, _WAIT if self.error is None else timedelta(0), self._deliver)
            except Exception as error:
                # Whatever it is: a worker that gave up here would meet the same work again after its next start.
                if self.error is None:
                    logger.error(
                        "%s cannot be fetched: %s",
                        self._name,
                        error,
                        exc_info=None if isinstance(error, StoreError) else error,
                        extra={"event": "fetch_failed", "work": self._name},
                    )
                self.error = error
                await asyncio.sleep(pause * (0.5 + self._ids.uniform() / 2))
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            if self.error is not None:
                logger.info("%s are fetched again", self._name, extra={"event": "fetch_recovered", "work": self._name})
            self.error = None
            pause = _FIRST_PAUSE
            for item in items:
                self._deliver(item)
