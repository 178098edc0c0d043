"""From an inbox to a checkpoint: the pure core driven over one executor.

No store call but the rare look at a projection that history cannot answer; nothing is committed here. The dispatcher
owns leases, slots and commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from durable_host.engine.admit import Admission, Dropped, admit
from durable_host.engine.decide import Rules, begin_generation, decide, reply_mark, reply_to_parent, sent_again
from durable_host.engine.executor import Episode, EpisodeResult, ExecutorSession, OrchestrationExecutor
from durable_host.engine.index import HistoryIndex
from durable_host.engine.project import project, rewound
from durable_host.engine.rewind import amend, plan_rewind, rewind_children
from durable_host.environment import Clock
from durable_host.model.actions import CompleteOrchestration, ContinueAsNew
from durable_host.model.history import (
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubOrchestrationInstanceFailed,
)
from durable_host.model.ids import InstanceId, MessageId, forwarded_id, original_id, postponed_id
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import TaskHubStore

__all__ = ["Advance", "Episodes", "Position", "UnknownOrchestrator"]

_MAX_GENERATIONS = 100
"""Continue-as-new without waiting for anything: so many times in one checkpoint, then the store gets a turn."""


class UnknownOrchestrator(Exception):
    """An episode must be run whose orchestrator the executor does not have; nothing has happened."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class Position(msgspec.Struct):
    """Where an instance stands for this worker: committed history in summary, its projection, the executor's session.

    `history` is what was loaded; it is not kept beyond the first episode. A position with neither history nor session
    needs its history loaded before it can run (`needs_history`).
    """

    instance_id: InstanceId
    version: HistoryVersion | None
    index: HistoryIndex
    state: InstanceState | None
    session: ExecutorSession | None = None
    history: Sequence[HistoryEvent] | None = None

    @property
    def needs_history(self) -> bool:
        """Whether an episode could not be run from what is here."""
        return self.session is None and self.history is None and self.index.started is not None


class Advance(msgspec.Struct):
    """What one step of an instance changes: the parts of a checkpoint, and the position after it is committed."""

    admission: Admission
    events: list[HistoryEvent] = []
    amended: list[tuple[int, HistoryEvent]] = []
    activities: list[ActivityTask] = []
    messages: list[Message] = []
    state: InstanceState | None = None
    replaced: bool = False
    session: ExecutorSession | None = None
    ran: bool = False
    rebuilt: HistoryIndex | None = None

    def after(self, position: Position) -> Position:
        """The position once the checkpoint is committed; `position` is used up."""
        if self.rebuilt is not None:
            index = self.rebuilt
        elif self.replaced:
            index = HistoryIndex(self.events)
        else:
            index = position.index
            index.extend(self.events)
        return Position(
            instance_id=position.instance_id,
            version=self.state.version if self.state is not None else position.version,
            index=index,
            state=self.state if self.state is not None else position.state,
            session=self.session if self.ran else position.session,
            history=None if self.ran or self.amended else position.history,
        )


