"""Connections: opened when needed, dropped when they fail, never more than allowed.

A call that fails because of the connection or the server raises StoreUnavailableError; what it would have written is
unknown then. A call that the server refused because another one was in its way (a deadlock, a row made at the same
time) has had no effect and is made again here.

Two kinds of connections in pools: those for work plan every statement once and for indexes, whatever size the tables
had at that moment, since a queue that was empty when it was looked at is long an hour later; those for questions plan
for the values that are asked for. They are set up after the connection is there: a pooler of connections between us
and the server would refuse settings that come with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import asyncpg

from durable_host.errors import StoreError, StoreMismatchError, StoreUnavailableError

from .settings import Settings

__all__ = ["Connection", "NotAsRememberedError", "Pool", "connect", "is_transient", "no_session", "translate"]

logger = logging.getLogger(__name__)

Row = Sequence[Any]

_CONNECT_SECONDS = 10.0
_CALL_SECONDS = 30.0
_ATTEMPTS = 8
_NOT_AS_REMEMBERED = "DH001"

_WORK = """
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off
"""
_QUESTIONS = "SET plan_cache_mode = force_custom_plan; SET jit = off"

_NO_SESSION = (
    "something on the way to the server, such as PgBouncer, gives the connection to others between two transactions; "
    "set its pool_mode to session, or connect to the server itself"
)


class NotAsRememberedError(Exception):
    """A row is not as this process remembers it; nothing was written."""


class Connection(Protocol):
    """What is used of the driver's connection."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> Sequence[Row]: ...

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    async def add_listener(self, channel: str, callback: Any) -> None: ...

    def add_termination_listener(self, callback: Any) -> None: ...

    def get_server_pid(self) -> int: ...

    def transaction(self) -> Any: ...


async def connect(settings: Settings, *, setup: str | None = None) -> Connection:
    """Open a connection.

    Args:
        setup: statements to begin with.

    Raises:
        StoreUnavailableError: the server cannot be reached, or does not let us in now.
        StoreMismatchError: it does not let us in at all.
    """
    try:
        found = await asyncpg.connect(
            settings.dsn,
            timeout=_CONNECT_SECONDS,
            # A pool watches over its calls by itself: a timer for each would cost more than it guards.
            command_timeout=_CALL_SECONDS if setup is None else None,
            max_cached_statement_lifetime=0,  # what was prepared stays so
            server_settings={"application_name": f"durable-host {settings.hub}"[:63]},
        )
        if setup is not None:
            await _set_up(found, setup)
    except Exception as error:
        raise translate(error, settings) from error
    return cast("Connection", found)


async def _set_up(connection: Any, setup: str) -> None:
    try:
        await connection.execute(setup, timeout=_CALL_SECONDS)
    except BaseException:
        connection.terminate()
        raise


def is_transient(error: BaseException) -> bool:
    """The statement was undone because of another one; it may be made again."""
    return isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError)


def translate(error: BaseException, settings: Settings) -> BaseException:
    """What an error of the driver means to the caller; errors about values stay as they are."""
    if isinstance(error, StoreError):
        return error
    if getattr(error, "sqlstate", None) == _NOT_AS_REMEMBERED or _is_known_activity(error):
        return NotAsRememberedError()
    where = settings.location
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return StoreMismatchError(
            f"{where}: the server refuses the user or the password; correct the connection string ({_brief(error)})."
        )
    if isinstance(error, asyncpg.DuplicatePreparedStatementError | asyncpg.InvalidSQLStatementNameError):
        return no_session(settings)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreMismatchError(f"{where}: there is no such database; create it, or name another one.")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreMismatchError(
            f"{where}: the user lacks a right ({_brief(error)}); see the documented GRANTs, or let the owner of the "
            "schema run `durable-host hub create`."
        )
    if isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | asyncpg.OperatorInterventionError
        | asyncpg.InsufficientResourcesError
        | asyncpg.PostgresSystemError
        | asyncpg.ReadOnlySQLTransactionError
        | asyncpg.DeadlockDetectedError
        | asyncpg.SerializationError
        | asyncpg.LockNotAvailableError
        | OSError
        | TimeoutError
        | EOFError,
    ) and not _is_about_values(error):
        return StoreUnavailableError(f"{where} cannot be used now: {_brief(error)}.")
    return error


def no_session(settings: Settings) -> StoreMismatchError:
    """The error where a connection is no session of ours."""
    return StoreMismatchError(f"{settings.location}: {_NO_SESSION}.")


def _is_about_values(error: BaseException) -> bool:
    # The driver's DataError (a value that fits no type) is an InterfaceError, too.
    return isinstance(error, asyncpg.DataError | ValueError)


