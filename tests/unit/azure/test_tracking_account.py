"""A hub over two accounts."""

from __future__ import annotations

import pytest

from durable_host.testing.environment import simulated_environment
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.rest_tracking import TrackingAccount
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService


@pytest.mark.simulated
async def test_queues_are_in_one_account_and_everything_else_in_the_other() -> None:
    clock = simulated_environment().clock
    queues, tracking = SimulatedService(clock.now), SimulatedService(clock.now)
    account: StorageAccount = TrackingAccount(SimulatedAccount(queues), SimulatedAccount(tracking))

    async with account:
        await account.queue("q").create()
        await account.table("t").create()
        await account.blobs("c").create()
        await account.blobs("c").write("a", b"1")

    assert (set(queues.queues), set(queues.tables), set(queues.containers)) == ({"q"}, set(), set())
    assert (set(tracking.queues), set(tracking.tables), set(tracking.containers)) == (set(), {"t"}, {"c"})
    assert account.requests == {"queue.create": 1, "table.create": 1, "blob.create": 1, "blob.write": 1}
    assert list(await account.queue_names("")) == ["q"]
