"""What the engine calls to run user code. `executors/` implements it; the router over all executors does, too."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Protocol

import msgspec

from durable_host.model.actions import Action
from durable_host.model.failure import Failure
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.messages import ActivityTask

__all__ = [
    "ActivityExecutor",
    "ActivityResult",
    "Episode",
    "EpisodeResult",
    "ExecutorSession",
    "OrchestrationExecutor",
    "current_activity",
]


class ExecutorSession(Protocol):
    """An orchestrator's position, kept between episodes to skip replay. Belongs to the executor that returned it."""

    def size(self) -> int:
        """About how many bytes it keeps alive, for the cache's limit."""
        ...

    def close(self) -> None:
        """Let go of the user's generator or coroutine; must not raise. Called when the session is dropped."""
        ...


class Episode(msgspec.Struct, frozen=True):
    """One advance of an orchestrator.

    Attributes:
        past: committed events; empty when a session is given.
        new: events of this episode: OrchestratorStarted first, then what was admitted, in order. The first episode of a
            continued execution may hold OrchestratorCompleted as well.
        session: what this executor returned last time, if still valid; used up by the call, whatever its outcome.
    """

    instance_id: InstanceId
    execution_id: ExecutionId
    past: Sequence[HistoryEvent]
    new: Sequence[HistoryEvent]
    session: ExecutorSession | None = None


class EpisodeResult(msgspec.Struct, frozen=True):
    """What the orchestrator asks for.

    Attributes:
        actions: those that history does not show yet, by ascending id; empty while suspended.
            CompleteOrchestration or ContinueAsNew, if any, comes last.
        custom_status: JSON text as it stands after the episode; None: never set.
        session: to be handed back in the next episode if the checkpoint is committed.
    """

    actions: Sequence[Action]
    custom_status: str | None = None
    session: ExecutorSession | None = None


class OrchestrationExecutor(Protocol):
    """Runs orchestrators.

    `execute` never raises for a user's mistake: a failing orchestrator, non-determinism included, is an
    EpisodeResult with CompleteOrchestration(FAILED). What it raises is our own fault and leads to quarantine.
    After a rewind, history holds GenericEvents in place of failures; what the orchestrator had done because of them is
    passed over in replay.
    """

    def handles(self, name: str, version: str | None) -> bool:
        """Whether this executor knows the orchestrator; names compare without case."""
        ...

    def names(self) -> Sequence[str]:
        """Known orchestrator names, sorted."""
        ...

    async def execute(self, episode: Episode) -> EpisodeResult:
        """Run one episode."""
        ...


class ActivityResult(msgspec.Struct, frozen=True):
    """How an activity ended: a JSON text (or None for "nothing"), or a failure."""

    result: str | None = None
    failure: Failure | None = None


class ActivityExecutor(Protocol):
    """Runs activities. `execute` never raises for a user's mistake; cancellation passes through."""

    def handles(self, name: str) -> bool:
        """Whether this executor knows the activity; names compare without case."""
        ...

    def names(self) -> Sequence[str]:
        """Known activity names, sorted."""
        ...

    async def execute(self, task: ActivityTask) -> ActivityResult:
        """Run one activity: a coroutine on the loop, anything else in the bounded thread pool."""
        ...


current_activity: ContextVar[ActivityTask | None] = ContextVar("durable_host_activity", default=None)
"""The activity that an executor runs now, for layers that wrap user code: whose it is, and its trace context."""
