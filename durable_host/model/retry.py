"""When to call again what has failed. Parameters are those of Azure's RetryOptions; what it lacks is keyword-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import overload

from durable_host.model.failure import Failure, matches

__all__ = ["RetryOptions"]

_LONGEST = timedelta(days=6)  # the reference's default for the longest interval
_FOREVER = timedelta.max
_MILLISECOND = timedelta(milliseconds=1)
_WRAPPERS = frozenset({"durable_host.errors.ActivityFailedError", "durable_host.errors.SubOrchestrationFailedError"})


class RetryOptions:
    """A retry policy; immutable.

    The delay after failed attempt *k* (from 1) is `first interval * coefficient ** (k - 1)`, at most the longest
    interval. Every duration is given either in milliseconds, under Azure's names, or as a timedelta.

    Attributes:
        first_retry_interval: delay after the first failure; positive.
        max_number_of_attempts: calls in all, the first included; at least 1.
        backoff_coefficient: factor from one delay to the next; positive.
        max_retry_interval: longest delay; by default 6 days, or the first interval where that is longer.
        retry_timeout: no attempt begins later than this after the first one; None: no limit.
        jitter: fraction in [0, 1) by which a delay may be shortened, so that many instances do not try in step. The
            amount follows from the execution and the failed attempt, so that replay finds the same.
        retry_on: only failures of these exception classes, or of classes derived from them, are retried.
        handle: only failures for which this says True are retried; it must be deterministic.

    A failure that is marked `non_retriable` is never retried.
    """

    __slots__ = (
        "backoff_coefficient",
        "first_retry_interval",
        "handle",
        "jitter",
        "max_number_of_attempts",
        "max_retry_interval",
        "retry_on",
        "retry_timeout",
    )

    @overload
    def __init__(
        self,
        first_retry_interval_in_milliseconds: float,
        max_number_of_attempts: int,
        *,
        backoff_coefficient: float = 1,
        max_retry_interval_in_milliseconds: float | None = None,
        retry_timeout_in_milliseconds: float | None = None,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        jitter: float = 0,
        retry_on: type[BaseException] | Iterable[type[BaseException]] | None = None,
        handle: Callable[[Failure], bool] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        first_retry_interval: timedelta,
        max_number_of_attempts: int,
        backoff_coefficient: float = 1,
        max_retry_interval_in_milliseconds: float | None = None,
        retry_timeout_in_milliseconds: float | None = None,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        jitter: float = 0,
        retry_on: type[BaseException] | Iterable[type[BaseException]] | None = None,
        handle: Callable[[Failure], bool] | None = None,
    ) -> None: ...

    def __init__(
        self,
        first_retry_interval_in_milliseconds: float | None = None,
        max_number_of_attempts: int = 1,
        *,
        first_retry_interval: timedelta | None = None,
        backoff_coefficient: float = 1,
        max_retry_interval_in_milliseconds: float | None = None,
        retry_timeout_in_milliseconds: float | None = None,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        jitter: float = 0,
        retry_on: type[BaseException] | Iterable[type[BaseException]] | None = None,
        handle: Callable[[Failure], bool] | None = None,
    ) -> None:
        first = _duration("first_retry_interval", first_retry_interval_in_milliseconds, first_retry_interval)
        if first is None:
            raise TypeError("RetryOptions needs first_retry_interval_in_milliseconds or first_retry_interval")
        if isinstance(max_number_of_attempts, bool) or not isinstance(max_number_of_attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"max_number_of_attempts must be an int, not {max_number_of_attempts!r}")
        if max_number_of_attempts < 1:
            raise ValueError(
                f"max_number_of_attempts is {max_number_of_attempts!r}; it counts the first call, so 1 or more"
            )
        if not 0 < backoff_coefficient < float("inf"):
            raise ValueError(f"backoff_coefficient is {backoff_coefficient!r}; it must be greater than 0")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter is {jitter!r}; it must be at least 0 and less than 1")
        if handle is not None and not callable(handle):
            raise TypeError(f"handle must be a function of a Failure, not {handle!r}")
        longest = _duration("max_retry_interval", max_retry_interval_in_milliseconds, max_retry_interval)
        self.first_retry_interval: timedelta = first
        self.max_number_of_attempts: int = max_number_of_attempts
        self.backoff_coefficient: float = backoff_coefficient
        self.max_retry_interval: timedelta = max(_LONGEST, first) if longest is None else longest
        self.retry_timeout: timedelta | None = _duration("retry_timeout", retry_timeout_in_milliseconds, retry_timeout)
        self.jitter: float = jitter
        self.retry_on: tuple[type[BaseException], ...] | None = _classes(retry_on)
        self.handle: Callable[[Failure], bool] | None = handle

    @property
    def first_retry_interval_in_milliseconds(self) -> float:
        """The first interval under Azure's name."""
        return self.first_retry_interval / _MILLISECOND

    @property
    def max_retry_interval_in_milliseconds(self) -> float:
        """The longest interval in milliseconds."""
        return self.max_retry_interval / _MILLISECOND

    @property
    def retry_timeout_in_milliseconds(self) -> float | None:
        """The time-out in milliseconds, or None."""
        return None if self.retry_timeout is None else self.retry_timeout / _MILLISECOND

    def delay(self, attempt: int, chance: float = 0.0) -> timedelta:
        """How long to wait after failed attempt `attempt` (from 1).

        Args:
            chance: where in the range of the jitter, from 0 (the whole delay) to 1.
        """
        try:
            delay = self.first_retry_interval * self.backoff_coefficient ** (attempt - 1)
        except OverflowError:
            delay = _FOREVER
        delay = min(delay, self.max_retry_interval)
        return delay * (1 - self.jitter * chance) if self.jitter else delay

    def allows(self, failure: Failure) -> bool:
        """Whether a failure of this kind may be retried at all; attempts and time-out are another matter."""
        own = failure
        while own.type in _WRAPPERS and own.cause is not None:  # a child that let a failed call escape
            own = own.cause
        if failure.non_retriable or own.non_retriable:
            return False
        if self.retry_on is not None and not any(
            matches(own, each) or matches(failure, each) for each in self.retry_on
        ):
            return False
        return self.handle is None or bool(self.handle(failure))

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={getattr(self, name)!r}" for name in sorted(self.__slots__))
        return f"RetryOptions({facts})"


def _duration(name: str, milliseconds: float | None, duration: timedelta | None) -> timedelta | None:
    if milliseconds is not None and duration is not None:
        raise TypeError(f"give {name}_in_milliseconds or {name}, not both")
    if isinstance(milliseconds, timedelta):  # a natural slip, and its meaning is clear
        duration, milliseconds = milliseconds, None
    if milliseconds is not None:
        if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name}_in_milliseconds must be a number, not {milliseconds!r}")
        try:
            duration = timedelta(milliseconds=milliseconds)
        except (OverflowError, ValueError):
            raise ValueError(f"{name}_in_milliseconds is {milliseconds!r}; that is no duration") from None
    if duration is None:
        return None
    if not isinstance(duration, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a timedelta, not {duration!r}")
    if duration <= timedelta(0):
        raise ValueError(f"{name} is {duration!r}; it must be greater than 0")
    return duration


def _classes(
    given: type[BaseException] | Iterable[type[BaseException]] | None,
) -> tuple[type[BaseException], ...] | None:
    if given is None:
        return None
    classes = (given,) if isinstance(given, type) else tuple(given)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"retry_on takes exception classes, not {each!r}")
    return classes
