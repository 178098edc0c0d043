"""Timers of any length.

A store keeps one timer for at most 6 days, so a longer one is a chain: links of 3 days, the last one shorter, each an
ordinary timer with an action id of its own, the next one asked for when the previous one has fired and counted from
the orchestration's time then. The link that is due at the final time ends the wait, even where its message comes a
little early: neither engine nor replay compares with a clock. Source: azure-storage-task-hub.md 6.9.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from durable_host.engine.execution import Execution
from durable_host.engine.tasks import Task

__all__ = ["LINK", "LONGEST", "ChainEnd", "TimerChain", "TimerTask", "due"]

LONGEST = timedelta(days=6)
"""A timer that is due later than this from now is a chain."""

LINK = timedelta(days=3)
"""Length of each link but the last."""

_LATEST = datetime.max.replace(tzinfo=UTC)


def due(now: datetime, fire_at: datetime | timedelta) -> datetime:
    """An aware UTC instant: naive ones are taken as UTC, durations count from `now`."""
    if isinstance(fire_at, timedelta):
        try:
            return now + fire_at
        except OverflowError:
            return _LATEST
    if not isinstance(fire_at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a timer is due at a datetime or after a timedelta, not {fire_at!r}")
    return fire_at.replace(tzinfo=UTC) if fire_at.tzinfo is None else fire_at.astimezone(UTC)


class ChainEnd(Protocol):
    """Waits for the end of a chain."""

    def on_due(self) -> None:
        """The final time has come."""
        ...


class TimerChain:
    """One wait for an instant, however far away."""

    __slots__ = ("_end", "_execution", "_final", "_id", "_link")

    def __init__(self, execution: Execution, fire_at: datetime, end: ChainEnd) -> None:
        self._execution = execution
        self._final = fire_at
        self._end = end
        far = fire_at - execution.now > LONGEST
        self._link = execution.now + LINK if far else fire_at
        self._id = execution.ask_timer(self, self._link)

    def on_timer(self) -> None:
        """A link has fired."""
        if self._link >= self._final:
            self._end.on_due()
            return
        now = self._execution.now
        self._link = now + min(LINK, self._final - now)
        self._id = self._execution.ask_timer(self, self._link)

    def cancel(self) -> None:
        """Nobody waits any more: what still fires is ignored, and the execution may end without it."""
        self._execution.timers.pop(self._id, None)


class TimerTask(Task[None]):
    """Returned by `create_timer`."""

    __slots__ = ("_cancelled", "_chain", "fire_at")

    def __init__(self, execution: Execution, fire_at: datetime) -> None:
        super().__init__(execution)
        self.fire_at = fire_at
        self._cancelled = False
        self._chain = TimerChain(execution, fire_at, self)

    def on_due(self) -> None:
        """The time has come."""
        self.succeed(None)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled before it was due."""
        return self._cancelled

    def cancel(self) -> None:
        """Give the timer up, so that the orchestrator can end before it is due. Harmless when repeated or too late."""
        if not self._done and not self._cancelled:
            self._cancelled = True
            self._chain.cancel()

    def blocked(self) -> str | None:
        return "the timer was cancelled" if self._cancelled and not self._done else None
