"""The hub's file: made, recognised, migrated, opened, owned and watched.

What is written into the file's header says what it is: `application_id` that it is ours, `user_version` the version of
its tables. Anything else is refused before a byte of it is changed.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

from durable_host.environment import Environment
from durable_host.errors import StoreError, StoreMismatchError, StoreUnavailableError
from durable_host_providers._sql.migrate import load_migrations, pending
from durable_host_providers._sql.rows import to_micros

from .connection import FileIdentity, Health, connect, is_busy, is_lasting, translate
from .owners import OwnerFile, Turn, is_alive, remove_folder, remove_orphans
from .settings import Settings
from .transaction import AT_ONCE, LEASE_BITS, SQL

__all__ = [
    "APPLICATION_ID",
    "HubFile",
    "create_hub",
    "delete_hub",
    "disown",
    "owners_folder",
    "prepare",
    "recognise",
    "verify",
]

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x44555248
"""`DURH`."""

_FIRST_PAUSE, _LAST_PAUSE = 0.0005, 0.002
"""Seconds between two attempts to begin a transaction."""

_COURTESY = 0.25
"""Seconds for which another process is let go first."""

_pause = threading.Event()
"""Never set."""

_RECHECK_EVERY = 5.0
"""Seconds between two looks at a damaged file."""

MIGRATIONS = load_migrations("durable_host_providers.sqlite.migrations")
_GITIGNORE = "# What durable-host stores here belongs to this machine.\n*\n"


def create_hub(settings: Settings, environment: Environment) -> None:
    """Make the hub or bring its tables up to date; blocking."""
    if settings.path is not None:
        _make_folder(settings.path)
    connection = _connect(settings, create=True)
    try:
        prepare(connection, settings, environment)
    except sqlite3.Error as error:
        raise translate(error, settings) from error
    finally:
        connection.close()


def prepare(connection: sqlite3.Connection, settings: Settings, environment: Environment) -> None:
    """Recognise what the connection leads to, and migrate it."""
    version = recognise(connection, settings)
    if pending(MIGRATIONS, version, f"The hub file {settings.location}"):
        if settings.path is not None:
            connection.execute("PRAGMA journal_mode = wal")
        connection.execute("BEGIN EXCLUSIVE")
        try:
            # Another process may have been faster.
            for migration in pending(MIGRATIONS, recognise(connection, settings), settings.location):
                for statement in migration.statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {migration.version}")
            now = to_micros(environment.clock.now())
            facts = {"name": settings.hub, "identity": environment.ids.new_id(), "created_at": now, "probe": 0}
            for name, value in facts.items():
                connection.execute(
                    "INSERT INTO hub (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, str(value))
                )
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    _check_name(connection, settings)


def recognise(connection: sqlite3.Connection, settings: Settings) -> int:
    """The version of the tables, 0 for an empty file.

    Raises:
        StoreMismatchError: it is something else.
    """
    where = settings.location
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise StoreMismatchError(
                f"{where} is not a SQLite database. Name another file, or move this one away."
            ) from error
        raise
    if application == APPLICATION_ID:
        return version
    if application == 0 and version == 0 and tables == 0:
        return 0
    raise StoreMismatchError(
        f"{where} is a SQLite database of another program (application id {application:#x}, {tables} tables), not a "
        "task hub. Name another file, or move this one away."
    )


def verify(connection: sqlite3.Connection, settings: Settings) -> None:
    """See that the connection leads to this hub, at this code's version."""
    version = recognise(connection, settings)
    if version == 0:
        raise StoreMismatchError(f"{settings.location} holds no task hub yet; call create() first.")
    if pending(MIGRATIONS, version, f"The hub file {settings.location}"):
        raise StoreMismatchError(
            f"{settings.location} has tables of version {version}, written by an older durable-host; call create() to "
            "bring them up to date."
        )
    _check_name(connection, settings)


def _check_name(connection: sqlite3.Connection, settings: Settings) -> None:
    found = connection.execute("SELECT value FROM hub WHERE name = 'name'").fetchone()
    name = found[0] if found else ""
    if name.casefold() != settings.hub.casefold():
        raise StoreMismatchError(
            f"{settings.location} holds the task hub {name!r}, not {settings.hub!r}. Name another file, or set the hub "
            "name in host.json to the one in the file."
        )


def delete_hub(settings: Settings) -> None:
    """Remove the hub's files; blocking.

    Raises:
        StoreMismatchError: the file is something else.
        StoreUnavailableError: a host is working on it.
    """
    path = settings.path
    if path is None or not path.exists():
        return
    connection = _connect(settings)
    try:
        if recognise(connection, settings):
            folder = owners_folder(path)
            for _, file, app in connection.execute(SQL["owners"]).fetchall():
                if is_alive(folder, file):
                    raise StoreUnavailableError(
                        f"The hub file {settings.location} is in use by a host{f' of app {app!r}' if app else ''}; "
                        "stop it first."
                    )
    except sqlite3.Error as error:
        raise translate(error, settings) from error
    finally:
        connection.close()
    remove_folder(owners_folder(path))
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink(missing_ok=True)


