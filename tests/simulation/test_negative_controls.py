"""Every guard, switched off, lets something go wrong that a seed shows.

A control looks for a failing seed among a bounded number and says what must have failed. Where the failure is too rare
to wait for, it compares a measure instead (orphaned calls, virtual time). With the guard in place the same seeds pass:
the suites run them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from random import Random
from typing import Any

import pytest

from durable_host.engine import admit as admission
from durable_host.engine import decide as decisions
from durable_host.engine.episode import Advance, Episodes, Position
from durable_host.engine.index import HistoryIndex
from durable_host.engine.orchestrations import OrchestrationDispatcher
from durable_host.engine.sessions import SessionCache
from durable_host.model.history import HistoryEvent, Reply
from durable_host.model.ids import DispatchId
from durable_host.model.messages import Message
from durable_host.storage.contract import OrchestrationWorkItem
from durable_host.testing.simulation import Report, SimulatedHub, run
from tests.simulation.azure_shaped import AzureShapedStore
from tests.simulation.hubs import HUBS, AzureShapedHub
from tests.simulation.scenarios import SCENARIOS

# pyright: reportPrivateUsage=false

Hub = Callable[[Random], SimulatedHub]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="durable_host")


def failures(scenario: str, hub: Hub, seeds: Iterable[int]) -> Iterable[Report]:
    """Failing runs, one after another."""
    for seed in seeds:
        report = run(SCENARIOS[scenario](), seed, hub=hub)
        if report.violations:
            yield report


def first_failure(scenarios: Sequence[str], hub: Hub, seeds: int = 120) -> Report:
    """The first failing run; fails the test when there is none."""
    for seed in range(seeds):
        for scenario in scenarios:
            for report in failures(scenario, hub, [seed]):
                return report
    pytest.fail(f"{seeds} seeds of {scenarios} pass without the guard")


def azure(**switches: bool) -> Hub:
    """The model store with guards switched off."""
    store = type("Unguarded", (AzureShapedStore,), switches)
    return type("UnguardedHub", (AzureShapedHub,), {"store": store})


def test_replies_are_checked_against_the_recorded_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(index: HistoryIndex, event: Reply) -> bool:
        return event.task_id in index.open

    monkeypatch.setattr(HistoryIndex, "answers", answers)

    report = first_failure(["events"], HUBS["azure"])

    assert any("another request" in each or "answered with" in each for each in report.violations)


def test_projections_are_fenced() -> None:
    first_failure(["reuse", "folding"], azure(fences_projection=False))


def test_messages_that_were_taken_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    extend = HistoryIndex.extend

    def forgetful(index: HistoryIndex, events: Iterable[HistoryEvent]) -> None:
        extend(index, events)
        index.messages.clear()

    monkeypatch.setattr(HistoryIndex, "extend", forgetful)

    report = first_failure(["events", "eternal"], HUBS["azure"])

    assert report.violations


def test_messages_go_out_before_history() -> None:
    first_failure(["chain", "fan"], azure(messages_first=False))


def test_commits_are_fenced_by_history() -> None:
    first_failure(["chain", "folding", "fan"], azure(fences_history=False))


def test_activities_leave_after_the_history_that_has_their_results() -> None:
    first_failure(["folding", "chain"], azure(completed_last=False))


def test_dispatch_ids_of_a_repeated_decision_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(0)

    def measure() -> int:
        return sum(run(SCENARIOS["fan"](), seed, hub=HUBS["azure"]).orphans for seed in range(12))

    guarded = measure()

    def random_id(*arguments: Any) -> DispatchId:
        return DispatchId(f"{chance.getrandbits(128):032x}")

    monkeypatch.setattr(decisions, "activity_dispatch_id", random_id)

    assert guarded == 0
    assert measure() > 0


def test_lock_calls_that_fail_give_back_what_they_locked() -> None:
    def measure(hub: Hub) -> float:
        return sum(run(SCENARIOS["chain"](), seed, hub=hub).elapsed for seed in range(30))

    assert measure(azure(gives_back_failed_locks=False)) > measure(HUBS["azure"])


def test_ids_of_external_events_outlive_continue_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(int):
        def __neg__(self) -> int:
            return 10**9  # a slice from there is empty

    monkeypatch.setattr(decisions, "_SEEN", Nothing())

    first_failure(["eternal"], HUBS["azure"])


def test_replies_that_history_does_not_know_yet_are_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(index: HistoryIndex, event: Reply) -> bool:
        return False

    monkeypatch.setattr(HistoryIndex, "is_ahead", never)

    report = first_failure(["fan", "chain"], HUBS["azure"])

    assert any("ended" in each for each in report.violations)


def test_partial_episodes_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    extend = HistoryIndex.extend

    def careless(index: HistoryIndex, events: Iterable[HistoryEvent]) -> None:
        extend(index, events)
        index.unfinished = False

    async def only_the_row(episodes: Episodes, position: Position, advance: Advance, now: datetime) -> None:
        advance.state = position.state

    monkeypatch.setattr(HistoryIndex, "extend", careless)
    monkeypatch.setattr(Episodes, "_repair", only_the_row)

    first_failure(["fan", "chain", "eternal"], HUBS["azure"])


def test_histories_that_are_cut_where_nothing_shows_it_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    async def only_the_row(episodes: Episodes, position: Position, advance: Advance, now: datetime) -> None:
        advance.state = position.state

    monkeypatch.setattr(Episodes, "_repair", only_the_row)

    first_failure(["eternal"], HUBS["azure"])


def test_projections_are_repaired_on_redelivery(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(episodes: Episodes, position: Position, advance: Advance, now: datetime) -> None:
        return

    monkeypatch.setattr(Episodes, "_repair", nothing)

    first_failure(["chain", "folding"], HUBS["azure"])


def test_cached_positions_are_valid_for_one_version_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def holds(cache: SessionCache, instance_id: Any, version: Any) -> bool:
        return instance_id in cache._entries

    load = OrchestrationDispatcher._load

    async def whatever(dispatcher: OrchestrationDispatcher, item: OrchestrationWorkItem) -> Position | None:
        cached = dispatcher._cache.take(item.instance_id)
        if cached is None:
            return await load(dispatcher, item)
        return Position(item.instance_id, item.version, cached.index, cached.state, cached.session)

    monkeypatch.setattr(SessionCache, "holds", holds)
    monkeypatch.setattr(OrchestrationDispatcher, "_load", whatever)

    first_failure(["events", "chain", "eternal"], HUBS["memory"])


def test_starts_are_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = admission._judge_start

    def eager(*arguments: Any) -> str:
        verdict = judge(*arguments)
        return "accept" if verdict == "duplicate" else verdict

    monkeypatch.setattr(admission, "_judge_start", eager)

    first_failure(["children", "talk", "chain"], HUBS["azure"])


def test_what_is_sent_again_for_a_new_generation_is_not_judged_by_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(message: Message) -> bool:
        return False

    monkeypatch.setattr(admission, "_is_early", never)

    first_failure(["hoard"], HUBS["azure"])


def test_what_comes_for_the_next_life_is_not_lost_on_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(episodes: Episodes, position: Position, inbox: Sequence[Message]) -> None:
        return None

    monkeypatch.setattr(Episodes, "_before_next_life", nothing)

    first_failure(["lives"], HUBS["azure"])
