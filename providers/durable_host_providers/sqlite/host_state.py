"""Named leases and documents of the host, in the hub's file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from durable_host.environment import Environment
from durable_host.storage.contract import HostStateStore, NamedLease, VersionedValue
from durable_host_providers._sql.filters import after_prefix

from .transaction import SQL, Transaction

if TYPE_CHECKING:  # a cycle in types only: one writer serves both stores
    from .reader import Reader
    from .writer import Writer

__all__ = ["SqliteHostState"]


class SqliteHostState(HostStateStore):
    """Writes with the task hub's writer, reads with its reader; works while the hub's store is entered.

    The named leases of a process that is gone are free at once, as its other leases are.
    """

    def __init__(self, writer: Writer, reader: Reader, environment: Environment) -> None:
        self._writer = writer
        self._reader = reader
        self._ids = environment.ids

    async def acquire(self, name: str, *, duration: timedelta) -> NamedLease | None:
        token = self._ids.new_id()

        def take(tx: Transaction) -> bool:
            values = (name, token, tx.owner or None, tx.now + duration // _MICROSECOND, tx.now)
            return tx.execute(SQL["take_host_lease"], values).fetchone() is not None

        return NamedLease(name, token, duration) if await self._writer.call(take) else None

    async def renew(self, lease: NamedLease, *, duration: timedelta) -> NamedLease | None:
        def extend(tx: Transaction) -> bool:
            values = (lease.name, lease.token, tx.now + duration // _MICROSECOND)
            return tx.execute(SQL["extend_host_lease"], values).fetchone() is not None

        return NamedLease(lease.name, lease.token, duration) if await self._writer.call(extend) else None

    async def release(self, lease: NamedLease) -> None:
        def drop(tx: Transaction) -> None:
            tx.execute(SQL["drop_host_lease"], (lease.name, lease.token))

        await self._writer.call(drop)

    async def read(self, path: str) -> VersionedValue | None:
        row = await self._reader.call(lambda execute: execute(SQL["read_document"], (path,)).fetchone())
        return None if row is None else VersionedValue(row[0], row[1])

    async def write(self, path: str, value: bytes, *, expected: str | None) -> VersionedValue | None:
        version = self._ids.new_id()

        def put(tx: Transaction) -> bool:
            if expected is None:
                done = tx.execute(SQL["add_document"], (path, version, value)).fetchone()
            else:
                done = tx.execute(SQL["change_document"], (path, version, value, expected)).fetchone()
            return done is not None

        return VersionedValue(value, version) if await self._writer.call(put) else None

    async def delete(self, path: str) -> bool:
        return await self._writer.call(lambda tx: tx.execute(SQL["drop_document"], (path,)).fetchone() is not None)

    async def list(self, prefix: str) -> Sequence[str]:
        bounds = (prefix, after_prefix(prefix) if prefix else None)
        found: list[Any] = await self._reader.call(lambda execute: execute(SQL["list_documents"], bounds).fetchall())
        return [row[0] for row in found]


_MICROSECOND = timedelta(microseconds=1)
