"""Plans that are made for small tables must do for large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from durable_host.environment import system_environment
from durable_host.storage.contract import StorageOptions
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import advance, create, lock
from durable_host_providers.postgres import provider
from durable_host_providers.postgres.statements import statements
from durable_host_providers.postgres.warming import warm

pytestmark = pytest.mark.live

_AS_FOR_WORK = """
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET enable_hashjoin = off; SET enable_mergejoin = off;
    LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
    SET client_min_messages = log
"""


async def test_no_write_walks_along_the_wake_ups_or_a_whole_table(postgres_database: str) -> None:
    store = provider.open(StorageOptions("Hub", {}, Path(), postgres_database), system_environment()).hub
    await store.create()
    async with store:
        hub = ContractHub(open=lambda: store, environment=system_environment())
        await create(hub, store, *(f"a{number}" for number in range(40)))
        for item in await lock(store):
            await store.commit([advance(hub, item)])
    connection: Any = await asyncpg.connect(postgres_database)
    plans: list[str] = []

    def note(_: object, message: Any) -> None:
        plans.append(message.message)

    connection.add_log_listener(note)
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute(_AS_FOR_WORK)
        await warm(connection, statements("durable_host"), "first")
    finally:
        await connection.close()

    assert any("instances_pkey" in plan for plan in plans)
    for plan in plans:
        if "durable_host" in plan and "Seq Scan on" in plan:
            pytest.fail(plan)
        if "instances_by_wake" in plan:  # only where the next one to be woken is looked for
            assert "ORDER BY i.wake_at LIMIT" in plan, plan
