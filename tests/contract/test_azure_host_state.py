"""The host state on Azure Storage keeps the contract: on the simulated account in virtual time, and on Azurite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import Environment
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.environment import simulated_environment
from durable_host.testing.store_contract import ContractHub, contract_environment
from durable_host.testing.store_contract.host_state import HostStateContract
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.host_state import AzureHostState, HostIdentity, host_identity
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.memory import MemoryHub
from tests.servers.azurite import Azurite

LEASE = timedelta(seconds=15)


class TestSimulatedHostState(HostStateContract):
    """All promises, also those that take minutes."""

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = contract_environment()
        account = SimulatedAccount(SimulatedService(environment.clock.now))
        yield _hub(account, environment, "app")


class TestHostStateOnAzurite(HostStateContract):
    """What needs no waiting; Azurite's clock cannot be moved."""

    simulated = False

    @pytest.fixture(autouse=True)
    def server(self, azurite: Azurite) -> None:
        self.azurite = azurite

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = contract_environment()
        connection = parse_connection_string(self.azurite.connection_string)
        async with RestAccount(connection, Environment()) as account:
            yield _hub(account, environment, self.azurite.new_name())

    test_a_named_lease_lasts_while_it_is_renewed = None  # type: ignore[assignment]  # not collected
    test_a_named_lease_that_ended_is_taken_and_lost = None  # type: ignore[assignment]  # not collected


def _hub(account: StorageAccount, environment: Environment, name: str) -> ContractHub:
    def open_store() -> TaskHubStore:
        return MemoryHub(environment).open()

    return ContractHub(
        open=open_store,
        environment=environment,
        host_state=lambda: AzureHostState(account, environment, HostIdentity(f"{name}-site", name)),
    )


def _state() -> tuple[AzureHostState, SimulatedService]:
    environment = simulated_environment()
    service = SimulatedService(environment.clock.now)
    return AzureHostState(SimulatedAccount(service), environment, HostIdentity("site", "id")), service


@pytest.mark.simulated
async def test_documents_and_leases_lie_where_azures_host_looks_for_them() -> None:
    state, service = _state()

    for path in ("keys/host", "keys/functions/hello", "timers/tick", "other/a b"):
        assert await state.write(path, b"{}", expected=None) is not None
    for name in ("host", "timers/tick", "a/b"):
        assert await state.acquire(name, duration=LEASE) is not None

    assert set(service.containers["azure-webjobs-secrets"].blobs) == {"site/host.json", "site/hello.json"}
    assert set(service.containers["azure-webjobs-hosts"].blobs) == {
        "timers/id/Host.Functions.tick/status",
        "documents/id/other%2Fa%20b.json",
        "locks/id/host",
        "locks/id/Host.Functions.tick.Listener",
        "locks/id/a%2Fb",
    }


@pytest.mark.simulated
async def test_the_blob_of_a_lock_says_who_took_it_last() -> None:
    one, service = _state()
    two = AzureHostState(SimulatedAccount(service), simulated_environment("two"), HostIdentity("site", "id"))

    async def owner() -> str:
        item = await SimulatedAccount(service).blobs("azure-webjobs-hosts").properties("locks/id/host")
        assert item is not None
        assert item.size == 0
        return item.metadata["FunctionInstance"]

    lease = await one.acquire("host", duration=LEASE)
    assert lease is not None
    first = await owner()
    assert await two.acquire("host", duration=LEASE) is None
    assert await owner() == first
    await one.release(lease)
    assert await two.acquire("host", duration=LEASE) is not None
    assert await owner() != first


@pytest.mark.simulated
async def test_paths_that_no_function_can_have_do_not_meet_those_of_functions() -> None:
    state, _ = _state()
    paths = ["keys/host", "keys/functions/host", "keys/functions/a/b", "keys/functions/a.b", "timers/", "timers/a/b"]

    for path in paths:
        assert await state.write(path, path.encode(), expected=None) is not None

    assert [(await _value(state, path)) for path in paths] == [path.encode() for path in paths]
    assert list(await state.list("")) == sorted(paths)


async def _value(state: AzureHostState, path: str) -> bytes | None:
    found = await state.read(path)
    return None if found is None else found.value


@pytest.mark.simulated
async def test_snapshots_of_azure_among_the_keys_are_no_documents() -> None:
    state, service = _state()
    assert await state.write("keys/host", b"{}", expected=None) is not None
    blobs = SimulatedAccount(service).blobs("azure-webjobs-secrets")
    await blobs.write("site/host.snapshot.2026-11-21.json", b"{}")
    await blobs.write("site/host.txt", b"{}")

    assert list(await state.list("keys/")) == ["keys/host"]


@pytest.mark.simulated
async def test_a_lease_is_never_promised_for_longer_than_the_service_grants() -> None:
    state, _ = _state()

    long = await state.acquire("long", duration=timedelta(minutes=5))
    short = await state.acquire("short", duration=timedelta(seconds=2))

    assert long is not None
    assert short is not None
    assert (long.remaining, short.remaining) == (timedelta(seconds=60), timedelta(seconds=2))
    renewed = await state.renew(long, duration=timedelta(minutes=5))
    assert renewed is not None
    assert renewed.remaining == timedelta(seconds=60)


def test_the_identity_comes_from_the_settings_else_from_machine_and_folder() -> None:
    def identity(**settings: str) -> tuple[str, str]:
        found = host_identity(Path("/app"), settings.get)
        return found.site, found.host_id

    local = identity()

    assert local[0] == local[1]
    assert local[0] == local[0].lower()
    assert len(local[0]) <= 32
    assert identity(AzureFunctionsWebHost__hostid="my-id") == ("my-id", "my-id")
    assert identity(WEBSITE_SITE_NAME="MySite") == ("mysite", "mysite")
    assert identity(WEBSITE_SITE_NAME="MySite", WEBSITE_SLOT_NAME="Production") == ("mysite", "mysite")
    assert identity(WEBSITE_SITE_NAME="MySite", WEBSITE_SLOT_NAME="Stage") == ("mysite-stage", "mysite-stage")
    assert identity(WEBSITE_SITE_NAME="A" * 31 + "-b") == ("a" * 31 + "-b", "a" * 31)
    assert identity(WEBSITE_SITE_NAME="x", AzureFunctionsWebHost__hostid="y") == ("x", "y")
