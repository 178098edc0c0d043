"""Pure: what an episode's actions mean — events, outgoing work, the next version.

Everything that leaves carries an identity derived from the decision (`model.ids.dispatch_id`), so that a repeated
episode that decides the same sends identical messages, and one that decides otherwise can be told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec.structs import replace

from durable_host.engine.identity import activity_dispatch_id, child_dispatch_id, child_instance_id
from durable_host.engine.index import HistoryIndex
from durable_host.model.actions import (
    Action,
    CompleteOrchestration,
    ContinueAsNew,
    CreateTimer,
    ScheduleActivity,
    SendEvent,
    StartChild,
)
from durable_host.model.failure import Failure
from durable_host.model.history import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionStarted,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId, dispatch_id, forwarded_id
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus

__all__ = ["Decision", "Rules", "begin_generation", "decide", "reply_mark", "reply_to_parent", "sent_again"]

_ENDS = (CompleteOrchestration, ContinueAsNew)

_SEEN = 512
"""How many ids of external messages a new generation remembers of the one before."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a decision depends on besides history and actions.

    Attributes:
        unknown: the failure text for a call of a function that this hub's app does not have, else None; called with
            `activity` or `orchestrator` and the name, for new requests only.
        store_inputs: keep inputs in scheduling events.
        max_actions: of one generation.
    """

    unknown: Callable[[str, str], str | None]
    store_inputs: bool = False
    max_actions: int = 100_000


class Decision(msgspec.Struct):
    """What an episode changes.

    Attributes:
        events: the events of this episode that follow what was admitted.
        activities, messages: to be sent.
        next: the new generation that continue-as-new asks for, else None.
        failed_limit: the generation passed `max_actions` and was ended.
    """

    events: list[HistoryEvent] = []
    activities: list[ActivityTask] = []
    messages: list[Message] = []
    next: ContinueAsNew | None = None
    failed_limit: bool = False


def decide(
    index: HistoryIndex,
    started: ExecutionStarted,
    new: Sequence[HistoryEvent],
    actions: Sequence[Action],
    rules: Rules,
    *,
    now: datetime,
    length: int,
    close: bool = True,
) -> Decision:
    """Turn new actions into events and outgoing work.

    Args:
        index: committed history, before this episode.
        started: the execution's start, which may be among `new`.
        new: events of this episode so far.
        actions: what the executor asks for, ascending ids.
        now: time of the episode.
        length: events of the generation up to and including `new`; part of the identity of a reply to the parent.
        close: append OrchestratorCompleted even when there are no actions.
    """
    decision = Decision()
    rewinds = index.rewinds
    for event in new:
        if type(event) is GenericEvent and event.original is None:
            rewinds += 1
    counted = [action for action in actions if not isinstance(action, _ENDS)]
    if index.actions + len(counted) > rules.max_actions:
        decision.failed_limit = True
        actions = [_limit_reached(index, counted, rules.max_actions, started.name)]
    for action in actions:
        match action:
            case ScheduleActivity():
                _schedule_activity(decision, started, action, rules, rewinds, now)
            case CreateTimer():
                _create_timer(decision, started, action, rewinds, now)
            case StartChild():
                _start_child(decision, started, action, rules, rewinds, now)
            case SendEvent():
                _send_event(decision, started, action, rewinds, now)
            case CompleteOrchestration():
                _complete(decision, index, started, new, action, now, length)
            case ContinueAsNew():
                decision.next = action
                # What the ending generation asked for goes out; only its timers would wake nobody.
                decision.messages = [each for each in decision.messages if not isinstance(each.event, TimerFired)]
    if close or decision.events:
        decision.events.append(OrchestratorCompleted(timestamp=now))
    return decision


def begin_generation(
    index: HistoryIndex,
    started: ExecutionStarted,
    new: Sequence[HistoryEvent],
    action: ContinueAsNew,
    *,
    now: datetime,
    custom_status: str | None,
    carries: int | None = None,
) -> list[HistoryEvent]:
    """The first events of the generation that follows `started`: its start, then the events carried over.

    The execution id derives from the old one, so that a repeated episode begins the same generation.

    Args:
        carries: how many of the events it carries over; the rest is `sent_again`. None: all.
    """
    rewinds = index.rewinds
    execution = ExecutionId(
        dispatch_id(started.execution_id, index.length, "continue", started.name, action.input, rewinds)
    )
    seen = [*index.messages, *(event.message_id for event in new if event.message_id is not None)]
    if index.started is None:
        seen = [*started.seen, *seen]  # it began in this very episode
    # INVARIANT: not the ids of what is sent again either, or it would be taken for a second delivery.
    carried = {event.message_id for event in action.carried}
    kept = [id for id in seen if id not in carried][-_SEEN:]
    start = ExecutionStarted(
        timestamp=now,
        instance_id=started.instance_id,
        execution_id=execution,
        name=started.name,
        version=action.version if action.version is not None else started.version,
        input=action.input,
        parent=started.parent,
        tags=started.tags,
        traceparent=started.traceparent,
        tracestate=started.tracestate,
        restarted_from=started.restarted_from,
        detached=started.detached,
        seen=tuple(kept),
        starts=started.generation if started.generation is not None else started.starts,
        custom_status=custom_status,
    )
    return [OrchestratorStarted(timestamp=now), start, *action.carried[:carries], OrchestratorCompleted(timestamp=now)]


def sent_again(started: ExecutionStarted, action: ContinueAsNew, carries: int, *, now: datetime) -> list[Message]:
    """The carried events that a new generation does not begin with, as messages to itself, in their order.

    Each keeps its identity: a copy that a lost commit has left behind is a second delivery, to the old generation and
    to the new one.

    Args:
        now: by the clock, which no two attempts share.
    """
    return [
        Message(
            # Events that others have written may lack an id.
            id=forwarded_id(
                event.message_id or MessageId(f"{started.execution_id}:carried.{at}"), now, by=started.execution_id
            ),
            target=started.instance_id,
            event=replace(event, message_id=None),
            deliveries=0,
        )
        for at, event in enumerate(action.carried[carries:], carries)
    ]


def reply_to_parent(
    parent: ParentInstance,
    child: InstanceId,
    status: RuntimeStatus,
    result: str | None,
    failure: Failure | None,
    *,
    now: datetime,
    mark: str,
) -> Message:
    """What a parent hears about its child's end. `mark` tells several replies to one request apart, after rewinds."""
    event: HistoryEvent
    if status is RuntimeStatus.COMPLETED:
        event = SubOrchestrationInstanceCompleted(
            timestamp=now, task_id=parent.task_id, result=result, dispatch_id=parent.dispatch_id
        )
    else:
        event = SubOrchestrationInstanceFailed(
            timestamp=now,
            task_id=parent.task_id,
            reason=result,
            details=failure.stack if failure is not None else None,
            failure=failure,
            dispatch_id=parent.dispatch_id,
        )
    identity = parent.dispatch_id or f"{parent.execution_id}:{parent.task_id}:{child}"
    return Message(
        id=MessageId(f"{identity}:{mark}"),
        target=parent.instance_id,
        event=event,
        execution_id=parent.execution_id,
        deliveries=0,
    )


