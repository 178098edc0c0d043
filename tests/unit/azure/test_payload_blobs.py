"""Blobs of a history go with its generation; those of messages go with the instance."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.testing.store_contract.harness import ContractHub
from durable_host.testing.store_contract.steps import advance, commit, create, event, fact, lock_one
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.contract.azure_shared import SharedPartitions, SharedStore

LARGE = '"' + "x" * 100_000 + '"'


@pytest.mark.simulated
async def test_blobs_of_a_history_go_with_its_generation_and_the_rest_with_the_instance() -> None:
    environment = simulated_environment()
    service = SimulatedService(environment.clock.now)
    settings = AzureSettings(Layout("Hub"), max_polling=timedelta(seconds=1))
    shared = SharedPartitions()
    hub = ContractHub(
        open=lambda: SharedStore(SimulatedAccount(service), settings, environment, shared), environment=environment
    )
    store = hub.open()
    await store.create()
    async with store:
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store), events=[fact(hub, LARGE)]))
        blobs = service.containers[settings.layout.large_messages].blobs
        (first,) = blobs
        await store.send([event(hub, input=LARGE)])
        (message,) = set(blobs) - {first}
        again = advance(hub, await lock_one(store), events=[fact(hub, LARGE)], replace=True)

        await commit(store, again)

        (second,) = set(blobs) - {message}
        assert second != first
        assert await store.get_history(InstanceId("a")) == list(again.events)
        await store.send([event(hub)])
        await commit(store, advance(hub, await lock_one(store), state={"status": RuntimeStatus.COMPLETED}))
        assert await store.purge([InstanceId("a")]) == 1
        assert not blobs
