"""One process's side of the model store: what it holds, which partitions it listens to, and how it locks.

See `azure_shaped.py`, which adds commits, activities and the client's calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import ClassVar, Self

from msgspec.structs import replace

from durable_host.environment import Environment
from durable_host.model.history import ExecutionStarted, HistoryEvent
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import (
    HistoryVersion,
    InstanceState,
)
from durable_host.model.messages import ActivityTask, Message
from durable_host.storage.contract import (
    HistoryCache,
    Lease,
    OrchestrationWorkItem,
    StoreTraits,
    TaskHubStore,
)
from durable_host.testing.faults import FaultPlan
from tests.simulation.azure_account import PARTITIONS, Account, ConflictError, Got, Owner, Ports

__all__ = ["LEASE", "REMAINING", "AzureProcess", "Held", "Known", "back_off", "delay_until", "shown"]

LEASE = 30.0
REMAINING = timedelta(seconds=LEASE)


@dataclass(slots=True)
class Known:
    """What this process last committed or read of an instance."""

    version: HistoryVersion | None
    sentinel: int
    row: int | None
    row_state: InstanceState | None


@dataclass(slots=True)
class Held:
    """An instance that this process works on."""

    token: int
    until: float
    known: Known | None = None
    messages: dict[MessageId, list[Got[Message]]] = field(default_factory=dict[MessageId, "list[Got[Message]]"])
    holding: bool = False
    tail: asyncio.Task[None] | None = None
    late: InstanceState | None = None
    stage: str | None = None


class AzureProcess(TaskHubStore):
    """The part of a store object that locks. Class attributes are guards that negative controls switch off."""

    traits: ClassVar[StoreTraits] = StoreTraits(
        atomic_commit=False, commit_batch=1, commit_concurrency=64, lock_batch=32, max_lease=REMAINING
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
        self._held: dict[InstanceId, Held] = {}
        self._pending: dict[InstanceId, dict[MessageId, list[Got[Message]]]] = {}
        self._pending_until: dict[int, float] = {}
        self._known: dict[InstanceId, Known] = {}
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
        rest = delay_until(message.visible_at, self._environment.clock.now())
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
        held = self._held[instance_id] = Held(self.account.number(), self.account.now() + LEASE, messages=messages)
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
        lease = Lease(instance_id, held.token, REMAINING)
        return OrchestrationWorkItem(instance_id, held.known.version, history, inbox, lease)

    def _top_up(self, instance_id: InstanceId, held: Held) -> OrchestrationWorkItem | None:
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

    async def _load(self, instance_id: InstanceId, held: Held, cache: HistoryCache) -> Sequence[HistoryEvent] | None:
        known = self._known.get(instance_id)
        if known is not None and known.version is not None and cache.holds(instance_id, known.version):
            held.known = known
            return None
        # INVARIANT: the row before the history; then a row that is newer than the history fails its ETag.
        row = await self.ports.read_row(instance_id)
        version, sentinel, history = await self.ports.read_history(instance_id)
        if version is None and row is not None:
            version = row.state.version  # ended before it began: there is a row and no history
        held.known = Known(
            version,
            sentinel,
            row.etag if row is not None else None,
            row.state if row is not None else None,
        )
        return history

    async def _usable(self, held: Held) -> bool:
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
                    await self._update(got, back_off(got.dequeues))
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

    # Messages.

    async def _postpone(self, held: Held, delay: Callable[[Got[Message]], float]) -> None:
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


def delay_until(visible_at: datetime | None, now: datetime) -> float:
    return 0.0 if visible_at is None else max(0.0, (visible_at - now).total_seconds())


def back_off(deliveries: int) -> float:
    return min(2.0 ** min(deliveries, 30), 600.0)


def shown(state: InstanceState) -> InstanceState:
    """Promise 20: output and completion time of terminal instances only."""
    return state if state.status.is_terminal else replace(state, output=None, completed_at=None)
