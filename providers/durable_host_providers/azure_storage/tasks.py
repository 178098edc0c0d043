"""Background work with an owner: pollers, late writes, messages that are shown again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["TaskOwner"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


class TaskOwner:
    """Owns tasks that nobody awaits; whoever has one sees to it that it ends.

    Not a TaskGroup: one that fails must not take the others with it, nor the call that happened to start it.
    """

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: a set's order is nobody's seed

    def start(self, work: Coroutine[Any, Any, T], name: str, *, awaited: bool = False) -> asyncio.Task[T]:
        """Run it on the side; `awaited`: somebody will hear of its failure."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._forget if awaited else self._ended)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._forget(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            logger.error("%s failed", task.get_name(), exc_info=error, extra={"event": "background_failed"})

    async def finish(self) -> None:
        """Wait until all have ended, those included that they start."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def abort(self) -> None:
        """End them all, soon, and wait for none."""
        for task in list(self._tasks):
            task.cancel()

    async def cancel(self) -> None:
        """End them all, now."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(list(self._tasks))
