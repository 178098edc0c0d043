"""What clients and operators do: create, send, ask, purge."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

import msgspec

from durable_host.environment import Environment
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import HubStatistics, has_changed
from durable_host_providers.azure_storage.fetched import Known, copies_of
from durable_host_providers.azure_storage.handed_back import HandedBackTable
from durable_host_providers.azure_storage.history_table import HistoryTable
from durable_host_providers.azure_storage.instances_table import InstancesTable, RowMovedError, StoredRow
from durable_host_providers.azure_storage.locking import InstanceLocks
from durable_host_providers.azure_storage.origin import BY_CLIENT
from durable_host_providers.azure_storage.outbox import Handed, Outbox
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import MAX_GET, NotFoundError, Queue, QueueMessage, StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.wire.filters import ALL_INSTANCES, matches, query_filter
from durable_host_providers.azure_storage.wire.instance_rows import WITHOUT_PAYLOADS

__all__ = ["Client"]

_FIRST_POLL = 0.02
_LAST_POLL = 2.0


class Client:
    """One process's way to ask a hub."""

    def __init__(
        self,
        account: StorageAccount,
        settings: AzureSettings,
        environment: Environment,
        locks: InstanceLocks,
        history: HistoryTable,
        instances: InstancesTable,
        blobs: PayloadBlobs,
        outbox: Outbox,
        handed_back: HandedBackTable,
    ) -> None:
        self._account = account
        self._settings = settings
        self._clock = environment.clock
        self._locks = locks
        self._history = history
        self._instances = instances
        self._blobs = blobs
        self._outbox = outbox
        self._handed_back = handed_back
        self._absent: dict[InstanceId, float] = {}

    # Creating and sending.

    async def create(self, start: Message, replaceable: Collection[RuntimeStatus]) -> bool:
        """See `TaskHubStore.create_instance`. The message first: a row without one would be Pending for ever."""
        await self._locks.settle_one(start.target)
        # Nothing gives way to a generated id; whether it is new after all, the insert tells.
        looks = bool(replaceable) and not self._was_absent(start.target)
        row = await self._instances.read(start.target) if looks else None
        if _is_this(row, start):
            return True
        if row is not None and not _gives_way(row.state, replaceable):
            return False
        fresh = row is None
        handed = Handed()
        await self._outbox.send(start, BY_CLIENT, handed)
        try:
            while True:
                try:
                    created = await self._instances.create(start, row)
                except RowMovedError:
                    row, fresh = await self._instances.read(start.target), False
                else:
                    break
                if _is_this(row, start):
                    self._outbox.show(handed)
                    return True
                if row is not None and not _gives_way(row.state, replaceable):
                    self._outbox.show(handed)
                    return False  # another creator's; the message that is out finds itself disowned
                # The message that is out may have met the instance alive, and been dropped.
                await self._outbox.send(start, BY_CLIENT)
        except BaseException:
            self._outbox.show(handed)
            raise
        if handed.messages and fresh:
            # Nothing was there before, so there is nothing to read: the insert of the sentinel proves it.
            self._locks.remember(start.target, Known(row=created))
        self._outbox.deliver(handed)
        return True

    async def send(self, messages: Sequence[Message]) -> None:
        """See `TaskHubStore.send`."""
        for message in messages:
            handed = Handed()
            await self._outbox.send(message, BY_CLIENT, handed)
            self._outbox.deliver(handed)

    # Asking.

    async def get(self, instance_id: InstanceId, *, with_payloads: bool) -> InstanceState | None:
        """See `TaskHubStore.get_instance`."""
        await self._locks.settle_one(instance_id)
        found = await self._instances.load(instance_id, with_payloads=with_payloads)
        if found is None:
            if len(self._absent) >= _ABSENT:
                self._absent.clear()
            self._absent[instance_id] = self._clock.monotonic()
        return found

    def _was_absent(self, instance_id: InstanceId) -> bool:
        """Whether somebody has just looked for the row, as every start of a chosen id does, and found none.

        Should one have come since, the insert meets it. Once only: what is tried again looks for itself.
        """
        looked_at = self._absent.pop(instance_id, None)
        return looked_at is not None and self._clock.monotonic() - looked_at < _FRESH_S

    async def wait_for_change(
        self, instance_id: InstanceId, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        """See `TaskHubStore.wait_for_change`. Told at once of what this process writes; else asks now and then."""
        return await self._wait(instance_id, timeout, lambda state: has_changed(after, state))

    async def wait_for_end(self, instance_id: InstanceId, timeout: timedelta) -> InstanceState | None:
        """See `TaskHubStore.wait_for_end`."""
        # What this process works on is there, and lives; a look could only say so.
        lives = self._locks.lives(instance_id)
        seen = lives

        def has_ended(state: InstanceState | None) -> bool:
            nonlocal seen
            if state is None:
                return seen
            seen = True
            return state.status.is_terminal

        return await self._wait(instance_id, timeout, has_ended, ends_only=True, lives=lives)

    async def _wait(
        self,
        instance_id: InstanceId,
        timeout: timedelta,
        done: Callable[[InstanceState | None], bool],
        *,
        ends_only: bool = False,
        lives: bool = False,
    ) -> InstanceState | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        queue = self._settings.layout.control_queue_for(instance_id)
        pause = _FIRST_POLL
        with self._locks.watching(instance_id, ends_only=ends_only) as written:
            if lives:
                await written.wait(min(timeout.total_seconds(), _LAST_POLL))
            while True:
                state = written.take()
                if state is None:
                    state = await self.get(instance_id, with_payloads=True)
                left = end - loop.time()
                if done(state) or left <= 0:
                    return state
                own = self._locks.inbox.listens(queue)
                await written.wait(min(left, _LAST_POLL if own else pause))
                pause = min(pause * 2, _LAST_POLL)

    async def history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        """See `TaskHubStore.get_history`."""
        await self._locks.settle_one(instance_id)
        row, stored = await asyncio.gather(self._instances.read(instance_id), self._history.read(instance_id))
        if row is None:
            return None
        # A start that replaces the instance waits: what stands is another execution's.
        return () if row.state.version is None and row.state.status is RuntimeStatus.PENDING else stored.events

    async def query(self, query: InstanceQuery) -> InstancePage:
        """See `TaskHubStore.query_instances`."""
        await self._locks.settle()
        after = None if query.cursor is None else _read_cursor(query.cursor)
        filter = query_filter(query, after=after) or ALL_INSTANCES
        select = () if query.with_payloads else WITHOUT_PAYLOADS
        found: list[InstanceState] = []
        continuation: str | None = None
        while True:
            top = min(1_000, query.limit + 1 - len(found))
            page = await self._instances.page(filter, select=select, top=top, continuation=continuation)
            states = await self._instances.resolve_all(page.rows, with_payloads=query.with_payloads)
            found += [state for state in states if matches(query, state)]
            continuation = page.continuation
            if continuation is None or len(found) > query.limit:
                break
        shown = tuple(found[: query.limit])
        return InstancePage(shown, _cursor(shown[-1].instance_id) if len(found) > query.limit else None)

    # Operating.

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool) -> int:
        """See `TaskHubStore.purge`."""
        outcomes = await asyncio.gather(*(self._purge(each, force) for each in dict.fromkeys(instance_ids)))
        return sum(outcomes)

    async def _purge(self, instance_id: InstanceId, force: bool) -> bool:
        await self._locks.settle_one(instance_id)
        row = await self._instances.read(instance_id)
        if row is None and not force:
            return False
        if row is not None and not force and not row.state.status.is_terminal:
            return False
        held = self._locks.held.get(instance_id)
        if held is not None and force:
            held.lost = True
            self._locks.forget(held)
        self._locks.known.pop(instance_id, None)
        await self._history.delete(instance_id)
        if row is not None:
            await self._instances.delete(row)
        await self._blobs.remove_all(instance_id)
        messages = self._locks.inbox.pending.pop(instance_id, {})
        if held is not None and force:
            messages = {**messages, **held.messages}
        await asyncio.gather(*(fetched.remove() for fetched in copies_of(messages)))
        self._locks.aside.pop(instance_id, None)
        return row is not None

    async def release(self, instance_ids: Collection[InstanceId]) -> int:
        """See `TaskHubStore.release_quarantined`."""
        released = 0
        for instance_id in dict.fromkeys(instance_ids):
            if await self._instances.release(instance_id):
                released += 1
                await self._locks.bring_back(instance_id)
        return released

    async def statistics(self) -> HubStatistics:
        """See `TaskHubStore.statistics`; queues tell only about how much they hold, and show 32 messages."""
        await self._locks.settle()
        instances, quarantined = await self._count_instances()
        controls = [self._account.queue(name) for name in self._settings.layout.control_queues]
        looks = await asyncio.gather(*(_look(queue) for queue in controls))
        work = await _look(self._account.queue(self._settings.layout.work_items))
        now = self._clock.now()
        waiting = sum(look.visible for look in looks)
        in_memory = [fetched for each in self._locks.inbox.pending.values() for fetched in copies_of(each)]
        held = sum(len(list(copies_of(each.messages))) for each in self._locks.held.values())
        total = sum(look.total for look in looks)
        ages = [*(each for look in looks for each in look.inserted), *(each.stored.inserted_at for each in in_memory)]
        return HubStatistics(
            instances,
            inbox_waiting=waiting + len(in_memory),
            inbox_delayed=max(0, total - waiting - len(in_memory) - held),
            activities_waiting=work.visible,
            activities_running=max(0, work.total - work.visible),
            oldest_message_age=_age(ages, now),
            oldest_activity_age=_age(work.inserted, now),
            quarantined=quarantined,
            handed_back=await self._handed_back.waiting({id for look in (*looks, work) for id in look.ids}),
        )

    async def _count_instances(self) -> tuple[dict[str, int], int]:
        counts: dict[str, int] = {}
        quarantined = 0
        continuation: str | None = None
        while True:
            page = await self._instances.page(
                ALL_INSTANCES, select=("RuntimeStatus", "Quarantined"), continuation=continuation
            )
            for row in page.rows:
                status = str(row.values.get("RuntimeStatus", ""))
                counts[status] = counts.get(status, 0) + 1
                quarantined += status == RuntimeStatus.FAILED.value and bool(row.values.get("Quarantined"))
            continuation = page.continuation
            if continuation is None:
                return counts, quarantined


