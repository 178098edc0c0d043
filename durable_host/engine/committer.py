"""Natural group commit: while one batch is on its way the next one collects.

No timer and no added latency: a lone item goes out in the next turn of the loop, a crowd goes out together. If a batch
fails because of one item's values, its items are written again one by one, so that only the culprit fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from durable_host.errors import StoreError
from durable_host.storage.contract import CommitOutcome

__all__ = ["GroupCommit"]

T = TypeVar("T")

_Waiting = tuple[T, "asyncio.Future[CommitOutcome]"]


class GroupCommit(Generic[T]):
    """Collects items and writes them in batches.

    Args:
        write: writes 1 to `batch` items, one outcome each; a StoreError fails the batch, every effect unknown. Writing
            an item again whose effect is unknown must be harmless.
        batch: most items of one write.
        concurrency: most writes at once.
        group: owner of the writing tasks.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[CommitOutcome]]],
        *,
        batch: int,
        concurrency: int,
        group: asyncio.TaskGroup,
    ) -> None:
        self._write = write
        self._batch = batch
        self._concurrency = concurrency
        self._group = group
        self._waiting: deque[_Waiting[T]] = deque()
        self._writing = 0
        self._called = False
        self._loop = asyncio.get_running_loop()

    async def put(self, item: T) -> CommitOutcome:
        """Write the item with whatever else is waiting; returns its outcome, or raises what the write raised."""
        future: asyncio.Future[CommitOutcome] = self._loop.create_future()
        self._waiting.append((item, future))
        if not self._called and self._writing < self._concurrency:
            # Not at once: what becomes ready in this turn of the loop shall share the write.
            self._called = True
            self._loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        self._called = False
        while self._waiting and self._writing < self._concurrency:
            count = min(self._batch, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._writing += 1
            writing = self._run(batch)
            try:
                self._group.create_task(writing)
            except RuntimeError:
                # The worker is going down and its group takes no more tasks: nothing of this has been written.
                writing.close()
                for _, future in batch:
                    future.cancel()

    async def _run(self, batch: list[_Waiting[T]]) -> None:
        try:
            await self._settle(batch)
        finally:
            self._writing -= 1
            if self._waiting:
                self._flush()

    async def _settle(self, batch: list[_Waiting[T]]) -> None:
        try:
            outcomes = await self._write([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreError):
                # A bug of ours that one item brings out. What had its effect meets the fence now and is lost, no more.
                for each in batch:
                    await self._settle([each])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
