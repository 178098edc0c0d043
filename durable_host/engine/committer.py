"""Natural group commit: while one batch is on its way the next one collects.

No timer and no added latency: a lone item goes out in the next turn of the loop, a crowd goes out together. Who puts
the first item of a batch writes it, for the others too, in its own task: a lone step costs no task and no wake-up of
its own. If a batch fails because of one item's values, its items are written again one by one, so that only the culprit
fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from durable_host.errors import StoreError
from durable_host.storage.contract import CommitOutcome

__all__ = ["GroupCommit"]

T = TypeVar("T")


class _Waiting(Generic[T]):
    """An item, and what its owner waits for: the outcome; None: to write the next batch, beginning with this item."""

    __slots__ = ("future", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.future: asyncio.Future[CommitOutcome | None] | None = None


class GroupCommit(Generic[T]):
    """Collects items and writes them in batches.

    Args:
        write: writes 1 to `batch` items, one outcome each; a StoreError fails the batch, every effect unknown. Writing
            an item again whose effect is unknown must be harmless.
        batch: most items of one write.
        concurrency: most writes at once.
        patience: how long a write runs before another one begins beside it.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[CommitOutcome]]],
        *,
        batch: int,
        concurrency: int,
        patience: timedelta = timedelta(0),
    ) -> None:
        self._write = write
        self._batch = batch
        self._concurrency = concurrency
        self._patience = patience.total_seconds()
        self._began = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._waiting: deque[_Waiting[T]] = deque()
        self._writing = 0
        self._collecting = False
        self._loop = asyncio.get_running_loop()

    async def put(self, item: T, *, alone: bool = False) -> CommitOutcome:
        """Write the item with whatever else is waiting; returns its outcome, or raises what the write raised.

        Args:
            alone: nobody else is about to put something, so that there is nobody to wait for.
        """
        begins = not self._collecting and self._may_begin()
        if begins and alone and not self._waiting:
            return await self._write_alone(item)
        mine = _Waiting(item)
        self._waiting.append(mine)
        if not begins:
            outcome = await self._followed(mine)
            if outcome is not None:
                return outcome
        else:
            self._collecting = True
            if not alone:
                # Not at once: what becomes ready in this turn of the loop shall share the write.
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    self._waiting.remove(mine)
                    self._collecting = False
                    self._go_on()
                    raise
        return await self._lead(mine)

    async def _write_alone(self, item: T) -> CommitOutcome:
        """A batch of one, with which nobody waits."""
        self._begin()
        try:
            (outcome,) = await self._write([item])
        finally:
            self._writing -= 1
            self._go_on()
        return outcome

    def _begin(self) -> None:
        self._writing += 1
        if self._patience:
            self._began = self._loop.time()

    async def _followed(self, mine: _Waiting[T]) -> CommitOutcome | None:
        mine.future = self._loop.create_future()
        try:
            return await mine.future
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
                if mine.future.done() and not mine.future.cancelled():  # it was to write the next batch
                    self._collecting = False
                    self._go_on()
            raise

    async def _lead(self, mine: _Waiting[T]) -> CommitOutcome:
        """Write a batch that begins with this item."""
        self._collecting = False
        self._waiting.remove(mine)  # the first one, as a rule
        batch = [mine]
        while self._waiting and len(batch) < self._batch:
            each = self._waiting.popleft()
            if _is_open(each):
                batch.append(each)
        self._begin()
        self._go_on()
        try:
            return await self._settle(batch)
        except asyncio.CancelledError:
            # Whether the others' items are written is unknown: one of the others writes them again.
            self._waiting.extendleft(each for each in reversed(batch) if each is not mine and _is_open(each))
            raise
        finally:
            self._writing -= 1
            self._go_on()

    def _may_begin(self) -> bool:
        if not self._writing:
            return True
        if self._writing >= self._concurrency:
            return False
        left = self._began + self._patience - self._loop.time() if self._patience else 0.0
        if left > 0 and self._alarm is None:
            self._alarm = self._loop.call_later(left, self._look)
        return left <= 0

    def _look(self) -> None:
        self._alarm = None
        self._go_on()

    def _go_on(self) -> None:
        """Let somebody who waits write the next batch, if another write may begin."""
        while self._waiting and not self._collecting and self._may_begin():
            first = self._waiting[0]
            if first.future is not None and not first.future.done():
                self._collecting = True
                first.future.set_result(None)
            else:
                self._waiting.popleft()  # cancelled, and not heard of it yet

    async def _settle(self, batch: Sequence[_Waiting[T]]) -> CommitOutcome:
        try:
            outcomes = await self._write([each.item for each in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreError):
                return await self._settle_one_by_one(batch)
            for each in batch[1:]:
                _fail(each, error)
            raise
        for each, outcome in zip(batch[1:], outcomes[1:], strict=True):
            _tell(each, outcome)
        return outcomes[0]

    async def _settle_one_by_one(self, batch: Sequence[_Waiting[T]]) -> CommitOutcome:
        """A bug of ours that one item brings out. What had its effect meets the fence now and is lost, no more."""
        own: CommitOutcome | Exception = CommitOutcome.LEASE_LOST
        for at, each in enumerate(batch):
            try:
                (outcome,) = await self._write([each.item])
            except Exception as error:
                if at:
                    _fail(each, error)
                else:
                    own = error
            else:
                if at:
                    _tell(each, outcome)
                else:
                    own = outcome
        if isinstance(own, Exception):
            raise own
        return own


def _is_open(waiting: _Waiting[T]) -> bool:
    return waiting.future is not None and not waiting.future.done()


def _tell(waiting: _Waiting[T], outcome: CommitOutcome) -> None:
    if _is_open(waiting):
        assert waiting.future is not None
        waiting.future.set_result(outcome)


def _fail(waiting: _Waiting[T], error: Exception) -> None:
    if _is_open(waiting):
        assert waiting.future is not None
        waiting.future.set_exception(error)
