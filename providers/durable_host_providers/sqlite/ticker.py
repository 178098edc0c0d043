"""When to look: at the time that something becomes due, and for other processes every few moments while somebody waits.

Lives on the loop that entered the store. Without anybody waiting there is no tick at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from durable_host.environment import Clock
from durable_host_providers._sql.rows import to_micros

__all__ = ["Ticker"]

_MARGIN = 0.0005
"""Seconds after the due time: a timer that rings a moment early would find nothing."""


class Ticker:
    """Pokes the writer."""

    def __init__(self, clock: Clock, poll: timedelta, poke: Callable[[], None]) -> None:
        self._clock = clock
        self._poll = poll.total_seconds()
        self._poke = poke
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = 0
        self._tick: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """End."""
        self._loop = None
        for handle in (self._tick, self._alarm):
            if handle is not None:
                handle.cancel()
        self._tick = self._alarm = None

    def enter(self) -> None:
        """Somebody begins to wait."""
        self._waiting += 1
        if self._tick is None and self._poll and self._loop is not None:
            self._tick = self._loop.call_later(self._poll, self._ticked)

    def leave(self) -> None:
        """Somebody waits no longer."""
        self._waiting -= 1

    def _ticked(self) -> None:
        self._tick = None
        if self._waiting and self._loop is not None:
            self._poke()
            self._tick = self._loop.call_later(self._poll, self._ticked)

    def wake_at(self, due: int) -> None:
        """Poke when this time, in microseconds, has come; from any thread. An earlier alarm stays."""
        loop = self._loop
        if self._alarm is not None and self._alarm_at <= due:
            # Read without a lock: an alarm that rings meanwhile pokes the writer after it has cleared `_alarm`, and the
            # writer then looks once more. Saves waking the loop at every commit that leaves something due later.
            return
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._set_alarm, due)
            except RuntimeError:  # the loop is closed: nobody waits on it
                return

    def _set_alarm(self, due: int) -> None:
        if self._loop is None or (self._alarm is not None and self._alarm_at <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        left = (due - to_micros(self._clock.now())) / 1_000_000
        self._alarm_at = due
        self._alarm = self._loop.call_later(max(left, 0.0) + _MARGIN, self._rang)

    def _rang(self) -> None:
        self._alarm = None
        self._poke()
