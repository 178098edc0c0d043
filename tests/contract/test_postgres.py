"""The PostgreSQL provider keeps the contract, on a real server, and agrees with the memory provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from durable_host.storage.contract import HostStateStore, OpenedProvider, StorageOptions, TaskHubStore
from durable_host.testing.environment import SimulatedClock
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host_providers.postgres import provider
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live

_NOW = """
CREATE OR REPLACE FUNCTION durable_host.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp())::double precision * 1000000)::bigint + {}
$$
"""


class Database:
    """A database whose hubs live in a time that tests can move on."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._hubs = 0
        self.url = server.url(server.create_database())

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        """A hub of its own."""
        environment = contract_environment()
        self._hubs += 1
        opened: list[OpenedProvider] = []
        options = StorageOptions(f"Hub{self._hubs}", {}, Path(), self.url, timedelta(seconds=30))

        def open_store() -> TaskHubStore:
            opened.append(provider.open(options, environment))
            return opened[-1].hub

        def host_state() -> HostStateStore:
            return opened[0].host_state

        def set_clock() -> None:
            ahead = environment.clock.now() - datetime.now(UTC)  # noqa: TID251 the server's clock
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(_NOW.format(ahead // timedelta(microseconds=1)))  # type: ignore[arg-type]

        async def pass_time(by: timedelta) -> None:
            clock = environment.clock
            assert isinstance(clock, SimulatedClock)
            clock.advance(by)
            await asyncio.to_thread(set_clock)

        await provider.open(options, environment).hub.create()
        await asyncio.to_thread(set_clock)
        yield ContractHub(open=open_store, environment=environment, host_state=host_state, pass_time=pass_time)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Database:
    return Database(postgres_server)


class TestPostgres(StoreContract):
    """As users run it."""

    simulated = False
    database: Database

    @pytest.fixture(autouse=True)
    def _use_database(self, database: Database) -> None:
        self.database = database

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        async with self.database.new_hub() as hub:
            yield hub
