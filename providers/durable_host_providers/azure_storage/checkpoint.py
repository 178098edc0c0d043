"""Committing: messages, then history, then the row, then the inbox, then the activities that are done.

Each step may be the last one that this process makes; the table in design 3.5 says what the next worker sees then, and
why that is right. What follows history is written on the side: the commit is told as soon as history is in, and the
instance is not let go before the rest has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from durable_host.environment import Environment
from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceState
from durable_host.model.messages import Message
from durable_host.storage.contract import Checkpoint, CommitOutcome, Lease
from durable_host_providers.azure_storage.activities import Activities, Running
from durable_host_providers.azure_storage.fetched import Fetched, Held, Known, copies_of
from durable_host_providers.azure_storage.history_table import Appending, HistoryTable, SentinelMovedError, episodes_in
from durable_host_providers.azure_storage.instances_table import InstancesTable, RowMovedError
from durable_host_providers.azure_storage.locking import InstanceLocks
from durable_host_providers.azure_storage.mail import back_off_s
from durable_host_providers.azure_storage.origin import BY_CLIENT, Origin
from durable_host_providers.azure_storage.outbox import Handed, Outbox
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.tasks import TaskOwner

__all__ = ["Committer"]

_ATTEMPTS = 5


class Committer:
    """Commits checkpoints, each on its own.

    Attributes:
        messages_first, fences_projection, completed_last: guards that negative controls switch off.
    """

    messages_first = True
    fences_projection = True
    completed_last = True

    def __init__(
        self,
        environment: Environment,
        locks: InstanceLocks,
        history: HistoryTable,
        instances: InstancesTable,
        blobs: PayloadBlobs,
        outbox: Outbox,
        activities: Activities,
        tasks: TaskOwner,
    ) -> None:
        self._clock = environment.clock
        self._locks = locks
        self._history = history
        self._instances = instances
        self._blobs = blobs
        self._outbox = outbox
        self._activities = activities
        self._tasks = tasks

    async def commit(self, checkpoint: Checkpoint) -> CommitOutcome:
        """Make it durable, or none of it but its messages."""
        held = self._locks.require(checkpoint.lease)
        while held is not None and held.tail is not None and held.ending:
            await asyncio.wait([held.tail])
            held = self._locks.require(checkpoint.lease)
        if held is None or held.known is None or held.busy:
            return CommitOutcome.LEASE_LOST
        if held.until <= self._clock.monotonic():
            self._locks.forget(held)
            return CommitOutcome.LEASE_LOST
        known = held.known
        if checkpoint.base != known.version:
            return CommitOutcome.LEASE_LOST
        held.busy = True
        held.stage = "before anything"
        handed = Handed()
        try:
            if self.messages_first:
                await self._send_out(checkpoint, held, handed)
            # INVARIANT: history waits for the row that follows the history before, or that row could be judged by a
            # sentinel that is not the one it was made from. What goes out may overlap with it, and the deletes.
            if held.shown is not None:
                await held.shown.wait()
            if self._locks.require(checkpoint.lease) is not held:
                self._outbox.show(handed)
                return CommitOutcome.LEASE_LOST
            places = await self._append(checkpoint, held, known)
            if not self.messages_first:
                await self._send_out(checkpoint, held, handed)
        except SentinelMovedError:
            await self._lose(held, handed)
            return CommitOutcome.LEASE_LOST
        except BaseException:
            # The caller will abandon the lease. A batch may be in, so nothing that was known is known any more.
            held.known = held.late = None
            held.holding = False
            self._locks.known.pop(held.instance_id, None)
            self._outbox.show(handed)
            raise
        finally:
            held.busy = False
            held.stage = None
        held.stage = "after history"
        held.ending = not checkpoint.hold
        completed = self._activities.claim(checkpoint.completed)
        shown = held.shown = asyncio.Event()
        work = self._finish(checkpoint, held, known, places, completed, held.tail, shown)
        held.tail = self._tasks.start(work, f"finish {held.instance_id}")
        held.tail.add_done_callback(lambda _: shown.set())  # whatever became of it
        self._outbox.deliver(handed)
        return CommitOutcome.COMMITTED

    # Before history.

    async def _send_out(self, checkpoint: Checkpoint, held: Held, handed: Handed) -> None:
        if not checkpoint.messages and not checkpoint.activities:
            return
        state = checkpoint.state
        known = held.known
        assert known is not None
        origin = BY_CLIENT
        if state is not None:
            new = state.version is None or known.version is None or state.version.generation > known.version.generation
            before = 0 if new or known.episodes is None else known.episodes
            episode = before + episodes_in(checkpoint.events)
            origin = Origin.of(state.instance_id, state.execution_id, episode, state.tags)
        sends: list[Callable[[], Awaitable[None]]] = [
            functools.partial(self._outbox.send_task, task, origin, handed, self._outbox.number())
            for task in checkpoint.activities
        ]
        # Messages to one instance keep their order; the rest goes at once.
        groups: dict[InstanceId, list[tuple[int, Message]]] = {}
        for message in checkpoint.messages:
            groups.setdefault(message.target, []).append((self._outbox.number(), message))
        sends += [functools.partial(self._outbox.send_all, group, origin, handed) for group in groups.values()]
        await _all(send() for send in sends)
        held.stage = "after some or all outgoing messages"

    # History.

    async def _append(self, checkpoint: Checkpoint, held: Held, known: Known) -> dict[str, str]:
        state = checkpoint.state
        if state is None or state.version is None or (state.version == known.version and not checkpoint.amended):
            # Nothing to append: still, what was consumed must have been judged by history as it stands.
            if await self._history.sentinel(held.instance_id) != known.sentinel:
                raise SentinelMovedError
            return {}
        replaces = known.version is None or state.version.generation > known.version.generation
        first = 0 if replaces or known.version is None else known.version.length
        appended = await self._history.append(
            Appending(
                held.instance_id,
                state.execution_id,
                checkpoint.events,
                first,
                checkpoint.amended,
                state.version,
                known.sentinel,
            ),
            progress=lambda: _between(held),
        )
        known.sentinel = appended.sentinel
        known.episodes = (0 if replaces or known.episodes is None else known.episodes) + episodes_in(checkpoint.events)
        known.version = state.version
        if replaces:
            held.orphans += known.blobs
            known.blobs = appended.blobs
        else:
            known.blobs += appended.blobs
        return appended.places

    async def _lose(self, held: Held, handed: Handed) -> None:
        self._outbox.show(handed)
        self._locks.forget(held)
        hides = [self._locks.hide(each, back_off_s(each.deliveries)) for each in copies_of(held.messages)]
        await asyncio.gather(*hides, return_exceptions=True)

    # After history.

    async def _finish(
        self,
        checkpoint: Checkpoint,
        held: Held,
        known: Known,
        places: dict[str, str],
        completed: Sequence[Running],
        before: asyncio.Task[None] | None,
        shown: asyncio.Event,
    ) -> None:
        """What follows history, in order and after the tail before; where it fails, redelivery repairs it."""
        clean = False
        try:
            if before is not None:
                await asyncio.wait([before])
            if not self.completed_last:
                await _all(each.fetched.remove() for each in completed)
            if not await self._show(checkpoint, held, known, places):
                return
            held.stage = "after projection"
            orphans, held.orphans = held.orphans, []
            shown.set()
            if orphans:
                # Nothing refers to the generation that was replaced any more; what a crash leaves goes with the purge.
                await self._blobs.remove(orphans)
            await self._empty(checkpoint, held)
            if self.completed_last and completed:
                held.stage = "before `completed` is removed"
                await _all(each.fetched.remove() for each in completed)
            clean = True
        except StoreError:
            pass
        finally:
            self._end(checkpoint, held, known, clean)

    async def _empty(self, checkpoint: Checkpoint, held: Held) -> None:
        works: list[Awaitable[Any]] = []
        for id in checkpoint.consumed:
            copies = held.messages.pop(id, [])
            for fetched in copies:
                self._locks.inbox.took(fetched.body)
                works.append(self._remove(fetched, held))
        for id in checkpoint.deferred:
            for fetched in held.messages.pop(id, []):
                works.append(self._locks.hide(fetched, back_off_s(fetched.deliveries)))
        await _all(works)

    async def _remove(self, fetched: Fetched[Message], held: Held) -> None:
        await fetched.remove()
        held.stage = "after some deletes"

    def _end(self, checkpoint: Checkpoint, held: Held, known: Known, clean: bool) -> None:
        state = checkpoint.state
        ended = state is not None and state.status.is_terminal
        stands = held.known is known and self._locks.held.get(held.instance_id) is held
        if clean and stands and not ended and not held.lost:
            self._locks.remember(held.instance_id, known)
        else:
            self._locks.known.pop(held.instance_id, None)
        if held.tail is not asyncio.current_task():
            return  # the next history is in, and what follows it has yet to come
        held.tail = None
        if not held.busy:
            held.stage = None
        held.holding = checkpoint.hold and not held.lost
        if held.holding:
            self._locks.wake_for(held)
        elif self._locks.held.get(held.instance_id) is held:
            if clean:
                self._locks.release(held)
            else:
                self._locks.forget(held)  # what it did not take comes again when its time is over

    async def _show(self, checkpoint: Checkpoint, held: Held, known: Known, places: dict[str, str]) -> bool:
        """Bring the row up to date; False: it could not be, and the inbox must stay."""
        state = checkpoint.state
        if state is None:
            return True
        repairs = not checkpoint.events and not checkpoint.amended
        row = known.state
        if repairs and row is not None and row.version == state.version and row.execution_id == state.execution_id:
            return True  # it stands as it should
        refused = {
            each.body.event.execution_id
            for id in checkpoint.consumed
            for each in held.messages.get(id, ())
            if isinstance(each.body.event, ExecutionStarted)
        }

        def lives_again(row: InstanceState | None) -> bool:
            """Whether a client has created the id anew since: then its row stands, or its start would be disowned.

            The ETag alone does not tell, a repair has read that very row (azure-storage-task-hub.md 9.1 item 11). A
            start that this very checkpoint refuses takes its row back.
            """
            if row is None or row.version is not None or row.execution_id == state.execution_id:
                return False
            newer = repairs or (row.starts or 0) > (state.starts or 0)
            return newer and row.execution_id not in refused and self.fences_projection

        detached = any(isinstance(event, ExecutionStarted) and event.detached for event in checkpoint.events)
        return await self._project(state, held, known, places, lives_again, detached=detached, may_wait=checkpoint.hold)

    async def _project(
        self,
        state: InstanceState,
        held: Held,
        known: Known,
        places: dict[str, str],
        lives_again: Callable[[InstanceState | None], bool],
        *,
        detached: bool = False,
        may_wait: bool = False,
    ) -> bool:
        for _ in range(_ATTEMPTS):
            if lives_again(known.state):
                return True
            try:
                written = await self._instances.project(state, known.row, places, detached=detached, may_wait=may_wait)
            except RowMovedError:
                row = await self._instances.read(state.instance_id)
                if await self._history.sentinel(state.instance_id) != known.sentinel:
                    return False
                known.row = row
                continue
            if written is None:
                held.late = state
            else:
                known.row, held.late = written, None
                self._locks.shown(state.instance_id, written)
            return True
        return False

    async def _catch_up(self, held: Held) -> None:
        """Write the projection that was put off; fails, only the row's last-updated time is behind."""
        late, held.late = held.late, None
        if late is not None and held.known is not None and not held.lost:
            with contextlib.suppress(StoreUnavailableError):
                await self._project(late, held, held.known, {}, lambda row: False)

    async def abandon(self, lease: Lease, delay_s: int) -> None:
        """Give an instance back; a projection that was put off is written before."""
        held = self._locks.require(lease)
        if held is None or held.busy:
            return
        if held.tail is not None:
            await asyncio.wait([held.tail])
            if self._locks.require(lease) is not held:
                return
        # First of all, or the lock call that waits would top up an instance that is being let go.
        self._locks.forget(held)
        await self._catch_up(held)
        await self._locks.give_back(held, delay_s)

    async def flush(self) -> None:
        """Write the projections that were put off."""
        await asyncio.gather(*(self._catch_up(held) for held in list(self._locks.held.values())))


def _between(held: Held) -> None:
    held.stage = "between history batches"


async def _all(works: Iterable[Awaitable[Any]]) -> None:
    """All of them, whatever becomes of one; then the first failure."""
    works = list(works)
    if len(works) == 1:  # as most often
        await works[0]
        return
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
