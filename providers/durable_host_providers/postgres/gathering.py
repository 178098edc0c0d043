"""Calls that come at the same time share a statement: while one is on its way, the next one collects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from durable_host.errors import StoreError

__all__ = ["Gathering"]

T = TypeVar("T")
R = TypeVar("R")


class Gathering(Generic[T, R]):
    """Collects calls of one kind.

    Args:
        write: makes several calls at once, one result each.
        batch: most calls of one statement.
        concurrency: most statements at once.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, batch: int = 256, concurrency: int = 2
    ) -> None:
        self._write = write
        self._batch = batch
        self._concurrency = concurrency
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._called = False

    async def put(self, call: T) -> R:
        """Make a call with whatever else is waiting."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((call, future))
        if not self._called and len(self._running) < self._concurrency:
            # Not at once: what is asked for in this turn of the loop shall share the statement.
            self._called = True
            loop.call_soon(self._flush)
        return await future

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way or waits."""
        return not self._running and not self._waiting

    async def stop(self) -> None:
        """Wait for what was begun."""
        while self._running or self._called:
            await asyncio.sleep(0)
            await asyncio.gather(*self._running, return_exceptions=True)

    def _flush(self) -> None:
        self._called = False
        while self._waiting and len(self._running) < self._concurrency:
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            task = asyncio.get_running_loop().create_task(self._run(batch), name="durable-host-postgres-calls")
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._flush()

    async def _run(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([call for call, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreError):
                for each in batch:  # a value of one of them is at fault, and only that one shall fail
                    await self._run([each])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
