"""The stores that chaos runs on: how to make one, and how to hurt it."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.strikes import Strike

__all__ = ["GivenStore", "PostgresStore", "SqliteStore", "Store", "make_store"]


_AFTERMATH_SECONDS = 5.0


class Store(ABC):
    """A place for one hub. Entered: there; left: gone, where it was made for the run.

    Attributes:
        url: as `--storage` takes it.
        kinds: the strikes that it knows.
        secrets: must show up in no log.
        returns_within: seconds after which hosts must commit again once it is back.
        down: set while it is out of reach because of a strike, and while hosts may still suffer from that.
        on_return: called when it has come back.
        is_up: whether it can be reached now.
    """

    url: str
    kinds: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = ()
    returns_within: float = math.inf  # a host that is paused in the middle of a transaction keeps the file

    def __init__(self) -> None:
        self.down = asyncio.Event()
        self.on_return: Callable[[], None] = lambda: None
        self.is_up = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(  # noqa: B027  # not every store has something to end
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def tell(self, counts: Counter[str]) -> None:  # noqa: B027  # not every store keeps a log
        """Count what the store itself has noticed."""

    @abstractmethod
    async def suffer(self, strike: Strike, counts: Counter[str]) -> None:
        """Carry a strike out, and count it."""


class GivenStore(Store):
    """Somebody else's: left alone."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def suffer(self, strike: Strike, counts: Counter[str]) -> None:
        raise AssertionError(strike)


class SqliteStore(Store):
    """A file in the run's folder; now and then another process keeps it locked for longer than hosts wait."""

    kinds = frozenset({"lock"})

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "hub.db"
        self.url = f"sqlite:///{self._file}"

    async def suffer(self, strike: Strike, counts: Counter[str]) -> None:
        other = sqlite3.connect(self._file, isolation_level=None, timeout=0)
        try:
            while True:
                try:
                    other.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError:
                    await asyncio.sleep(0.001)
            counts["locks"] += 1
            self.down.set()
            self.is_up = False
            await asyncio.sleep(0.5 + 6.5 * strike.strength)
            other.execute("ROLLBACK")
        finally:
            other.close()
            self.is_up = True
            self.on_return()
            self.down.clear()


class PostgresStore(Store):
    """A server of the run's own."""

    returns_within = 15.0  # 5 are promised, of a machine that does nothing else
    kinds = frozenset({"cut all", "cut one", "restart fast", "restart immediate", "outage", "crash", "freeze"})

    def __init__(self) -> None:
        super().__init__()
        from tests.servers.postgres import PASSWORD, PostgresServer

        self._server = PostgresServer()
        self._database = ""
        self._turn = asyncio.Lock()
        self._falls = 0
        self.secrets = (PASSWORD, PASSWORD.replace(" ", "%20"))

    async def __aenter__(self) -> Self:
        self._server.__enter__()
        self._database = self._server.create_database()
        self.url = self._server.url(self._database)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(exc_type, exc, traceback)

    async def suffer(self, strike: Strike, counts: Counter[str]) -> None:
        async with self._turn:
            match strike.kind:
                case "cut all":
                    counts["cuts of all connections"] += 1
                    counts["connections cut"] += self._server.cut_connections(self._database)
                case "cut one":
                    counts["connections cut"] += self._cut_one(strike.chance)
                case _:
                    self.down.set()
                    self.is_up = False
                    self._falls += 1
                    await self._fell(strike, counts)
                    self.is_up = True
                    self.on_return()
                    # What started meanwhile may not have noticed yet.
                    asyncio.get_running_loop().call_later(_AFTERMATH_SECONDS, self._stands, self._falls)
                    await asyncio.sleep(1)

    def tell(self, counts: Counter[str]) -> None:
        log = self._server.printed()
        counts["deadlocks"] += log.count("deadlock detected")
        for error, number in Counter(re.findall(r" ERROR: +(.*)", log)).items():
            counts[f"server: {error}"[:60]] += number

    def _stands(self, falls: int) -> None:
        if falls == self._falls:
            self.down.clear()

    def _cut_one(self, chance: float) -> int:
        found = self._server.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend' ORDER BY pid",
            self._database,
        )
        if not found:
            return 0
        pid = found[int(chance * len(found))][0]
        return int(self._server.execute("SELECT pg_terminate_backend(%s)::int", pid)[0][0])

    async def _fell(self, strike: Strike, counts: Counter[str]) -> None:
        """Take the server away, and bring it back."""
        server = self._server
        # A server that ends may wait for a client that is paused, so the run must go on meanwhile. It is started on
        # this thread, since it ends with the thread that has started it, should the run be killed.
        match strike.kind:
            case "restart fast":
                await asyncio.to_thread(server.stop, "fast")
            case "restart immediate":
                await asyncio.to_thread(server.stop, "immediate")
            case "crash":
                await asyncio.to_thread(server.kill)
                counts["crashes"] += 1
            case "outage":
                await asyncio.to_thread(server.stop, "fast")
                await asyncio.sleep(2 + 6 * strike.strength)
                counts["outages"] += 1
            case "freeze":
                await self._freeze(1 + 9 * strike.strength)
                counts["freezes"] += 1
                return
            case _:
                raise AssertionError(strike)
        server.start()
        counts["restarts"] += 1

    async def _freeze(self, seconds: float) -> None:
        """Nobody gets an answer for a while, as when a network is cut; leases go on running out."""
        family = _family(self._server.pid)
        _signal(family, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(family, signal.SIGCONT)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(each) for each in children.read_text(encoding="ascii").split())] if children.exists() else [pid]


def _signal(family: list[int], number: signal.Signals) -> None:
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def make_store(choice: str, folder: Path) -> Store:
    """The store that the command line names: `sqlite`, `postgres`, or the URL of one to be left alone."""
    if choice == "sqlite":
        return SqliteStore(folder)
    if choice == "postgres":
        return PostgresStore()
    return GivenStore(choice)
