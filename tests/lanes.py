"""Tests side by side: `make test` runs them in three processes, two of which wait most of the time.

What talks to one service stays in one process, in order. The third process computes, and yields to the others, so that
those find a core when they stop waiting. Whoever is done takes what is left, file by file.

A run of some tests, by hand, is one process in the usual order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["LANES", "Lanes", "lane_of", "step_back", "turn_of"]

LANES: dict[str, Sequence[str]] = {
    "azure": ("tests/live/test_azur*.py",),
    "hosts": ("tests/live/*.py",),
    "computing": ("tests/simulation/*.py",),
    # What is left, the longest first.
    "samples": ("tests/samples/*.py",),
    "packaging": ("tests/packaging/*.py",),
    "postgres": ("tests/contract/test_postgres.py",),
}

_NICE = 10


def lane_of(test: str) -> str:
    """What a test, by its id, stays together with; the first pattern that fits its file counts."""
    file = test.split("::", 1)[0]
    for lane, patterns in LANES.items():
        if any(PurePosixPath(file).match(pattern) for pattern in patterns):
            return lane
    return file


def turn_of(test: str) -> int:
    """When a test is begun: a number to sort by."""
    lane = lane_of(test)
    return list(LANES).index(lane) if lane in LANES else len(LANES)


class Lanes(LoadScopeScheduling):
    """Gives each process a lane, and the next one when it is done."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)


def step_back() -> None:
    """Let others go first, from now on."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
