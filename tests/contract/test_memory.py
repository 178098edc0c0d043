"""The memory provider keeps the contract; what follows from its being in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreMismatchError
from durable_host.storage.contract import StorageOptions
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host_providers.memory import MemoryHub, provider


class TestMemory(StoreContract):
    """On virtual time, in several orders of callbacks."""

    seeds = (0, 1, 2)

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = contract_environment()
        hub = MemoryHub(environment)
        yield ContractHub(open=hub.open, environment=environment, host_state=lambda: hub.host_state)


class TestMemoryOnARealLoop(TestMemory):
    """As users run it, with a clock that tests can move on."""

    simulated = False


async def test_a_hub_that_was_not_created_cannot_be_opened() -> None:
    with pytest.raises(StoreMismatchError, match="create"):
        await MemoryHub().open().__aenter__()


async def test_a_named_hub_is_shared_in_the_process_and_an_unnamed_one_is_not() -> None:
    def documents(url: str | None) -> object:
        options = StorageOptions(hub="Hub", settings={}, folder=Path(), url=url, lease=timedelta(seconds=1))
        return provider.open(options, system_environment()).host_state

    assert documents("memory://shared-by-test") is documents("memory://shared-by-test")
    assert documents("memory://") is not documents("memory://")
    assert documents(None) is not documents(None)
