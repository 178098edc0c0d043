"""The provider that entry point `durable_host.providers` names `postgres`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import OpenedProvider, StorageOptions

from .host_state import PostgresHostState
from .settings import read_settings
from .store import PostgresTaskHubStore

__all__ = ["PostgresProvider", "provider"]


class PostgresProvider:
    """Task hubs in a schema of a PostgreSQL database."""

    @property
    def name(self) -> str:
        return "postgres"

    @property
    def schemes(self) -> Collection[str]:
        return frozenset({"postgres", "postgresql"})

    def problems(self, options: StorageOptions) -> Sequence[str]:
        return read_settings(options)[1]

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        settings, problems = read_settings(options)
        if problems:
            raise ConfigurationError(problems)
        store = PostgresTaskHubStore(settings, environment)
        return OpenedProvider(store, PostgresHostState(store, environment), settings.location)


provider = PostgresProvider()
