"""Limits on requests to functions: `maxOutstandingRequests` and `maxConcurrentRequests` (functions-host.md 1.4)."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

__all__ = ["Throttle"]

logger = logging.getLogger(__name__)


class Throttle:
    """Counts what runs and what waits. Not entered without `admit`.

    Args:
        outstanding: most requests queued and running together; -1: no limit.
        concurrent: most requests running at once; -1: no limit.
    """

    def __init__(self, outstanding: int = -1, concurrent: int = -1) -> None:
        self._outstanding = outstanding
        self._slots = asyncio.Semaphore(concurrent) if concurrent > 0 else None
        self._count = 0

    def admit(self) -> bool:
        """Whether one more request may wait or run; each True is followed by `async with`."""
        if 0 <= self._outstanding <= self._count:
            logger.warning(
                "Http request queue limit of %d has been exceeded.",
                self._outstanding,
                extra={"event": "http_throttled"},
            )
            return False
        self._count += 1
        return True

    async def __aenter__(self) -> None:
        if self._slots is not None:
            try:
                await self._slots.acquire()
            except BaseException:
                self._count -= 1
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if self._slots is not None:
            self._slots.release()
