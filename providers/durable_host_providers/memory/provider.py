"""Hubs in memory, and the provider that the host finds by its entry point."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from durable_host.environment import Environment, system_environment
from durable_host.storage.contract import HostStateStore, OpenedProvider, StorageOptions
from durable_host_providers.memory.host_state import MemoryHostStateStore
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.store import MemoryTaskHubStore

__all__ = ["MemoryHub", "MemoryProvider", "provider"]


class MemoryHub:
    """A task hub that lives as long as this object. Every store object opened on it sees the same content.

    Args:
        environment: clock of leases and timers.
        lease: how long a lock holds unless it is renewed.
    """

    def __init__(self, environment: Environment | None = None, *, lease: timedelta = timedelta(seconds=30)) -> None:
        self.environment = environment or system_environment()
        self._state = HubState(self.environment, min(lease, MemoryTaskHubStore.traits.max_lease))
        self.host_state: HostStateStore = MemoryHostStateStore(self.environment)

    def open(self) -> MemoryTaskHubStore:
        """Another store object on this hub, with leases and hand-overs of its own; not yet entered."""
        return MemoryTaskHubStore(self._state)


class MemoryProvider:
    """`storageProvider.type` `memory`. Nothing outlives the process.

    `memory://name` is one hub for everybody in this process who opens that name; otherwise each `open` makes a new one.
    """

    name = "memory"
    schemes: Collection[str] = ("memory",)

    def __init__(self) -> None:
        self._named: dict[tuple[str, str], MemoryHub] = {}

    def problems(self, options: StorageOptions) -> Sequence[str]:
        """Nothing can be set, so nothing can be wrong; settings of other providers may stand here."""
        return ()

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        """A store object on a hub in this process."""
        name = urlsplit(options.url).netloc if options.url else ""
        hub = self._named.get((name, options.hub)) if name else None
        if hub is None:
            hub = MemoryHub(environment, lease=options.lease)
            if name:
                self._named[name, options.hub] = hub
        return OpenedProvider(
            hub=hub.open(), host_state=hub.host_state, location=f"memory://{name}" if name else "memory"
        )


provider = MemoryProvider()
