"""Named leases and documents of the host, in the hub's schema."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from durable_host.environment import Environment
from durable_host.storage.contract import HostStateStore, NamedLease, VersionedValue
from durable_host_providers._sql.filters import after_prefix

if TYPE_CHECKING:  # a cycle in types only: both stores share connections
    from .store import PostgresTaskHubStore

__all__ = ["PostgresHostState"]

_MICROSECOND = timedelta(microseconds=1)


class PostgresHostState(HostStateStore):
    """Works while the hub's store is entered."""

    def __init__(self, store: PostgresTaskHubStore, environment: Environment) -> None:
        self._store = store
        self._ids = environment.ids

    async def _ask(self, name: str, *arguments: object) -> Sequence[Any]:
        return await self._store.ask(name, *arguments)

    async def acquire(self, name: str, *, duration: timedelta) -> NamedLease | None:
        token = self._ids.new_id()
        taken = await self._ask("take_host_lease", name, token, self._store.owner, duration // _MICROSECOND)
        return NamedLease(name, token, duration) if taken else None

    async def renew(self, lease: NamedLease, *, duration: timedelta) -> NamedLease | None:
        kept = await self._ask("extend_host_lease", lease.name, lease.token, duration // _MICROSECOND)
        return NamedLease(lease.name, lease.token, duration) if kept else None

    async def release(self, lease: NamedLease) -> None:
        await self._ask("drop_host_lease", lease.name, lease.token)

    async def read(self, path: str) -> VersionedValue | None:
        found = await self._ask("read_document", path)
        return VersionedValue(found[0][0], found[0][1]) if found else None

    async def write(self, path: str, value: bytes, *, expected: str | None) -> VersionedValue | None:
        version = self._ids.new_id()
        if expected is None:
            done = await self._ask("add_document", path, version, value)
        else:
            done = await self._ask("change_document", path, version, value, expected)
        return VersionedValue(value, version) if done else None

    async def delete(self, path: str) -> bool:
        return bool(await self._ask("drop_document", path))

    async def list(self, prefix: str) -> Sequence[str]:
        found = await self._ask("list_documents", prefix, after_prefix(prefix) if prefix else None)
        return [row[0] for row in found]
