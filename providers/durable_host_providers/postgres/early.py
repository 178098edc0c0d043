"""Starts that are handed to a lock call before they are stored.

Where a lock call waits, a new instance's first step follows its start within a millisecond. So the start is not stored
by itself: the work item goes out at once, and the first checkpoint takes the start along, in one statement and one
flush. Who starts hears of it when that is committed. Until then nothing exists that anybody could see or lose.

Whatever else happens first, the start is stored by itself: the checkpoint does not come within a moment, it is of
another kind, the work is given back, the store closes. Where an instance of that id is there already, the usual start
decides what happens, and the checkpoint finds its lease lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from durable_host.model.codec import encode_events, encode_task
from durable_host.storage.contract import Checkpoint
from durable_host_providers._sql.rows import state_text, to_micros

from .checkpoints import raw
from .grants import InstanceToken
from .starting import start_instances
from .starts import Start, Starts
from .steps import Steps, is_step
from .watching import settle

if TYPE_CHECKING:  # a cycle in types only: what is handed over is what others wait for
    from .work import Work

__all__ = ["EarlyStart", "EarlyStarts"]

logger = logging.getLogger(__name__)

_REFS = 64
"""Numbers of rows that are taken at once."""

_FEW_REFS = 16


class EarlyStart:
    """A start on its way. `outcome`: whether it was taken, once that is known."""

    __slots__ = ("alarm", "begun", "outcome", "starts", "token")

    def __init__(self, starts: Starts, token: InstanceToken) -> None:
        self.starts = starts
        self.token = token
        self.begun = False
        self.alarm: asyncio.TimerHandle | None = None
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def target(self) -> str:
        """The id of the instance."""
        return self.starts.calls[0].message.target

    def arguments(self) -> list[object]:
        """The arguments of `start_at` behind hub, lease and its length."""
        return [self.token.ref, *self.starts.values()]

    def is_followed_by(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint under its lease can take it along, if it is a usual step."""
        return (
            checkpoint.base is None
            and len(checkpoint.activities) < 2
            and not checkpoint.completed
            and list(checkpoint.consumed) == [self.starts.calls[0].message.id]
        )

    def arguments_with(self, steps: Steps, *, locked: int) -> list[object]:
        """The arguments of `start_step` behind hub, lease and its length."""
        message, pending = self.starts.calls[0].message, self.starts.states[0]
        (checkpoint,) = steps.checkpoints
        state = checkpoint.state
        assert state is not None and state.version is not None
        task = steps.tasks[0] if steps.tasks else None
        custom = state.custom_status
        return [
            self.token.ref,
            self.token.lease,
            message.target,
            message.id,
            pending.name,
            None if pending.parent is None else pending.parent.instance_id,
            to_micros(pending.created_at),
            raw(pending.input),
            state.execution_id,
            state.version.generation,
            state.version.length,
            to_micros(state.updated_at),
            state_text(state).encode(),
            raw(custom),
            state.status.value,
            encode_events(checkpoint.events).encode(),
            None if task is None else task.dispatch_id,
            None if task is None else encode_task(task).encode(),
            bool(locked),
        ]


class EarlyStarts:
    """The starts of one open store that are handed over and not stored: one at a time.

    More starts at a time are stored together, which is cheaper than anything that could be done with each of them.
    """

    moment = 0.005
    """Seconds that a start waits for its first checkpoint."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._refs: deque[int] = deque()
        self._refilling = False
        self._current: EarlyStart | None = None

    def __bool__(self) -> bool:
        return self._current is not None

    @property
    def is_ready(self) -> bool:
        """Whether a start would be handed over now."""
        work = self._work
        return bool(self._refs and work.instances.room and self._current is None and not work.instances_expected)

    def refill(self) -> None:
        """Take numbers of rows, so that an instance has one before it is stored."""
        if not self._refilling and self._work.is_open and self._work.settings.worker:
            self._refilling = True
            self._work.track(self._refill())

    async def _refill(self) -> None:
        try:
            rows = await self._work.pool.fetch(self._work.sql["take_refs"], _REFS, repeatable=True)
            self._refs.extend(row[0] for row in rows)
        except Exception as error:  # starts are stored first, then
            logger.debug("no numbers of rows could be taken: %s", error)
        finally:
            self._refilling = False

    def offer(self, call: Start) -> EarlyStart | None:
        """Hand a start to a lock call that waits; None: it is to be stored first."""
        work = self._work
        if len(self._refs) < _FEW_REFS:
            self.refill()
        if not self.is_ready or call.message.visible_at is not None or call.message.target in work.grants.by_id:
            return None
        starts = Starts([call])
        if not starts.is_alone:
            return None
        reserved = work.instances.reserve(1)
        early = EarlyStart(starts, InstanceToken(work.next_lease(), self._refs.popleft()))
        early.alarm = asyncio.get_running_loop().call_later(self.moment, self._store_alone, early)
        self._current = early
        work.instances.settle(reserved, [starts.make(work.grants, call.message.id, early.token, work.until())])
        return early

    def followed(self, checkpoint: Checkpoint) -> EarlyStart | None:
        """The start that this checkpoint takes along, unless it is being stored."""
        early = self._current
        if early is None or early.begun or early.token != checkpoint.lease.token:
            return None
        return early if early.is_followed_by(checkpoint) and is_step(checkpoint, self._work.grants) else None

    async def settled(self, tokens: Collection[object]) -> None:
        """Store a start under one of these leases by itself, before anything else is done with them."""
        if self._current is not None and self._current.token in tokens:
            await self.stop()

    async def stop(self) -> None:
        """Store what waits."""
        early = self._current
        if early is not None:
            self._store_alone(early)
            await asyncio.wait([early.outcome])

    # What becomes of a start.

    def begin(self, early: EarlyStart) -> None:
        """A checkpoint takes it along."""
        early.begun = True
        if early.alarm is not None:
            early.alarm.cancel()

    def taken(self, early: EarlyStart) -> None:
        """It is stored."""
        self._current = None
        early.outcome.set_result(True)

    def failed(self, early: EarlyStart, error: Exception) -> None:
        """Nobody knows whether it is stored."""
        self._work.grants.drop(early.token.ref)
        self._current = None
        early.outcome.set_exception(error)

    def decide(self, early: EarlyStart, *, perhaps: bool) -> None:
        """It is not stored as it was handed over, or `perhaps`: let the usual start decide; a start counts once."""
        self._work.grants.drop(early.token.ref)
        if perhaps:
            self._work.giving.owe(early.token.lease)
        self._work.track(self._decide(early))

    def _store_alone(self, early: EarlyStart) -> None:
        if not early.begun:
            self.begin(early)
            self._work.track(self._store(early))

    async def _store(self, early: EarlyStart) -> None:
        try:
            if await self._work.call("start_at", early.token.lease, early.arguments()):
                self._work.watchers.tell({early.target: early.starts.states[0]}, settle)
                self.taken(early)
                return
        except Exception as error:
            self.failed(early, error)
            return
        self._work.grants.drop(early.token.ref)
        await self._decide(early)

    async def _decide(self, early: EarlyStart) -> None:
        try:
            taken = await start_instances(self._work, early.starts)
        except Exception as error:
            self.failed(early, error)
            return
        self._current = None
        early.outcome.set_result(bool(taken))
        self._work.watchers.tell({early.target: None}, settle)
