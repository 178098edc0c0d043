"""Several executors behind one: the first that handles a name runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durable_host.engine.executor import (
    ActivityExecutor,
    ActivityResult,
    Episode,
    EpisodeResult,
    ExecutorSession,
    OrchestrationExecutor,
)
from durable_host.model.history import ExecutionStarted
from durable_host.model.messages import ActivityTask
from durable_host.model.names import unknown_function

__all__ = ["ActivityRouter", "OrchestrationRouter"]


class _RoutedSession:
    """A session together with the executor it belongs to: later episodes do not repeat the orchestrator's name."""

    __slots__ = ("executor", "session")

    def __init__(self, executor: OrchestrationExecutor, session: ExecutorSession) -> None:
        self.executor = executor
        self.session = session

    def size(self) -> int:
        return self.session.size()

    def close(self) -> None:
        self.session.close()


class OrchestrationRouter:
    """An OrchestrationExecutor over others."""

    def __init__(self, executors: Iterable[OrchestrationExecutor]) -> None:
        self._executors = tuple(executors)

    def handles(self, name: str, version: str | None) -> bool:
        """Whether one of them knows the orchestrator."""
        return any(each.handles(name, version) for each in self._executors)

    def names(self) -> Sequence[str]:
        """The names of all."""
        return sorted({name for each in self._executors for name in each.names()})

    async def execute(self, episode: Episode) -> EpisodeResult:
        """Run one episode where the orchestrator is known; LookupError if nowhere."""
        session = episode.session
        if isinstance(session, _RoutedSession):
            executor = session.executor
            inner: ExecutorSession | None = session.session
        else:
            executor = self._choose(episode)
            inner = None
        result = await executor.execute(
            Episode(episode.instance_id, episode.execution_id, episode.past, episode.new, inner)
        )
        if result.session is None:
            return result
        if not isinstance(session, _RoutedSession) or session.session is not result.session:
            session = _RoutedSession(executor, result.session)
        return EpisodeResult(result.actions, result.custom_status, session)

    def _choose(self, episode: Episode) -> OrchestrationExecutor:
        for events in (episode.past, episode.new):
            for event in events:
                if isinstance(event, ExecutionStarted):
                    for each in self._executors:
                        if each.handles(event.name, event.version):
                            return each
                    raise LookupError(unknown_function(event.name, "orchestrator", self.names()))
        raise LookupError(f"the events of instance {episode.instance_id!r} hold no ExecutionStarted")


class ActivityRouter:
    """An ActivityExecutor over others."""

    def __init__(self, executors: Iterable[ActivityExecutor]) -> None:
        self._executors = tuple(executors)

    def handles(self, name: str) -> bool:
        """Whether one of them knows the activity."""
        return any(each.handles(name) for each in self._executors)

    def names(self) -> Sequence[str]:
        """The names of all."""
        return sorted({name for each in self._executors for name in each.names()})

    async def execute(self, task: ActivityTask) -> ActivityResult:
        """Run the activity where it is known; LookupError if nowhere."""
        for each in self._executors:
            if each.handles(task.name):
                return await each.execute(task)
        raise LookupError(unknown_function(task.name, "activity", self.names()))
