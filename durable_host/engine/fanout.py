"""Bounded fan-out: the same activity for many items, at most so many at once, results in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from durable_host.engine.execution import Execution
from durable_host.engine.tasks import Task

__all__ = ["MapTask"]


class _Slot:
    """Remembers which item a call is for."""

    __slots__ = ("_at", "_map")

    def __init__(self, owner: MapTask, at: int) -> None:
        self._map = owner
        self._at = at

    def on_done(self, task: Task[Any]) -> None:
        self._map.on_item(self._at, task)


class MapTask(Task[Any]):
    """Done when every item's call succeeded, or as soon as one failed; then no further item is begun.

    The next call is asked for while the event that makes room is applied, so its action id follows from history.

    Args:
        inputs: JSON texts, one per item.
        call: asks for the call with this input.
    """

    __slots__ = ("_call", "_inputs", "_left", "_next", "_results")

    def __init__(
        self,
        execution: Execution,
        inputs: Sequence[str | None],
        concurrency: int,
        call: Callable[[str | None], Task[Any]],
    ) -> None:
        super().__init__(execution)
        self._inputs = inputs
        self._call = call
        self._results: list[Any] = [None] * len(inputs)
        self._left = len(inputs)
        self._next = 0
        if not inputs:
            self.succeed(self._results)
        for _ in range(min(concurrency, len(inputs))):
            self._begin()

    def on_item(self, at: int, task: Task[Any]) -> None:
        """The call for item `at` is done."""
        if self._done:
            return
        if task.exception is not None:
            self._inputs = ()
            self.fail(task.exception)
            return
        self._results[at] = task.result
        self._left -= 1
        if self._left == 0:
            self.succeed(self._results)
        elif self._next < len(self._inputs):
            self._begin()

    def _begin(self) -> None:
        at = self._next
        self._next = at + 1
        self._call(self._inputs[at]).listen(_Slot(self, at))
