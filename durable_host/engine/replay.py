"""Replay: drive one orchestrator, generator or coroutine, over the events of its history.

A `Replay` takes events in order and applies one at a time; what resolves the task that the code waits for lets the
code run at once, as in DurableTask.Core. It never looks at a clock, a store or an event loop: the same events give the
same actions, fed at once, in episodes to the same object (a session), or anew to a fresh one.

Rules, in the order in which they meet an event:

- Suspension. From ExecutionSuspended on events are queued; ExecutionResumed applies the queue. OrchestratorStarted
  (the time), ExecutionTerminated and ExecutionResumed act at once. While suspended nothing is asked for: actions that
  history does not show are held back.
- Confirmation. A scheduling event must meet the pending action of its id, else the orchestrator is not deterministic.
  What is pending at the end is new, also where a crash has left an episode half written.
- After a rewind history holds events of the road that failed: delay timers of retries, calls that compensated. Up to
  the last event that the rewind touched, what meets no action is therefore passed over, and so are replies to requests
  that stand unconfirmed. A recorded call counts only if its dispatch id fits the call's input, so that an item of a
  fan-out never receives the result of another one whose id it has taken over.
- The end. Code that has returned or raised ends the execution only when no activity, child or uncancelled timer is
  open, and the completion takes the next action id then. Continue-as-new and termination wait for nothing.
- A dropped position is closed: the code's `finally` blocks run, but what they ask for and raise goes nowhere.

Source: azure-storage-task-hub.md 6.7, 6.11; DurableTask.Core TaskOrchestrationExecutor, TaskOrchestrationContext.
"""

# pyright: reportPrivateUsage=false, reportUnknownVariableType=false
# The loop below reads slots of tasks: a property would cost as much as the rest of a step. What code yields is untyped.

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isasyncgen
from types import CoroutineType, GeneratorType
from typing import Any, Final

from durable_host.engine.callsites import is_own_file, spell_site, user_traceback
from durable_host.engine.closing import drop
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.engine.execution import Execution
from durable_host.engine.executor import EpisodeResult
from durable_host.engine.foreign import refused
from durable_host.engine.identity import activity_dispatch_id, child_dispatch_id
from durable_host.engine.nondeterminism import SchedulingEvent, agrees, non_determinism
from durable_host.engine.tasks import Task
from durable_host.errors import (
    ActivityFailedError,
    ForeignAwaitableError,
    OrchestratorError,
    SubOrchestrationFailedError,
)
from durable_host.model.actions import Action, CompleteOrchestration, ContinueAsNew, ScheduleActivity, StartChild
from durable_host.model.failure import error_text, failure_of
from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.payloads import encode_payload
from durable_host.model.status import RuntimeStatus

__all__ = ["Orchestrator", "Replay"]

Orchestrator = Callable[[DurableOrchestrationContext], Any]
"""A generator function, an `async def`, or a plain function whose return value is the output."""

_NEVER: Final[Task[Any]] = Task(None)
"""What code waits for that has not begun or has ended."""

_BASE_SIZE = 4096

_REPLIES = (TaskCompleted, TaskFailed, SubOrchestrationInstanceCompleted, SubOrchestrationInstanceFailed)
_HISTORIC = (ExecutionStarted, EventRaised, TimerFired, *_REPLIES)