def reply_mark(started: ExecutionStarted, length: int) -> str:
    """The `mark` of the reply that leaves with the completion standing at this length of the history."""
    return f"{started.execution_id[:8]}.{length}"


def _schedule_activity(
    decision: Decision, started: ExecutionStarted, action: ScheduleActivity, rules: Rules, rewinds: int, now: datetime
) -> None:
    identity = activity_dispatch_id(started.execution_id, action, rewinds)
    decision.events.append(
        TaskScheduled(
            timestamp=now,
            event_id=action.id,
            name=action.name,
            input=action.input if rules.store_inputs else None,
            tags=action.tags,
            traceparent=started.traceparent,
            dispatch_id=identity,
        )
    )
    unknown = rules.unknown("activity", action.name)
    if unknown is not None:
        decision.messages.append(_refusal(TaskFailed, started, action.id, unknown, identity, now))
        return
    decision.activities.append(
        ActivityTask(
            dispatch_id=identity,
            instance_id=started.instance_id,
            execution_id=started.execution_id,
            task_id=action.id,
            name=action.name,
            input=action.input,
            traceparent=started.traceparent,
            tags=action.tags,
        )
    )


def _create_timer(
    decision: Decision, started: ExecutionStarted, action: CreateTimer, rewinds: int, now: datetime
) -> None:
    due = action.fire_at.isoformat()
    identity = dispatch_id(started.execution_id, action.id, "timer", "", due, rewinds)
    decision.events.append(
        TimerCreated(timestamp=now, event_id=action.id, fire_at=action.fire_at, dispatch_id=identity)
    )
    decision.messages.append(
        Message(
            id=MessageId(identity),
            target=started.instance_id,
            event=TimerFired(timestamp=now, timer_id=action.id, fire_at=action.fire_at, dispatch_id=identity),
            execution_id=started.execution_id,
            visible_at=action.fire_at if action.fire_at > now else None,
            deliveries=0,
        )
    )


