"""The alarm that rings when something becomes due while somebody waits. Lives on the loop that entered the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durable_host.environment import Clock
from durable_host_providers._sql.rows import to_micros

__all__ = ["Ticker"]

_MARGIN = 0.0005
"""Seconds after the due time: a timer that rings a moment early would find nothing."""


class Ticker:
    """Pokes the writer at a given time."""

    def __init__(self, clock: Clock, poke: Callable[[], None]) -> None:
        self._clock = clock
        self._poke = poke
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """End."""
        self._loop = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def wake_at(self, due: int) -> None:
        """Poke when this time, in microseconds, has come; from any thread. An earlier alarm stays."""
        loop = self._loop
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
