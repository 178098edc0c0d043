"""The SQLite provider under simulation: one file, one store object for each process, all on one virtual loop.

Threads are jobs on the loop, so that order is the seed's. Processes share this process, and the store's own wake-up
between siblings stands for the polling of a file; a death closes what the operating system would close.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

from durable_host.environment import Environment
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.environment import InlineSerialThread
from durable_host.testing.faults import FaultPlan
from durable_host.testing.simulation import SimulatedHub
from durable_host_providers.sqlite import store as sqlite_store
from durable_host_providers.sqlite.settings import Settings
from durable_host_providers.sqlite.store import SqliteTaskHubStore
from durable_host_providers.sqlite.waiting import Waiter

__all__ = ["SqliteHub"]

# pyright: reportPrivateUsage=false

T = TypeVar("T")

_MEMORY = Path("/dev/shm")


class _Siblings:
    """The open stores of a file in the order in which they were opened; a weak set's order is nobody's seed."""

    def __init__(self) -> None:
        self._stores: dict[SqliteTaskHubStore, None] = {}

    def add(self, store: SqliteTaskHubStore) -> None:
        self._stores[store] = None

    def discard(self, store: SqliteTaskHubStore) -> None:
        self._stores.pop(store, None)

    def __iter__(self) -> Iterator[SqliteTaskHubStore]:
        return iter(self._stores)


class _WatchedStore(SqliteTaskHubStore):
    """Knows its lock calls, to tell what was handed over and not fetched."""

    def __init__(self, settings: Settings, environment: Environment) -> None:
        super().__init__(settings, environment)
        self.locking: dict[Waiter[Sequence[Any]], None] = {}

    async def _lock(self, waiter: Waiter[Sequence[T]], wait: timedelta) -> Sequence[T]:
        self.locking[waiter] = None
        try:
            return await super()._lock(waiter, wait)
        finally:
            del self.locking[waiter]

    def unfetched(self) -> bool:
        return any(
            waiter.future.done()
            and not waiter.future.cancelled()
            and not waiter.future.exception()
            and waiter.future.result()
            for waiter in self.locking
        )


class SqliteHub(SimulatedHub):
    """A hub file that every process of a run opens for itself."""

    name = "sqlite"
    rows = (
        "before anything",
        "with a finished activity not yet committed",
        "with work handed over, not fetched",
        "lease lost while computing",
    )

    def __init__(self, random: Random) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="durable-host-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.settings = Settings(
            hub="simulated",
            path=self.folder / "hub.db",
            location="hub.db",
            lease=timedelta(seconds=30),
            synchronous="off",
            poll=timedelta(0),
        )
        self.siblings = _Siblings()
        sqlite_store._siblings[str(self.settings.path)] = self.siblings  # type: ignore[assignment]  # same methods

    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        return _WatchedStore(self.settings, environment)

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        assert isinstance(store, _WatchedStore)
        if store.unfetched():
            yield "with work handed over, not fetched"

    def vanish(self, store: TaskHubStore) -> None:
        assert isinstance(store, SqliteTaskHubStore)
        self.siblings.discard(store)
        store._open = False
        store._ticker.stop()
        for part in (store.writer, store.reader):
            thread = part._thread
            part._thread = None
            if thread is not None:
                jobs = cast(InlineSerialThread, thread)._jobs
                jobs.extend(_nothing for _ in range(len(jobs)))
                for _ in range(len(jobs) // 2):
                    jobs.popleft()
        file = store.writer.file
        if file._owner_file is not None:
            os.close(file._owner_file._descriptor)  # the file stays, as after a kill
            file._owner_file = None
        if file._connection is not None:
            file._connection.close()
            file._connection = None
        store.reader._connection = None
        # Others see the free lock at one of their next looks.
        asyncio.get_running_loop().call_later(0.5, self._poke)

    def _poke(self) -> None:
        for store in self.siblings:
            store.writer.poke()

    async def close(self) -> None:
        sqlite_store._siblings.pop(str(self.settings.path), None)
        shutil.rmtree(self.folder, ignore_errors=True)


def _nothing() -> None:
    """A job of a process that is gone."""
