"""What strikes a chaos run, and when: a function of the seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["EVERY_MINUTE", "Strike", "plan"]

EVERY_MINUTE: dict[str, int] = {
    "kill": 6,
    "pause": 6,
    "stop": 1,
    "cut all": 2,
    "cut one": 3,
    "restart fast": 1,
    "restart immediate": 1,
    "outage": 1,
    "crash": 1,
    "freeze": 1,
    "lock": 3,
}
"""How many of each kind. The first three are for hosts; the others need a store that can be hurt so."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow.

    Attributes:
        at: seconds after the beginning.
        kind: a name of `EVERY_MINUTE`.
        chance: in [0, 1), for whoever must choose a victim.
        strength: in [0, 1), how long it lasts between the kind's shortest and longest.
    """

    at: float
    kind: str
    chance: float
    strength: float


def plan(seed: int, seconds: float, kinds: frozenset[str], factor: float = 1.0) -> list[Strike]:
    """Every kind its number of times in each minute, in random order; a shorter run has each at least once.

    Args:
        factor: of the numbers.
        kinds: those that the hosts and the store know.
    """
    random = Random(f"{seed}/strikes")
    strikes: list[Strike] = []
    begin = 0.0
    while begin < seconds:
        length = min(60.0, seconds - begin)
        for kind, number in EVERY_MINUTE.items():
            if kind in kinds:
                for _ in range(max(round(number * factor * length / 60), 1 if begin == 0 else 0)):
                    at = begin + random.random() * length
                    strikes.append(Strike(at, kind, random.random(), random.random()))
        begin += length
    return sorted(strikes, key=lambda strike: strike.at)
