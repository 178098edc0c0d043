"""A wait for an external event that gives up in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from durable_host.engine.execution import Execution
from durable_host.engine.tasks import EventTask
from durable_host.engine.timers import TimerChain, due
from durable_host.errors import WaitTimeoutError

__all__ = ["TimedEventTask"]

T = TypeVar("T")


class TimedEventTask(EventTask[T]):
    """The event, or after the time-out the default.

    The timer is always asked for, also where the event is already here: action ids must not depend on when an event
    arrived. It is cancelled when the event wins; the wait is withdrawn when the timer does, so that a late event goes
    to the next wait.

    Args:
        default: what to finish with, in a tuple; empty: fail with WaitTimeoutError.
    """

    __slots__ = ("_chain", "_default", "_timeout")

    def __init__(
        self, execution: Execution, name: str, type: Any, timeout: timedelta, default: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(execution, name, type)
        self._timeout = timeout
        self._default = default
        self._chain = TimerChain(execution, due(execution.now, timeout), self)
        execution.events.wait(name, self)

    def on_event(self, text: str | None) -> None:
        """The event wins."""
        self._chain.cancel()
        super().on_event(text)

    def on_due(self) -> None:
        """The timer wins."""
        assert self._execution is not None
        self._execution.events.withdraw(self.name, self)
        if self._default:
            self.succeed(self._default[0])
        else:
            self.fail(WaitTimeoutError(f"No event {self.name!r} arrived within {self._timeout}."))

    def cancel(self) -> None:
        """Wait no longer, and give the timer up."""
        super().cancel()
        self._chain.cancel()
