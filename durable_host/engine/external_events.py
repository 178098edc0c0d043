"""External events: each goes to exactly one wait, the oldest open one of its name; without a wait it is kept.

Names compare without case. The reference hands one event to several waits and serves the newest wait first; neither
is copied (`python-sdk-protocol.md` 9.5).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from durable_host.model.history import EventRaised

__all__ = ["EventWaiter", "ExternalEvents"]


class EventWaiter(Protocol):
    """Waits for one event."""

    def on_event(self, text: str | None) -> None:
        """The event is here; `text` is its JSON data."""
        ...


class ExternalEvents:
    """Open waits and events nobody has waited for yet."""

    __slots__ = ("_arrived", "_kept", "_waits")

    def __init__(self) -> None:
        # An ordered dict gives both the oldest wait and the removal of any in constant time.
        self._waits: dict[str, OrderedDict[EventWaiter, None]] = {}
        self._kept: dict[str, deque[tuple[int, EventRaised]]] = {}
        self._arrived = 0

    def deliver(self, event: EventRaised) -> None:
        """Hand the event to the oldest wait of its name, or keep it."""
        key = event.name.lower()
        waits = self._waits.get(key)
        if waits is not None:
            waiter, _ = waits.popitem(last=False)
            if not waits:
                del self._waits[key]
            waiter.on_event(event.input)
            return
        self._arrived += 1
        self._kept.setdefault(key, deque()).append((self._arrived, event))

    def wait(self, name: str, waiter: EventWaiter) -> None:
        """Take the oldest kept event of this name, or wait for the next."""
        key = name.lower()
        kept = self._kept.get(key)
        if kept is None:
            self._waits.setdefault(key, OrderedDict())[waiter] = None
            return
        _, event = kept.popleft()
        if not kept:
            del self._kept[key]
        waiter.on_event(event.input)

    def withdraw(self, name: str, waiter: EventWaiter) -> None:
        """Wait no longer; harmless if the wait is over."""
        key = name.lower()
        waits = self._waits.get(key)
        if waits is not None:
            waits.pop(waiter, None)
            if not waits:
                del self._waits[key]

    def stop_waiting(self) -> None:
        """Nobody waits any more: what comes from now on is kept."""
        self._waits.clear()

    def unprocessed(self) -> tuple[EventRaised, ...]:
        """Events that nobody took, in the order of their arrival."""
        return tuple(
            event for _, event in sorted((kept for queue in self._kept.values() for kept in queue), key=_order)
        )


def _order(kept: tuple[int, EventRaised]) -> int:
    return kept[0]
