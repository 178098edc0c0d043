"""The contract suite itself: nothing of it is lost, and no promise is without a test."""

from __future__ import annotations

from collections import Counter

from durable_host.testing.store_contract import StoreContract, promised_tests

PROMISES = range(1, 21)


def test_no_test_hides_another_of_the_same_name() -> None:
    names = Counter(name for part in StoreContract.__mro__ for name in vars(part) if name.startswith("test_"))

    assert [name for name, number in names.items() if number > 1] == []


def test_every_promise_has_a_test() -> None:
    assert [number for number in PROMISES if not promised_tests(StoreContract, number)] == []
