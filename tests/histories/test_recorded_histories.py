"""What Durable Task Framework and the Durable Functions extension have recorded replays here, decision for decision."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from durable_host.engine.executor import Episode, EpisodeResult, ExecutorSession
from durable_host.executors.native import NativeOrchestrations
from durable_host.model.actions import (
    Action,
    CompleteOrchestration,
    CreateTimer,
    ScheduleActivity,
    SendEvent,
    StartChild,
)
from durable_host.model.history import (
    EventSent,
    ExecutionCompleted,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
    TimerCreated,
)
from durable_host.model.status import RuntimeStatus
from tests.histories.orchestrators import NOT_YET, registry
from tests.histories.recordings import Recording, recordings

ALL = recordings()
PLAYED = [each for each in ALL if each.start.name not in NOT_YET]
DECISIONS = (TaskScheduled, TimerCreated, SubOrchestrationInstanceCreated, EventSent, ExecutionCompleted)

EXECUTOR = NativeOrchestrations(registry())


async def run(
    recording: Recording,
    past: Sequence[HistoryEvent],
    new: Sequence[HistoryEvent],
    session: ExecutorSession | None = None,
) -> EpisodeResult:
    start = recording.start
    return await EXECUTOR.execute(Episode(start.instance_id, start.execution_id, past, new, session))


def episodes(events: Sequence[HistoryEvent]) -> list[tuple[list[HistoryEvent], list[HistoryEvent]]]:
    """What each episode was given and what it decided."""
    found: list[tuple[list[HistoryEvent], list[HistoryEvent]]] = []
    for event in events:
        if isinstance(event, OrchestratorStarted):
            found.append(([], []))
        given, decided = found[-1]
        if isinstance(event, DECISIONS):
            decided.append(event)
        elif not isinstance(event, OrchestratorCompleted):
            given.append(event)
    return found


def essence(decision: HistoryEvent | Action, recording: Recording) -> tuple[object, ...]:
    """What must agree between a recorded decision and an action."""
    default = f"{recording.start.execution_id}:"
    match decision:
        case TaskScheduled():
            return ("activity", decision.event_id, decision.name)
        case ScheduleActivity():
            return ("activity", decision.id, decision.name)
        case TimerCreated():
            return ("timer", decision.event_id, decision.fire_at)
        case CreateTimer():
            return ("timer", decision.id, decision.fire_at)
        case SubOrchestrationInstanceCreated():
            return ("child", decision.event_id, decision.name, decision.instance_id, decision.detached)
        case StartChild():
            return (
                "child",
                decision.id,
                decision.name,
                decision.instance_id or f"{default}{decision.id}",
                decision.detached,
            )
        case EventSent():
            return ("event", decision.event_id, decision.instance_id, decision.name)
        case SendEvent():
            return ("event", decision.id, decision.instance_id, decision.name)
        case ExecutionCompleted():
            return ("end", decision.event_id, decision.status, _text(decision.status, decision.result))
        case CompleteOrchestration():
            return ("end", decision.id, decision.status, _text(decision.status, decision.result))
        case _:
            raise AssertionError(f"not a decision: {decision!r}")


def _text(status: RuntimeStatus, result: str | None) -> str | None:
    return None if status is RuntimeStatus.FAILED else result  # failures are worded differently, see below


def first_judged(events: Sequence[HistoryEvent]) -> int:
    """Episodes before a rewind cannot be judged: what they decided is no longer there."""
    count = 0
    for at, (given, _) in enumerate(episodes(events)):
        if any(isinstance(event, GenericEvent) for event in given):
            count = at
    return count


def test_the_recordings_are_there() -> None:
    assert len(ALL) > 220
    assert len(PLAYED) > 190
    assert {each.start.name for each in ALL} - NOT_YET == set(EXECUTOR.names())


@pytest.mark.parametrize("recording", PLAYED, ids=str)
async def test_a_whole_history_replays_and_asks_for_nothing_new(recording: Recording) -> None:
    result = await run(recording, recording.events, ())

    assert list(result.actions) == []
    assert result.custom_status == recording.custom_status
    if result.session is not None:
        result.session.close()


@pytest.mark.parametrize("recording", PLAYED, ids=str)
async def test_every_prefix_leads_to_the_recorded_decisions(recording: Recording) -> None:
    past: list[HistoryEvent] = []
    judged = first_judged(recording.events)

    for at, (given, decided) in enumerate(episodes(recording.events)):
        result = await run(recording, past, given)
        if at >= judged:
            asked = [essence(action, recording) for action in result.actions]
            assert asked == [essence(event, recording) for event in decided]
        past += [*given, *decided, OrchestratorCompleted(timestamp=given[0].timestamp)]
        if result.session is not None:
            result.session.close()


@pytest.mark.parametrize("recording", [each for each in PLAYED if not first_judged(each.events)], ids=str)
async def test_a_session_makes_the_recorded_decisions(recording: Recording) -> None:
    result = EpisodeResult(())

    for given, decided in episodes(recording.events):
        result = await run(recording, (), given, result.session)
        asked = [essence(action, recording) for action in result.actions]
        assert asked == [essence(event, recording) for event in decided]

    assert result.custom_status == recording.custom_status
    if result.session is not None:
        result.session.close()


@pytest.mark.parametrize("recording", [each for each in PLAYED if each.status == "Completed"], ids=str)
async def test_the_recorded_output_comes_out(recording: Recording) -> None:
    *before, end = (event for event in recording.events if not isinstance(event, OrchestratorCompleted))
    assert isinstance(end, ExecutionCompleted)

    result = await run(recording, before, ())

    (completion,) = result.actions
    assert isinstance(completion, CompleteOrchestration)
    assert (completion.id, completion.status, completion.result) == (end.event_id, end.status, end.result)


@pytest.mark.parametrize("recording", [each for each in PLAYED if each.status == "Failed"], ids=str)
async def test_a_recorded_failure_is_worded_as_out_of_process(recording: Recording) -> None:
    before = [event for event in recording.events if not isinstance(event, ExecutionCompleted)]

    result = await run(recording, before, ())

    (completion,) = result.actions
    assert isinstance(completion, CompleteOrchestration)
    assert completion.result is not None
    assert completion.result.startswith(f"Orchestrator function '{recording.start.name}' failed: ")
    assert completion.failure is not None
    if recording.hub == "worker-hub":
        assert recording.output is not None
        assert completion.result.startswith(recording.output)


@pytest.mark.parametrize(
    "recording", [each for each in PLAYED if len(each.events) > 3 and not first_judged(each.events)], ids=str
)
async def test_an_episode_written_in_part_is_completed(recording: Recording) -> None:
    """After a crash between history batches only the missing decisions are asked for again."""
    parts = episodes(recording.events)
    at = next((at for at, (_, decided) in enumerate(parts) if len(decided) > 1), 0)
    past = [event for given, decided in parts[:at] for event in (*given, *decided)]
    given, decided = parts[at]
    for written in range(len(decided)):
        result = await run(recording, [*past, *given, *decided[:written]], ())
        asked = [essence(action, recording) for action in result.actions]
        assert asked == [essence(event, recording) for event in decided[written:]]
        if result.session is not None:
            result.session.close()
