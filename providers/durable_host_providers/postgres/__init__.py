"""Task hubs in a PostgreSQL database, for any number of hosts."""

from __future__ import annotations

try:
    from .provider import PostgresProvider, provider
    from .store import PostgresTaskHubStore
except ModuleNotFoundError as error:
    if error.name != "asyncpg":
        raise
    raise ImportError("the driver is missing: install durable-host[postgres]") from error

__all__ = ["PostgresProvider", "PostgresTaskHubStore", "provider"]
