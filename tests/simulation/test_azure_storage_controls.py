"""Guards of the Azure Storage provider, each switched off: then runs fail that else succeed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from durable_host.engine import decide
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import MessageId, postponed_id
from durable_host.testing.simulation import run
from durable_host_providers.azure_storage import history_table
from durable_host_providers.azure_storage.store import AzureTaskHubStore
from tests.simulation.azure_storage_hub import AzureStorageHub
from tests.simulation.scenarios import SCENARIOS

_LIMIT = 1_500.0
"""Virtual seconds after which a run is stuck; guarded ones need a third of it."""


def fails(scenario: str, seeds: range, *guards: str) -> bool:
    """Whether a run fails without some guards of the committer; stops at the first."""

    class Unguarded(AzureStorageHub):
        without = guards

    made = SCENARIOS[scenario]()
    load = replace(made.load, limit=_LIMIT)
    return any(run(made, seed, hub=Unguarded, load=load).violations for seed in seeds)


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
    assert fails("chain", range(60), "messages_first")


def test_activities_that_leave_before_the_row_is_written_leave_nobody_to_repair_it() -> None:
    assert fails("chain", range(60), "completed_last")


def test_a_projection_that_minds_no_newer_start_disowns_it() -> None:
    assert fails("lives", range(60), "fences_projection")


def test_events_that_are_torn_from_the_generation_that_carries_them_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fails("eternal", range(12))

    def nothing(appending: history_table.Appending) -> int:
        return 0

    monkeypatch.setattr(history_table, "_inseparable", nothing)

    assert fails("eternal", range(60))


def test_carried_events_that_do_not_fit_one_batch_are_lost_unless_they_are_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not fails("hoard", range(8))

    def everything(store: AzureTaskHubStore, events: Sequence[HistoryEvent]) -> int:
        return len(events)

    monkeypatch.setattr(AzureTaskHubStore, "fits_at_once", everything)

    assert fails("hoard", range(60))


def test_events_that_are_sent_again_under_the_same_id_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(id: MessageId, at: datetime, *, by: str) -> MessageId:
        return postponed_id(id)

    monkeypatch.setattr(decide, "forwarded_id", always)

    assert fails("hoard", range(60))
