"""The provider that entry point `durable_host.providers` names `sqlite`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import OpenedProvider, StorageOptions

from .host_state import SqliteHostState
from .settings import read_settings
from .store import MemorySqliteTaskHubStore, SqliteTaskHubStore

__all__ = ["SqliteProvider", "provider"]


class SqliteProvider:
    """Task hubs in SQLite files, one each."""

    @property
    def name(self) -> str:
        return "sqlite"

    @property
    def schemes(self) -> Collection[str]:
        return frozenset({"sqlite"})

    def problems(self, options: StorageOptions) -> Sequence[str]:
        return read_settings(options)[1]

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        settings, problems = read_settings(options)
        if problems:
            raise ConfigurationError(problems)
        kind = MemorySqliteTaskHubStore if settings.path is None else SqliteTaskHubStore
        store = kind(settings, environment)
        return OpenedProvider(store, SqliteHostState(store.writer, store.reader, environment), settings.location)


provider = SqliteProvider()
