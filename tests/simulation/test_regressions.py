"""Seeds that once failed, and what was wrong. The suites run other seeds when the engine changes; these stay."""

from __future__ import annotations

import pytest

from tests.simulation.suites import run_seed


@pytest.mark.parametrize(
    ("hub", "scenario", "seed"),
    [
        # A history that was cut behind the OrchestratorCompleted of continue-as-new lacked its first actions for ever.
        ("azure", "eternal", 99),
        # A rewound child had replied before its parent recorded the rewind, and nobody answered the parent again.
        ("azure", "rewind", 101),
        ("azure", "rewind", 190),
        # A parent failed by a ghost's reply; the rewound child's next reply had the same id and was taken for known.
        ("azure", "rewind", 2179),
        # Sent again for a start in the future, an event lost the id that its sender repeats it under.
        ("memory", "scheduled", 1),
        # A history that was read late, under a lease that had run out, was taken for the one that was locked.
        ("memory", "lives", 96),
        # Of the client in the scenario: a start whose five attempts all failed had had its effect.
        ("azure", "talk", 328),
        # Of the model store: a repair overwrote the row that a client had just created anew.
        ("azure", "reuse", 34),
        # Of the model store: an instance that was terminated before it began had no sentinel to fence its start.
        ("azure", "control", 1071),
        # Of the model store: a start met the instance alive and was dropped, then its creator replaced the ended one.
        ("azure", "reuse", 1291),
        # Of the model store: an older row was written late, over the row of an instance that had ended.
        ("azure", "scheduled", 10),
        # Of the model store: what a failed commit had written in part was taken for what had been read.
        ("azure", "folding", 193),
    ],
)
def test_seed_that_once_failed(hub: str, scenario: str, seed: int) -> None:
    run_seed(hub, scenario, seed).require()
