"""Pure: which of an inbox's messages become events.

Every message ends in exactly one of three ways: it becomes a *new* event, it is *consumed* without one (a duplicate,
answered already, meant for an older execution, or for an instance that has ended), or it is *deferred*: it answers
something that history does not know yet, since the store keeps no order between a request and the commit that records
it. Deferral is bounded, then the message is dropped with a warning.

No clock is read here: a timer's message *is* its due time, and one that comes early is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from durable_host.engine.index import REPLIES, HistoryIndex
from durable_host.model.history import (
    EventRaised,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    ParentInstance,
    Reply,
    event_type,
)
from durable_host.model.ids import MessageId, is_forwarded, original_id
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus

EventT = TypeVar("EventT", bound=HistoryEvent)

__all__ = ["Admission", "Dropped", "Refusal", "admit"]

_SWITCHES = (ExecutionSuspended, ExecutionResumed)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that is consumed although somebody may have meant something by it; worth a log line."""

    message: Message
    why: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request of a parent that cannot be met; the parent gets a failure, so that it does not wait for ever."""

    parent: ParentInstance
    reason: str
    message: Message


class Admission(msgspec.Struct):
    """The verdict on an inbox.

    Attributes:
        new: events to record and apply, in order, each with the id of its message.
        consumed: ids that leave the inbox, those of `new` included.
        deferred: ids that come back later.
        start: the event that begins a new generation, first in `new` then; history so far is replaced.
        replaced: the execution that `start` replaces was still running.
        rewind: the request to rewind the instance, which has failed.
        repeat: a rewound parent asks a child that has ended otherwise; its reply is sent again.
        refusals: parents to be answered with a failure.
        dropped: for the log.
    """

    new: list[HistoryEvent] = []
    consumed: list[MessageId] = []
    deferred: list[MessageId] = []
    start: ExecutionStarted | None = None
    replaced: bool = False
    rewind: tuple[Message, ExecutionRewound] | None = None
    repeat: tuple[Message, ParentInstance] | None = None
    refusals: list[Refusal] = []
    dropped: list[Dropped] = []


def admit(index: HistoryIndex, inbox: Sequence[Message], *, max_deferrals: int) -> Admission:
    """Judge an inbox against committed history.

    Args:
        index: of the history; empty for an instance without one. Not changed.
        inbox: oldest first.
        max_deferrals: deliveries after which a reply that history does not know is dropped.

    Admitting the same inbox again after its events were committed consumes everything and adds nothing.
    """
    admission = Admission()
    started = _admit_starts(index, inbox, admission, max_deferrals) if _has_start(inbox) else None
    if started is not None:
        admission.start = started
        admission.new.append(started)
        fresh = HistoryIndex()
        fresh.extend([started])
        index = fresh
    if index.started is None:
        _admit_unstarted(inbox, admission, max_deferrals)
    elif index.completed is not None:
        _admit_ended(index, inbox, admission)
    else:
        _admit_running(index, inbox, admission, max_deferrals)
    return admission


def _has_start(inbox: Sequence[Message]) -> bool:
    return any(type(message.event) is ExecutionStarted for message in inbox)


def _admit_starts(
    index: HistoryIndex, inbox: Sequence[Message], admission: Admission, max_deferrals: int
) -> ExecutionStarted | None:
    """The start that begins a new generation, if any; every start of the inbox is judged here."""
    accepted: ExecutionStarted | None = None
    for message in inbox:
        event = message.event
        if type(event) is not ExecutionStarted:
            continue
        verdict = _judge_start(index, accepted, message, event)
        if verdict == "accept":
            accepted = _with_id(event, message.id)
            admission.consumed.append(message.id)
            if index.started is not None and index.completed is None:
                admission.replaced = True
        elif verdict == "defer" and message.deliveries <= max_deferrals:
            admission.deferred.append(message.id)
        elif verdict in ("refuse", "defer"):
            admission.consumed.append(message.id)
            status = index.status.value if index.started is not None else RuntimeStatus.PENDING.value
            why = f"an instance with id {message.target!r} and status {status} already exists"
            if event.parent is not None and not event.detached:
                admission.refusals.append(Refusal(event.parent, f"Cannot start '{event.name}': {why}.", message))
            admission.dropped.append(Dropped(message, why))
        else:
            admission.consumed.append(message.id)
    return accepted


def _judge_start(
    index: HistoryIndex, accepted: ExecutionStarted | None, message: Message, event: ExecutionStarted
) -> str:
    present = accepted or index.started
    if present is None:
        return "accept"
    if event.execution_id == present.execution_id or message.id in index.messages:
        return "duplicate"
    ended = accepted is None and index.completed is not None
    if event.parent is not None and _same_link(event.parent, present.parent):
        known = present.parent.dispatch_id if present.parent is not None else None
        if event.parent.dispatch_id is None or known is None:
            return "accept" if ended else "duplicate"
        if event.parent.dispatch_id == known:
            return "duplicate"
        # Only one of the two requests is the recorded one: the other child may only follow, so that the recorded
        # decision gets its reply either way.
        return "accept" if ended else "defer"
    if ended:
        status = index.status
        return "accept" if not event.replaceable or status in event.replaceable else "refuse"
    if accepted is None and event.parent is None and index.status in event.replaceable:
        return "accept"
    return "refuse"


def _same_link(one: ParentInstance, other: ParentInstance | None) -> bool:
    return other is not None and (one.instance_id, one.execution_id, one.task_id) == (
        other.instance_id,
        other.execution_id,
        other.task_id,
    )


def _admit_unstarted(inbox: Sequence[Message], admission: Admission, max_deferrals: int) -> None:
    """No history and no start: the start may still be on its way, or the instance may be gone."""
    for message in inbox:
        event = message.event
        if type(event) is ExecutionStarted:
            continue
        if isinstance(event, ExecutionRewound) and event.parent is not None:
            admission.consumed.append(message.id)
            admission.refusals.append(
                Refusal(event.parent, f"Cannot rewind {message.target!r}: the instance no longer exists.", message)
            )
        elif message.deliveries <= max_deferrals:
            admission.deferred.append(message.id)
        else:
            admission.consumed.append(message.id)
            admission.dropped.append(Dropped(message, "no instance has this id"))


def _admit_ended(index: HistoryIndex, inbox: Sequence[Message], admission: Admission) -> None:
    for message in inbox:
        event = message.event
        if type(event) is ExecutionStarted:
            continue
        admission.consumed.append(message.id)
        if not isinstance(event, ExecutionRewound):
            continue
        known = message.id in index.messages
        if index.status is RuntimeStatus.FAILED and not known and admission.rewind is None:
            admission.rewind = (message, event)
        elif event.parent is not None:
            # Also to a request that this child has met: where nothing is atomic the parent may have asked, and got the
            # reply while it had still ended, before it recorded its own rewind and asked again.
            admission.repeat = (message, event.parent)


def _admit_running(index: HistoryIndex, inbox: Sequence[Message], admission: Admission, max_deferrals: int) -> None:
    assert index.started is not None
    execution = index.started.execution_id
    suspended, switched_at = index.suspended, index.switched_at
    terminated = False
    answered: set[int] = set()
    taken: set[MessageId] = set()
    for message in inbox:
        event = message.event
        if type(event) is ExecutionStarted:
            continue
        identity = original_id(message.id)
        if (
            (message.execution_id is not None and message.execution_id != execution)
            or identity in index.messages
            or identity in taken
            or terminated
        ):
            wait = not terminated and _is_early(message) and message.deliveries <= max_deferrals
            (admission.deferred if wait else admission.consumed).append(message.id)
            continue
        taken.add(identity)
        if isinstance(event, REPLIES):
            _admit_reply(index, message, event, answered, admission, max_deferrals)
            continue
        admission.consumed.append(message.id)
        if isinstance(event, _SWITCHES):
            # What came before the start and was sent again for it comes in any order: the last one raised counts, so a
            # resumption that overtakes its suspension is recorded, to be met by it.
            again = identity != message.id
            if again and switched_at is not None and event.timestamp < switched_at:
                continue
            switched_at = event.timestamp
            suspends = isinstance(event, ExecutionSuspended)
            if suspended == suspends and (suspends or not again):
                continue
            suspended = suspends
        elif isinstance(event, ExecutionTerminated):
            terminated = True
        elif isinstance(event, ExecutionRewound):
            if event.parent is None:
                continue
            # It runs already, and will answer its parent when it ends. Recorded nevertheless: the parent may have
            # failed by a ghost's reply, and the reply that comes must not bear the id of that one, which derives from
            # the length of this history and which the parent remembers.
            event = GenericEvent(timestamp=event.timestamp, data=event.reason)
        elif not isinstance(event, EventRaised | GenericEvent):
            admission.dropped.append(Dropped(message, f"{event_type(event)} is not sent to instances"))
            continue
        admission.new.append(_with_id(event, identity))


def _is_early(message: Message) -> bool:
    """Whether what seems to be a second delivery may be meant for the generation that is just being committed.

    Where nothing is atomic the messages leave before history, and another host may judge them by the old one. What the
    new generation will not get again must wait for it: events that were sent again, and the call to go on.
    """
    return is_forwarded(message.id) or (isinstance(message.event, GenericEvent) and message.execution_id is not None)


def _admit_reply(
    index: HistoryIndex,
    message: Message,
    event: Reply,
    answered: set[int],
    admission: Admission,
    max_deferrals: int,
) -> None:
    if index.answers(event) and event.task_id not in answered:
        answered.add(event.task_id)
        admission.new.append(_with_id(event, message.id))
        admission.consumed.append(message.id)
    elif not index.is_ahead(event):
        admission.consumed.append(message.id)  # answered before, or a ghost's reply
    elif message.deliveries <= max_deferrals:
        admission.deferred.append(message.id)
    else:
        admission.consumed.append(message.id)
        admission.dropped.append(Dropped(message, f"no request with action id {event.task_id} was ever recorded"))


def _with_id(event: EventT, id: MessageId) -> EventT:
    return replace(event, message_id=id)