def owners_folder(path: Path) -> Path:
    """Where the lock files of a hub's owners are."""
    return Path(f"{path}-owners")


class HubFile:
    """The writer's side of the file; used on the writer thread only.

    Attributes:
        owner: number of this store object among all that ever opened the hub to process work; 0: not registered.
    """

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self._connection: sqlite3.Connection | None = None
        self._rechecked = 0.0
        self._suspect = False
        self.health = Health(settings)
        self._hub_identity: str | None = None
        self._durable = True
        self._owner_file: OwnerFile | None = None
        self._turn: Turn | None = None
        self._busy = settings.busy.total_seconds()
        self._data_version = 0
        self._leases = 0
        self._other_owners: list[tuple[int, str]] | None = None
        self.owner = 0

    def connection(self) -> sqlite3.Connection:
        """The connection, opened if need be; sees that the path still leads to the file that was opened.

        Raises:
            StoreUnavailableError, StoreMismatchError: what is wrong, and what to do.
        """
        if self.health.damage is not None:
            self._recheck()
        self.check()
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def connection_unchecked(self) -> sqlite3.Connection:
        """The connection for a transaction that ends with `check`, unless the last one ended badly."""
        if self._connection is None or self._suspect:
            return self.connection()
        return self._connection

    def check(self) -> None:
        """Before anything is acknowledged: see that what was committed is in the file that others will open."""
        self._suspect = True
        self.health.check()
        self._suspect = False

    def _recheck(self) -> None:
        elapsed = self._environment.clock.monotonic()
        if elapsed - self._rechecked >= _RECHECK_EVERY:
            self._rechecked = elapsed
            self._drop_connection()
            self.health.recheck()

    def _open(self) -> None:
        settings = self._settings
        connection = _connect(settings, create=settings.path is None)
        try:
            if settings.path is None:
                prepare(connection, settings, self._environment)
            else:
                verify(connection, settings)
            identity = connection.execute("SELECT value FROM hub WHERE name = 'identity'").fetchone()[0]
            if self._hub_identity not in {None, identity}:
                raise StoreMismatchError(
                    f"The hub file {settings.location} was replaced by another hub's while in use. Restart the host if "
                    "that was intended."
                )
            self._hub_identity = identity
            self.health.identity = None if settings.path is None else FileIdentity(settings.path)
            self._data_version = connection.execute("PRAGMA data_version").fetchone()[0]
            connection.execute("PRAGMA busy_timeout = 0")  # `transaction` waits more evenly
        except sqlite3.Error as error:
            connection.close()
            raise self.health.failed(error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._suspect = False
        self._durable = True

    def failed(self, error: sqlite3.Error) -> StoreError:
        """Take note of an error: what it means, and whether the connection is opened anew next time."""
        if is_lasting(error) and self._settings.path is not None:
            self._drop_connection()
        return self.health.failed(error)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.health.close(connection)

    def set_durable(self, durable: bool) -> None:
        """Sync the next transaction to disk, or leave that to a later one: leases need not outlive the machine."""
        if durable is not self._durable and self._settings.synchronous in {"full", "extra"}:
            self.connection().execute(f"PRAGMA synchronous = {self._settings.synchronous if durable else 'normal'}")
            self._durable = durable

    def next_lease(self) -> int:
        """A number for the leases of one transaction."""
        self._leases += 1
        return (self.owner << LEASE_BITS) + self._leases

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a write transaction, in turn with other processes that want to.

        Raises:
            sqlite3.OperationalError: another process has been writing for too long.
        """
        turn = self._turn
        ours = turn is None or turn.take()
        waited, pause = 0.0, _FIRST_PAUSE
        try:
            while True:
                # Whoever has the turn may stand still: it is a courtesy, not a lock.
                if ours or waited >= _COURTESY:
                    try:
                        connection.execute("BEGIN IMMEDIATE")
                        return
                    except sqlite3.OperationalError as error:
                        if not is_busy(error) or waited >= self._busy:
                            raise
                _pause.wait(pause)
                waited += pause
                pause = min(pause * 2, _LAST_PAUSE)
                ours = ours or (turn is not None and turn.take())
        finally:
            if ours and turn is not None:
                turn.give()

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Generator[None]:
        """A write transaction around a block."""
        self.begin(connection)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def data_version(self) -> int:
        """SQLite's `data_version`: another number after each transaction of another connection."""
        # Not through connection(): ten times a second, its look at the directory would double the price.
        connection = self._connection or self.connection()
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def has_changed(self, data_version: int) -> bool:
        """Whether another connection has written since the last call."""
        if data_version == self._data_version:
            return False
        self._data_version = data_version
        self._other_owners = None
        return True

    # Owners.

    def register(self) -> None:
        """Become an owner of leases.

        Raises:
            StoreMismatchError: a host of another app is working on this hub.
        """
        settings = self._settings
        connection = self.connection()
        if settings.path is None:
            self.owner = 1
            return
        folder = owners_folder(settings.path)
        try:
            # Locked before it is announced, so that nobody finds a name without a lock.
            file = OwnerFile(folder, self._environment.ids.new_id())
            self._turn = self._turn or Turn(folder)
        except OSError as error:
            raise StoreUnavailableError(
                f"The folder {folder} cannot be written ({error.strerror}); give the user of this process the right to."
            ) from error
        try:
            self.set_durable(False)
            with self.transaction(connection):
                for owner, name, app in connection.execute(SQL["owners"]).fetchall():
                    if not is_alive(folder, name):
                        disown(connection, owner)
                    elif app and settings.app and app != settings.app:
                        raise StoreMismatchError(
                            f"The hub file {settings.location} is in use by another app ({app}); this is "
                            f"{settings.app}. Give each app a hub name or a file of its own, or stop the other host."
                        )
                values = (file.name, settings.app, settings.lease // timedelta(microseconds=1))
                owner = connection.execute(SQL["add_owner"], values).fetchone()[0]
                self._shorten_leases(connection)
        except BaseException:
            file.close()
            raise
        self.owner = owner
        self._other_owners = None
        remove_orphans(folder)
        if self._owner_file is not None:
            self._owner_file.close()
        self._owner_file = file

    def bury(self) -> bool:
        """Take over what owners that are gone had locked; says whether there were any."""
        path = self._settings.path
        if path is None:
            return False
        if self._owner_file is not None and not self._owner_file.stands():
            self.register()  # somebody removed the file: to others, this owner is dead
        folder = owners_folder(path)
        dead = [owner for owner, file in self._others() if not is_alive(folder, file)]
        if not dead:
            return False
        connection = self.connection()
        self.set_durable(False)
        with self.transaction(connection):
            for owner in dead:
                disown(connection, owner)
        self._other_owners = None
        logger.info("took over from owners that are gone", extra={"event": "owners_gone", "owners": len(dead)})
        return True

    def _others(self) -> list[tuple[int, str]]:
        if self._other_owners is None:
            owners = self.connection().execute(SQL["owners"]).fetchall()
            self._other_owners = [(owner, file) for owner, file, _ in owners if owner != self.owner]
        return self._other_owners

    def shorten_leases(self) -> None:
        """The clock was set back: no lease may end later than any that is given now.

        Its holder renews it long before; only a process that stands still would have kept it for as long as the clock
        was set back.
        """
        connection = self.connection()
        self.set_durable(False)
        with self.transaction(connection):
            self._shorten_leases(connection)

    def _shorten_leases(self, connection: sqlite3.Connection) -> None:
        longest = connection.execute(SQL["longest_lease"]).fetchone()[0]
        if longest is not None:
            until = to_micros(self._environment.clock.now()) + longest
            connection.execute(SQL["clamp_instances"], (until,))
            connection.execute(SQL["clamp_activities"], (until,))

    def forsake(self) -> int:
        """Let go of the proof of life without giving anything back, as the end of a process does; for simulations.

        Returns the owner that is gone.
        """
        file, self._owner_file = self._owner_file, None
        if file is not None:
            file.close()
        return self.owner

    def close(self) -> None:
        """Give all leases back and close."""
        if self._connection is not None and self.owner and self._settings.path is not None:
            try:
                self.health.check()
                self.set_durable(False)
                with self.transaction(self._connection):
                    disown(self._connection, self.owner)
            except (sqlite3.Error, StoreError) as error:
                # The lock file is free now, so others take over what is still locked.
                logger.debug("leases were not given back", extra={"event": "close_failed", "error": str(error)})
        if self._owner_file is not None:
            self._owner_file.close()
            self._owner_file = None
        if self._turn is not None:
            self._turn.close()
            self._turn = None
        self.owner = 0
        self._drop_connection()
        self.health.identity = self.health.damage = None
        self._hub_identity = None


def disown(connection: sqlite3.Connection, owner: int) -> None:
    """Make everything eligible that an owner had locked, and forget the owner; inside a transaction."""
    bounds = (owner << LEASE_BITS, ((owner + 1) << LEASE_BITS) - 1, AT_ONCE)
    connection.execute(SQL["disown_instances"], bounds)
    connection.execute(SQL["disown_activities"], bounds)
    connection.execute(SQL["disown_host_leases"], (owner,))
    connection.execute(SQL["drop_owner"], (owner,))


def _connect(settings: Settings, *, create: bool = False) -> sqlite3.Connection:
    try:
        return connect(settings, create=create)
    except sqlite3.Error as error:
        if settings.path is not None and not create and not settings.path.exists():
            raise StoreMismatchError(
                f"There is no hub file {settings.location}; call create() first, or check the path."
            ) from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise StoreMismatchError(
                f"{settings.location} is not a SQLite database. Name another file, or move this one away."
            ) from error
        raise translate(error, settings) from error


def _make_folder(path: Path) -> None:
    """Make the folder of a hub file; one of ours (`.durable`) keeps itself out of version control."""
    folder = path.parent
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name == ".durable":
            (folder / ".gitignore").write_text(_GITIGNORE, "utf-8")
    except OSError as error:
        raise StoreUnavailableError(
            f"The folder {folder} for the hub file cannot be made ({error.strerror}); make it, or set another path."
        ) from error
