"""The memory provider: the reference implementation of the storage contract, for tests and for trying things out."""

from __future__ import annotations

from durable_host_providers.memory.provider import MemoryHub, MemoryProvider, provider
from durable_host_providers.memory.store import MemoryTaskHubStore

__all__ = ["MemoryHub", "MemoryProvider", "MemoryTaskHubStore", "provider"]
