"""Named leases and small documents in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from durable_host.environment import Environment
from durable_host.storage.contract import HostStateStore, NamedLease, VersionedValue

__all__ = ["MemoryHostStateStore"]


class MemoryHostStateStore(HostStateStore):
    """The host state of one hub. A lease that has ended is still its holder's until somebody takes it."""

    def __init__(self, environment: Environment) -> None:
        self._clock = environment.clock
        self._leases: dict[str, tuple[str, float]] = {}
        self._documents: dict[str, VersionedValue] = {}
        self._count = 0

    async def acquire(self, name: str, *, duration: timedelta) -> NamedLease | None:
        if name in self._leases and self._leases[name][1] > self._clock.monotonic():
            return None
        return self._grant(name, self._next(), duration)

    async def renew(self, lease: NamedLease, *, duration: timedelta) -> NamedLease | None:
        if not self._is_current(lease):
            return None
        return self._grant(lease.name, lease.token, duration)

    async def release(self, lease: NamedLease) -> None:
        if self._is_current(lease):
            del self._leases[lease.name]

    def _is_current(self, lease: NamedLease) -> bool:
        return lease.name in self._leases and self._leases[lease.name][0] == lease.token

    def _grant(self, name: str, token: str, duration: timedelta) -> NamedLease:
        self._leases[name] = (token, self._clock.monotonic() + duration.total_seconds())
        return NamedLease(name, token, duration)

    def _next(self) -> str:
        self._count += 1
        return str(self._count)

    async def read(self, path: str) -> VersionedValue | None:
        return self._documents.get(path)

    async def write(self, path: str, value: bytes, *, expected: str | None) -> VersionedValue | None:
        standing = self._documents.get(path)
        if (None if standing is None else standing.version) != expected:
            return None
        # A version is never used twice, not even for a document that was deleted in between.
        written = self._documents[path] = VersionedValue(value, self._next())
        return written

    async def delete(self, path: str) -> bool:
        return self._documents.pop(path, None) is not None

    async def list(self, prefix: str) -> Sequence[str]:
        return sorted(path for path in self._documents if path.startswith(prefix))
