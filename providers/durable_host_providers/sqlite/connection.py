"""Connections to the hub's file, and what the database's errors mean for an operator."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from durable_host.errors import StoreMismatchError, StoreUnavailableError

from .settings import Settings

__all__ = ["FileIdentity", "Health", "connect", "is_busy", "is_lasting", "translate"]

OLDEST_SQLITE = (3, 35, 0)
"""RETURNING, and UPDATE … FROM."""

_STATEMENTS = 512
_WRITER_CACHE_KIB = 8_000
_READER_CACHE_KIB = 2_000
_CHECKPOINT_PAGES = 2_000
_LARGEST_WAL = 64 * 1024 * 1024


def connect(settings: Settings, *, create: bool = False, writer: bool = True) -> sqlite3.Connection:
    """Open the hub's file; with `create`, make it if it is not there.

    Transactions are begun and ended explicitly. The connection may move between threads, one at a time.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreMismatchError(
            f"This Python brings SQLite {sqlite3.sqlite_version}; durable-host needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer. Use a newer Python."
        )
    if settings.path is None:
        connection = _open(":memory:", settings)
    else:
        mode = "rwc" if create else "rw"
        path = quote(str(settings.path.absolute()))
        # With an empty authority, or the first part of a path that begins with two slashes would be taken for one.
        connection = _open(f"file:{'//' if path.startswith('/') else ''}{path}?mode={mode}", settings)
    try:
        connection.execute(f"PRAGMA synchronous = {settings.synchronous}")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB if writer else _READER_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = memory")
        connection.execute("PRAGMA secure_delete = off")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_WAL}")
        if not writer:
            connection.execute("PRAGMA query_only = on")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(database: str, settings: Settings) -> sqlite3.Connection:
    return sqlite3.connect(
        database,
        uri=database.startswith("file:"),
        timeout=settings.busy.total_seconds(),
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )


def translate(error: sqlite3.Error, settings: Settings) -> StoreUnavailableError:
    """What an error of the database means, and what to do about it."""
    where = settings.location
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    said = f"(SQLite: {error}; {name})"
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            text = (
                f"The hub file {where} is locked: another process has been writing to it for more than "
                f"{settings.busy.total_seconds():g} s. End that process or its transaction {said}."
            )
        case sqlite3.SQLITE_FULL:
            text = f"The hub file {where} cannot grow: the disk is full or a size limit is reached. Make room {said}."
        case sqlite3.SQLITE_READONLY:
            text = (
                f"The hub file {where} or its folder is read-only for this user. Give the user of this process the "
                f"right to write to both {said}."
            )
        case sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH | sqlite3.SQLITE_CANTOPEN:
            text = (
                f"The hub file {where} cannot be opened. Check that its folder exists and that the user of this "
                f"process may read and write both {said}."
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            text = (
                f"The hub file {where} is damaged. Stop the host, put back a copy of the file together with its -wal "
                f"file, and start again {said}."
            )
        case sqlite3.SQLITE_IOERR:
            text = (
                f"Reading or writing the hub file {where} failed. Check the disk, its free space and the file size "
                f"limit of this process {said}."
            )
        case _:
            text = f"The hub file {where} could not be used {said}."
    return StoreUnavailableError(text)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is writing."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_lasting(error: sqlite3.Error) -> bool:
    """Whether the connection had better be opened anew: the file, its rights or its content have changed."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
    }


class Health:
    """What writer and reader know together of the file they have open.

    A hub that was found damaged is not written any more: what was stored next might make it worse, and might never be
    read again. Once in a while somebody looks whether it has been repaired.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.identity: FileIdentity | None = None
        self.damage: StoreUnavailableError | None = None

    def check(self) -> None:
        """Raise StoreUnavailableError if the file was deleted, replaced or damaged."""
        if self.damage is not None:
            raise StoreUnavailableError(str(self.damage))
        if self.identity is not None and (problem := self.identity.problem()) is not None:
            error = StoreUnavailableError(problem)
            if self.identity.is_cut:
                self.damage = error
            raise error

    def failed(self, error: sqlite3.Error) -> StoreUnavailableError:
        """Take note of an error; returns what it means."""
        found = translate(error, self._settings)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            self.damage = found
        return found

    def recheck(self) -> None:
        """See whether a damaged file is whole again; slow with large files."""
        if self.damage is None:
            return
        try:
            connection = connect(self._settings, writer=False)
            try:
                whole = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
            finally:
                self.close(connection)
        except sqlite3.Error:
            return
        if whole:
            self.damage = None

    def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection, if that harms nobody."""
        if self.identity is not None and self.identity.problem() is not None:
            # Closing would remove the -wal file that stands under our name now, and it may be another process's.
            _replaced.append(connection)
            return
        if self.identity is not None:
            self.identity.forget_log()  # goes with the last connection
        with contextlib.suppress(sqlite3.Error):
            connection.close()


_replaced: list[sqlite3.Connection] = []


class FileIdentity:
    """Tells whether the path still leads to the files that were opened.

    SQLite goes on writing to a file that was deleted or replaced, and what it writes is gone with the process. So every
    transaction looks at two directory entries (about 2 µs each) before anything is acknowledged. It goes on as well,
    from its memory, when the file was cut short; so the length is compared, too.

    Attributes:
        is_cut: the file was found shorter than what its header says.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._wal = f"{path}-wal"
        self._length: int = 0
        self.is_cut: bool = False
        self._opened = (self._entry(self._path), self._entry(self._wal))

    def problem(self) -> str | None:
        """What happened to the files, and what to do; None: nothing."""
        database, wal = self._opened
        now = self._entry(self._path)
        if now is None:
            return (
                f"The hub file {self._path} was deleted or moved while in use. Put it back together with its -wal "
                "file, or restart the host to begin with an empty hub."
            )
        if now != database:
            return f"The hub file {self._path} was replaced while in use. Restart the host if that was intended."
        if self.is_cut:
            return (
                f"The hub file {self._path} was cut short while in use. Stop the host, put back a copy of the file "
                "together with its -wal file, and start again."
            )
        if wal is not None and self._entry(self._wal) != wal:
            return (
                f"The file {self._wal} was deleted or replaced while in use; it belongs to the hub file and holds its "
                "latest changes. Leave it alone."
            )
        return None

    def forget_log(self) -> None:
        """The -wal file may go now."""
        self._opened = (self._opened[0], None)

    def _entry(self, path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        if path is self._path and found.st_size != self._length:
            # Another process may have vacuumed it.
            self.is_cut = self.is_cut or (found.st_size < self._length and not _is_whole(path, found.st_size))
            self._length = found.st_size
        return found.st_dev, found.st_ino


def _is_whole(path: str, length: int) -> bool:
    """Whether a database is as long as its header says."""
    try:
        with open(path, "rb") as file:
            header = file.read(32)
    except OSError:
        return False
    page = int.from_bytes(header[16:18], "big")
    return len(header) == 32 and length >= int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
