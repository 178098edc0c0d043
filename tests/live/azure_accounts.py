"""The three implementations of the Azure Storage ports, each on a service that is there for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from durable_host.environment import Environment
from durable_host.testing.environment import SimulatedClock
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.sdk import SdkAccount
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.servers.azurite import Azurite

__all__ = ["KINDS", "Service", "make_service"]

KINDS = ("simulated", "sdk", "rest")


@dataclass(frozen=True)
class Service:
    """A storage service. `open`: one more process's way to it. `new_name`: for a queue, table or container."""

    kind: str
    open: Callable[[], StorageAccount]
    new_name: Callable[[], str]
    pass_time: Callable[[float], Awaitable[None]]


def make_service(kind: str, request: pytest.FixtureRequest) -> Service:
    """The service of that kind; Azurite is asked for only where it is needed."""
    if kind == "simulated":
        return _simulated()
    azurite: Azurite = request.getfixturevalue("azurite")
    connection = parse_connection_string(azurite.connection_string)
    account = SdkAccount if kind == "sdk" else RestAccount
    return Service(kind, lambda: account(connection, Environment()), azurite.new_name, asyncio.sleep)


def _simulated() -> Service:
    clock = SimulatedClock(lambda: 0.0)
    service = SimulatedService(clock.now)
    names = iter(range(1_000_000))

    async def pass_time(seconds: float) -> None:
        clock.advance(timedelta(seconds=seconds))

    return Service("simulated", lambda: SimulatedAccount(service), lambda: f"name{next(names)}", pass_time)
