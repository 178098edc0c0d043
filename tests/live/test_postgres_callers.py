"""Starts and events in transactions of callers: asyncpg, psycopg, and SQL alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from durable_host.environment import SystemClock, system_environment
from durable_host.errors import StoreMismatchError, UnsupportedError
from durable_host.model.history import EventRaised, ExecutionStarted
from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import Forgetful, event, start
from durable_host_providers.postgres import provider

pytestmark = pytest.mark.live

WAIT = timedelta(seconds=5)


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[tuple[ContractHub, TaskHubStore]]:
    environment = system_environment()
    store = provider.open(StorageOptions("Hub", {}, Path(), url), environment).hub
    await store.create()
    async with store:
        yield ContractHub(open=lambda: store, environment=environment), store


async def locked(store: TaskHubStore) -> list[str]:
    items = await store.lock_orchestrations(10, wait=timedelta(0), cache=Forgetful())
    return [message.id for item in items for message in item.inbox]


async def test_an_asyncpg_transaction_decides(postgres_database: str) -> None:
    async with opened(postgres_database) as (hub, store):
        connection = await asyncpg.connect(postgres_database)
        try:
            undone = connection.transaction()
            await undone.start()
            assert await store.create_instance(start(hub, "a"), replaceable=(), transaction=connection)
            await store.send([event(hub, "b")], transaction=connection)
            assert await store.get_instance(InstanceId("a")) is None
            await undone.rollback()
            assert await store.get_instance(InstanceId("a")) is None

            async with connection.transaction():
                assert await store.create_instance(start(hub, "a"), replaceable=(), transaction=connection)
                assert not await store.create_instance(start(hub, "a"), replaceable=(), transaction=connection)
            state = await store.get_instance(InstanceId("a"))
        finally:
            await connection.close()

        assert state is not None
        assert state.status is RuntimeStatus.PENDING
        assert len(await locked(store)) == 1


async def test_psycopg_transactions_decide(postgres_database: str) -> None:
    async with opened(postgres_database) as (hub, store):
        with psycopg.connect(postgres_database) as connection:
            assert await store.create_instance(start(hub, "a"), replaceable=(), transaction=connection)
            connection.rollback()
            assert await store.create_instance(start(hub, "b"), replaceable=(), transaction=connection)
        async with await psycopg.AsyncConnection.connect(postgres_database) as other:
            await store.send([event(hub, "b", visible_at=hub.now() - timedelta(seconds=1))], transaction=other)

        assert await store.get_instance(InstanceId("a")) is None
        assert len(await locked(store)) == 2


async def test_a_commit_of_the_caller_wakes_who_waits(postgres_database: str) -> None:
    async with opened(postgres_database) as (hub, store):
        waiting = asyncio.ensure_future(store.lock_orchestrations(10, wait=WAIT, cache=Forgetful()))
        await asyncio.sleep(0.3)
        with psycopg.connect(postgres_database) as connection:
            await store.create_instance(start(hub, "a"), replaceable=(), transaction=connection)
        begun = SystemClock().monotonic()
        (item,) = await waiting

        assert item.instance_id == "a"
        assert SystemClock().monotonic() - begun < 4  # the safety net takes five


async def test_a_connection_without_a_transaction_is_refused(postgres_database: str) -> None:
    async with opened(postgres_database) as (hub, store):
        connection = await asyncpg.connect(postgres_database)
        try:
            with pytest.raises(UnsupportedError, match="no open transaction"):
                await store.send([event(hub)], transaction=connection)
        finally:
            await connection.close()
        with psycopg.connect(postgres_database, autocommit=True) as other:
            with pytest.raises(UnsupportedError, match="no open transaction"):
                await store.send([event(hub)], transaction=other)
            with other.transaction():
                await store.send([event(hub)], transaction=other)
        with pytest.raises(UnsupportedError, match="a builtins"):
            await store.send([event(hub)], transaction="connection")
        assert len(await locked(store)) == 1


async def test_a_connection_to_another_database_is_refused(postgres_database: str) -> None:
    async with opened(f"{postgres_database}?schema=one") as (hub, store), opened(postgres_database) as (_, other):
        del other
        elsewhere = postgres_database.rpartition("/")[0] + "/postgres"
        with (
            psycopg.connect(elsewhere) as connection,
            pytest.raises(StoreMismatchError, match="does not lead to the database"),
        ):
            await store.send([event(hub)], transaction=connection)


def execute(url: str, statement: str, *arguments: Any) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode(), arguments).fetchone()


async def test_sql_alone_starts_an_instance(postgres_database: str) -> None:
    odd = 'it\'s "é" \\ \U0001f600 "durable-host:input"'
    async with opened(postgres_database) as (_, store):
        (generated,) = execute(
            postgres_database, "SELECT durable_host.start_instance('Hub', %s, %s)", odd, json.dumps({"x": odd})
        )
        state = await store.get_instance(generated)
        (item,) = await store.lock_orchestrations(10, wait=timedelta(0), cache=Forgetful())
        started = item.inbox[0].event

        assert state is not None
        assert isinstance(started, ExecutionStarted)
        assert (state.name, state.status, json.loads(state.input or "")) == (odd, RuntimeStatus.PENDING, {"x": odd})
        assert (started.name, started.input, started.instance_id) == (odd, state.input, generated)
        assert (started.execution_id, started.timestamp) == (state.execution_id, state.created_at)
        assert abs(datetime.now(UTC) - started.timestamp) < timedelta(minutes=1)


async def test_sql_alone_starts_later_and_raises_events(postgres_database: str) -> None:
    async with opened(postgres_database) as (_, store):
        execute(
            postgres_database,
            "SELECT durable_host.start_instance('hub', 'f', NULL, 'one', now() + interval '1 hour')",
        )
        execute(postgres_database, "SELECT durable_host.raise_event('Hub', 'two', 'Go', '[1]')")
        state = await store.get_instance(InstanceId("one"))
        items = await store.lock_orchestrations(10, wait=timedelta(0), cache=Forgetful())
        raised = items[0].inbox[0].event

        assert state is not None
        assert state.scheduled_at is not None
        assert timedelta(minutes=55) < state.scheduled_at - state.created_at < timedelta(minutes=65)
        assert [item.instance_id for item in items] == ["two"]
        assert isinstance(raised, EventRaised)
        assert (raised.name, raised.input) == ("Go", "[1]")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("start_instance('Nobody', 'f')", "there is no task hub 'Nobody'"),
        ("start_instance('Hub', 'f', '{')", "json"),
        ("start_instance('Hub', 'f', NULL, 'a/b')", "not valid"),
        ("start_instance('Hub', 'f', NULL, '@a')", "not valid"),
        ("start_instance('Hub', '')", "name of the orchestrator is missing"),
        ("start_instance('Hub', 'f', NULL, 'there')", "already exists"),
        ("raise_event('Hub', '', 'x')", "are needed"),
    ],
)
async def test_mistakes_in_sql_are_told(postgres_database: str, call: str, message: str) -> None:
    async with opened(postgres_database):
        execute(postgres_database, "SELECT durable_host.start_instance('Hub', 'f', NULL, 'there')")
        with pytest.raises(psycopg.Error, match=message):
            execute(postgres_database, f"SELECT durable_host.{call}")
