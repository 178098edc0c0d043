"""A task hub store shaped like Azure Storage: nothing is atomic but one batch of rows.

It keeps the order of effects of promise 6 with a fault point between any two of them (`azure_account.Ports`), tiny
history batches, so that partial episodes are everyday events, ownership of partitions that moves while the former
owner still works, hand-over by puts that stay invisible, late row writes, and the row-before-history order of reads.
Not an implementation of the wire protocol: a model of what can happen to one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from durable_host.errors import StoreUnavailableError
from durable_host.model.history import HistoryEvent, OrchestratorCompleted
from durable_host.model.ids import InstanceId
from durable_host.model.instance import (
    InstanceState,
)
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    Lease,
)
from tests.simulation.azure_account import ConflictError, Got, partition_of
from tests.simulation.azure_client import AzureClient
from tests.simulation.azure_process import LEASE, REMAINING, Held, back_off, delay_until

__all__ = ["AzureShapedStore"]

BATCH = 5
"""Events in one batch; 99 in the original."""

WHOLE = 8
"""Events in one batch that must stay together."""


class AzureShapedStore(AzureClient):
    """The store object of one process; see the module."""

    # Committing.

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        return [await self._commit(checkpoint) for checkpoint in checkpoints]

    async def _commit(self, checkpoint: Checkpoint) -> CommitOutcome:
        instance_id = InstanceId(checkpoint.lease.key)
        held = self._held.get(instance_id)
        if held is not None and held.tail is not None:
            await asyncio.wait([held.tail])
            held = self._held.get(instance_id)
        if held is None or held.known is None or held.token != checkpoint.lease.token:
            return CommitOutcome.LEASE_LOST
        handed: list[Got[Message] | Got[ActivityTask]] = []
        held.stage = "before anything"
        try:
            if self.messages_first:
                await self._send_out(checkpoint, held, handed)
            if not await self._append(instance_id, checkpoint, held):
                self._lose(instance_id, held, handed)
                return CommitOutcome.LEASE_LOST
            if not self.messages_first:
                await self._send_out(checkpoint, held, handed)
        except StoreUnavailableError:
            # The caller will abandon the lease; a batch may be in, so nothing that was known is known any more.
            held.stage = None
            held.known = held.late = None
            held.holding = False
            self._known.pop(instance_id, None)
            for got in handed:
                self._show(got)
            raise
        held.stage = "after history"
        self._fetch_handed(handed)
        if self._random.random() < 0.5:
            held.tail = asyncio.get_running_loop().create_task(self._finish(instance_id, checkpoint, held))
            self._tails[held.tail] = None
            held.tail.add_done_callback(lambda task: self._tails.pop(task, None))
        else:
            await self._finish(instance_id, checkpoint, held)
        return CommitOutcome.COMMITTED

    async def _send_out(
        self, checkpoint: Checkpoint, held: Held, handed: list[Got[Message] | Got[ActivityTask]]
    ) -> None:
        outgoing: list[Message | ActivityTask] = [*checkpoint.messages, *checkpoint.activities]
        self._random.shuffle(outgoing)
        for each in outgoing:
            if isinstance(each, ActivityTask):
                if self._work_slots > 0:
                    self._work_slots -= 1
                    handed.append(await self.ports.put_work(each, LEASE))
                else:
                    await self.ports.put_work(each, 0)
            else:
                await self._put(each, handed)
            held.stage = "after some or all outgoing messages"

    async def _put(self, message: Message, handed: list[Got[Message] | Got[ActivityTask]]) -> None:
        delay = delay_until(message.visible_at, self._environment.clock.now())
        owner = self.account.owners.get(partition_of(message.target))
        if delay == 0 and self._control_slots > 0 and owner is not None and owner.worker == self.worker:
            self._control_slots -= 1
            handed.append(await self.ports.put_control(message, LEASE))
        else:
            await self.ports.put_control(message, delay)

    def _fetch_handed(self, handed: Sequence[Got[Message] | Got[ActivityTask]]) -> None:
        """Let this process's lock calls have what was put for them."""
        until = self.account.now() + LEASE
        for got in handed:
            if isinstance(got.body, Message):
                self._pend(got, until)  # type: ignore[arg-type]  # narrowed by its body
                self._unfetched.add(got.body.target)
            else:
                self._handed.append(got)  # type: ignore[arg-type]  # narrowed by its body
        if handed:
            self.account.notify()

    async def _append(self, instance_id: InstanceId, checkpoint: Checkpoint, held: Held) -> bool:
        known = held.known
        assert known is not None
        state = checkpoint.state
        if checkpoint.base != known.version and self.fences_history:
            return False
        if state is None or state.version is None or (state.version == known.version and not checkpoint.amended):
            # Nothing to append: still, what was consumed must have been judged by history as it stands.
            _, sentinel, _ = await self.ports.read_history(instance_id)
            return sentinel == known.sentinel or not self.fences_history
        replaced = known.version is None or state.version.generation > known.version.generation
        first = 0 if replaced or known.version is None else known.version.length
        rows = [*checkpoint.amended, *enumerate(checkpoint.events, first)]
        whole = len(checkpoint.amended)
        if replaced:
            # INVARIANT: start and carried-over events are one batch; their old rows are overwritten by it.
            whole = next(
                (at for at, event in enumerate(checkpoint.events) if isinstance(event, OrchestratorCompleted)), 0
            )
            whole += self._random.randrange(2)
        sizes = [max(whole, BATCH), *[BATCH] * len(rows)]
        length = first
        first_batch = True
        # INVARIANT: also without rows (ended before it began), since only the sentinel fences the start that comes.
        while rows or first_batch:
            first_batch = False
            batch, rows = rows[: sizes[0]], rows[sizes.pop(0) :]
            length = max([length, *(index + 1 for index, _ in batch)])
            try:
                known.sentinel = await self.ports.write_history(
                    instance_id,
                    batch,
                    etag=known.sentinel,
                    generation=state.version.generation,
                    length=length,
                    complete=not rows,
                    fenced=self.fences_history,
                )
            except ConflictError:
                return False
            if rows:
                held.stage = "between history batches"
        known.version = state.version
        return True

    def _lose(self, instance_id: InstanceId, held: Held, handed: Sequence[Got[Message] | Got[ActivityTask]]) -> None:
        for got in handed:
            self._show(got)
        for copies in held.messages.values():
            for each in copies:
                with contextlib.suppress(ConflictError):
                    each.queue.update(each, back_off(each.dequeues))
        self._drop(instance_id)

    async def _finish(self, instance_id: InstanceId, checkpoint: Checkpoint, held: Held) -> None:
        """What follows history, in order; where it fails, redelivery repairs it."""
        clean = False
        try:
            if not self.completed_last:
                await self._remove_completed(checkpoint)
            if checkpoint.state is not None and not await self._project(checkpoint.state, checkpoint.hold, held):
                return
            held.stage = "after projection"
            for id in checkpoint.consumed:
                for got in held.messages.pop(id, ()):
                    await self.ports.delete_control(got)
                    held.stage = "after some deletes"
            for id in checkpoint.deferred:
                for got in held.messages.pop(id, ()):
                    await self._update(got, back_off(got.dequeues))
            if self.completed_last and checkpoint.completed:
                held.stage = "before `completed` is removed"
                await self._remove_completed(checkpoint)
            clean = True
        except StoreUnavailableError:
            pass
        finally:
            held.tail = None
            held.stage = None
            state = checkpoint.state
            if state is not None and not state.status.is_terminal and held.known is not None and clean:
                self._known[instance_id] = held.known
            else:
                self._known.pop(instance_id, None)
            held.holding = checkpoint.hold
            if held.holding:
                if instance_id in self._pending:
                    self.account.notify()
            elif self._held.get(instance_id) is held:
                if clean:
                    self._reopen(instance_id)
                else:
                    self._held.pop(instance_id)
                if instance_id in self._pending:
                    self.account.notify()

    async def _remove_completed(self, checkpoint: Checkpoint) -> None:
        for lease in checkpoint.completed:
            got = self._activities.pop(token_of(lease), None)
            if got is not None:
                await self.ports.delete_work(got)

    async def _project(self, state: InstanceState, hold: bool, held: Held) -> bool:
        """Write the row; False: it could not be, and the inbox must stay."""
        known = held.known
        assert known is not None
        if hold and known.row_state is not None and _same_but_time(state, known.row_state):
            held.late = state
            return True
        if self.fences_projection and known.row_state is not None and _lives_again(known.row_state, state):
            return True
        for _ in range(5):
            try:
                if not self.fences_projection:
                    row = self.account.instances.get(state.instance_id)
                    known.row = row.etag if row is not None else None
                known.row = await self.ports.write_row(state, known.row)
            except ConflictError:
                if not self.fences_projection:
                    continue
                row = await self.ports.read_row(state.instance_id)
                _, sentinel, _ = await self.ports.read_history(state.instance_id)
                if sentinel != known.sentinel:
                    return False
                if row is not None and _lives_again(row.state, state):
                    return True
                known.row = row.etag if row is not None else None
            else:
                known.row_state, held.late = state, None
                return True
        return False

    # Activities.

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        end = self.account.now() + wait.total_seconds()
        while True:
            found, self._handed = self._handed[:limit], self._handed[limit:]
            due = self.account.work.next_visible()
            if len(found) < limit and due is not None and due <= self.account.now():
                try:
                    found += await self.ports.get_work(limit - len(found), LEASE)
                except BaseException:
                    self._handed = found + self._handed
                    raise
            left = end - self.account.now()
            if found or left <= 0:
                return [self._activity(got) for got in found]
            due = self.account.work.next_visible()
            self._work_slots = limit
            try:
                await self.account.changed(max(0.05, min(left, due - self.account.now() if due is not None else left)))
            finally:
                self._work_slots = 0

    def _activity(self, got: Got[ActivityTask]) -> ActivityWorkItem:
        token = self.account.number()
        self._activities[token] = got
        return ActivityWorkItem(got.body, Lease(got.body.dispatch_id, token, REMAINING), got.dequeues)

    def fits_at_once(self, events: Sequence[HistoryEvent]) -> int:
        return min(len(events), WHOLE)

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        outcomes: list[CommitOutcome] = []
        for completion in completions:
            got = self._activities.pop(token_of(completion.lease), None)
            if got is None:
                outcomes.append(CommitOutcome.LEASE_LOST)
                continue
            handed: list[Got[Message] | Got[ActivityTask]] = []
            await self._put(completion.reply, handed)
            self._fetch_handed(handed)
            gone = await self.ports.delete_work(got)
            outcomes.append(CommitOutcome.COMMITTED if gone else CommitOutcome.LEASE_LOST)
        return outcomes

    # Leases of both kinds.

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return [await self._renew(lease) for lease in leases]

    async def _renew(self, lease: Lease) -> Lease | None:
        granted = Lease(lease.key, lease.token, REMAINING)
        until = self.account.now() + LEASE
        task = self._activities.get(token_of(lease))
        if task is not None:
            try:
                self._activities[token_of(lease)] = await self.ports.update_work(task, LEASE)
            except ConflictError:
                self._activities.pop(token_of(lease), None)
                return None
            return granted
        held = self._held.get(InstanceId(lease.key))
        if held is None or held.token != lease.token or held.until <= self.account.now():
            return None
        for copies in list(held.messages.values()):
            for index, got in enumerate(copies):
                try:
                    copies[index] = await self.ports.update_control(got, LEASE)
                except ConflictError:
                    continue  # deleted by the commit that is under way, or another owner has it: the ETag decides
        held.until = until
        return granted

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        for lease in leases:
            task = self._activities.pop(token_of(lease), None)
            if task is not None:
                with contextlib.suppress(ConflictError):
                    await self.ports.update_work(task, delay.total_seconds())
                continue
            instance_id = InstanceId(lease.key)
            held = self._held.get(instance_id)
            if held is None or held.token != lease.token or held.tail is not None or held.stage is not None:
                continue
            # First of all, or the lock call that waits would top up an instance that is being let go.
            self._drop(instance_id)
            if held.late is not None:
                late, held.late = held.late, None
                await self._project(late, False, held)
            await self._postpone(held, lambda got: delay.total_seconds())

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        instance_id = InstanceId(lease.key)
        held = self._held.get(instance_id)
        if held is None or held.token != lease.token:
            return CommitOutcome.LEASE_LOST
        row = await self.ports.read_row(instance_id)
        if row is not None:
            try:
                await self.ports.write_row(
                    replace(row.state, status=RuntimeStatus.FAILED, quarantined=reason), row.etag
                )
            except ConflictError:
                return CommitOutcome.LEASE_LOST
        self._drop(instance_id)
        await self._postpone(held, lambda got: 600.0)
        return CommitOutcome.COMMITTED


def token_of(lease: Lease) -> int:
    assert isinstance(lease.token, int)
    return lease.token


def _same_but_time(one: InstanceState, other: InstanceState) -> bool:
    return replace(one, version=None, updated_at=other.updated_at, revision=None) == replace(
        other, version=None, revision=None
    )


def _lives_again(row: InstanceState, state: InstanceState) -> bool:
    """Whether a client has created the id anew since: then its row stands, or its start would be disowned.

    The ETag alone does not tell, a repair has read that very row (azure-storage-task-hub.md 9.1 item 11).
    """
    return row.version is None and (row.starts or 0) > (state.starts or 0)
