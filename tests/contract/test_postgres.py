"""The PostgreSQL provider keeps the contract, on a real server, and agrees with the memory provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from durable_host.environment import Environment
from durable_host.storage.contract import HostStateStore, OpenedProvider, StorageOptions, TaskHubStore
from durable_host.testing.environment import SimulatedClock
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host.testing.store_contract.agreement import Call, call_sequences, observe
from durable_host_providers.memory import MemoryHub
from durable_host_providers.postgres import provider
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FROZEN = "CREATE OR REPLACE FUNCTION durable_host.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT {} $$"
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
    async def new_hub(self, *, frozen: bool = False) -> AsyncGenerator[ContractHub]:
        """A hub of its own; frozen: time passes only when it is waited for."""
        environment = contract_environment()
        if frozen:
            environment = Environment(SimulatedClock(lambda: 0.0), environment.ids, environment.threads)
        self._hubs += 1
        opened: list[OpenedProvider] = []
        options = StorageOptions(f"Hub{self._hubs}", {}, Path(), self.url, timedelta(seconds=30))

        def open_store() -> TaskHubStore:
            opened.append(provider.open(options, environment))
            return opened[-1].hub

        def host_state() -> HostStateStore:
            return opened[0].host_state

        def set_clock() -> None:
            now = environment.clock.now()
            ahead = now - (_EPOCH if frozen else datetime.now(UTC))  # noqa: TID251 the server's clock
            text = _FROZEN if frozen else _NOW
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(text.format(ahead // timedelta(microseconds=1)).encode())

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


@asynccontextmanager
async def memory() -> AsyncGenerator[ContractHub]:
    environment = contract_environment()
    yield ContractHub(open=MemoryHub(environment).open, environment=environment)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=call_sequences())
def test_postgres_and_memory_agree(database: Database, calls: list[Call]) -> None:
    def new_hub() -> AbstractAsyncContextManager[ContractHub]:
        return database.new_hub(frozen=True)

    assert observe(calls, new_hub, run=asyncio.run) == observe(calls, memory)
