"""The PostgreSQL server that a benchmark runs on, and a fresh database for every run.

The server is the one that the tests start: a cluster of its own with default settings, `fsync` included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from psycopg import sql

from tests.servers.postgres import NoPostgresError, PostgresServer

__all__ = ["fresh_database", "log_plans", "running_server"]

_NAME = "benchmark"


@contextlib.contextmanager
def running_server() -> Generator[PostgresServer, None, None]:
    """A server; ends with the block, or with this process.

    Raises:
        SystemExit: this machine has no PostgreSQL; the text says what to do.
    """
    try:
        server = PostgresServer({"timezone": "UTC"})
    except NoPostgresError as error:
        raise SystemExit(f"the benchmark needs a PostgreSQL server: {error}") from None
    with server:
        yield server


@contextlib.contextmanager
def fresh_database(server: PostgresServer) -> Generator[str, None, None]:
    """An empty database: its address. Removed at the end, whoever is still connected.

    It sorts by code points, the fastest that there is, for everybody who does not ask for another order.
    """
    server.drop_database(_NAME)
    provider = sql.SQL("LOCALE_PROVIDER libc") if _major(server) >= 15 else sql.SQL("")
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {} LC_COLLATE 'C' LC_CTYPE 'C'")
    server.execute(statement.format(sql.Identifier(_NAME), provider))
    # What the run before left to write would otherwise be written while this one is measured.
    server.execute("CHECKPOINT")
    try:
        yield server.url(_NAME)
    finally:
        server.drop_database(_NAME)


def _major(server: PostgresServer) -> int:
    return int(server.execute("SELECT current_setting('server_version_num')::int / 10000")[0][0])


def log_plans(server: PostgresServer) -> None:
    """From now on the server logs what it does for each statement of a new connection to the fresh database."""
    database = sql.Identifier(_NAME)
    for setting in (
        "session_preload_libraries = auto_explain",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
        "auto_explain.log_nested_statements = on",
    ):
        server.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(database))
