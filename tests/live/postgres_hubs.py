"""A hub on PostgreSQL, created and open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from durable_host.environment import system_environment
from durable_host.storage.contract import StorageOptions
from durable_host.testing.store_contract import ContractHub
from durable_host_providers.postgres import provider
from durable_host_providers.postgres.store import PostgresTaskHubStore

__all__ = ["opened_hub"]


@asynccontextmanager
async def opened_hub(
    url: str, lease: timedelta = timedelta(seconds=30)
) -> AsyncGenerator[tuple[ContractHub, PostgresTaskHubStore]]:
    """The contract's view of the hub, and its store; the tables are made if need be."""
    store = provider.open(StorageOptions("Hub", {}, Path(), url, lease), system_environment()).hub
    assert isinstance(store, PostgresTaskHubStore)
    await store.create()
    async with store:
        yield ContractHub(open=lambda: store, environment=system_environment()), store
