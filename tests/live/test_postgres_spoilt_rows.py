"""Rows that cannot be decoded take their instance out of circulation, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from durable_host.environment import system_environment
from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import CommitOutcome, StorageOptions, TaskHubStore
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import activity, advance, create, event, lock, lock_one, lock_tasks
from durable_host_providers.postgres import provider

pytestmark = pytest.mark.live

SPOILT = InstanceId("spoilt")


def hub_of(url: str) -> tuple[ContractHub, TaskHubStore]:
    environment = system_environment()
    store = provider.open(StorageOptions("Hub", {}, Path(), url, timedelta(seconds=30)), environment).hub
    return ContractHub(open=lambda: store, environment=environment), store


def change(url: str, table: str, column: str, spoil: bool) -> None:
    """Prepend a character to what is stored for the instance, or take it away again."""
    new = f"'\\x21'::bytea || {column}" if spoil else f"substring({column} FROM 2)"
    with psycopg.connect(url, autocommit=True) as connection:
        changed = connection.execute(
            f"UPDATE durable_host.{table} SET {column} = {new} WHERE ref = "
            "(SELECT ref FROM durable_host.instances WHERE instance_id = 'spoilt')".encode()
        )
        assert changed.rowcount == 1


async def quarantined(store: TaskHubStore) -> str:
    async with asyncio.timeout(20):
        while True:
            state = await store.get_instance(SPOILT)
            if state is not None and state.quarantined is not None:
                assert state.status is RuntimeStatus.FAILED
                return state.quarantined
            await asyncio.sleep(0.02)


async def test_a_spoilt_message_quarantines_its_instance_alone(
    postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    hub, store = hub_of(postgres_database)
    await store.create()
    async with store:
        await create(hub, store, "spoilt", "sound")
        change(postgres_database, "messages", "event", spoil=True)

        assert [item.instance_id for item in await lock(store)] == ["sound"]
        assert "cannot be decoded" in await quarantined(store)

        change(postgres_database, "messages", "event", spoil=False)
        assert await store.release_quarantined([SPOILT]) == 1
        assert [item.instance_id for item in await lock(store)] == ["spoilt"]


async def test_a_message_spoilt_while_its_instance_is_held_quarantines_it(
    postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    hub, store = hub_of(postgres_database)
    await store.create()
    async with store:
        await create(hub, store, "spoilt")
        assert (await store.commit([advance(hub, await lock_one(store), hold=True)])) == [CommitOutcome.COMMITTED]
        await store.send([event(hub, "spoilt")])
        change(postgres_database, "messages", "event", spoil=True)

        assert await lock(store) == []
        assert "cannot be decoded" in await quarantined(store)


async def test_a_spoilt_task_quarantines_its_instance_alone(
    postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    hub, store = hub_of(postgres_database)
    await store.create()
    async with store:
        await create(hub, store, "spoilt", "sound")
        items = await lock(store)
        checkpoints = [
            advance(hub, item, activities=(activity(hub, item.instance_id, dispatch_id=item.instance_id),))
            for item in items
        ]
        await store.commit(checkpoints)
        change(postgres_database, "activities", "task", spoil=True)

        assert [item.task.instance_id for item in await lock_tasks(store)] == ["sound"]
        assert "activity spoilt cannot be decoded" in await quarantined(store)
        assert await lock_tasks(store) == []


async def test_a_spoilt_history_is_delivered_as_none(postgres_database: str) -> None:
    hub, store = hub_of(postgres_database)
    await store.create()
    async with store:
        await create(hub, store, "spoilt")
        await store.commit([advance(hub, await lock_one(store))])
        change(postgres_database, "history", "events", spoil=True)
        await store.send([event(hub, "spoilt")])

        assert (await lock_one(store)).history is None
