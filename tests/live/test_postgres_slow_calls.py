"""A call that the server does not answer in time ends, and the store goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreUnavailableError
from durable_host.storage.contract import StorageOptions
from durable_host_providers.postgres import connection, provider
from durable_host_providers.postgres.store import PostgresTaskHubStore

pytestmark = pytest.mark.live


async def test_a_call_that_takes_too_long_is_cut(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CALL_SECONDS", 1.0)
    store = provider.open(StorageOptions("Hub", {}, Path(), postgres_database), system_environment()).hub
    assert isinstance(store, PostgresTaskHubStore)
    await store.create()
    async with store:
        loop = asyncio.get_running_loop()
        began = loop.time()

        with pytest.raises(StoreUnavailableError):
            await store.work.pool.fetch("SELECT pg_sleep(20)")

        assert 0.9 < loop.time() - began < 10
        await store.check()
