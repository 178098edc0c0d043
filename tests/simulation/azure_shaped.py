"""A task hub store shaped like Azure Storage: nothing is atomic but one batch of rows.

It keeps the order of effects of promise 6 with a fault point between any two of them (`azure_account.Ports`), tiny
history batches, so that partial episodes are everyday events, ownership of partitions that moves while the former
owner still works, hand-over by puts that stay invisible, late row writes, and the row-before-history order of reads.
Not an implementation of the wire protocol: a model of what can happen to one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import ClassVar, Self

from msgspec.structs import replace

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError, UnsupportedError
from durable_host.model.history import ExecutionStarted, HistoryEvent, OrchestratorCompleted
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import (
    HistoryVersion,
    InstancePage,
    InstanceQuery,
    InstanceState,
    pending_state,
)
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    HistoryCache,
    HubStatistics,
    Lease,
    OrchestrationWorkItem,
    StoreTraits,
    TaskHubStore,
    has_changed,
)
from durable_host.testing.faults import FaultPlan
from tests.simulation.azure_account import PARTITIONS, Account, ConflictError, Got, Owner, Ports, partition_of

__all__ = ["AzureShapedStore"]

LEASE = 30.0
BATCH = 5
"""Events in one batch; 99 in the original."""

_REMAINING = timedelta(seconds=LEASE)


@dataclass(slots=True)
class _Known:
    """What this process last committed or read of an instance."""

    version: HistoryVersion | None
    sentinel: int
    row: int | None
    row_state: InstanceState | None


@dataclass(slots=True)
class _Held:
    """An instance that this process works on."""

    token: int
    until: float
    known: _Known | None = None
    messages: dict[MessageId, list[Got[Message]]] = field(default_factory=dict[MessageId, "list[Got[Message]]"])
    holding: bool = False
    tail: asyncio.Task[None] | None = None
    late: InstanceState | None = None
    stage: str | None = None


class AzureShapedStore(TaskHubStore):
    """The store object of one process; see the module.

    Class attributes are the guards that negative controls switch off.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        atomic_commit=False, commit_batch=1, commit_concurrency=64, lock_batch=32, max_lease=_REMAINING
    )
    messages_first = True
    fences_history = True
    fences_projection = True
    gives_back_failed_locks = True
    completed_last = True

    def __init__(
        self,
        account: Account,
        environment: Environment,
        plan: FaultPlan,
        *,
        random: Random,
        crash: Callable[[], None] | None = None,
    ) -> None:
        self.account = account
        self.ports = Ports(account, plan, crash, random)
        self.worker = account.number()
        self._environment = environment
        self._random = random
        self._held: dict[InstanceId, _Held] = {}
        self._pending: dict[InstanceId, dict[MessageId, list[Got[Message]]]] = {}
        self._pending_until: dict[int, float] = {}
        self._known: dict[InstanceId, _Known] = {}
        self._activities: dict[int, Got[ActivityTask]] = {}
        self._handed: list[Got[ActivityTask]] = []
        self._control_slots = 0
        self._work_slots = 0
        self._unfetched: set[InstanceId] = set()
        self._tails: dict[asyncio.Task[None], None] = {}

    # Life cycle.

    async def create(self) -> None:
        pass

    async def delete(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        while self._tails:
            await asyncio.wait(list(self._tails))
        for partition, owner in list(self.account.owners.items()):
            if owner.worker == self.worker:
                del self.account.owners[partition]
        for messages in self._pending.values():
            for copies in messages.values():
                for got in copies:
                    self._show(got)
        for held in self._held.values():
            for copies in held.messages.values():
                for got in copies:
                    self._show(got)
        for task in [*self._handed, *self._activities.values()]:
            with contextlib.suppress(ConflictError):
                task.queue.update(task, 0)
        self.account.notify()

    def vanish(self) -> None:
        """The process is gone: its partitions are free when their leases end."""
        for owner in self.account.owners.values():
            if owner.worker == self.worker:
                owner.until = self.account.now() + LEASE

    def stages(self) -> Iterator[str]:
        """The rows of the crash table that the death of this process would show now."""
        for held in self._held.values():
            yield held.stage or "before anything"
            if held.late is not None:
                yield "before a late row write"
        if self._handed or self._unfetched:
            yield "with work handed over, not fetched"

    # Locking instances.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        end = self.account.now() + wait.total_seconds()
        while True:
            items = await self._lock(limit, cache)
            left = end - self.account.now()
            if items or left <= 0:
                return items
            self._control_slots = limit
            try:
                await self.account.changed(min(left, self._next_control()))
            finally:
                self._control_slots = 0

    async def _lock(self, limit: int, cache: HistoryCache) -> list[OrchestrationWorkItem]:
        self._reap()
        for partition in self._listen():
            due = self.account.control[partition].next_visible()
            if due is not None and due <= self.account.now():
                batch = self._random.choice((2, 8, 32))
                for got in await self.ports.get_control(partition, batch, LEASE):
                    self._take(got)
        items: list[OrchestrationWorkItem] = []
        try:
            for instance_id in list(self._pending):
                if len(items) == limit:
                    break
                item = await self._open(instance_id, cache)
                if item is not None:
                    items.append(item)
        except BaseException:
            if self.gives_back_failed_locks:
                for item in items:
                    self._reopen(item.instance_id)
            raise
        self._unfetched.clear()
        return items

    def _listen(self) -> list[int]:
        """The partitions of this process. Whoever has none may take one whose owner still works."""
        now = self.account.now()
        owners = self.account.owners
        for partition in range(PARTITIONS):
            owner = owners.get(partition)
            if owner is None or owner.until <= now:
                owners[partition] = Owner(self.worker)
        mine = [partition for partition, owner in owners.items() if owner.worker == self.worker]
        if not mine and self._random.random() < 0.3:
            taken = self._random.randrange(PARTITIONS)
            owners[taken] = Owner(self.worker)
            mine = [taken]
        return sorted(mine)

    def _next_control(self) -> float:
        """Seconds until something may become visible here."""
        now = self.account.now()
        times = [owner.until for owner in self.account.owners.values() if owner.until > now]
        for partition, owner in self.account.owners.items():
            due = self.account.control[partition].next_visible()
            if owner.worker == self.worker and due is not None:
                times.append(due)
        if self._pending:
            times.append(min(held.until for held in self._held.values()) if self._held else now)
        return max(0.05, min(times, default=now + 3600) - now)

    def _reap(self) -> None:
        """Forget what this process no longer has: leases and messages whose time is over."""
        now = self.account.now()
        for instance_id, held in list(self._held.items()):
            if held.until <= now and held.tail is None and held.stage is None:
                self._drop(instance_id)
        for instance_id, messages in list(self._pending.items()):
            for id, copies in list(messages.items()):
                copies[:] = [got for got in copies if self._pending_until.get(got.receipt, 0) > now]
                if not copies:
                    del messages[id]
            if not messages:
                del self._pending[instance_id]

    def _take(self, got: Got[Message]) -> None:
        message = got.body
        rest = _delay(message.visible_at, self._environment.clock.now())
        if rest > 1 and isinstance(message.event, ExecutionStarted):
            # Beyond the queue's horizon: back with the rest of its delay.
            with contextlib.suppress(ConflictError):
                got.queue.update(got, rest)
            return
        self._pend(got, self.account.now() + LEASE)

    def _pend(self, got: Got[Message], until: float) -> None:
        messages = self._pending.setdefault(got.body.target, {})
        copies = messages.setdefault(got.body.id, [])
        copies[:] = [other for other in copies if other.key != got.key]
        copies.append(got)
        self._pending_until[got.receipt] = until

    async def _open(self, instance_id: InstanceId, cache: HistoryCache) -> OrchestrationWorkItem | None:
        held = self._held.get(instance_id)
        if held is not None:
            return self._top_up(instance_id, held)
        messages = self._pending.pop(instance_id, None)
        if messages is None:
            return None
        held = self._held[instance_id] = _Held(self.account.number(), self.account.now() + LEASE, messages=messages)
        try:
            history = await self._load(instance_id, held, cache)
            usable = await self._usable(held)
        except BaseException:
            if self.gives_back_failed_locks:
                self._reopen(instance_id)
            raise
        if not usable or held.known is None:
            self._drop(instance_id)
            return None
        inbox = [
            replace(copies[-1].body, deliveries=copies[-1].dequeues)
            for copies in sorted(held.messages.values(), key=lambda copies: copies[0].key)
        ]
        lease = Lease(instance_id, held.token, _REMAINING)
        return OrchestrationWorkItem(instance_id, held.known.version, history, inbox, lease)

    def _top_up(self, instance_id: InstanceId, held: _Held) -> OrchestrationWorkItem | None:
        """What has arrived for an instance that the worker keeps between episodes."""
        if not held.holding or held.tail is not None or held.known is None or held.until <= self.account.now():
            return None
        fresh: list[Message] = []
        for id, copies in self._pending.pop(instance_id, {}).items():
            if id in held.messages:
                held.messages[id].extend(copies)
            else:
                held.messages[id] = copies
                fresh.append(replace(copies[-1].body, deliveries=copies[-1].dequeues))
        if not fresh:
            return None
        lease = Lease(instance_id, held.token, timedelta(seconds=held.until - self.account.now()))
        return OrchestrationWorkItem(instance_id, held.known.version, None, fresh, lease)

    async def _load(self, instance_id: InstanceId, held: _Held, cache: HistoryCache) -> Sequence[HistoryEvent] | None:
        known = self._known.get(instance_id)
        if known is not None and known.version is not None and cache.holds(instance_id, known.version):
            held.known = known
            return None
        # INVARIANT: the row before the history; then a row that is newer than the history fails its ETag.
        row = await self.ports.read_row(instance_id)
        version, sentinel, history = await self.ports.read_history(instance_id)
        if version is None and row is not None:
            version = row.state.version  # ended before it began: there is a row and no history
        held.known = _Known(
            version,
            sentinel,
            row.etag if row is not None else None,
            row.state if row is not None else None,
        )
        return history

    async def _usable(self, held: _Held) -> bool:
        """Whether anything is left to deliver: not of a quarantined instance, no start that its row disowns."""
        known = held.known
        assert known is not None
        if known.row_state is not None and known.row_state.quarantined is not None:
            await self._postpone(held, lambda got: 600.0)
            return False
        for id, copies in list(held.messages.items()):
            event = copies[-1].body.event
            if not isinstance(event, ExecutionStarted) or event.parent is not None:
                continue
            row = await self.ports.read_row(copies[-1].body.target)
            if row is not None and row.state.execution_id == event.execution_id:
                continue
            # Of another creator, or its row is not there yet (azure-storage-task-hub.md 6.3).
            del held.messages[id]
            for got in copies:
                if got.dequeues >= 10:
                    await self.ports.delete_control(got)
                else:
                    await self._update(got, _back_off(got.dequeues))
        return bool(held.messages)

    def _reopen(self, instance_id: InstanceId) -> None:
        """Undo a lock: its messages wait here again."""
        held = self._held.pop(instance_id, None)
        if held is not None:
            for copies in held.messages.values():
                for got in copies:
                    self._pend(got, held.until)

    def _drop(self, instance_id: InstanceId) -> None:
        self._held.pop(instance_id, None)
        self._known.pop(instance_id, None)
        if self._pending:
            self.account.notify()

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
        self, checkpoint: Checkpoint, held: _Held, handed: list[Got[Message] | Got[ActivityTask]]
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
        delay = _delay(message.visible_at, self._environment.clock.now())
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

    async def _append(self, instance_id: InstanceId, checkpoint: Checkpoint, held: _Held) -> bool:
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
        while rows:
            batch, rows = rows[: sizes[0]], rows[sizes.pop(0) :]
            length = max(length, *(index + 1 for index, _ in batch))
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

    def _lose(self, instance_id: InstanceId, held: _Held, handed: Sequence[Got[Message] | Got[ActivityTask]]) -> None:
        for got in handed:
            self._show(got)
        for copies in held.messages.values():
            for each in copies:
                with contextlib.suppress(ConflictError):
                    each.queue.update(each, _back_off(each.dequeues))
        self._drop(instance_id)

    async def _finish(self, instance_id: InstanceId, checkpoint: Checkpoint, held: _Held) -> None:
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
                    await self._update(got, _back_off(got.dequeues))
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
            got = self._activities.pop(_token(lease), None)
            if got is not None:
                await self.ports.delete_work(got)

    async def _project(self, state: InstanceState, hold: bool, held: _Held) -> bool:
        """Write the row; False: it could not be, and the inbox must stay."""
        known = held.known
        assert known is not None
        if hold and known.row_state is not None and _same_but_time(state, known.row_state):
            held.late = state
            return True
        if known.row_state is not None and _lives_again(known.row_state, state):
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
        return ActivityWorkItem(got.body, Lease(got.body.dispatch_id, token, _REMAINING), got.dequeues)

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        outcomes: list[CommitOutcome] = []
        for completion in completions:
            got = self._activities.pop(_token(completion.lease), None)
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
        granted = Lease(lease.key, lease.token, _REMAINING)
        until = self.account.now() + LEASE
        task = self._activities.get(_token(lease))
        if task is not None:
            try:
                self._activities[_token(lease)] = await self.ports.update_work(task, LEASE)
            except ConflictError:
                self._activities.pop(_token(lease), None)
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
            task = self._activities.pop(_token(lease), None)
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

    async def _postpone(self, held: _Held, delay: Callable[[Got[Message]], float]) -> None:
        for copies in list(held.messages.values()):
            for got in list(copies):
                await self._update(got, delay(got))

    async def _update(self, got: Got[Message], visibility: float) -> None:
        with contextlib.suppress(ConflictError):
            await self.ports.update_control(got, visibility)

    def _show(self, got: Got[Message] | Got[ActivityTask]) -> None:
        with contextlib.suppress(ConflictError):
            if isinstance(got.body, Message):
                got.queue.update(got, 0)  # type: ignore[arg-type]  # narrowed by its body
            else:
                got.queue.update(got, 0)  # type: ignore[arg-type]  # narrowed by its body

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        _refuse(transaction)
        if start.id in self.account.created:
            return True
        row = await self.ports.read_row(start.target)
        if row is not None and row.state.execution_id != start.execution_id and row.state.status not in replaceable:
            return False
        await self.ports.put_control(start, _delay(start.visible_at, self._environment.clock.now()))
        while row is None or row.state.execution_id != start.execution_id:
            if row is not None and row.state.status not in replaceable:
                return False  # another creator's; the message that is out finds itself disowned
            try:
                await self.ports.write_row(pending_state(start), row.etag if row is not None else None)
            except ConflictError:
                row = await self.ports.read_row(start.target)
                continue
            finally:
                # A hidden column remembers who created the row, for a caller that asks again after a cut connection.
                present = self.account.instances.get(start.target)
                if present is not None and present.state.execution_id == start.execution_id:
                    self.account.created.add(start.id)
            return True
        return True

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        _refuse(transaction)
        for message in messages:
            await self.ports.put_control(message, _delay(message.visible_at, self._environment.clock.now()))

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        raise UnsupportedError("the model has no way back from quarantine; no scenario needs it")

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        row = await self.ports.read_row(instance_id)
        return None if row is None else _shown(row.state)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        found = [
            _shown(self.account.instances[id].state)
            for id in sorted(self.account.instances)
            if id.startswith(query.prefix)
        ]
        wanted = [state for state in found if not query.statuses or state.status in query.statuses]
        return InstancePage(tuple(wanted))

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        table = self.account.history.get(instance_id)
        row = self.account.instances.get(instance_id)
        if table is None or (row is not None and row.state.version is None):
            return None if row is None else ()
        return table.events()

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        count = 0
        for instance_id in instance_ids:
            row = self.account.instances.get(instance_id)
            if row is not None and (force or row.state.status.is_terminal):
                del self.account.instances[instance_id]
                self.account.history.pop(instance_id, None)
                count += 1
        return count

    async def statistics(self) -> HubStatistics:
        return HubStatistics(
            {}, inbox_waiting=sum(map(len, self.account.control)), activities_waiting=len(self.account.work)
        )

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        end = self.account.now() + timeout.total_seconds()
        while True:
            row = self.account.instances.get(instance_id)
            state = None if row is None else _shown(row.state)
            left = end - self.account.now()
            if has_changed(after, state) or left <= 0:
                return state
            await self.account.changed(left)


def _token(lease: Lease) -> int:
    assert isinstance(lease.token, int)
    return lease.token


def _delay(visible_at: datetime | None, now: datetime) -> float:
    return 0.0 if visible_at is None else max(0.0, (visible_at - now).total_seconds())


def _back_off(deliveries: int) -> float:
    return min(2.0 ** min(deliveries, 30), 600.0)


def _same_but_time(one: InstanceState, other: InstanceState) -> bool:
    return replace(one, version=None, updated_at=other.updated_at, revision=None) == replace(
        other, version=None, revision=None
    )


def _lives_again(row: InstanceState, state: InstanceState) -> bool:
    """Whether a client has created the id anew since: then its row stands, or its start would be disowned.

    The ETag alone does not tell, a repair has read that very row (azure-storage-task-hub.md 9.1 item 11).
    """
    return row.version is None and (row.starts or 0) > (state.starts or 0)


def _shown(state: InstanceState) -> InstanceState:
    """Promise 20: output and completion time of terminal instances only."""
    return state if state.status.is_terminal else replace(state, output=None, completed_at=None)


def _refuse(transaction: object | None) -> None:
    if transaction is not None:
        raise UnsupportedError("this store takes no caller's transaction")
