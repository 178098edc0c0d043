"""Retry policies of functions (functions-host.md 8), for triggers that support them; durable calls have their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

__all__ = ["RetryPolicy", "parse_retry"]

_INTERVAL = re.compile(r"([01]?\d|2[0-3]):([0-5]?\d):([0-5]?\d)\Z")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed invocation is repeated; `max_retry_count` -1: for ever."""

    strategy: Literal["fixed_delay", "exponential_backoff"]
    max_retry_count: int
    delay: timedelta = timedelta()
    minimum: timedelta = timedelta()
    maximum: timedelta = timedelta()

    def delay_before(self, retry: int, uniform: Callable[[], float]) -> timedelta:
        """How long to wait before a retry.

        Args:
            retry: 1 for the first.
            uniform: random numbers in [0, 1).
        """
        if self.strategy == "fixed_delay":
            return self.delay
        if retry <= 1:
            return min(self.minimum, self.maximum)
        # 2^k overflows a timedelta long before anybody waits for it.
        factor = (0.8 + 0.4 * uniform()) * 2.0 ** min(retry - 2, 60)
        seconds = self.minimum.total_seconds() * (1 + factor)
        return timedelta(seconds=min(seconds, self.maximum.total_seconds()))


def parse_retry(
    strategy: str,
    max_retry_count: str | int | None,
    delay_interval: str | None = None,
    minimum_interval: str | None = None,
    maximum_interval: str | None = None,
) -> RetryPolicy:
    """Make a policy of a decorator's arguments.

    Raises:
        ValueError: with a sentence about the first thing wrong.
    """
    if max_retry_count is None:
        raise ValueError("Value cannot be null. (Parameter 'MaxRetryCount')")
    try:
        count = int(max_retry_count)
    except ValueError:
        raise ValueError(f"max_retry_count is {max_retry_count!r}; give a whole number, -1 for no limit") from None
    if count < -1:
        raise ValueError(f"max_retry_count is {count}; give -1 or more")
    match strategy:
        case "fixed_delay":
            return RetryPolicy("fixed_delay", count, delay=_interval("DelayInterval", delay_interval))
        case "exponential_backoff":
            minimum = _interval("MinimumInterval", minimum_interval)
            maximum = _interval("MaximumInterval", maximum_interval)
            if minimum > maximum:
                raise ValueError(
                    "The minimumInterval must not be greater than the maximumInterval. (Parameter 'minimumInterval')"
                )
            return RetryPolicy("exponential_backoff", count, minimum=minimum, maximum=maximum)
        case _:
            raise ValueError(f"the strategy {strategy!r} does not exist; known are exponential_backoff, fixed_delay")


def _interval(name: str, text: str | None) -> timedelta:
    if text is None:
        raise ValueError(f"Value cannot be null. (Parameter '{name}')")
    found = _INTERVAL.match(text)
    if found is None:
        raise ValueError(f"{name} is {text!r}; give hours, minutes and seconds as HH:MM:SS")
    hours, minutes, seconds = map(int, found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
