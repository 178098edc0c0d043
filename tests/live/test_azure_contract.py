"""The Azure Storage provider keeps the contract on Azurite, by its own client, in real time with short leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from durable_host.environment import system_environment
from durable_host.testing.store_contract import ContractHub, StoreContract
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from tests.contract.azure_shared import LEFT_OUT, SharedPartitions, SharedStore
from tests.servers.azurite import Azurite

_LEASE_S = 3
_LONGEST_S = 8

_CLOSE = "it acts a few tenths of a lease before its end, and leases are short here"
SLOW = {
    "test_a_renewed_lease_commits": _CLOSE,
    "test_an_instance_may_be_named_like_an_activity_task": _CLOSE,
    "test_leases_of_either_kind_last_while_they_are_renewed": _CLOSE,
    "test_a_lease_that_is_not_renewed_ends": _CLOSE,
    "test_messages_and_activities_are_counted_with_their_ages": "its leases end before it looks",
    "test_every_condition_and_every_combination_finds_what_it_should": "sixteen instances a second apart",
    "test_a_query_tells_what_get_instance_tells": "sixteen instances a second apart",
}


async def _pass_time(by: timedelta) -> None:
    if by.total_seconds() > _LONGEST_S:
        pytest.skip("takes longer than a test on real time should")
    await asyncio.sleep(by.total_seconds())


class TestAzureOnAzurite(StoreContract):
    """Real queues and tables; what needs minutes is left to the account in memory."""

    simulated = False
    azurite: Azurite

    @pytest.fixture(autouse=True)
    def use_azurite(self, request: pytest.FixtureRequest, azurite: Azurite) -> None:
        reason = LEFT_OUT.get(request.node.name) or SLOW.get(request.node.name)
        if reason is not None:
            pytest.skip(reason)
        self.azurite = azurite

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = system_environment()
        connection = parse_connection_string(self.azurite.connection_string)
        settings = AzureSettings(
            Layout(self.azurite.new_name(), 16),
            control_visibility_s=_LEASE_S,
            work_item_visibility_s=_LEASE_S,
            hand_over_s=_LEASE_S,
            max_polling=timedelta(seconds=0.5),
        )
        shared = SharedPartitions()
        yield ContractHub(
            open=lambda: SharedStore(RestAccount(connection, environment), settings, environment, shared),
            environment=environment,
            lease=timedelta(seconds=_LEASE_S),
            pass_time=_pass_time,
        )
