"""A real PgBouncer in front of a test's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from tests.hosting import free_port
from tests.servers.accounts import give, server_account, server_folder
from tests.servers.postgres import PASSWORD, SUPERUSER, PostgresServer

__all__ = ["NoPgBouncerError", "PgBouncer"]

_START_SECONDS = 15.0
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


class NoPgBouncerError(Exception):
    """There is no `pgbouncer` on this machine."""


class PgBouncer:
    """A pool of connections to a server; entered: ready, left: gone.

    Args:
        mode: `session`, `transaction` or `statement`.
    """

    def __init__(self, server: PostgresServer, mode: str) -> None:
        program = shutil.which("pgbouncer", path=_PLACES)
        if program is None:
            raise NoPgBouncerError("pgbouncer is not installed")
        self._program = program
        self._server = server
        self._mode = mode
        self._account = server_account()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.folder = server_folder("durable-host-pgbouncer-", self._account)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def url(self, database: str) -> str:
        """The address of a database through the pool."""
        return self._server.url(database).replace(f":{self._server.port}/", f":{self.port}/")

    def printed(self) -> str:
        """Its log so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End it and remove its files."""
        try:
            if self._process is not None and self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGKILL)
                self._process.wait()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        users, settings = self.folder / "users.txt", self.folder / "pgbouncer.ini"
        users.write_text(f'"{SUPERUSER}" "{PASSWORD}"\n', encoding="utf-8")
        settings.write_text(
            f"""[databases]
* = host=127.0.0.1 port={self._server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {self._mode}
""",
            encoding="utf-8",
        )
        for path in (users, settings):
            give(path, self._account)
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self._program, str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                user=self._account.user,
                group=self._account.group,
                extra_groups=self._account.extra_groups,
            )
        self._process = process
        end = time.monotonic() + _START_SECONDS
        while not self._listens():
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"PgBouncer did not start:\n{self.printed()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
