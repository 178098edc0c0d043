"""The Azure Storage provider keeps the contract, on an account in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.contract.azure_shared import LEFT_OUT, SharedPartitions, SharedStore

SETTINGS = AzureSettings(
    Layout("ContractHub", 16), control_visibility_s=30, work_item_visibility_s=30, max_polling=timedelta(seconds=1)
)


class TestAzureSimulated(StoreContract):
    """On virtual time."""

    @pytest.fixture(autouse=True)
    def leave_out(self, request: pytest.FixtureRequest) -> None:
        reason = LEFT_OUT.get(request.node.name)
        if reason is not None:
            pytest.skip(reason)

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = contract_environment()
        service = SimulatedService(environment.clock.now)
        shared = SharedPartitions()
        yield ContractHub(
            open=lambda: SharedStore(SimulatedAccount(service), SETTINGS, environment, shared), environment=environment
        )
