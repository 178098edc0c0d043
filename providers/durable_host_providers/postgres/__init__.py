"""Task hubs in a PostgreSQL database, for any number of hosts."""

from __future__ import annotations

try:
    import asyncpg as _driver  # noqa: F401
except ImportError as error:
    raise ImportError("the driver is missing: install durable-host[postgres]") from error

from .provider import PostgresProvider, provider
from .store import PostgresTaskHubStore

__all__ = ["PostgresProvider", "PostgresTaskHubStore", "provider"]
