"""A hub on PostgreSQL, created and open, and what it calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreUnavailableError
from durable_host.storage.contract import StorageOptions
from durable_host.testing.store_contract import ContractHub
from durable_host_providers.postgres import provider
from durable_host_providers.postgres.store import PostgresTaskHubStore

__all__ = ["Calls", "opened_hub"]


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


class Calls:
    """Remembers which statements a store object runs; may lose the answer of the next one of a name."""

    def __init__(self, store: PostgresTaskHubStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.loses: str | None = None
        call = store.work.call

        async def noted(name: str, lease: int, arguments: Any) -> Any:
            self.names.append(name)
            if name != self.loses:
                return await call(name, lease, arguments)
            self.loses = None
            await call(name, lease, arguments)
            store.work.giving.owe(lease)  # as `call` does where the connection is lost
            raise StoreUnavailableError("the answer was lost")

        monkeypatch.setattr(store.work, "call", noted)
