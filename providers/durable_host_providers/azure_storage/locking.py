"""Locking instances: a partition that is ours, messages that are hidden from others, history and row as read.

Only the owner of a partition fetches from its queue, so a lock is a fact of this process: an entry in `held`. What
protects history is the sentinel's ETag, whoever believes to be the owner.

Order of reads: the row before the history. Then a row that is newer than the history fails its own ETag later.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import cast

from msgspec.structs import replace

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.history import ExecutionStarted, HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import HistoryCache, Lease, OrchestrationWorkItem
from durable_host_providers.azure_storage.fetched import Fetched, Held, Known, copies_of
from durable_host_providers.azure_storage.history_table import HistoryTable, episodes_in
from durable_host_providers.azure_storage.inbox import Inbox
from durable_host_providers.azure_storage.instances_table import InstancesTable, StoredRow, told
from durable_host_providers.azure_storage.mail import back_off_s
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.waiting import Waiter, Waiters, Watcher
from durable_host_providers.azure_storage.wire.errors import WireError

__all__ = ["InstanceLocks"]

_MAX_START_DELIVERIES = 10
_NOTHING = HistoryVersion(0, 0)
_SHORTEST_WAIT = 0.001


class InstanceLocks:
    """The instances that this process works on.

    Args:
        inbox: where messages wait; set after construction, since each needs the other.
    """

    def __init__(
        self,
        settings: AzureSettings,
        environment: Environment,
        history: HistoryTable,
        instances: InstancesTable,
        waiters: Waiters,
        tokens: Iterator[str],
    ) -> None:
        self._settings = settings
        self._clock = environment.clock
        self._history = history
        self._instances = instances
        self._tokens = tokens
        self.inbox: Inbox
        self.waiters = waiters
        self.closed = False
        self._watchers: dict[InstanceId, list[Watcher]] = {}
        self.held: dict[InstanceId, Held] = {}
        self.known: dict[InstanceId, Known] = {}
        self.resting: dict[InstanceId, float] = {}
        self.aside: dict[InstanceId, dict[str, Fetched[Message]]] = {}

    # What the inbox asks and tells.

    def in_hand(self, queue: str) -> int:
        """How many instances of a control queue are being worked on."""
        return sum(held.queue == queue for held in self.held.values())

    def partition_lost(self, queue: str) -> None:
        """Somebody else may work on these instances now."""
        for held in list(self.held.values()):
            if held.queue == queue:
                held.lost = True
                self.forget(held)
        for instance_id in list(self.known):
            if self._settings.layout.control_queue_for(instance_id) == queue:
                del self.known[instance_id]

    # Locking.

    async def lock(self, limit: int, wait: timedelta, cache: HistoryCache) -> Sequence[OrchestrationWorkItem]:
        """See `TaskHubStore.lock_orchestrations`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        if limit <= 0:
            return ()
        waiter = self.waiters.join()
        try:
            if wait <= timedelta(0):
                await self.settle()
                await self.inbox.look()
            while True:
                waiter.clear()
                items = await self._open_ready(limit, cache)
                left = end - loop.time()
                if items or left <= 0 or self.closed:
                    return items
                await self._wait(waiter, limit, left)
        finally:
            self.waiters.leave(waiter)

    async def _wait(self, waiter: Waiter, limit: int, left: float) -> None:
        pause = left
        if self.inbox.pending:
            now = self._clock.monotonic()
            ends = [held.until for held in self.held.values()] + list(self.resting.values())
            pause = min(pause, max(_SHORTEST_WAIT, min(ends, default=math.inf) - now))
        waiter.free = limit
        try:
            await waiter.wait(pause)
        finally:
            waiter.free = 0

    async def settle(self) -> None:
        """Wait until what follows the histories of earlier commits is written."""
        while tails := [held.tail for held in self.held.values() if held.tail is not None]:
            await asyncio.wait(tails)

    async def settle_one(self, instance_id: InstanceId) -> None:
        """The same for one instance."""
        held = self.held.get(instance_id)
        while held is not None and held.tail is not None:
            await asyncio.wait([held.tail])

    # Watching.

    def shown(self, instance_id: InstanceId, row: StoredRow) -> None:
        """This process has written the instance's row."""
        watchers = self._watchers.get(instance_id)
        if watchers is None:
            return
        state = told(row)
        for watcher in watchers:
            if row.state.status.is_terminal or not watcher.ends_only:
                watcher.tell(state)

    @contextlib.contextmanager
    def watching(self, instance_id: InstanceId, *, ends_only: bool = False) -> Generator[Watcher]:
        """Told whenever this process has written the instance's row, or its end."""
        watcher = Watcher(ends_only)
        self._watchers.setdefault(instance_id, []).append(watcher)
        try:
            yield watcher
        finally:
            watchers = self._watchers[instance_id]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[instance_id]

    def lives(self, instance_id: InstanceId) -> bool:
        """Whether this process knows that the instance is there and goes on; its end will be told."""
        known = self.known.get(instance_id)
        if known is None or known.state is None or known.state.status.is_terminal:
            return False
        return self.inbox.owns(self._settings.layout.control_queue_for(instance_id))

    async def _open_ready(self, limit: int, cache: HistoryCache) -> Sequence[OrchestrationWorkItem]:
        if self.closed:
            return ()
        self.reap()
        items: list[OrchestrationWorkItem] = []
        opened: list[Held] = []
        for instance_id in list(self.inbox.pending):
            if len(items) + len(opened) >= limit:
                break
            held = self.held.get(instance_id)
            if self.resting.get(instance_id, 0.0) > self._clock.monotonic():
                continue
            if held is not None:
                item = self._top_up(held)
                if item is not None:
                    items.append(item)
            else:
                opened.append(self._begin(instance_id))
        if not opened:
            return items
        try:
            items += await self._open_all(opened, cache)
        except BaseException:
            # What was topped up waits for no later call: its messages count as delivered, so it is offered again.
            for item in items:
                self._offer_again(item)
            for held in opened:
                self.reopen(held)
            raise
        return items

    def _begin(self, instance_id: InstanceId) -> Held:
        messages = self.inbox.pending.pop(instance_id)
        until = min((fetched.until for fetched in copies_of(messages)), default=self._clock.monotonic())
        held = Held(
            instance_id,
            next(self._tokens),
            until,
            self._settings.layout.control_queue_for(instance_id),
            messages,
        )
        self.held[instance_id] = held
        return held

    async def _open_all(self, opened: Sequence[Held], cache: HistoryCache) -> list[OrchestrationWorkItem]:
        if len(opened) == 1:
            found = [await self._open(opened[0], cache)]
        else:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._open(held, cache)) for held in opened]
            except BaseExceptionGroup as failed:
                raise _first(failed) from None
            found = [task.result() for task in tasks]
        return [item for item in found if item is not None]

    async def _open(self, held: Held, cache: HistoryCache) -> OrchestrationWorkItem | None:
        history = await self._load(held, cache)
        await self._sort_out(held)
        known = held.known
        if not held.messages or known is None or held.lost:
            self.forget(held)
            return None
        return OrchestrationWorkItem(
            held.instance_id, known.version, history, _inbox(_copies_of_each(held)), self.lease_of(held)
        )

    def lease_of(self, held: Held) -> Lease:
        """The lease as it stands."""
        left = max(0.0, held.until - self._clock.monotonic())
        return Lease(held.instance_id, held.token, timedelta(seconds=left))

    async def _load(self, held: Held, cache: HistoryCache) -> Sequence[HistoryEvent] | None:
        instance_id = held.instance_id
        known = self.known.get(instance_id)
        if known is not None and known.version is None:
            held.known = known  # created here, and nobody else can have begun it
            return ()
        if known is not None and known.version is not None and cache.holds(instance_id, known.version):
            held.known = known
            return None
        self.known.pop(instance_id, None)
        # INVARIANT: the row before the history, see the module.
        row = await self._instances.read(instance_id)
        state = None if row is None else row.state
        known = held.known = Known(row=row)
        try:
            stored = await self._history.read(instance_id)
        except WireError:
            known.sentinel = await self._history.sentinel(instance_id)
            known.version = HistoryVersion(1, 0) if state is None else state.version
            return None  # `get_history` tells what is wrong, for this instance alone
        known.version, known.sentinel = stored.version, stored.sentinel
        known.episodes = episodes_in(stored.events)
        known.blobs = list(stored.blobs)
        if known.version is None and state is not None:
            known.version = state.version  # ended before it began: there is a row and no history
            if known.version is None and state.status is RuntimeStatus.TERMINATED:
                # Ended so by another writer, which does not say where history stands.
                known.version = _NOTHING
        if known.version is not None and cache.holds(instance_id, known.version):
            return None
        return stored.events

    async def _sort_out(self, held: Held) -> None:
        """Put away what must not be delivered: of a quarantined instance, and starts that their row disowns."""
        known = held.known
        assert known is not None
        if known.state is not None and known.state.quarantined is not None:
            await self._set_aside(held)
            return
        fresh = False
        for id, copies in list(held.messages.items()):
            event = copies[-1].body.event
            if not isinstance(event, ExecutionStarted) or event.parent is not None:
                continue
            if copies[-1].origin.sender.instance_id:
                continue  # an orchestration's; only clients make rows
            if known.state is None or known.state.execution_id != event.execution_id:
                if not fresh and known is self.known.get(held.instance_id):
                    known.row = await self._instances.read(held.instance_id)
                fresh = True
            if known.state is not None and known.state.execution_id in ("", event.execution_id):
                continue
            # Of another creator, or its row is not there yet (azure-storage-task-hub.md 6.3).
            del held.messages[id]
            for fetched in copies:
                if fetched.stored.dequeue_count >= _MAX_START_DELIVERIES:
                    await fetched.remove()
                else:
                    await self.hide(fetched, back_off_s(fetched.stored.dequeue_count))

    def _top_up(self, held: Held) -> OrchestrationWorkItem | None:
        """What has arrived for an instance that the worker keeps between episodes."""
        if not held.holding or held.busy or held.tail is not None or held.known is None:
            return None
        fresh: dict[str, list[Fetched[Message]]] = {}
        for id, copies in self.inbox.pending.pop(held.instance_id).items():
            if id in held.messages:
                held.messages[id] += copies
            else:
                held.messages[id] = fresh[id] = copies
        if not fresh:
            return None
        return OrchestrationWorkItem(
            held.instance_id, held.known.version, None, _inbox(fresh.values()), self.lease_of(held)
        )

    def _offer_again(self, item: OrchestrationWorkItem) -> None:
        held = self.held.get(item.instance_id)
        if held is None or held.token != item.lease.token:
            return
        for message in item.inbox:
            for fetched in held.messages.pop(message.id, ()):
                self.inbox.pend(fetched)

    # Letting go.

    def reap(self) -> None:
        """Forget leases whose time is over; others may fetch their messages now."""
        now = self._clock.monotonic()
        for held in list(self.held.values()):
            if held.until <= now and held.tail is None and not held.busy:
                self.forget(held)
        for instance_id, until in list(self.resting.items()):
            if until <= now:
                del self.resting[instance_id]
        self.inbox.prune()

    def forget(self, held: Held) -> None:
        """It is not ours any more, or never was."""
        if self.held.get(held.instance_id) is held:
            del self.held[held.instance_id]
        self.known.pop(held.instance_id, None)
        self._let_go(held)

    def reopen(self, held: Held) -> None:
        """Undo a lock: its messages wait here again."""
        if self.held.get(held.instance_id) is not held:
            return
        del self.held[held.instance_id]
        for fetched in copies_of(held.messages):
            self.inbox.pend(fetched)
        held.messages = {}
        self._let_go(held)

    def release(self, held: Held) -> None:
        """The lease ends with a commit: what it did not take is delivered again, and counted."""
        for fetched in copies_of(held.messages):
            fetched.again += 1
        self.reopen(held)

    def _let_go(self, held: Held) -> None:
        self.inbox.released(held.queue)
        if self.inbox.pending:
            self.waiters.wake()

    def remember(self, instance_id: InstanceId, known: Known) -> None:
        """Keep where an instance stands, so that it need not be read again."""
        self.known.pop(instance_id, None)
        self.known[instance_id] = known
        if len(self.known) > self._settings.known:
            del self.known[next(iter(self.known))]

    async def hide(self, fetched: Fetched[Message], seconds: int) -> None:
        """Keep a message from everybody for so long, whatever happens to it meanwhile."""
        if await fetched.hide(seconds, self._clock.monotonic()):
            self.inbox.signal(fetched.queue.name, seconds)

    def require(self, lease: Lease) -> Held | None:
        """The lock of a lease, if it is still ours."""
        held = self.held.get(InstanceId(lease.key))
        return held if held is not None and held.token == lease.token and not held.lost else None

    # What workers do with leases.

    async def renew(self, lease: Lease) -> Lease | None:
        """Extend a lease; None: lost. Called from any thread."""
        held = self.require(lease)
        if held is None or held.ending or held.until <= self._clock.monotonic():
            return None
        seconds = self._settings.control_visibility_s
        until = self._clock.monotonic() + seconds
        # A message that is gone was deleted by the commit that is under way, or another owner has it: the ETag decides.
        await asyncio.gather(*(fetched.hide(seconds, self._clock.monotonic()) for fetched in copies_of(held.messages)))
        held.until = until
        return replace(lease, remaining=timedelta(seconds=seconds))

    async def give_back(self, held: Held, delay_s: int) -> None:
        """Show the messages of an instance that was let go.

        What arrives meanwhile waits for them: a worker must not see an event for an instance whose start is held back.
        """
        if delay_s > 0:
            self.resting[held.instance_id] = self._clock.monotonic() + delay_s
        await asyncio.gather(*(self.hide(fetched, delay_s) for fetched in copies_of(held.messages)))

    def wake_for(self, held: Held) -> None:
        """It is held, and what has arrived for it meanwhile may be delivered."""
        if held.instance_id in self.inbox.pending:
            self.waiters.wake()

    async def quarantine(self, held: Held, reason: str) -> bool:
        """Take it out of circulation; False: another has it."""
        await self.settle_one(held.instance_id)
        if self.held.get(held.instance_id) is not held:
            return False
        row = await self._instances.read(held.instance_id)
        known = held.known
        if known is not None and await self._history.sentinel(held.instance_id) != known.sentinel:
            return False
        if row is not None and await self._instances.quarantine(reason, row) is None:
            return False
        self.forget(held)
        await self._set_aside(held)
        return True

    async def _set_aside(self, held: Held) -> None:
        """Hide the messages of a quarantined instance."""
        aside = self.aside.setdefault(held.instance_id, {})
        for fetched in copies_of(held.messages):
            await self.hide(fetched, 600)
            aside[fetched.stored.id] = fetched
        held.messages.clear()

    async def bring_back(self, instance_id: InstanceId) -> None:
        """Show the messages of an instance that was released; what other hosts have hidden comes by itself."""
        aside = self.aside.pop(instance_id, {})
        await asyncio.gather(*(self.hide(fetched, 0) for fetched in aside.values()))

    async def close(self) -> None:
        """Show to others what is held; lock calls that wait return."""
        self.closed = True
        self.waiters.wake()
        held, self.held = dict(self.held), {}
        for each in held.values():
            self.inbox.released(each.queue)  # a drain that waits for it would wait to its limit
        now = self._clock.monotonic()
        shown = [fetched.hide(0, now) for each in held.values() for fetched in copies_of(each.messages)]
        for outcome in await asyncio.gather(*shown, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreError):
                raise outcome


def _copies_of_each(held: Held) -> list[list[Fetched[Message]]]:
    """The inbox of an instance, by message."""
    return list(held.messages.values())


def _inbox(messages: Iterable[Sequence[Fetched[Message]]]) -> list[Message]:
    """Messages as they are delivered, oldest first."""
    ordered = sorted(messages, key=lambda copies: min(each.order for each in copies))
    return [replace(copies[-1].body, deliveries=copies[-1].deliveries) for copies in ordered]


def _first(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        failed = cast("BaseExceptionGroup[BaseException]", failed).exceptions[0]
    return failed
