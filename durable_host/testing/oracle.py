"""What must be true of every hub when its work is done: a function over final histories and states.

The rules know nothing of a scenario. They hold for any orchestrators on any store, whatever failed on the way:

1. every instance has ended;
2. every request of a completed instance is answered exactly once, of any other at most once, and only by a reply that
   carries the id that history recorded;
3. every reply is the function of the recorded request (where the scenario says what its activities compute);
4. every external event that was acknowledged is in history exactly once, as long as its execution is the last one;
5. replaying the history asks for the same and ends the same;
6. the projection says what history says;
7. nobody runs a child whose parent does not know it, or has ended;
8. no two commits start from the same history, and none from an older one than the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from durable_host.engine.executor import OrchestrationExecutor
from durable_host.engine.project import project
from durable_host.model.history import (
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    Reply,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host.testing.replaying import replay_problems

__all__ = ["Commit", "Final", "Raised", "violations"]

_REQUESTS = (TaskScheduled, TimerCreated, SubOrchestrationInstanceCreated)
_ANSWERS = (
    TaskCompleted,
    TaskFailed,
    TimerFired,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
)


@dataclass(frozen=True, slots=True)
class Raised:
    """An external event whose sender was told that it is stored."""

    instance_id: InstanceId
    message_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A checkpoint that changed history and was reported as committed."""

    instance_id: InstanceId
    base: HistoryVersion | None
    version: HistoryVersion


@dataclass(slots=True)
class Final:
    """What is stored at the end.

    Attributes:
        optional: instances that need not have ended.
    """

    states: dict[InstanceId, InstanceState] = field(default_factory=dict[InstanceId, InstanceState])
    histories: dict[InstanceId, Sequence[HistoryEvent]] = field(
        default_factory=dict[InstanceId, Sequence[HistoryEvent]]
    )
    raised: Sequence[Raised] = ()
    optional: set[InstanceId] = field(default_factory=set[InstanceId])
    commits: Sequence[Commit] = ()

    def add(self, state: InstanceState, history: Sequence[HistoryEvent]) -> None:
        """Take an instance in."""
        self.states[state.instance_id] = state
        self.histories[state.instance_id] = history

    def output(self, instance_id: str) -> Any:
        """The decoded output of a completed instance; None of any other."""
        state = self.states.get(InstanceId(instance_id))
        if state is None or state.status is not RuntimeStatus.COMPLETED or state.output is None:
            return None
        return msgspec.json.decode(state.output)

    def status(self, instance_id: str) -> RuntimeStatus | None:
        """The status, None for an instance that does not exist."""
        state = self.states.get(InstanceId(instance_id))
        return None if state is None else state.status

    def dispatched(self) -> set[str]:
        """Dispatch ids of all activities that stand in a history."""
        return {
            event.dispatch_id
            for history in self.histories.values()
            for event in history
            if isinstance(event, TaskScheduled) and event.dispatch_id is not None
        }


async def violations(
    final: Final, executor: OrchestrationExecutor, *, reply: Callable[[str, Any], object] | None = None
) -> list[str]:
    """Everything that is not as it must be, as sentences; empty when all is well.

    Args:
        executor: knows the orchestrators, for replay.
        reply: what an activity, given its name and its decoded input, answers; None: not checked.
    """
    found: list[str] = []
    for instance_id, state in final.states.items():
        history = final.histories[instance_id]
        if not state.status.is_terminal:
            if instance_id not in final.optional:
                found.append(f"{instance_id}: has not ended, it is {state.status.value}")
            continue
        if not history:
            continue  # ended before it began
        problems = [*_answers(state, history, reply), *_projection(state, history), *_raised(final, state, history)]
        if _replayable(history):
            problems += await replay_problems(history, executor)
        found += [f"{instance_id}: {problem}" for problem in problems]
    found += _children(final)
    found += _overlaps(final.commits)
    return found


def _replayable(history: Sequence[HistoryEvent]) -> bool:
    return any(isinstance(event, ExecutionStarted) for event in history)


