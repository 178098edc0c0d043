"""The Azure Storage provider keeps the contract on Azurite, over REST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from durable_host.environment import Environment
from durable_host.testing.store_contract import ContractHub, StoreContract
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from tests.contract.azure_shared import SharedPartitions, SharedStore
from tests.contract.test_azure_simulated import LEFT_OUT
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live

LEASE = timedelta(seconds=2)
LONGEST_WAIT = timedelta(seconds=4)
"""Of a test in all. Azurite's clock cannot be moved; the simulated account runs the tests that wait longer."""

STUCK_S = 60.0


class TestAzureOnAzurite(StoreContract):
    """As users run it, but for short leases."""

    simulated = False

    @pytest.fixture(autouse=True)
    def server(self, azurite: Azurite, request: pytest.FixtureRequest) -> None:
        self.azurite = azurite
        reason = LEFT_OUT.get(request.node.name)
        if reason is not None:
            pytest.skip(reason)

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = Environment()
        connection = parse_connection_string(self.azurite.connection_string)
        settings = AzureSettings(
            Layout(self.azurite.new_name().capitalize(), 4),
            control_visibility_s=int(LEASE.total_seconds()),
            work_item_visibility_s=int(LEASE.total_seconds()),
            hand_over_s=int(LEASE.total_seconds()),
            max_polling=timedelta(seconds=0.2),
        )
        shared = SharedPartitions()

        def open_store() -> SharedStore:
            return SharedStore(RestAccount(connection, environment), settings, environment, shared)

        waited = timedelta(0)

        async def pass_time(by: timedelta) -> None:
            nonlocal waited
            waited += by
            if waited > LONGEST_WAIT:
                pytest.skip(f"it would wait {waited.total_seconds():.0f} s and more")
            await asyncio.sleep(by.total_seconds())

        yield ContractHub(open=open_store, environment=environment, lease=LEASE, pass_time=pass_time)
        await open_store().delete()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(STUCK_S):
                await main()

        super().run(bounded)
