"""The server that the other tests rely on: it is what they say it is, and it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.hosting import ROOT, source_environment
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live

_ORPHAN = """
import os, signal
from tests.servers.postgres import PostgresServer

server = PostgresServer()
server.__enter__()
print(server.pid, server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < end, "the server goes on without the tests"
        time.sleep(0.05)


def test_it_makes_everything_durable_and_does_not_run_as_root(postgres_server: PostgresServer) -> None:
    (row,) = postgres_server.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")

    assert row == ("on", "on")
    if sys.platform == "linux":
        assert os.stat(f"/proc/{postgres_server.pid}").st_uid != 0


def test_a_database_is_new_and_can_be_dropped_while_in_use(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()

    with psycopg.connect(postgres_server.url(name), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        postgres_server.drop_database(name)

    assert postgres_server.execute("SELECT 1 FROM pg_database WHERE datname = %s", name) == []


def test_it_keeps_what_was_committed_however_it_ends(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    server.execute("CREATE TABLE kept (what text)")
    port = server.port

    for how in ("smart", "fast", "immediate"):
        server.execute("INSERT INTO kept VALUES (%s)", how)
        server.restart(how)
    server.execute("INSERT INTO kept VALUES ('kill')")
    server.kill()
    assert not server.is_running
    server.start()

    assert server.port == port
    assert len(server.execute("SELECT what FROM kept")) == 4


def test_leaving_it_removes_its_processes_and_files() -> None:
    with PostgresServer() as server:
        pid, folder = server.pid, server.folder

    _wait_until_gone(pid)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_when_the_tests_are_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ORPHAN],
        cwd=ROOT,
        env=source_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    pid, _, folder = done.stdout.strip().partition(" ")
    try:
        _wait_until_gone(int(pid))
    finally:
        subprocess.run(["rm", "-rf", "--", folder], check=True)
