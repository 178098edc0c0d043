"""PostgreSQL behind PgBouncer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.live.several_hosts import SeveralHosts, needs_postgres
from tests.servers.pgbouncer import NoPgBouncerError, PgBouncer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.live, needs_postgres]


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database through PgBouncer."""
    try:
        pool = PgBouncer(postgres_server, request.param)
    except NoPgBouncerError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"{error}: NOT TESTED behind PgBouncer")
    name = postgres_server.create_database()
    with pool:
        yield pool.url(name)
    postgres_server.drop_database(name)


def test_hosts_work_behind_pgbouncer(tmp_path: Path, pooled: str) -> None:
    with psycopg.connect(pooled) as connection:
        connection.execute("SELECT 1")

    with SeveralHosts(tmp_path, pooled) as hosts:
        first, second = hosts.start(2)
        hosts.instances(first, "chain", 10, steps=3, seconds=0.01)
        hosts.instances(second, "fan", 4, steps=6, seconds=0.01)
        hosts.instances(second, "waiter", 3, steps=1)
        for number in range(3):
            assert hosts.raise_event(first, f"waiter-{number}", 0) == 202
        hosts.check(first)
        hosts.check(second)
