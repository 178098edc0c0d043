"""Plays the engine's part for one orchestrator: actions become history, replies are given by hand.

Every step is taken three times: by the session, by a fresh driver that replays all that came before, and by one that is
fed the whole history at once. The three must agree, so that each test of an orchestrator is also one of replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from durable_host.engine.executor import EpisodeResult
from durable_host.engine.replay import Orchestrator, Replay
from durable_host.model.actions import (
    Action,
    CompleteOrchestration,
    ContinueAsNew,
    CreateTimer,
    ScheduleActivity,
    SendEvent,
    StartChild,
)
from durable_host.model.failure import Failure, failure_of
from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    ParentInstance,
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
from durable_host.model.payloads import decode_payload, encode_payload
from durable_host.model.status import RuntimeStatus

__all__ = ["BEGINNING", "EXECUTION", "INSTANCE", "Script"]

INSTANCE = InstanceId("instance")
EXECUTION = ExecutionId("0123456789abcdef0123456789abcdef")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Script:
    """One instance of an orchestrator."""

    def __init__(
        self,
        function: Orchestrator,
        input: object = None,
        *,
        tags: dict[str, str] | None = None,
        parent: ParentInstance | None = None,
        version: str | None = None,
    ) -> None:
        self.function = function
        self.now = BEGINNING
        self.history: list[HistoryEvent] = []
        self.actions: list[Action] = []
        self.asked: dict[int, Action] = {}
        self.custom_status: str | None = None
        self.session: Replay | None = None
        self._step(
            ExecutionStarted(
                timestamp=self.now,
                instance_id=INSTANCE,
                execution_id=EXECUTION,
                name="Tested",
                input=None if input is None else encode_payload(input),
                tags=tags,
                parent=parent,
                version=version,
            )
        )

    # What can happen.

    def step(self, *events: HistoryEvent, after: timedelta = timedelta(seconds=1)) -> list[Action]:
        """One more episode with these events; returns the new actions."""
        self.now += after
        return self._step(*events)

    def complete(self, task_id: int, value: object = None) -> list[Action]:
        return self.step(self.completed(task_id, value))

    def fail(self, task_id: int, error: BaseException | Failure | str = "boom") -> list[Action]:
        return self.step(self.failed(task_id, error))

    def fire(self, timer_id: int) -> list[Action]:
        return self.step(self.fired(timer_id))

    def raise_event(self, name: str, value: object = None) -> list[Action]:
        return self.step(self.raised(name, value))

    def completed(self, task_id: int, value: object = None) -> HistoryEvent:
        text = None if value is None else encode_payload(value)
        if isinstance(self.asked[task_id], StartChild):
            return SubOrchestrationInstanceCompleted(timestamp=self.now, task_id=task_id, result=text)
        return TaskCompleted(timestamp=self.now, task_id=task_id, result=text)

    def failed(self, task_id: int, error: BaseException | Failure | str = "boom") -> HistoryEvent:
        if isinstance(error, str):
            error = ValueError(error)
        failure = error if isinstance(error, Failure) else failure_of(error)
        asked = self.asked[task_id]
        if isinstance(asked, StartChild):
            return SubOrchestrationInstanceFailed(
                timestamp=self.now, task_id=task_id, reason=f"child failed: {failure.message}", failure=failure
            )
        assert isinstance(asked, ScheduleActivity)
        return TaskFailed(
            timestamp=self.now,
            task_id=task_id,
            reason=f"Activity function '{asked.name}' failed: {failure.short_type}: {failure.message}",
            details="trace",
            failure=failure,
        )

    def fired(self, timer_id: int) -> HistoryEvent:
        asked = self.asked[timer_id]
        assert isinstance(asked, CreateTimer)
        return TimerFired(timestamp=self.now, timer_id=timer_id, fire_at=asked.fire_at)

    def raised(self, name: str, value: object = None) -> HistoryEvent:
        return EventRaised(timestamp=self.now, name=name, input=None if value is None else encode_payload(value))

    # What came out.

    @property
    def completion(self) -> CompleteOrchestration | None:
        last = self.actions[-1] if self.actions else None
        return last if isinstance(last, CompleteOrchestration) else None

    @property
    def continuation(self) -> ContinueAsNew | None:
        last = self.actions[-1] if self.actions else None
        return last if isinstance(last, ContinueAsNew) else None

    @property
    def output(self) -> Any:
        assert self.completion is not None, self.actions
        assert self.completion.status is RuntimeStatus.COMPLETED, self.completion
        return decode_payload(self.completion.result)

    @property
    def failure(self) -> Failure:
        assert self.completion is not None, self.actions
        assert self.completion.status is RuntimeStatus.FAILED, self.completion
        assert self.completion.failure is not None
        return self.completion.failure

    @property
    def status(self) -> Any:
        return decode_payload(self.custom_status)

    def fresh(self) -> Replay:
        return Replay(self.function, INSTANCE, EXECUTION)

    def replay(self) -> EpisodeResult:
        """Replay the whole history as past events."""
        return self.fresh().episode(self.history, ())

    def close(self) -> None:
        if self.session is not None:
            self.session.close()

    # Inside.

    def _step(self, *events: HistoryEvent) -> list[Action]:
        new = [OrchestratorStarted(timestamp=self.now), *events]
        past = list(self.history)
        session, self.session = self.session, None
        result = session.episode((), new) if session is not None else self.fresh().episode(past, new)
        cold = self.fresh()
        again = cold.episode(past, new)
        at_once = self.fresh()
        whole = at_once.episode([*past, *new], ())
        assert _comparable(again.actions) == _comparable(result.actions)
        assert _comparable(whole.actions) == _comparable(result.actions)
        assert again.custom_status == result.custom_status == whole.custom_status
        for each in (cold, at_once):
            each.close()
        assert [each.id for each in result.actions if not isinstance(each, ContinueAsNew)] == sorted(
            each.id for each in result.actions if not isinstance(each, ContinueAsNew)
        )
        self.actions = list(result.actions)
        self.custom_status = result.custom_status
        assert result.session is None or isinstance(result.session, Replay)
        self.session = result.session
        self.history += [*new, *self._recorded(result.actions), OrchestratorCompleted(timestamp=self.now)]
        return self.actions

    def _recorded(self, actions: Sequence[Action]) -> list[HistoryEvent]:
        events: list[HistoryEvent] = []
        for action in actions:
            if not isinstance(action, ContinueAsNew):
                self.asked[action.id] = action
            match action:
                case ScheduleActivity():
                    events.append(TaskScheduled(timestamp=self.now, event_id=action.id, name=action.name))
                case CreateTimer():
                    events.append(TimerCreated(timestamp=self.now, event_id=action.id, fire_at=action.fire_at))
                case StartChild():
                    child = action.instance_id or InstanceId(f"{EXECUTION}:{action.id}")
                    events.append(
                        SubOrchestrationInstanceCreated(
                            timestamp=self.now, event_id=action.id, name=action.name, instance_id=child
                        )
                    )
                case SendEvent():
                    events.append(
                        EventSent(
                            timestamp=self.now, event_id=action.id, instance_id=action.instance_id, name=action.name
                        )
                    )
                case CompleteOrchestration():
                    events.append(
                        ExecutionCompleted(
                            timestamp=self.now,
                            event_id=action.id,
                            status=action.status,
                            result=action.result,
                            failure=action.failure,
                        )
                    )
                case ContinueAsNew():
                    pass
        return events


def _comparable(actions: Sequence[Action]) -> list[Action]:
    # Stack texts of failures differ by the frames of the test that led there.
    return [
        CompleteOrchestration(each.id, each.status, each.result) if isinstance(each, CompleteOrchestration) else each
        for each in actions
    ]
