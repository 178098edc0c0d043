"""The storage contract in memory: the reference implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from durable_host.errors import StoreMismatchError, UnsupportedError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState, pending_state
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.checks import check_checkpoint
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
from durable_host_providers.memory import committing, queries, statistics
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.records import InstanceRecord, TaskRecord
from durable_host_providers.memory.waiting import Holder, Sleeper, Waiter

__all__ = ["MemoryTaskHubStore"]

T = TypeVar("T")


class MemoryTaskHubStore(TaskHubStore):
    """One store object on a hub in memory. Several may share a hub, each with leases and hand-overs of its own.

    No method awaits anything but its own waiting: whatever a call does, it does in one step of the loop.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(max_lease=timedelta(hours=1), durable=False)

    def __init__(self, hub: HubState) -> None:
        self._hub = hub
        self._holder = Holder()

    # Life cycle.

    async def create(self) -> None:
        self._hub.created = True

    async def delete(self) -> None:
        with self._hub.lock:
            self._hub.created = False
            self._hub.clear()

    async def __aenter__(self) -> Self:
        if not self._hub.created:
            raise StoreMismatchError("There is no such task hub in memory; call create() first.")
        with self._hub.lock:
            if self._holder not in self._hub.holders:
                self._hub.holders.append(self._holder)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        hub, holder = self._hub, self._holder
        with hub.lock:
            now = hub.sweep()
            if holder in hub.holders:
                hub.holders.remove(holder)
            for waiter in (*holder.orchestrations, *holder.tasks):
                waiter.free = 0
                waiter.wake()
            for instance in [each for each in hub.instance_leases.values() if each.holder is holder]:
                hub.release(instance)
            for task in [each for each in hub.task_leases.values() if each.holder is holder]:
                hub.give_back_task(task, now, timedelta(0))
            holder.top_ups.clear()

    # Worker.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        def fetch(waiter: Waiter) -> list[OrchestrationWorkItem]:
            items: list[OrchestrationWorkItem] = []
            for instance, token in waiter.instances:
                if instance.token == token and instance.leased and instance.fresh:
                    self._hub.renew(instance)
                    items.append(self._item(instance, cache, handed_over=True))
            return items

        def poll(room: int) -> list[OrchestrationWorkItem]:
            return self._lock_ready(room, cache)

        return await self._lock(limit, wait, self._holder.orchestrations, fetch, poll)

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        def fetch(waiter: Waiter) -> list[ActivityWorkItem]:
            items: list[ActivityWorkItem] = []
            for task, token in waiter.tasks:
                if task.token == token and task.leased and not task.gone:
                    self._hub.renew_task(task)
                    items.append(self._task_item(task))
            return items

        return await self._lock(limit, wait, self._holder.tasks, fetch, self._lock_tasks)

    async def _lock(
        self,
        limit: int,
        wait: timedelta,
        waiters: list[Waiter],
        fetch: Callable[[Waiter], list[T]],
        poll: Callable[[int], list[T]],
    ) -> Sequence[T]:
        """What `poll` finds now, else what `fetch` was handed over, or what `poll` finds after waking."""
        hub = self._hub
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        if self._holder not in hub.holders:
            raise RuntimeError("The store is not open; use it as an async context manager.")
        while limit > 0:
            with hub.lock:
                if self._holder not in hub.holders:
                    return ()  # closed while this call waited
                now = hub.sweep()
                items = poll(limit)
                left = end - loop.time()
                if items or left <= 0:
                    return items
                waiter = Waiter(limit, hub.next_due())
                waiters.append(waiter)
                pause = min(left, hub.seconds_to_lease_end())
                if waiter.due is not None:
                    pause = min(pause, (waiter.due - now).total_seconds())
            try:
                await waiter.sleep(pause)
                with hub.lock:
                    waiters.remove(waiter)
                    items = fetch(waiter)
            except BaseException:
                with hub.lock:
                    if waiter in waiters:
                        waiters.remove(waiter)
                    self._return(waiter)
                raise
            if items:
                return items
        return ()

    def _return(self, waiter: Waiter) -> None:
        """Give back what was handed over to a call that fails."""
        for instance, token in waiter.instances:
            if instance.token == token:
                self._hub.release(instance)
        for task, token in waiter.tasks:
            if task.token == token and not task.gone:
                self._hub.give_back_task(task, self._hub.sweep(), timedelta(0))

    def _lock_ready(self, room: int, cache: HistoryCache) -> list[OrchestrationWorkItem]:
        hub, holder = self._hub, self._holder
        topped_up: list[InstanceRecord] = []
        while holder.top_ups and len(topped_up) < room:
            instance = next(iter(holder.top_ups))
            del holder.top_ups[instance]
            if instance.leased and instance.hold and instance.holder is holder and instance.fresh:
                topped_up.append(instance)
        locked: list[InstanceRecord] = []
        items: list[OrchestrationWorkItem] = []
        try:
            while len(topped_up) + len(locked) < room and (ready := hub.next_ready()) is not None:
                hub.lease_to(ready, holder)
                locked.append(ready)
                items.append(self._item(ready, cache, handed_over=False))
        except BaseException:  # the cache is the caller's, and it may fail
            for instance in locked:
                hub.release(instance)
            for instance in topped_up:
                hub.offer(instance)
            raise
        return [*map(self._top_up, topped_up), *items]

    def _item(self, instance: InstanceRecord, cache: HistoryCache, *, handed_over: bool) -> OrchestrationWorkItem:
        version = instance.version
        held = version is not None and cache.holds(instance.id, version)
        return OrchestrationWorkItem(
            instance_id=instance.id,
            version=version,
            # A copy: this worker may lose the lease, and the next one appends to the list.
            history=None if held else tuple(instance.history),
            inbox=instance.deliver(handed_over=handed_over),
            lease=Lease(instance.id, instance.token, self._hub.lease),
        )

    def _top_up(self, instance: InstanceRecord) -> OrchestrationWorkItem:
        self._hub.renew(instance)
        return OrchestrationWorkItem(
            instance_id=instance.id,
            version=instance.version,
            history=None,
            inbox=instance.deliver(handed_over=False),
            lease=Lease(instance.id, instance.token, self._hub.lease),
        )

    def _lock_tasks(self, room: int) -> list[ActivityWorkItem]:
        items: list[ActivityWorkItem] = []
        while len(items) < room and (task := self._hub.next_task()) is not None:
            self._hub.lease_task_to(task, self._holder)
            task.deliveries += 1
            items.append(self._task_item(task))
        return items

    def _task_item(self, task: TaskRecord) -> ActivityWorkItem:
        return ActivityWorkItem(task.task, Lease(task.task.dispatch_id, task.token, self._hub.lease), task.deliveries)

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for checkpoint in checkpoints:
            check_checkpoint(checkpoint)
        hub = self._hub
        with hub.lock:
            now = hub.sweep()
            return [committing.apply(hub, checkpoint, now, self._holder) for checkpoint in checkpoints]

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        hub = self._hub
        with hub.lock:
            now = hub.sweep()
            return [self._complete(completion, now) for completion in completions]

    def _complete(self, completion: ActivityCompletion, now: datetime) -> CommitOutcome:
        task = self._locked_task(completion.lease)
        if task is None:
            return CommitOutcome.LEASE_LOST
        self._hub.remove_task(task)
        self._hub.put(completion.reply, now, self._holder)
        return CommitOutcome.COMMITTED

    def _locked(self, lease: Lease) -> InstanceRecord | None:
        instance = self._hub.instances.get(lease.key)
        return instance if instance is not None and instance.token == lease.token else None

    def _locked_task(self, lease: Lease) -> TaskRecord | None:
        task = self._hub.tasks.get(lease.key)
        return task if task is not None and task.token == lease.token else None

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        with self._hub.lock:
            self._hub.sweep()
            return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> Lease | None:
        # An instance may have the id of a task; no two locks have the same token.
        if (instance := self._locked(lease)) is not None:
            self._hub.renew(instance)
        elif (task := self._locked_task(lease)) is not None:
            self._hub.renew_task(task)
        else:
            return None
        return Lease(lease.key, lease.token, self._hub.lease)

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        hub = self._hub
        with hub.lock:
            now = hub.sweep()
            for lease in leases:
                if (instance := self._locked(lease)) is not None:
                    hub.give_back(instance, now, delay)
                elif (task := self._locked_task(lease)) is not None:
                    hub.give_back_task(task, now, delay)

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        hub = self._hub
        with hub.lock:
            instance = self._locked(lease)
            if instance is None:
                return CommitOutcome.LEASE_LOST
            hub.quarantine(instance, reason)
            hub.release(instance)
            return CommitOutcome.COMMITTED

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        _refuse(transaction)
        state = pending_state(start)
        hub = self._hub
        with hub.lock:
            now = hub.sweep()
            standing = hub.instances.get(start.target)
            if standing is not None and standing.shown is not None and standing.start_id == start.id:
                return True
            if standing is not None and not standing.gives_way(replaceable):
                return False
            instance = hub.require(start.target)
            hub.set_state(instance, state)
            instance.start_id = start.id
            hub.put(start, now, self._holder)
            return True

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        _refuse(transaction)
        hub = self._hub
        with hub.lock:
            now = hub.sweep()
            for message in messages:
                hub.put(message, now, self._holder)

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        hub = self._hub
        with hub.lock:
            found = [hub.instances[each] for each in instance_ids if each in hub.instances]
            return sum(hub.end_quarantine(instance, self._holder) for instance in found)

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        state = self._shown(instance_id)
        return state if state is None or with_payloads else queries.without_payloads(state)

    def _shown(self, instance_id: InstanceId) -> InstanceState | None:
        instance = self._hub.instances.get(instance_id)
        return None if instance is None else instance.shown

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        with self._hub.lock:
            return queries.find(query, self._hub.order, self._hub.instances)

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        instance = self._hub.instances.get(instance_id)
        if instance is None or instance.state is None:
            return None
        # A start that replaces the instance waits: what stands is another execution's.
        return () if instance.state.version is None else tuple(instance.history)

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        hub = self._hub
        with hub.lock:
            found = [hub.instances[each] for each in dict.fromkeys(instance_ids) if each in hub.instances]
            # With force the messages of an id go, too, under which nothing was ever committed or created.
            purged = [each for each in found if force or (each.shown is not None and each.shown.status.is_terminal)]
            count = sum(each.shown is not None for each in purged)
            hub.purge(purged)
            return count

    async def statistics(self) -> HubStatistics:
        with self._hub.lock:
            return statistics.measure(self._hub)

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        hub = self._hub
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        while True:
            with hub.lock:
                state = self._shown(instance_id)
                left = end - loop.time()
                if has_changed(after, state) or left <= 0:
                    return state
                sleeper = Sleeper()
                hub.watch(instance_id, sleeper)
            try:
                await sleeper.sleep(left)
            finally:
                with hub.lock:
                    hub.unwatch(instance_id, sleeper)

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        hub = self._hub
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        seen = False
        while True:
            with hub.lock:
                state = self._shown(instance_id)
                left = end - loop.time()
                if (seen if state is None else state.status.is_terminal) or left <= 0:
                    return state
                seen = state is not None
                sleeper = Sleeper()
                hub.watch(instance_id, sleeper, until_end=True)
            try:
                await sleeper.sleep(left)
            finally:
                with hub.lock:
                    hub.unwatch(instance_id, sleeper)


def _refuse(transaction: object | None) -> None:
    if transaction is not None:
        raise UnsupportedError("The memory provider has no transactions; call without transaction=.")
