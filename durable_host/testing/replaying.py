"""Does an orchestrator still do what its recorded history says?

    from durable_host.testing.replaying import assert_replays

    def test_orders_in_production_replay():
        for path in Path("tests/histories").glob("*.json"):
            assert_replays(load_history(path), order)

A history replays when the orchestrator, given every recorded input, asks for exactly what was recorded: the same calls
under the same action ids, and at the end the same output. Run it against stored histories before deploying changed
code, and over every instance that a test has finished (`replay_problems` for each; the pytest plugin offers a fixture).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from durable_host.engine.executor import Episode, OrchestrationExecutor
from durable_host.executors.native import FunctionRegistry, NativeOrchestrations
from durable_host.model.actions import Action, CompleteOrchestration, ContinueAsNew
from durable_host.model.history import ExecutionCompleted, ExecutionStarted, HistoryEvent, OrchestratorCompleted

__all__ = ["ReplayError", "assert_replays", "load_history", "replay_problems"]


class ReplayError(AssertionError):
    """The orchestrator does not do what its history says; `problems` lists the differences."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def load_history(path: Path | str) -> list[HistoryEvent]:
    """The events of a JSON file: an array of events in the stored form."""
    return msgspec.json.decode(Path(path).read_bytes(), type=list[HistoryEvent])


def assert_replays(history: Sequence[HistoryEvent], orchestrator: Callable[..., Any] | OrchestrationExecutor) -> None:
    """Replay a history, outside a running event loop.

    Args:
        history: of one execution, from its first event; finished or not.
        orchestrator: the function, or an executor that knows it.

    Raises:
        ReplayError: it asks for something else, or ends otherwise.
    """
    problems = _run(replay_problems(history, orchestrator))
    if problems:
        raise ReplayError(problems)


async def replay_problems(
    history: Sequence[HistoryEvent], orchestrator: Callable[..., Any] | OrchestrationExecutor
) -> list[str]:
    """What differs between a history and its replay; empty when nothing does."""
    started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
    if started is None:
        return ["the history has no ExecutionStarted event"]
    executor = _executor(orchestrator, started.name)
    completed = next((event for event in reversed(history) if isinstance(event, ExecutionCompleted)), None)
    # Everything but the end is given, so that what the orchestrator still asks for is the end, and nothing else.
    past = list(history)
    if completed is not None:
        at = len(past) - 1 - past[::-1].index(completed)
        del past[at]
        if at == len(past) - 1 and isinstance(past[at], OrchestratorCompleted):
            del past[at]
    result = await executor.execute(Episode(started.instance_id, started.execution_id, past, ()))
    if result.session is not None:
        result.session.close()
    return _differences(completed, result.actions)


def _differences(completed: ExecutionCompleted | None, actions: Sequence[Action]) -> list[str]:
    problems = [
        f"replay asks for {action!r}, which history does not show"
        for action in actions
        if not isinstance(action, CompleteOrchestration)
    ]
    ends = [action for action in actions if isinstance(action, CompleteOrchestration)]
    if completed is None:
        problems += [f"replay ends with {end!r}, history does not" for end in ends]
        return problems
    if not ends:
        if not any(isinstance(action, ContinueAsNew) for action in actions):
            problems.append(f"history ends with {completed.status.value}, replay does not end")
        return problems
    end = ends[-1]
    recorded = (completed.event_id, completed.status, completed.result)
    replayed = (end.id, end.status, end.result)
    if recorded != replayed:
        problems.append(f"history ends with {recorded!r}, replay with {replayed!r}")
    return problems


def _executor(orchestrator: Callable[..., Any] | OrchestrationExecutor, name: str) -> OrchestrationExecutor:
    given: Any = orchestrator
    if hasattr(given, "execute") and hasattr(given, "handles"):  # a protocol, seen by its methods
        executor: OrchestrationExecutor = given
        return executor
    registry = FunctionRegistry()
    registry.add_orchestrator(given, name=name)
    return NativeOrchestrations(registry)


def _run(coroutine: Coroutine[Any, Any, list[str]]) -> list[str]:
    with asyncio.Runner() as runner:
        return runner.run(coroutine)