def _is_known_activity(error: BaseException) -> bool:
    # What is said in step_alone only; elsewhere one that is there is passed over.
    return isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == "activities_pkey"


def _brief(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{text[0].rstrip('.')}" if text else type(error).__name__


class Pool:
    """Connections of one kind, on one loop."""

    def __init__(self, settings: Settings, size: int, *, questions: bool = False) -> None:
        self._settings = settings
        self._size = size
        self._questions = questions
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._busy: dict[Connection, float] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def fetch(self, query: str, *arguments: object, repeatable: bool = False) -> Sequence[Row]:
        """Run one statement, which is a transaction of its own.

        Args:
            repeatable: it may be run twice: a connection that was cut while nobody used it is not the caller's worry.

        Raises:
            StoreUnavailableError: it could not be run, or nobody knows whether it was.
        """
        attempt = 0
        repeatable = repeatable or self._questions
        while True:
            attempt += 1
            fresh = not self._free
            connection = await self._take()
            self._begin(connection)
            try:
                found = await connection.fetch(query, *arguments)
            except Exception as error:
                if is_transient(error) and attempt < _ATTEMPTS:
                    self._give(connection)
                    await asyncio.sleep(0.001 * attempt)
                    continue
                translated = translate(error, self._settings)
                if isinstance(translated, StoreUnavailableError):
                    self._drop(connection)
                    self._drop_free()  # they have met the same fate, as a rule
                    if repeatable and not fresh:
                        repeatable = False
                        continue
                else:
                    self._give(connection)
                if translated is error:
                    raise
                raise translated from error
            except BaseException:
                self._drop(connection)  # cancelled: what the server is doing with it is unknown
                raise
            self._give(connection)
            return found

    def _begin(self, connection: Connection) -> None:
        """A call begins, which must not wait for ever."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._busy[connection] = loop.time()
        if self._watch is None:
            self._watch = loop.call_later(_CALL_SECONDS / 4, self._look)

    def _look(self) -> None:
        """Cut the connections of calls that have taken too long; who waits for one hears that it is gone."""
        self._watch = None
        if self._loop is None or not self._busy:
            return
        now = self._loop.time()
        for connection, since in list(self._busy.items()):
            if now - since > _CALL_SECONDS:
                logger.warning("a call took longer than %.0f s; its connection is cut", _CALL_SECONDS)
                connection.terminate()
        self._watch = self._loop.call_later(_CALL_SECONDS / 4, self._look)

    async def prepare(self, count: int, first: Callable[[Connection, int], Awaitable[None]]) -> None:
        """Open so many connections, as far as there may be, and make the first calls on each.

        Raises:
            StoreUnavailableError: that was not possible.
        """
        await asyncio.gather(*(self._prepare(number, first) for number in range(min(count, self._size))))

    async def _prepare(self, number: int, first: Callable[[Connection, int], Awaitable[None]]) -> None:
        connection = await self._take()
        self._begin(connection)
        try:
            await first(connection, number)
        except BaseException as error:
            self._drop(connection)
            raise translate(error, self._settings) from error
        self._give(connection)

    async def replan(self) -> None:
        """Forget the plans of connections that nobody uses just now: the tables may have grown since they were made."""
        free, self._free = self._free, []
        for connection in free:
            try:
                await connection.execute("DISCARD PLANS", timeout=_CALL_SECONDS)
            except Exception:  # it is of no use any more
                self._drop(connection)
            else:
                self._give(connection)

    async def _take(self) -> Connection:
        while True:
            if self._closed:
                raise StoreUnavailableError(f"{self._settings.location} is not open.")
            while self._free:
                connection = self._free.pop()
                if not connection.is_closed():
                    return connection
                self._all.discard(connection)
            if len(self._all) + self._opening < self._size:
                self._opening += 1
                try:
                    connection = await connect(self._settings, setup=_QUESTIONS if self._questions else _WORK)
                finally:
                    self._opening -= 1
                    self._next()
                if self._closed:
                    connection.terminate()
                    continue
                self._all.add(connection)
                return connection
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()
                raise

    def _give(self, connection: Connection) -> None:
        self._busy.pop(connection, None)
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            self._drop(connection)
            return
        self._free.append(connection)
        self._next()

    def _drop(self, connection: Connection) -> None:
        self._busy.pop(connection, None)
        self._all.discard(connection)
        connection.terminate()
        self._next()

    def _drop_free(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            self._drop(connection)

    def _next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def close(self) -> None:
        """Close what is open; who waits hears that it is."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        while self._queue:
            self._next()
        connections, self._all = list(self._all), set()
        self._free.clear()
        await asyncio.gather(*(_close(connection) for connection in connections))


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=2)
    except Exception:  # nothing is lost: every statement was a transaction of its own
        connection.terminate()
