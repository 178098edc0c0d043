"""The storage contract on a SQLite file."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Sequence
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from durable_host.environment import Environment
from durable_host.errors import UnsupportedError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
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
)
from durable_host_providers._sql.watching import Watchers, WatchingStore

from .hub_file import HubFile, create_hub, delete_hub
from .instances import Start, purge, quarantine, release_quarantined
from .reader import Reader, history_of, page_of
from .settings import Settings
from .statistics import statistics_at
from .ticker import Ticker
from .transaction import SQL, Transaction
from .waiting import ActivityWaiter, InstanceWaiter, Promise, Waiter, Watch
from .writer import Writer

__all__ = ["MemorySqliteTaskHubStore", "SqliteTaskHubStore"]

T = TypeVar("T")

_siblings: dict[str, weakref.WeakSet[SqliteTaskHubStore]] = {}
"""Open stores of this process by file: they tell each other of changes, so that only other processes are polled for."""


class SqliteTaskHubStore(WatchingStore[Watch]):
    """One store object on a hub file. Any number of them, in any number of processes, may be open on one file.

    `create`, `delete` and entering work on any loop; `renew` may be called from another loop than the rest.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(commit_concurrency=2, max_lease=timedelta(hours=1))

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self._watchers: Watchers[Watch] = Watchers(Promise)
        file = HubFile(settings, environment)
        self.reader = Reader(settings, file.health)
        self.writer = Writer(
            settings,
            environment,
            file,
            self._watchers,
            load=self.reader.load,
            reading=self.reader.submit,
            wake_at=self._wake_at,
            wrote=self._wrote,
        )
        self._ticker = Ticker(environment.clock, self._poke)
        self._open = False

    # Life cycle.

    async def create(self) -> None:
        if self._settings.path is not None:
            await self._environment.threads.run(create_hub, self._settings, self._environment)

    async def delete(self) -> None:
        if self._open:
            await self._close()
        await self._environment.threads.run(delete_hub, self._settings)

    async def __aenter__(self) -> Self:
        threads = self._environment.threads
        thread = threads.serial("durable-host-sqlite-writer")
        shared = self._settings.path is None
        self.writer.start(thread)
        if shared:
            self.reader.start(thread, self.writer.file.connection)
        else:
            self.reader.start(threads.serial("durable-host-sqlite-reader"), None)
        self._ticker.start()
        self._open = True
        try:
            await self.writer.open()
        except BaseException:
            await self._close()
            raise
        if self._settings.path is not None:
            _siblings.setdefault(str(self._settings.path), weakref.WeakSet()).add(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._open:
            await self._close()

    async def _close(self) -> None:
        self._open = False
        self._ticker.stop()
        if self._settings.path is not None and (siblings := _siblings.get(str(self._settings.path))) is not None:
            siblings.discard(self)
            if not siblings:
                _siblings.pop(str(self._settings.path), None)
        await self.reader.stop()
        await self.writer.stop()
        self._wrote()

    async def check(self) -> None:
        now = str(self._environment.clock.now().timestamp())

        def touch(tx: Transaction) -> None:
            # Some pages more for a moment: a file that cannot grow is not ready, even if it takes small changes.
            tx.execute(SQL["touch"], (_SEVERAL_PAGES,))
            tx.execute(SQL["touch"], (now,))

        await self.writer.call(touch, durable=False)
        await self.reader.call(lambda execute: execute(SQL["touched"]).fetchone())

    # Worker.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        waiter = InstanceWaiter(min(limit, self.traits.lock_batch), wait <= _NO_TIME, cache, self.writer.give_back)
        return await self._lock(waiter, wait)

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        waiter = ActivityWaiter(min(limit, self.traits.lock_batch), wait <= _NO_TIME, self.writer.give_back)
        return await self._lock(waiter, wait)

    async def _lock(self, waiter: Waiter[Sequence[T]], wait: timedelta) -> Sequence[T]:
        if waiter.limit < 1:
            return ()
        self.writer.wait(waiter)
        if waiter.at_once:
            return await self._fetch(waiter)
        alarm = waiter.loop.call_later(wait.total_seconds(), _expire, waiter)
        try:
            return await self._fetch(waiter)
        finally:
            alarm.cancel()

    async def _fetch(self, waiter: Waiter[Sequence[T]]) -> Sequence[T]:
        try:
            return await waiter.future
        except asyncio.CancelledError:
            # What the writer has locked for this call is given back: now, or when it tries to deliver it.
            if not waiter.take() and waiter.future.done() and not waiter.future.cancelled():
                waiter.refuse(waiter.future.exception() or waiter.future.result())
            raise

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for checkpoint in checkpoints:
            check_checkpoint(checkpoint)
        outcomes: Sequence[CommitOutcome] = await self.writer.write("commit", checkpoints).future
        return outcomes

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        outcomes: Sequence[CommitOutcome] = await self.writer.write("complete", completions).future
        return outcomes

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return await self.writer.call(self.writer.renewal(leases), durable=False)

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        await self.writer.call(self.writer.abandonment(leases, delay), durable=False)

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        return await self.writer.call(lambda tx: quarantine(tx, lease, reason))

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        _refuse(transaction)
        created: bool = await self.writer.write("create", Start(start, replaceable)).future
        return created

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        _refuse(transaction)
        if messages:
            await self.writer.write("send", messages).future

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        return await self.writer.call(lambda tx: release_quarantined(tx, instance_ids))

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        return await self.reader.get(instance_id, with_payloads)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        return await self.reader.call(page_of(query))

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        return await self.reader.call(history_of(instance_id))

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        return await self.writer.call(lambda tx: purge(tx, instance_ids, force))

    async def statistics(self) -> HubStatistics:
        return await self.reader.call(statistics_at(self._environment.clock.now()))

    def _runs_here(self, instance_id: InstanceId) -> bool:
        return self.writer.is_running(instance_id)

    async def _told(self, watch: Watch, seconds: float) -> InstanceState | None:
        self.writer.watch()
        alarm = watch.loop.call_later(seconds, watch.settle, None)
        try:
            return await watch.future
        finally:
            alarm.cancel()

    # Waking.

    def _wake_at(self, due: int) -> None:
        self._ticker.wake_at(due)

    def _poke(self) -> None:
        self.writer.poke()

    def _wrote(self) -> None:
        """Tell the other stores of this process on the same file."""
        if self._settings.path is not None:
            for sibling in list(_siblings.get(str(self._settings.path), ())):
                if sibling is not self:
                    sibling.writer.poke()


class MemorySqliteTaskHubStore(SqliteTaskHubStore):
    """A hub in memory: for this store object alone, and gone with it."""

    traits: ClassVar[StoreTraits] = StoreTraits(commit_concurrency=2, max_lease=timedelta(hours=1), durable=False)


_NO_TIME = timedelta(0)
_SEVERAL_PAGES = " " * 20_000


def _expire(waiter: Waiter[Sequence[T]]) -> None:
    if waiter.expire():
        waiter.settle(())


def _refuse(transaction: object | None) -> None:
    if transaction is not None:
        raise UnsupportedError(
            "SQLite takes no transaction of the caller: a hub file has one writer. Leave `transaction` out, or use a "
            "store with caller transactions."
        )
