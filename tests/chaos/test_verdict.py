"""The verdict of a chaos run finds what it is there for: each test spoils one thing on a hub where all was well."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random

import msgspec
import pytest

from durable_host.engine.settings import EngineSettings
from durable_host.model.history import EventRaised, HistoryEvent, TaskCompleted
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host.storage.registry import open_hub
from durable_host.testing.oracle import Commit, Final
from durable_host.worker import TaskHubWorker
from tests.chaos.app import ACTIVITIES, ORCHESTRATORS, Bench
from tests.chaos.journal import Journal, read_journals
from tests.chaos.kinds import KINDS
from tests.chaos.player import Notes, RunningPlayer
from tests.chaos.verdict import Evidence, judge, log_problems

_PLAYED = ("chain", "gate", "collect", "retrying", "talking", "failing")


async def _evidence(folder: Path) -> Evidence:
    """A hub on which some kinds were played, undisturbed; each instance is named after its kind."""
    Bench.folder, Bench.lease = folder, 0.1
    (folder / "attempts").mkdir()
    journal = Journal(folder / "host.journal")
    worker = TaskHubWorker(journal.watch(open_hub("memory")), settings=EngineSettings(store_inputs=True))
    for orchestrator in ORCHESTRATORS:
        worker.orchestrator(orchestrator)
    for activity in ACTIVITIES:
        worker.activity(activity)
    notes = Notes()
    async with worker:
        players = [(RunningPlayer(worker.client, notes, Random(7)), kind) for kind in KINDS if kind.name in _PLAYED]
        await asyncio.gather(*(player.play(kind, kind.name) for player, kind in players))
        for guest in ("talking-guest-0", "talking-guest-1"):
            await worker.client.wait_for_completion(guest)
        final = Final(raised=notes.raised)
        async for state in worker.client.instances():
            final.add(state, await worker.client.history(state.instance_id))
    final.commits, _ = read_journals([folder / "host.journal"])
    runs = Counter((folder / "runs.log").read_text(encoding="utf-8").splitlines())
    return Evidence(final, notes.expected, runs)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """It takes seconds, so all tests share it."""
    return asyncio.run(_evidence(tmp_path_factory.mktemp("played")))


@pytest.fixture
def evidence(played: Evidence) -> Evidence:
    """To be spoilt."""
    return deepcopy(played)


def _rewrite(evidence: Evidence, name: str, change: Callable[[list[HistoryEvent]], Sequence[HistoryEvent]]) -> None:
    histories = evidence.final.histories
    histories[InstanceId(name)] = change(list(histories[InstanceId(name)]))


def _results(history: Sequence[HistoryEvent]) -> list[int]:
    return [at for at, event in enumerate(history) if isinstance(event, TaskCompleted)]


async def test_nothing_is_said_where_all_is_well(evidence: Evidence) -> None:
    assert len(evidence.final.commits) > len(_PLAYED)
    assert await judge(evidence) == []


async def test_an_instance_that_has_not_ended_is_found(evidence: Evidence) -> None:
    state = evidence.final.states[InstanceId("collect")]
    evidence.final.states[InstanceId("collect")] = msgspec.structs.replace(state, status=RuntimeStatus.RUNNING)

    found = await judge(evidence)

    assert "collect: has not ended, it is Running" in found
    assert "collect: is Running, not Completed" in found


async def test_an_instance_that_is_gone_is_found(evidence: Evidence) -> None:
    del evidence.final.states[InstanceId("chain")], evidence.final.histories[InstanceId("chain")]

    assert "chain: is gone, not Completed" in await judge(evidence)


async def test_a_wrong_output_is_found(evidence: Evidence) -> None:
    state = evidence.final.states[InstanceId("talking")]
    evidence.final.states[InstanceId("talking")] = msgspec.structs.replace(state, output='["0","0"]')

    assert "talking: ['0', '0'] instead of ['0', '1']" in await judge(evidence)


async def test_a_result_that_no_run_returned_is_found(evidence: Evidence) -> None:
    lost = next(token for token in evidence.runs if token.startswith("collect/"))
    del evidence.runs[lost]

    assert await judge(evidence) == [f"{lost!r} was used; 0 runs of the activity returned it"]


async def test_a_result_that_is_used_twice_is_found(evidence: Evidence) -> None:
    def twice(history: list[HistoryEvent]) -> list[HistoryEvent]:
        first, second = _results(history)[:2]
        event, other = history[first], history[second]
        assert isinstance(event, TaskCompleted) and isinstance(other, TaskCompleted)
        history[second] = msgspec.structs.replace(other, result=event.result)
        return history

    _rewrite(evidence, "gate", twice)

    found = await judge(evidence)
    assert any("was used 2 times" in each for each in found)
    assert any(each.startswith("gate: 'gate/") and "was answered with 'gate/" in each for each in found)


async def test_an_answer_that_came_twice_is_found(evidence: Evidence) -> None:
    _rewrite(evidence, "gate", lambda history: [*history, history[_results(history)[0]]])

    assert any("is answered 2 times" in each for each in await judge(evidence))


async def test_an_acknowledged_event_that_nobody_took_is_found(evidence: Evidence) -> None:
    _rewrite(evidence, "gate", lambda history: [event for event in history if getattr(event, "name", None) != "left"])

    assert any("event 'left'" in each and "never taken" in each for each in await judge(evidence))


async def test_an_event_that_was_taken_twice_is_found(evidence: Evidence) -> None:
    _rewrite(
        evidence,
        "gate",
        lambda history: [*history, next(event for event in history if isinstance(event, EventRaised))],
    )

    assert any("was taken 2 times" in each for each in await judge(evidence))


async def test_a_status_row_behind_its_history_is_found(evidence: Evidence) -> None:
    state = evidence.final.states[InstanceId("failing")]
    assert state.version is not None
    evidence.final.states[InstanceId("failing")] = msgspec.structs.replace(
        state, version=HistoryVersion(state.version.generation, state.version.length - 1)
    )

    assert any(each.startswith("failing: the projection is of") for each in await judge(evidence))


async def test_two_commits_from_one_history_are_found(evidence: Evidence) -> None:
    last = max(
        (each for each in evidence.final.commits if each.instance_id == "chain"), key=lambda commit: commit.version
    )
    other = Commit(last.instance_id, last.base, HistoryVersion(last.version.generation, last.version.length + 1))
    evidence.final.commits = [*evidence.final.commits, other]

    assert any(each.startswith("chain: ") and "was committed from" in each for each in await judge(evidence))


async def test_the_order_in_which_commits_were_written_down_says_nothing() -> None:
    chain = InstanceId("chain")
    first, second = HistoryVersion(0, 8), HistoryVersion(0, 12)
    amended = Commit(chain, second, second)
    final = Final(commits=[amended, Commit(chain, first, second), Commit(chain, None, first)])

    assert await judge(Evidence(final, {}, Counter())) == []


def test_tracebacks_and_secrets_in_logs_are_found(tmp_path: Path) -> None:
    log = tmp_path / "host-1.log"
    log.write_text("ready\nTraceback (most recent call last):\n  File …\nOSError: tell me\n", encoding="utf-8")

    found = list(log_problems([log], ["tell me", "never said"]))

    assert len(found) == 2
    assert "1 tracebacks" in found[0]
    assert found[1] == "host-1.log: line 4 tells a secret"


def test_what_activities_were_told_to_do_is_no_problem(tmp_path: Path) -> None:
    log = tmp_path / "host-3.log"
    stamp = "[2026-01-31T12:00:00.000Z] "
    wanted = ["Traceback (most recent call last):", "  File …", "ValueError: failing-1/never 9 is not ready"]
    log.write_text("\n".join(stamp + line for line in wanted), encoding="utf-8")
    assert list(log_problems([log], [])) == []

    log.write_text("\n".join(stamp + line for line in [*wanted, *wanted[:2], "KeyError: 7"]), encoding="utf-8")
    (problem,) = log_problems([log], [])
    assert "1 tracebacks" in problem
