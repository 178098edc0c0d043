"""Guards of the Azure Storage provider, each switched off: then runs fail that else succeed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from durable_host.testing.simulation import run
from durable_host_providers.azure_storage import history_table
from tests.simulation.azure_storage_hub import AzureStorageHub
from tests.simulation.scenarios import SCENARIOS

_LIMIT = 1_500.0
"""Virtual seconds after which a run is stuck; guarded ones need a third of it."""


def failing(scenario: str, seeds: range, *guards: str) -> int:
    """How many runs fail without some guards of the committer."""

    class Unguarded(AzureStorageHub):
        without = guards

    made = SCENARIOS[scenario]()
    load = replace(made.load, limit=_LIMIT)
    return sum(bool(run(made, seed, hub=Unguarded, load=load).violations) for seed in seeds)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults by the thousand are nothing to log."""
    logs = [logging.getLogger(name) for name in ("durable_host", "durable_host_providers")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    yield
    for log, level in zip(logs, levels, strict=True):
        log.setLevel(level)


def test_history_before_messages_loses_work() -> None:
    assert failing("chain", range(4), "messages_first") > 0


def test_activities_that_leave_before_the_row_is_written_leave_nobody_to_repair_it() -> None:
    assert failing("chain", range(8), "completed_last") > 0


def test_events_that_are_torn_from_the_generation_that_carries_them_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing("eternal", range(12)) == 0

    def nothing(appending: history_table.Appending) -> int:
        return 0

    monkeypatch.setattr(history_table, "_inseparable", nothing)

    assert failing("eternal", range(12)) > 0