class Episodes:
    """Runs steps of instances.

    Args:
        executor: runs orchestrators.
        rules: limits, and which functions exist.
        atomic: the store commits all or nothing; else projections are rewritten whenever redelivery gives a chance.
    """

    def __init__(
        self,
        store: TaskHubStore,
        executor: OrchestrationExecutor,
        rules: Rules,
        clock: Clock,
        *,
        max_deferrals: int,
    ) -> None:
        self._store = store
        self._executor = executor
        self._rules = rules
        self._clock = clock
        self._atomic = store.traits.atomic_commit
        self._max_deferrals = max_deferrals

    async def load(
        self, instance_id: InstanceId, version: HistoryVersion | None, history: Sequence[HistoryEvent]
    ) -> Position:
        """The position that a loaded history stands for."""
        index = HistoryIndex(history)
        state: InstanceState | None = None
        if index.started is not None and version is not None:
            state = project(None, history, version=version, custom_status=index.started.custom_status)
        return Position(instance_id, version, index, state, history=history)

    async def advance(self, position: Position, inbox: Sequence[Message]) -> Advance:
        """Judge the inbox and run an episode if it, or an unfinished one, asks for it.

        Raises:
            UnknownOrchestrator: the instance must wait for a host that has its code.
        """
        index = position.index
        admission = admit(index, inbox, max_deferrals=self._max_deferrals)
        if index.started is None and (admission.start is None or position.version is not None):
            state = await self._store.get_instance(position.instance_id)
            ended = self._without_history(position, state, inbox, admission)
            if ended is not None:
                return ended
        if index.completed is not None and admission.start is None:
            waits = await self._before_next_life(position, inbox)
            if waits is not None:
                return waits
        advance = Advance(admission)
        now = self._now(index)
        self._answer_refused(advance, now)
        if admission.repeat is not None:
            self._repeat_reply(position, advance, now)
        if admission.rewind is not None:
            await self._rewind(position, advance, *admission.rewind, now=now)
        elif admission.new or (index.unfinished and index.completed is None):
            await self._run(position, advance, now)
        elif position.state is not None and (not self._atomic or _drops_a_start(inbox, admission)):
            await self._repair(position, advance, now)
        return advance

    def _now(self, index: HistoryIndex) -> datetime:
        # Time within a history never steps back, whatever the clock does.
        now = self._clock.now()
        return now if index.last_at is None or now > index.last_at else index.last_at

    async def _run(self, position: Position, advance: Advance, now: datetime) -> None:
        admission = advance.admission
        index, state, session = position.index, position.state, position.session
        past: Sequence[HistoryEvent] = position.history or ()
        generation = position.version.generation if position.version is not None else 0
        if admission.start is not None:
            if admission.replaced and index.started is not None:
                self._answer_replaced(index.started, advance, now)
            if session is not None:
                session.close()
                session = None
            index, state, past = HistoryIndex(), None, ()
            if position.version is not None:
                generation += 1
                advance.replaced = True
        started = admission.start or index.started
        assert started is not None
        new: list[HistoryEvent] = [OrchestratorStarted(timestamp=now), *admission.new]
        await self._drive(
            advance,
            index,
            state,
            Episode(position.instance_id, started.execution_id, past, new, session),
            started,
            generation,
            now,
        )

    async def _drive(
        self,
        advance: Advance,
        index: HistoryIndex,
        state: InstanceState | None,
        episode: Episode,
        started: ExecutionStarted,
        generation: int,
        now: datetime,
    ) -> None:
        """Run an episode, and those of the generations that follow while it continues as new without waiting."""
        custom_status = state.custom_status if state is not None else started.custom_status
        close = True
        turn = 0
        while True:
            if turn == _MAX_GENERATIONS:
                events, session = self._pause(advance, started, episode.new, now), None
                break
            turn += 1
            result = await self._execute(episode, started, index)
            session = result.session
            custom_status = result.custom_status if result.custom_status is not None else custom_status
            new = episode.new
            decision = decide(
                index, started, new, result.actions, self._rules, now=now, length=index.length + len(new), close=close
            )
            advance.activities += decision.activities
            advance.messages += decision.messages
            if session is not None and (decision.next is not None or decision.failed_limit):
                session.close()
                session = None
            if decision.next is None:
                events = [*new, *decision.events]
                break
            fresh = self._begin(advance, index, started, new, decision.next, now=now, custom_status=custom_status)
            started = next(event for event in fresh if isinstance(event, ExecutionStarted))
            index, state, close = HistoryIndex(), None, False
            generation += 1
            advance.replaced = True
            episode = Episode(episode.instance_id, started.execution_id, (), fresh, None)
        version = HistoryVersion(generation, index.length + len(events))
        advance.events = events
        advance.state = project(state, events, version=version, custom_status=custom_status)
        advance.session = session
        advance.ran = True

    def _begin(
        self,
        advance: Advance,
        index: HistoryIndex,
        started: ExecutionStarted,
        new: Sequence[HistoryEvent],
        action: ContinueAsNew,
        *,
        now: datetime,
        custom_status: str | None,
    ) -> list[HistoryEvent]:
        """The first events of the next generation, as far as the store writes them as one; the rest is sent again."""
        fresh = begin_generation(index, started, new, action, now=now, custom_status=custom_status)
        over = len(fresh) - self._store.fits_at_once(fresh) if action.carried else 0
        if over <= 0:
            return fresh
        carries = max(0, len(action.carried) - over)
        advance.messages += sent_again(started, action, carries, now=self._clock.now())
        return begin_generation(index, started, new, action, now=now, custom_status=custom_status, carries=carries)

    def _has(self, started: ExecutionStarted) -> bool:
        return self._executor.handles(started.name, started.version)

    async def _execute(self, episode: Episode, started: ExecutionStarted, index: HistoryIndex) -> EpisodeResult:
        if not self._has(started):
            # No code of this instance is here; its end by termination needs none.
            for event in episode.new:
                if isinstance(event, ExecutionTerminated):
                    end = CompleteOrchestration(index.top + 1, RuntimeStatus.TERMINATED, event.reason)
                    return EpisodeResult((end,), await self._shown_status(episode.instance_id))
            raise UnknownOrchestrator(started.name)
        return await self._executor.execute(episode)

    async def _shown_status(self, instance_id: InstanceId) -> str | None:
        """The custom status as it was last committed, for want of code that would set it again."""
        state = await self._store.get_instance(instance_id)
        return None if state is None else state.custom_status

    def _pause(
        self, advance: Advance, started: ExecutionStarted, new: Sequence[HistoryEvent], now: datetime
    ) -> list[HistoryEvent]:
        """Leave the newest generation for the next lock: it is unfinished, and a message to itself wakes it."""
        advance.messages.append(
            Message(
                id=MessageId(f"{started.execution_id}:continue"),
                target=started.instance_id,
                event=GenericEvent(timestamp=now, data="continue"),
                execution_id=started.execution_id,
                deliveries=0,
            )
        )
        return [event for event in new if not isinstance(event, OrchestratorCompleted)]

    async def _rewind(
        self, position: Position, advance: Advance, request: Message, event: ExecutionRewound, *, now: datetime
    ) -> None:
        index = position.index
        history = position.history
        if history is None:
            history = await self._store.get_history(position.instance_id) or ()
        assert index.started is not None and position.state is not None and position.version is not None
        plan = plan_rewind(history)
        advance.amended = amend(history, plan.removed)
        present = list(history)
        for at, each in advance.amended:
            present[at] = each
        kept = HistoryIndex(present)
        if plan.children:
            # The parent waits for its children's next replies; it gets no episode of its own.
            advance.messages += rewind_children(index.started, plan, request, event, history)
            custom_status = await self._shown_status(position.instance_id)
            advance.state = replace(
                rewound(position.state, (), custom_status=custom_status), version=position.version, updated_at=now
            )
            advance.rebuilt = kept
            return
        marker = GenericEvent(timestamp=event.timestamp, data=event.reason, message_id=request.id)
        new: list[HistoryEvent] = [OrchestratorStarted(timestamp=now), marker]
        episode = Episode(position.instance_id, index.started.execution_id, present, new, None)
        state = rewound(position.state, [marker], custom_status=index.started.custom_status)
        await self._drive(advance, kept, state, episode, index.started, position.version.generation, now)
        if advance.replaced:
            advance.amended = []  # the failed execution's history is gone altogether
        else:
            kept.extend(advance.events)
            advance.rebuilt = kept

    async def _repair(self, position: Position, advance: Advance, now: datetime) -> None:
        """Write again what a crash may have kept from being written; only redelivery tells.

        Or take back a projection: a start that it shows as Pending already came too late to replace the instance.

        That is the projection, or the rest of a history that was cut where nothing shows it: continue-as-new closes the
        episode before the new generation's first actions, so history may end with OrchestratorCompleted and lack them.
        """
        assert position.state is not None
        custom_status = position.state.custom_status
        started, ended = position.index.started, position.index.completed is not None
        if ended and started is not None and not self._has(started):
            custom_status = await self._shown_status(position.instance_id)
        elif position.history is not None and started is not None:
            episode = Episode(position.instance_id, started.execution_id, position.history, (), None)
            result = await self._execute(episode, started, position.index)
            if result.session is not None:
                result.session.close()
            if result.actions and position.index.completed is None:
                await self._run(position, advance, now)
                return
            custom_status = result.custom_status if result.custom_status is not None else custom_status
        advance.state = replace(position.state, custom_status=custom_status)

    def _answer_refused(self, advance: Advance, now: datetime) -> None:
        for refusal in advance.admission.refusals:
            advance.messages.append(
                Message(
                    id=MessageId(f"{refusal.message.id}:refused"),
                    target=refusal.parent.instance_id,
                    event=SubOrchestrationInstanceFailed(
                        timestamp=now,
                        task_id=refusal.parent.task_id,
                        reason=refusal.reason,
                        dispatch_id=refusal.parent.dispatch_id,
                    ),
                    execution_id=refusal.parent.execution_id,
                    deliveries=0,
                )
            )

    def _answer_replaced(self, started: ExecutionStarted, advance: Advance, now: datetime) -> None:
        if started.parent is None or started.detached:
            return
        reason = f"Instance {started.instance_id!r} was replaced by another start before it ended."
        advance.messages.append(
            reply_to_parent(
                started.parent,
                started.instance_id,
                RuntimeStatus.TERMINATED,
                reason,
                None,
                now=now,
                mark="replaced",
            )
        )

    def _repeat_reply(self, position: Position, advance: Advance, now: datetime) -> None:
        index = position.index
        assert advance.admission.repeat is not None and index.started is not None and index.completed is not None
        message, parent = advance.admission.repeat
        end: ExecutionCompleted = index.completed
        # After its own rewind the child sends the reply that it has sent, which the parent takes once; before, another
        # one, since the parent knows the old reply.
        met = message.id in index.messages
        mark = reply_mark(index.started, index.completed_at) if met else f"again.{message.id}"
        advance.messages.append(
            reply_to_parent(parent, position.instance_id, end.status, end.result, end.failure, now=now, mark=mark)
        )

    async def _before_next_life(self, position: Position, inbox: Sequence[Message]) -> Advance | None:
        """Messages for an instance that has ended, and was started again: those for any execution wait for that start.

        It may be due later, or the store may deliver it later. None: the instance was not started again.
        """
        early = [each for each in inbox if each.execution_id is None and type(each.event) is not ExecutionStarted]
        if not early:
            return None
        state = await self._store.get_instance(position.instance_id)
        index = position.index
        assert index.started is not None
        if (
            state is None
            or state.status is not RuntimeStatus.PENDING
            or state.execution_id == index.started.execution_id
        ):
            return None
        late = admit(index, [each for each in inbox if each not in early], max_deferrals=self._max_deferrals)
        waiting = admit(HistoryIndex(), early, max_deferrals=self._max_deferrals)
        advance = self._without_history(position, state, early, waiting) or Advance(waiting)
        # The earlier life's projection is not written again: the row is that of the next one.
        advance.admission.consumed += late.consumed
        advance.admission.deferred += late.deferred
        self._answer_refused(advance, self._now(index))
        return advance

    def _without_history(
        self, position: Position, state: InstanceState | None, inbox: Sequence[Message], admission: Admission
    ) -> Advance | None:
        """An instance without history: it may be waiting for its time, may have been ended before it, or not exist."""
        start = admission.start
        if start is not None:
            if (
                state is None
                or state.status is not RuntimeStatus.TERMINATED
                or state.execution_id != start.execution_id
            ):
                return None
            # It was terminated while pending; the start that comes now has nothing to start.
            return Advance(_nothing(admission, inbox))
        if state is None:
            if self._atomic:
                return Advance(_nothing(admission, inbox, "no instance has this id"))
            return None
        if state.status is not RuntimeStatus.PENDING:
            return Advance(_nothing(admission, inbox)) if state.status.is_terminal else None
        now = self._clock.now()
        for message in inbox:
            if isinstance(message.event, ExecutionTerminated):
                return self._end_pending(position, state, message.event, admission, inbox, now)
        if state.scheduled_at is None or state.scheduled_at <= now:
            return None
        # It starts later: what has come before is sent again for that time.
        later = Advance(_nothing(admission, inbox))
        due = state.scheduled_at + timedelta(milliseconds=1)
        # The id changes, since the store keeps one message of an id and this one leaves the inbox; it changes the same
        # way for a repeated send, and every time for what comes early once more, to a host whose clock is behind.
        later.messages = [
            replace(message, id=_later_id(message.id, now), visible_at=due, deliveries=0)
            for message in inbox
            if message.execution_id is None
        ]
        return later

    def _end_pending(
        self,
        position: Position,
        state: InstanceState,
        event: ExecutionTerminated,
        admission: Admission,
        inbox: Sequence[Message],
        now: datetime,
    ) -> Advance:
        ended = Advance(_nothing(admission, inbox), replaced=position.version is not None)
        # An execution without events, in the place of what an earlier one has left.
        generation = 0 if position.version is None else position.version.generation + 1
        ended.state = replace(
            state,
            status=RuntimeStatus.TERMINATED,
            output=event.reason,
            completed_at=now,
            updated_at=now,
            version=state.version if state.version is not None else HistoryVersion(generation, 0),
        )
        return ended


def _later_id(id: MessageId, now: datetime) -> MessageId:
    return postponed_id(id) if original_id(id) == id else forwarded_id(id, now)


def _drops_a_start(inbox: Sequence[Message], admission: Admission) -> bool:
    return admission.start is None and any(isinstance(message.event, ExecutionStarted) for message in inbox)


def _nothing(admission: Admission, inbox: Sequence[Message], why: str | None = None) -> Admission:
    dropped = [Dropped(message, why) for message in inbox] if why is not None else []
    return Admission(consumed=[message.id for message in inbox], dropped=[*admission.dropped, *dropped])
