from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_host.model.failure import Failure, failure_of
from durable_host.model.retry import RetryOptions

SECOND = timedelta(seconds=1)


def test_azures_form_and_the_timedelta_form_say_the_same() -> None:
    azure = RetryOptions(
        1500, 4, backoff_coefficient=2, max_retry_interval_in_milliseconds=9000, retry_timeout_in_milliseconds=60_000
    )
    ours = RetryOptions(
        first_retry_interval=1.5 * SECOND,
        max_number_of_attempts=4,
        backoff_coefficient=2,
        max_retry_interval=9 * SECOND,
        retry_timeout=60 * SECOND,
    )

    assert repr(azure) == repr(ours)
    assert azure.first_retry_interval_in_milliseconds == 1500
    assert azure.max_retry_interval_in_milliseconds == 9000
    assert azure.retry_timeout_in_milliseconds == 60_000
    assert RetryOptions(1, 1).retry_timeout_in_milliseconds is None


def test_delays_grow_by_the_coefficient_up_to_the_longest() -> None:
    policy = RetryOptions(1000, 9, backoff_coefficient=2, max_retry_interval=5 * SECOND)

    assert [policy.delay(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_delays_stay_alike_without_a_coefficient_and_are_six_days_at_most() -> None:
    assert RetryOptions(1000, 9).delay(7) == SECOND
    assert RetryOptions(1000, 9, backoff_coefficient=1e9).delay(100_000) == timedelta(days=6)
    assert RetryOptions(first_retry_interval=timedelta(days=9), max_number_of_attempts=2).delay(1) == timedelta(days=9)


def test_jitter_shortens_a_delay_by_at_most_its_fraction() -> None:
    policy = RetryOptions(1000, 9, jitter=0.5)

    assert policy.delay(1, 0) == SECOND
    assert policy.delay(1, 0.5) == 0.75 * SECOND


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"first_retry_interval_in_milliseconds": 0, "max_number_of_attempts": 1}, "greater than 0"),
        ({"first_retry_interval_in_milliseconds": -1, "max_number_of_attempts": 1}, "greater than 0"),
        ({"first_retry_interval_in_milliseconds": float("nan"), "max_number_of_attempts": 1}, "no duration"),
        ({"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 0}, "1 or more"),
        ({"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 2, "backoff_coefficient": 0}, "backoff"),
        ({"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 2, "jitter": 1}, "jitter"),
        ({"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 2, "jitter": -0.1}, "jitter"),
        (
            {"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 2, "retry_timeout": timedelta(0)},
            "retry_timeout",
        ),
    ],
)
def test_values_out_of_range_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetryOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_number_of_attempts": 1}, "needs first_retry_interval"),
        ({"first_retry_interval_in_milliseconds": "1", "max_number_of_attempts": 1}, "must be a number"),
        ({"first_retry_interval_in_milliseconds": 1, "max_number_of_attempts": 1.5}, "must be an int"),
        ({"first_retry_interval": 5, "max_number_of_attempts": 1}, "must be a timedelta"),
        (
            {"first_retry_interval": SECOND, "first_retry_interval_in_milliseconds": 5, "max_number_of_attempts": 1},
            "not both",
        ),
        ({"first_retry_interval": SECOND, "max_number_of_attempts": 1, "retry_on": [5]}, "exception classes"),
        ({"first_retry_interval": SECOND, "max_number_of_attempts": 1, "handle": 5}, "function of a Failure"),
    ],
)
def test_values_of_the_wrong_type_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        RetryOptions(**arguments)


def test_filters_match_the_class_its_bases_and_nothing_else() -> None:
    policy = RetryOptions(1, 2, retry_on=(LookupError, OSError))

    assert policy.allows(failure_of(KeyError("x")))
    assert policy.allows(failure_of(ConnectionResetError("x")))
    assert not policy.allows(failure_of(ValueError("x")))
    assert RetryOptions(1, 2, retry_on=KeyError).allows(failure_of(KeyError("x")))
    assert not RetryOptions(1, 2, retry_on=()).allows(failure_of(KeyError("x")))


def test_a_cause_is_not_what_was_raised() -> None:
    failure = Failure("RuntimeError", "x", cause=Failure("KeyError", "y"))

    assert not RetryOptions(1, 2, retry_on=KeyError).allows(failure)


def test_a_child_that_let_a_failed_call_escape_is_judged_by_that_call() -> None:
    failure = Failure("durable_host.errors.ActivityFailedError", "x", cause=Failure("KeyError", "y"))

    assert RetryOptions(1, 2, retry_on=KeyError).allows(failure)
    assert not RetryOptions(1, 2, retry_on=OSError).allows(failure)


def test_a_predicate_is_asked_after_the_filter() -> None:
    seen: list[Failure] = []

    def handle(failure: Failure) -> bool:
        seen.append(failure)
        return failure.message == "again"

    policy = RetryOptions(1, 2, retry_on=ValueError, handle=handle)

    assert policy.allows(failure_of(ValueError("again")))
    assert not policy.allows(failure_of(ValueError("no more")))
    assert not policy.allows(failure_of(KeyError("again")))
    assert len(seen) == 2


def test_a_failure_marked_so_is_never_retried() -> None:
    assert not RetryOptions(1, 2).allows(Failure("ValueError", "x", non_retriable=True))
