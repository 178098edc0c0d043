"""Failures as values: whatever an exception is made of, its failure can be stored and read back."""

from __future__ import annotations

import msgspec
import pytest

from durable_host.model.failure import Failure, failure_of, matches


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


def raised(error: BaseException, *, behind: BaseException | None = None) -> BaseException:
    try:
        raise error from behind
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot open 'a\udcff'"), r"cannot open 'a\udcff'"),
        (ValueError("Zürich \ud800"), r"Zürich \ud800"),
        (ValueError("Zürich"), "Zürich"),
        (Unspeakable(), "<no text: LookupError in __str__>"),
    ],
)
def test_any_exception_makes_a_failure_that_can_be_stored(error: Exception, message: str) -> None:
    failure = failure_of(raised(error, behind=raised(KeyError("b\udcff"))))

    assert failure.message == message
    assert failure.stack is not None
    assert msgspec.json.decode(msgspec.json.encode(failure), type=Failure) == failure


def test_a_chain_of_causes_that_bites_its_tail_ends() -> None:
    first, second = raised(ValueError("1")), raised(KeyError("2"))
    first.__cause__, second.__cause__ = second, first

    assert [each.type for each in failure_of(first).chain()] == ["ValueError", "KeyError"]


def test_a_long_chain_of_causes_is_cut() -> None:
    error = raised(ValueError("0"))
    for number in range(1, 100):
        error = raised(ValueError(str(number)), behind=error)

    assert len(failure_of(error).chain()) == 17


def test_a_failure_is_an_instance_of_its_bases() -> None:
    failure = failure_of(raised(FileNotFoundError("gone")))

    assert matches(failure, OSError)
    assert not matches(failure, KeyError)