class _Look(msgspec.Struct, frozen=True):
    total: int = 0
    visible: int = 0
    inserted: Sequence[datetime] = ()
    ids: Sequence[str] = ()


async def _look(queue: Queue) -> _Look:
    try:
        total, messages = await asyncio.gather(queue.count(), queue.peek(MAX_GET))
    except NotFoundError:
        return _Look()
    full = len(messages) == MAX_GET
    return _Look(total, total if full else len(messages), _times(messages), [each.id for each in messages])


def _times(messages: Sequence[QueueMessage]) -> list[datetime]:
    return [message.inserted_at for message in messages]


def _age(times: Sequence[datetime], now: datetime) -> float | None:
    return max(0.0, (now - min(times)).total_seconds()) if times else None


def _is_this(row: StoredRow | None, start: Message) -> bool:
    return row is not None and (row.state.execution_id == start.execution_id or row.start_id == start.id)


def _gives_way(state: InstanceState, replaceable: Collection[RuntimeStatus]) -> bool:
    return state.quarantined is None and state.status in replaceable


_CURSOR = "after:"
_ABSENT = 1_000
_FRESH_S = 1.0


def _cursor(instance_id: str) -> str:
    text = f"{_CURSOR}{instance_id}".encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(text).decode()


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise ValueError(f"the cursor {cursor[:50]!r} is not one of this hub") from error
    if not text.startswith(_CURSOR):
        raise ValueError(f"the cursor {cursor[:50]!r} is not one of this hub")
    return text.removeprefix(_CURSOR)
