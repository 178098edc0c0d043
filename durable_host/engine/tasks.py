"""Tasks: what context methods return and orchestrators yield or await.

A task is resolved at most once, by the event that history holds for it. Resolving a task never runs user code: the
driver looks afterwards whether the task that the code waits for is done.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar, cast

from durable_host.engine.execution import Execution
from durable_host.errors import OrchestratorError, PayloadError, TaskFailedError
from durable_host.model.payloads import decode_payload

__all__ = ["CallTask", "EventTask", "Task", "TaskListener", "TaskState"]

T = TypeVar("T")


class TaskState(Enum):
    """Where a task stands; names and numbers of Azure's SDK."""

    RUNNING = 0
    SUCCEEDED = 1
    FAILED = 2


class TaskListener(Protocol):
    """Wants to know when a task is done."""

    def on_done(self, task: Task[Any]) -> None:
        """`task` has finished; called once for each time it was listened to."""
        ...


class Task(Generic[T]):
    """Something an orchestrator can wait for: `yield task` in a generator, `await task` in an `async def`.

    In a generator `value = yield from task` does the same as `yield task` and gives the value its type.
    """

    __slots__ = ("_done", "_error", "_execution", "_listeners", "_value")

    def __init__(self, execution: Execution | None) -> None:
        self._execution = execution
        self._done = False
        self._value: Any = None
        self._error: Exception | None = None
        self._listeners: list[TaskListener] | None = None

    def __await__(self) -> Generator[Task[Any], Any, T]:
        return cast(T, (yield self))

    __iter__ = __await__

    @property
    def is_completed(self) -> bool:
        """Whether it has finished, one way or the other."""
        return self._done

    @property
    def is_failed(self) -> bool:
        """Whether it has finished with a failure."""
        return self._error is not None

    @property
    def state(self) -> TaskState:
        """Running, succeeded or failed."""
        if not self._done:
            return TaskState.RUNNING
        return TaskState.SUCCEEDED if self._error is None else TaskState.FAILED

    @property
    def result(self) -> Any:
        """The value; of a failed task the exception, of a running one None (as in Azure's SDK)."""
        return self._value if self._error is None else self._error

    @property
    def exception(self) -> Exception | None:
        """Why it failed, or None."""
        return self._error

    def get_result(self) -> T:
        """The value of a finished task; raises what it failed with, or OrchestratorError while it runs."""
        if self._error is not None:
            raise self._error
        if not self._done:
            raise OrchestratorError("The task has not finished; yield or await it first.")
        return cast(T, self._value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name.lower()}>"

    # For the engine.

    def listen(self, listener: TaskListener) -> None:
        """Tell `listener` when this is done; at once if it is."""
        if self._done:
            listener.on_done(self)
        elif self._listeners is None:
            self._listeners = [listener]
        else:
            self._listeners.append(listener)

    def forget(self, listener: TaskListener) -> None:
        """Do not tell `listener`: what lost a race must not collect the listeners of every round."""
        if self._listeners is not None and listener in self._listeners:
            self._listeners.remove(listener)

    def succeed(self, value: Any) -> None:
        """Finish with a value."""
        self._value = value
        self._done = True
        if self._listeners is not None:
            self._tell()

    def fail(self, error: Exception) -> None:
        """Finish with a failure."""
        self._error = error
        self._done = True
        if self._listeners is not None:
            self._tell()

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, None
        for listener in listeners or ():
            listener.on_done(self)

    def blocked(self) -> str | None:
        """Why waiting for this would never end, or None."""
        return None


class CallTask(Task[T]):
    """One call of an activity or a sub-orchestration."""

    __slots__ = ("_type", "name")

    def __init__(self, execution: Execution, name: str, type: Any) -> None:
        # Written out instead of super().__init__: one of these is made for every call.
        self._execution = execution
        self._done = False
        self._value = None
        self._error = None
        self._listeners = None
        self.name = name
        self._type = type

    def on_result(self, text: str | None) -> None:
        """The call succeeded."""
        try:
            value = decode_payload(text, self._type)
        except PayloadError as error:
            self.fail(PayloadError(f"The result of {self.name!r} does not fit: {error}", path=error.path))
        else:
            self.succeed(value)

    def on_failure(self, error: TaskFailedError) -> None:
        """The call failed."""
        self.fail(error)


class EventTask(Task[T]):
    """A wait for an external event. An open wait takes the next event of its name, even if nobody looks at it any more;
    `cancel` ends it."""

    __slots__ = ("_cancelled", "_type", "name")

    def __init__(self, execution: Execution, name: str, type: Any) -> None:
        super().__init__(execution)
        self.name = name
        self._type = type
        self._cancelled = False

    def on_event(self, text: str | None) -> None:
        """The event is here."""
        try:
            value = decode_payload(text, self._type)
        except PayloadError as error:
            self.fail(PayloadError(f"The data of event {self.name!r} does not fit: {error}", path=error.path))
        else:
            self.succeed(value)

    def cancel(self) -> None:
        """Wait no longer; the next event of this name goes to another wait. Harmless when the event is here."""
        if not self._done and not self._cancelled and self._execution is not None:
            self._cancelled = True
            self._execution.events.withdraw(self.name, self)

    def blocked(self) -> str | None:
        return f"the wait for event {self.name!r} was cancelled" if self._cancelled and not self._done else None
