"""Tasks that outlive the request that began them, with an owner that outlives them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

__all__ = ["Background"]

logger = logging.getLogger(__name__)


class Background:
    """Owns tasks until they end or it is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run it; an exception is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, grace: float) -> None:
        """Wait for what runs, then cancel the rest and wait for its end."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "background work failed", exc_info=error, extra={"event": "background_failed", "task": task.get_name()}
            )