class Replay:
    """One orchestrator at one position; the session of the native executor.

    Args:
        keep_histories: fill `context.histories`.
        name: the registered name; the start's spelling takes its place.
    """

    __slots__ = (
        "_careful",
        "_closed",
        "_code",
        "_completion",
        "_context",
        "_ended",
        "_failed",
        "_finished",
        "_function",
        "_held",
        "_histories",
        "_instance_id",
        "_name",
        "_output",
        "_over",
        "_rewinds",
        "_suspended",
        "_waiting",
        "execution",
    )

    def __init__(
        self,
        function: Orchestrator,
        instance_id: InstanceId,
        execution_id: ExecutionId,
        *,
        keep_histories: bool = False,
        name: str = "",
    ) -> None:
        self.execution = Execution(instance_id, execution_id)
        self._function = function
        self._context: DurableOrchestrationContext | None = None
        self._code: Any = None
        self._name = name
        self._waiting: Task[Any] = _NEVER
        self._histories: list[HistoryEvent] | None = [] if keep_histories else None
        self._held: list[HistoryEvent] = []
        self._suspended = False
        self._ended = False
        self._failed: BaseException | None = None
        self._output: str | None = None
        self._completion: CompleteOrchestration | None = None
        self._over = False
        self._finished = False
        self._closed = False
        self._careful = False
        self._rewinds = 0

    # The session.

    @property
    def name(self) -> str:
        """The orchestrator's name."""
        return self._name

    def episode(self, past: Sequence[HistoryEvent], new: Sequence[HistoryEvent]) -> EpisodeResult:
        """Apply committed events, then those of this episode, and tell what is new.

        Raises:
            OrchestratorError: the events do not begin an execution; our own fault.
        """
        execution = self.execution
        if self._closed:
            raise OrchestratorError(f"the session of instance {execution.instance_id!r} was closed before this episode")
        execution.is_replaying = True
        try:
            if past:
                self._replay(past, new)
            execution.is_replaying = False
            self._apply_all(new)
        except _NotDeterministic as found:
            self._abort(found.error)
        finally:
            execution.is_replaying = False
        if self._context is None:
            raise OrchestratorError(f"the events of instance {execution.instance_id!r} hold no ExecutionStarted")
        return self._result()

    def size(self) -> int:
        """About how many bytes this keeps alive: what results and events have brought in, at most."""
        return _BASE_SIZE + self.execution.bytes

    def close(self) -> None:
        """Drop the code; its `finally` blocks run without any effect."""
        self._closed = True
        code, self._code = self._code, None
        self._waiting = _NEVER
        if code is None:
            return
        # The context stays usable, so that no loop around a refusal can spin; what is asked for now is never looked at.
        self.execution.active = self.execution.closed = True
        try:
            drop(code)
        finally:
            self.execution.active = False

    def __del__(self) -> None:
        if self._code is not None:  # a session that nobody closed, after a crash of ours
            self.close()

    # Feeding.

    def _replay(self, past: Sequence[HistoryEvent], new: Sequence[HistoryEvent]) -> None:
        touched = _last_touched(past, new)
        if touched:
            self._rewinds = sum(
                type(each) is GenericEvent and each.original is None for events in (past, new) for each in events
            )
            self._careful = True
            self._apply_all(past[:touched])
            self._careful = False
            self._apply_all(past[touched:])
        else:
            self._apply_all(past)
        self.execution.sites.clear()

    def _apply_all(self, events: Sequence[HistoryEvent]) -> None:
        appliers = _APPLIERS
        for event in events:
            kind = type(event)
            if self._over:
                if kind is ExecutionCompleted:
                    self._finished = True
                continue
            if self._suspended and kind not in _AT_ONCE:
                self._held.append(event)
                continue
            if self._histories is not None and kind in _HISTORIC:
                self._histories.append(event)
            applier = appliers.get(kind)
            if applier is not None:
                applier(self, event)
                if self._waiting._done:
                    self._run()
                if self._ended and self._completion is None:
                    self._end_if_idle()

    def _started_episode(self, event: OrchestratorStarted) -> None:
        self.execution.now = max(self.execution.now, event.timestamp)

    def _started(self, event: ExecutionStarted) -> None:
        if self._context is not None:
            return
        execution = self.execution
        self._name = event.name
        execution.bytes += len(event.input or "")
        self._context = DurableOrchestrationContext(execution, event, self._histories)
        execution.active = True
        try:
            code = self._function(self._context)
        except BaseException as error:
            self._raised(error)
            return
        finally:
            execution.active = False
        if isinstance(code, (GeneratorType, CoroutineType)) or _is_driven(code):
            self._code = code
            first: Task[Any] = Task(execution)
            first.succeed(None)
            self._waiting = first
        elif isasyncgen(code):
            self._raised(ForeignAwaitableError("An orchestrator is a generator or an `async def`, not both."))
        else:
            self._returned(code)

    def _task_completed(self, event: TaskCompleted) -> None:
        execution = self.execution
        if self._careful and event.task_id in execution.pending:
            return
        waiter = execution.calls.pop(event.task_id, None)
        if waiter is not None:
            text = event.result
            if text is not None:
                execution.bytes += len(text)
            waiter.on_result(text)

    def _task_failed(self, event: TaskFailed) -> None:
        if self._careful and event.task_id in self.execution.pending:
            return
        waiter = self.execution.calls.pop(event.task_id, None)
        if waiter is not None:
            name = getattr(waiter, "name", "")
            waiter.on_failure(ActivityFailedError(name, event.task_id, event.reason, event.details, event.failure))

    def _child_completed(self, event: SubOrchestrationInstanceCompleted) -> None:
        if self._careful and event.task_id in self.execution.pending:
            return
        waiter = self.execution.children.pop(event.task_id, None)
        if waiter is not None:
            self.execution.bytes += len(event.result or "")
            waiter.on_result(event.result)

    def _child_failed(self, event: SubOrchestrationInstanceFailed) -> None:
        if self._careful and event.task_id in self.execution.pending:
            return
        waiter = self.execution.children.pop(event.task_id, None)
        if waiter is not None:
            name = getattr(waiter, "name", "")
            waiter.on_failure(
                SubOrchestrationFailedError(name, event.task_id, event.reason, event.details, event.failure)
            )

    def _timer_fired(self, event: TimerFired) -> None:
        if self._careful and event.timer_id in self.execution.pending:
            return
        waiter = self.execution.timers.pop(event.timer_id, None)
        if waiter is not None:
            waiter.on_timer()

    def _event_raised(self, event: EventRaised) -> None:
        self.execution.bytes += len(event.input or "")
        self.execution.events.deliver(event)

    def _scheduled(self, event: SchedulingEvent) -> None:
        if event.event_id < 0:  # negative: Core's timer that splits a batch
            return
        execution = self.execution
        action = execution.pending.get(event.event_id)
        if action is not None and agrees(event, action) and not (self._careful and self._is_of_another(event, action)):
            del execution.pending[event.event_id]
            execution.sites.pop(event.event_id, None)
        elif not self._careful:
            site = execution.sites.get(event.event_id)
            raise _NotDeterministic(non_determinism(self._name, event, action, site, self._position()))

    def _suspend(self, event: ExecutionSuspended) -> None:
        self._suspended = True

    def _resume(self, event: ExecutionResumed) -> None:
        if self._suspended:
            self._suspended = False
            held, self._held = self._held, []
            self._apply_all(held)

    def _terminate(self, event: ExecutionTerminated) -> None:
        if self._completion is not None and not self._suspended:
            return  # it ended before, in this very episode
        self._over = True
        self._suspended = False
        self.execution.pending.clear()
        self._complete(RuntimeStatus.TERMINATED, event.reason)

    def _completed(self, event: ExecutionCompleted) -> None:
        self._over = self._finished = True
        self.execution.pending.clear()

    # Running the code.

    def _run(self) -> None:
        """Let the code go on from the finished task it waits for, as far as it comes."""
        execution, code = self.execution, self._code
        task: Task[Any] = self._waiting
        self._waiting = _NEVER
        execution.active = True
        try:
            while True:
                failure = task._error
                yielded = code.send(task._value) if failure is None else code.throw(failure)
                if isinstance(yielded, Task):
                    task = yielded
                    if task._done:
                        continue
                    if task._execution is execution and task.blocked() is None:
                        self._waiting = task
                        return
                    task = _refusal(_unfit(task, execution))
                else:
                    task = _refusal(refused(yielded))
        except StopIteration as stop:
            execution.active = False
            self._returned(stop.value)
        except BaseException as error:
            execution.active = False
            self._raised(error)
        finally:
            execution.active = False

    def _returned(self, value: object) -> None:
        self._code = None
        self._ended = True
        if value is not None and self.execution.continuation is None:
            try:
                if isinstance(value, Task):
                    raise ForeignAwaitableError(
                        "The orchestrator returns a task; yield or await it and return its result."
                    )
                self._output = encode_payload(value)
            except Exception as error:
                self._failed = error

    def _raised(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._code = None
        self._ended = True
        self._failed = error

    def _end_if_idle(self) -> None:
        if self._failed is None and self.execution.continuation is not None:
            # Takes effect with the result. What still arrives in this episode is carried over, also where the code that
            # has ended left a wait for it.
            self.execution.events.stop_waiting()
            return
        if not self.execution.is_idle:
            return
        if self._failed is None:
            self._complete(RuntimeStatus.COMPLETED, self._output)
        else:
            self._complete_failed(self._failed)

    def _complete_failed(self, error: BaseException) -> None:
        text = error_text(error) or str(type(error))
        user_traceback(error)
        self._complete(RuntimeStatus.FAILED, f"Orchestrator function '{self._name}' failed: {text}", error)
        self._failed = None  # its traceback would keep this object alive until the next garbage collection

    def _complete(self, status: RuntimeStatus, result: str | None, error: BaseException | None = None) -> None:
        execution = self.execution
        self._completion = CompleteOrchestration(
            execution.next_id, status, result, None if error is None else failure_of(error)
        )
        execution.next_id += 1

    def _abort(self, error: OrchestratorError) -> None:
        """The code cannot be led back to where it stood: the execution fails, whatever is open."""
        self._over = True
        self._suspended = False
        self.execution.pending.clear()
        self._complete_failed(error)

    # What came out.

    def _result(self) -> EpisodeResult:
        execution = self.execution
        status = execution.custom_status
        if self._finished:
            self.close()
            return EpisodeResult((), status)
        if self._suspended:
            return EpisodeResult((), status, self)
        actions: list[Action] = list(execution.pending.values())
        execution.pending.clear()
        if self._completion is not None:
            self.close()
            return EpisodeResult((*actions, self._completion), status)
        wanted = execution.continuation
        if self._ended and wanted is not None and self._failed is None:
            carried = execution.events.unprocessed() if wanted.keep_events else ()
            return EpisodeResult((*actions, ContinueAsNew(wanted.input, carried, wanted.version)), status)
        return EpisodeResult(actions, status, self)

    # Details.

    def _is_of_another(self, event: SchedulingEvent, action: Action) -> bool:
        """Whether the dispatch id tells that this event recorded another call, on a road that a rewind has left."""
        execution_id = self.execution.execution_id
        rewinds = range(self._rewinds + 1)
        if type(event) is TaskScheduled and type(action) is ScheduleActivity and event.dispatch_id is not None:
            return all(event.dispatch_id != activity_dispatch_id(execution_id, action, each) for each in rewinds)
        if (
            type(event) is SubOrchestrationInstanceCreated
            and type(action) is StartChild
            and event.dispatch_id is not None
        ):
            return all(event.dispatch_id != child_dispatch_id(execution_id, action, each) for each in rewinds)
        return False

    def _position(self) -> str:
        code: Any = self._code
        site = None
        while code is not None:
            frame = getattr(code, "gi_frame", None) or getattr(code, "cr_frame", None)
            if frame is None or is_own_file(frame.f_code.co_filename):
                break
            site = (frame.f_code, frame.f_lasti)
            code = getattr(code, "gi_yieldfrom", None) or getattr(code, "cr_await", None)
        return spell_site(site) or "its end"


class _NotDeterministic(Exception):
    """Carries the report out of the loop over events."""

    def __init__(self, error: OrchestratorError) -> None:
        self.error = error
        super().__init__()


# GenericEvent, ExecutionRewound and OrchestratorCompleted are facts without effect.
_APPLIERS: dict[type, Callable[[Replay, Any], None]] = {
    OrchestratorStarted: Replay._started_episode,
    ExecutionStarted: Replay._started,
    TaskScheduled: Replay._scheduled,
    TimerCreated: Replay._scheduled,
    SubOrchestrationInstanceCreated: Replay._scheduled,
    EventSent: Replay._scheduled,
    TaskCompleted: Replay._task_completed,
    TaskFailed: Replay._task_failed,
    SubOrchestrationInstanceCompleted: Replay._child_completed,
    SubOrchestrationInstanceFailed: Replay._child_failed,
    TimerFired: Replay._timer_fired,
    EventRaised: Replay._event_raised,
    ExecutionSuspended: Replay._suspend,
    ExecutionResumed: Replay._resume,
    ExecutionTerminated: Replay._terminate,
    ExecutionCompleted: Replay._completed,
}

_AT_ONCE = frozenset({OrchestratorStarted, ExecutionTerminated, ExecutionResumed, ExecutionCompleted})


def _last_touched(past: Sequence[HistoryEvent], new: Sequence[HistoryEvent]) -> int:
    """How many events of `past` lie before the end of what the last rewind touched; 0 without a rewind."""
    if any(type(event) is GenericEvent for event in new):
        return len(past)
    for at in range(len(past) - 1, -1, -1):
        if type(past[at]) is GenericEvent:
            return at + 1
    return 0


def _is_driven(code: object) -> bool:
    """A generator or coroutine that is not Python's own, for example a compiled one."""
    return all(callable(getattr(code, method, None)) for method in ("send", "throw", "close"))


def _refusal(error: OrchestratorError) -> Task[Any]:
    task: Task[Any] = Task(None)
    task.fail(error)
    return task


def _unfit(task: Task[Any], execution: Execution) -> OrchestratorError:
    blocked = task.blocked()
    if blocked is not None:
        return OrchestratorError(f"The orchestrator waits for something that never comes: {blocked}.")
    return ForeignAwaitableError(
        "The orchestrator waits for a task of another orchestrator; tasks belong to the context that made them."
    )
