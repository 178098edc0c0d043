"""Starts and messages in a transaction of the caller: one statement on the caller's connection.

The connection is one of asyncpg or of psycopg 3. The statement finds the hub by its identity, so that a connection to
another database is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import asyncpg

from durable_host.environment import Threads
from durable_host.errors import StoreMismatchError, UnsupportedError

from .connection import Connection
from .settings import Settings
from .statements import Statements

__all__ = ["ask_with"]

_PARAMETER = re.compile(r"\$(\d+)::")
_MISSING = {"3F000", "42P01", "42883"}
"""No such schema, table or function."""


async def ask_with(
    transaction: object,
    name: str,
    arguments: Sequence[object],
    *,
    sql: Statements,
    identity: str,
    settings: Settings,
    threads: Threads,
) -> Any:
    """The value that a function of the schema returns, called in the caller's transaction.

    Raises:
        UnsupportedError: the object is no connection of these drivers, or has no open transaction.
        StoreMismatchError: the connection leads to a database without this hub.
    """
    text = sql[name]
    values = [identity, *arguments]
    try:
        rows = await _run(transaction, text, values, threads)
    except Exception as error:
        if getattr(error, "sqlstate", None) in _MISSING:
            raise _elsewhere(settings) from error
        raise
    if not rows:
        raise _elsewhere(settings)
    return rows[0][0]


async def _run(transaction: object, text: str, values: Sequence[object], threads: Threads) -> Sequence[Any]:
    if _is_asyncpg(transaction):
        connection = cast("Connection", transaction)
        if not connection.is_in_transaction():
            raise _no_transaction()
        return await connection.fetch(text, *values)
    kinds = {each.__name__ for each in type(transaction).__mro__ if each.__module__.partition(".")[0] == "psycopg"}
    if not kinds & {"Connection", "AsyncConnection"}:
        raise UnsupportedError(
            f"transaction is a {type(transaction).__module__}.{type(transaction).__name__}; give a connection of "
            "asyncpg, or of psycopg 3, with an open transaction."
        )
    theirs: Any = transaction
    if theirs.autocommit and theirs.info.transaction_status.name == "IDLE":
        raise _no_transaction()
    # `$1::text` becomes `%s::text`: each parameter stands once, in order.
    text = _PARAMETER.sub(r"%s::", text.replace("%", "%%"))
    if "AsyncConnection" in kinds:
        cursor = await theirs.execute(text, values)
        rows: Sequence[Any] = await cursor.fetchall()
        return [_values(row) for row in rows]

    def run() -> list[Any]:
        return [_values(row) for row in theirs.execute(text, values).fetchall()]

    return await threads.run(run)


def _is_asyncpg(transaction: Any) -> bool:
    return isinstance(transaction, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)


def _values(row: Any) -> Sequence[object]:
    # The caller's connection may have a row factory of its own.
    values = cast("Callable[[], Iterable[object]] | None", getattr(row, "values", None))
    try:
        return list(cast("Iterable[object]", row) if values is None else values())
    except TypeError:
        return list(cast("dict[str, object]", vars(row)).values())


def _no_transaction() -> UnsupportedError:
    return UnsupportedError(
        "The connection has no open transaction; begin one (`async with connection.transaction():`), or leave the "
        "argument out."
    )


def _elsewhere(settings: Settings) -> StoreMismatchError:
    return StoreMismatchError(
        f"The connection does not lead to the database of {settings.location}; give one that does, with the rights to "
        "use its schema."
    )