def _start_child(
    decision: Decision, started: ExecutionStarted, action: StartChild, rules: Rules, rewinds: int, now: datetime
) -> None:
    child = child_instance_id(started.execution_id, action)
    identity = child_dispatch_id(started.execution_id, action, rewinds)
    decision.events.append(
        SubOrchestrationInstanceCreated(
            timestamp=now,
            event_id=action.id,
            name=action.name,
            instance_id=child,
            version=action.version,
            input=action.input if rules.store_inputs else None,
            tags=action.tags,
            detached=action.detached,
            dispatch_id=identity,
        )
    )
    unknown = rules.unknown("orchestrator", action.name)
    if unknown is not None:
        if not action.detached:
            answer = SubOrchestrationInstanceFailed
            decision.messages.append(_refusal(answer, started, action.id, unknown, identity, now))
        return
    tags = {**(started.tags or {}), **(action.tags or {})}
    start = ExecutionStarted(
        timestamp=now,
        instance_id=child,
        execution_id=ExecutionId(identity),
        name=action.name,
        version=action.version,
        input=action.input,
        parent=ParentInstance(
            instance_id=started.instance_id,
            execution_id=started.execution_id,
            task_id=action.id,
            name=started.name,
            version=started.version,
            dispatch_id=identity,
        ),
        tags=tags or None,
        traceparent=started.traceparent,
        tracestate=started.tracestate,
        detached=action.detached,
    )
    decision.messages.append(
        Message(id=MessageId(identity), target=child, event=start, execution_id=start.execution_id, deliveries=0)
    )


def _send_event(decision: Decision, started: ExecutionStarted, action: SendEvent, rewinds: int, now: datetime) -> None:
    payload = f"{action.instance_id}\n{action.input}"
    identity = dispatch_id(started.execution_id, action.id, "event", action.name, payload, rewinds)
    decision.events.append(
        EventSent(
            timestamp=now,
            event_id=action.id,
            instance_id=action.instance_id,
            name=action.name,
            input=action.input,
        )
    )
    decision.messages.append(
        Message(
            id=MessageId(identity),
            target=action.instance_id,
            event=EventRaised(timestamp=now, name=action.name, input=action.input, traceparent=started.traceparent),
            deliveries=0,
        )
    )


def _complete(
    decision: Decision,
    index: HistoryIndex,
    started: ExecutionStarted,
    new: Sequence[HistoryEvent],
    action: CompleteOrchestration,
    now: datetime,
    length: int,
) -> None:
    decision.events.append(
        ExecutionCompleted(
            timestamp=now,
            event_id=action.id,
            status=action.status,
            result=action.result,
            failure=action.failure,
        )
    )
    if started.parent is not None and not started.detached:
        decision.messages.append(
            reply_to_parent(
                started.parent,
                started.instance_id,
                action.status,
                action.result,
                action.failure,
                now=now,
                mark=reply_mark(started, length + len(decision.events)),
            )
        )
    ends = [event for event in new if isinstance(event, ExecutionTerminated)]
    if ends and ends[-1].recursive:
        for task_id, child in index.children():
            decision.messages.append(
                Message(
                    id=MessageId(dispatch_id(started.execution_id, task_id, "terminate", child, None, index.rewinds)),
                    target=child,
                    event=ExecutionTerminated(timestamp=now, reason=ends[-1].reason, recursive=True),
                    deliveries=0,
                )
            )


def _limit_reached(index: HistoryIndex, actions: Sequence[Action], limit: int, name: str) -> CompleteOrchestration:
    message = (
        f"Orchestrator function '{name}' failed: The orchestrator asked for more than {limit} actions in one "
        "execution (extensions.durableTask.maxOrchestrationActions). Continue as new "
        "from time to time, or raise the limit."
    )
    first = actions[0]
    assert not isinstance(first, ContinueAsNew)
    return CompleteOrchestration(
        id=first.id,
        status=RuntimeStatus.FAILED,
        result=message,
        failure=Failure(type="OrchestratorError", message=message, non_retriable=True),
    )


def _refusal(
    answer: type[TaskFailed] | type[SubOrchestrationInstanceFailed],
    started: ExecutionStarted,
    task_id: int,
    reason: str,
    identity: DispatchId,
    now: datetime,
) -> Message:
    """The failure that a call of an unknown function is answered with, sent by the instance to itself."""
    failed = answer(
        timestamp=now,
        task_id=task_id,
        reason=reason,
        failure=Failure(type="LookupError", message=reason, non_retriable=True),
        dispatch_id=identity,
    )
    return Message(
        id=MessageId(f"{identity}:unknown"),
        target=started.instance_id,
        event=failed,
        execution_id=started.execution_id,
        deliveries=0,
    )
