"""The plan of strikes is a function of the seed, and every kind strikes."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.strikes import EVERY_MINUTE, plan

_ALL = frozenset(EVERY_MINUTE)


def test_one_seed_gives_one_plan() -> None:
    assert plan(7, 600, _ALL) == plan(7, 600, _ALL)
    assert plan(7, 600, _ALL) != plan(8, 600, _ALL)


@pytest.mark.parametrize("minutes", [1, 10])
def test_every_kind_strikes_as_often_as_it_should(minutes: int) -> None:
    strikes = plan(1, 60 * minutes, _ALL)

    assert Counter(strike.kind for strike in strikes) == {
        kind: number * minutes for kind, number in EVERY_MINUTE.items()
    }
    assert [strike.at for strike in strikes] == sorted(strike.at for strike in strikes)
    assert all(0 <= strike.at < 60 * minutes for strike in strikes)


def test_a_short_run_has_every_kind_that_its_store_knows() -> None:
    assert {strike.kind for strike in plan(1, 5, frozenset({"kill", "lock"}))} == {"kill", "lock"}


def test_there_may_be_more_strikes() -> None:
    assert len(plan(1, 60, _ALL, factor=2)) == 2 * len(plan(1, 60, _ALL))
