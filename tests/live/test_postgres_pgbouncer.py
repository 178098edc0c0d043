"""PostgreSQL behind PgBouncer."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.live.host_app import command_line, make_app
from tests.live.several_hosts import SeveralHosts
from tests.servers.pgbouncer import NoPgBouncerError, PgBouncer
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live


@contextmanager
def _pooled(server: PostgresServer, mode: str) -> Generator[str]:
    """The address of an empty database through PgBouncer."""
    try:
        pool = PgBouncer(server, mode)
    except NoPgBouncerError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"{error}: NOT TESTED behind PgBouncer")
    name = server.create_database()
    with pool:
        with psycopg.connect(pool.url(name), autocommit=True) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)
        yield pool.url(name)
    server.drop_database(name)


def test_hosts_work_behind_pgbouncer_in_session_mode(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with _pooled(postgres_server, "session") as url, SeveralHosts(tmp_path, url) as hosts:
        first, second = hosts.start(2)
        hosts.instances(first, "chain", 10, steps=3, seconds=0.01)
        hosts.instances(second, "fan", 4, steps=6, seconds=0.01)
        hosts.instances(second, "waiter", 3, steps=1)
        for number in range(3):
            assert hosts.raise_event(first, f"waiter-{number}", 0) == 202
        hosts.check(first)
        hosts.check(second)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pool_that_keeps_no_sessions_is_refused(tmp_path: Path, postgres_server: PostgresServer, mode: str) -> None:
    app = make_app(tmp_path / "app")

    with _pooled(postgres_server, mode) as url:
        started = command_line("start", app, "--port", "0", "--storage", url)
        # A hub that somebody made over a connection of the server's.
        direct = postgres_server.url(url.rpartition("/")[2])
        assert command_line("hub", "create", app, "--storage", direct).returncode == 0
        asked = command_line("instances", "list", app, "--storage", url)

    for ended in (started, asked):
        assert ended.returncode == 1, ended
        assert "pool_mode to session, or connect to the server itself" in ended.stderr, ended
        assert "Traceback" not in ended.stderr