def _answers(
    state: InstanceState, history: Sequence[HistoryEvent], reply: Callable[[str, Any], object] | None
) -> Iterator[str]:
    requests = {event.event_id: event for event in history if isinstance(event, _REQUESTS)}
    answers: Counter[int] = Counter()
    for event in history:
        if isinstance(event, _ANSWERS):
            answers[event.task_id] += 1
            yield from _answer(requests.get(event.task_id), event, reply)
    for task_id, count in answers.items():
        if count > 1:
            yield f"request {task_id} is answered {count} times"
    if state.status is RuntimeStatus.COMPLETED and not _may_stay_open(history):
        for task_id, request in requests.items():
            detached = isinstance(request, SubOrchestrationInstanceCreated) and request.detached
            if not answers[task_id] and not detached and not isinstance(request, TimerCreated):
                yield f"request {task_id} was never answered"


def _may_stay_open(history: Sequence[HistoryEvent]) -> bool:
    return not any(isinstance(event, ExecutionCompleted) for event in history)


def _answer(request: HistoryEvent | None, event: Reply, reply: Callable[[str, Any], object] | None) -> Iterator[str]:
    if request is None:
        yield f"{type(event).__name__} answers request {event.task_id}, which history does not show"
        return
    if isinstance(request, TaskScheduled | TimerCreated | SubOrchestrationInstanceCreated) and (
        request.dispatch_id is not None and event.dispatch_id is not None and request.dispatch_id != event.dispatch_id
    ):
        yield f"request {event.task_id} has the answer to another request"
    if reply is not None and isinstance(request, TaskScheduled) and isinstance(event, TaskCompleted):
        asked = None if request.input is None else msgspec.json.decode(request.input)
        got = None if event.result is None else msgspec.json.decode(event.result)
        if got != reply(request.name, asked):
            yield f"request {event.task_id}, {request.name}({asked!r}), was answered with {got!r}"


def _projection(state: InstanceState, history: Sequence[HistoryEvent]) -> Iterator[str]:
    assert state.version is not None
    if state.version.length != len(history):
        yield f"the projection is of {state.version.length} events, history has {len(history)}"
    told = project(None, history, version=state.version, custom_status=state.custom_status)
    for name in ("status", "output", "execution_id", "completed_at", "name"):
        if getattr(told, name) != getattr(state, name):
            yield f"{name} is {getattr(state, name)!r}, history says {getattr(told, name)!r}"


def _raised(final: Final, state: InstanceState, history: Sequence[HistoryEvent]) -> Iterator[str]:
    taken = Counter(event.message_id for event in history if isinstance(event, EventRaised))
    for message_id, count in taken.items():
        if message_id is not None and count > 1:
            yield f"event {message_id} was taken {count} times"
    started = next(event for event in history if isinstance(event, ExecutionStarted))
    if state.status is not RuntimeStatus.COMPLETED or state.version is None or state.version.generation > 0:
        return  # events that come after the end are dropped; those of earlier generations are gone with them
    for event in final.raised:
        if event.instance_id == started.instance_id and not taken[event.message_id]:  # type: ignore[index]  # an id
            yield f"event {event.name!r} ({event.message_id}) was acknowledged and never taken"


def _children(final: Final) -> Iterator[str]:
    for instance_id, state in final.states.items():
        parent = state.parent
        if parent is None or state.status.is_terminal or instance_id in final.optional:
            continue
        history = final.histories.get(parent.instance_id, ())
        asked = any(
            isinstance(event, SubOrchestrationInstanceCreated) and event.event_id == parent.task_id for event in history
        )
        if not asked:
            yield f"{instance_id}: runs as a child of {parent.instance_id!r}, which never asked for it"


def _overlaps(commits: Sequence[Commit]) -> Iterator[str]:
    # By version, not by time: a store may report a commit long after its history stood, and processes have no common
    # time. What only amends keeps the version, and comes after what made it.
    last: dict[InstanceId, HistoryVersion] = {}
    for commit in sorted(commits, key=lambda each: (each.version, each.base is not None, each.base or each.version)):
        before = last.get(commit.instance_id)
        if before is not None and (commit.base is None or commit.base < before):
            yield f"{commit.instance_id}: {commit.version} was committed from {commit.base}, though {before} stood"
        last[commit.instance_id] = commit.version
