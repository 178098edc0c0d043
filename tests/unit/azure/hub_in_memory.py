"""A hub in an account in memory, one process on it, and the hand of another writer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from durable_host.environment import Environment
from durable_host.model.ids import InstanceId
from durable_host.testing.environment import simulated_environment
from durable_host.testing.store_contract.harness import ContractHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ports import TableAction, TableOperation, Value
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.simulated_queue import StoredMessage
from durable_host_providers.azure_storage.wire.keys import escape_key
from tests.contract.azure_shared import SharedPartitions, SharedStore

__all__ = ["SETTINGS", "HubInMemory", "new_hub", "opened"]

SETTINGS = AzureSettings(Layout("Hub"), max_polling=timedelta(seconds=1))


@dataclass(frozen=True)
class HubInMemory:
    """See the module."""

    service: SimulatedService
    hub: ContractHub
    store: SharedStore

    @property
    def account(self) -> SimulatedAccount:
        """Another writer's way to the hub."""
        return SimulatedAccount(self.service)

    @property
    def container_url(self) -> str:
        return self.account.blobs(SETTINGS.layout.large_messages).url("").rstrip("/")

    def blobs(self) -> set[str]:
        """Names of what was too large."""
        return set(self.service.containers[SETTINGS.layout.large_messages].blobs)

    async def write_blob(self, name: str, data: bytes) -> None:
        container = self.account.blobs(SETTINGS.layout.large_messages)
        await container.create()
        await container.write(name, data)

    async def merge(self, instance_id: str, **columns: Value) -> None:
        """Write into the row of an instance what another writer would."""
        keys: dict[str, Value] = {"PartitionKey": escape_key(InstanceId(instance_id)), "RowKey": ""}
        table = self.account.table(SETTINGS.layout.instances)
        await table.write(TableOperation(TableAction.UPSERT_MERGE, {**keys, **columns}))

    def messages(self, instance_id: str = "a") -> list[StoredMessage]:
        """What is in the control queue of an instance, visible or not."""
        queue = SETTINGS.layout.control_queue_for(InstanceId(instance_id))
        return list(self.service.queues[queue].messages.values())


def new_hub(environment: Environment) -> HubInMemory:
    """A new hub, and a process that has not opened it."""
    service = SimulatedService(environment.clock.now)
    shared = SharedPartitions()
    hub = ContractHub(
        open=lambda: SharedStore(SimulatedAccount(service), SETTINGS, environment, shared), environment=environment
    )
    store = hub.open()
    assert isinstance(store, SharedStore)
    return HubInMemory(service, hub, store)


@asynccontextmanager
async def opened() -> AsyncGenerator[HubInMemory]:
    """A new hub, and a process that has opened it."""
    hub = new_hub(simulated_environment())
    await hub.store.create()
    async with hub.store:
        yield hub
