"""Task hubs in a SQLite file, by the sqlite3 module of Python itself."""

from __future__ import annotations

from .provider import SqliteProvider, provider
from .store import MemorySqliteTaskHubStore, SqliteTaskHubStore

__all__ = ["MemorySqliteTaskHubStore", "SqliteProvider", "SqliteTaskHubStore", "provider"]
