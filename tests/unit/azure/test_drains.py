"""A partition that drains while its host stops."""

from __future__ import annotations

import asyncio

import pytest

from durable_host.testing.store_contract.steps import create, lock_one
from tests.unit.azure.hub_in_memory import SETTINGS, opened


@pytest.mark.simulated
async def test_a_drain_ends_when_what_it_waits_for_is_given_up_at_the_stop() -> None:
    async with opened() as hub:
        await create(hub.hub, hub.store, "a")
        item = await lock_one(hub.store)
        queue = SETTINGS.layout.control_queue_for(item.instance_id)
        assert hub.store.manager is not None
        partition = next(each for each in hub.store.manager.owned if each.queue == queue)
        drain = asyncio.ensure_future(hub.store.inbox.drain(partition))
        await asyncio.sleep(1)
        assert not drain.done()

        await hub.store.locks.close()

        async with asyncio.timeout(1):
            await drain
