"""The SQLite provider keeps the contract, on virtual time and on threads, and agrees with the memory provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from hypothesis import given, settings

from durable_host.storage.contract import HostStateStore, OpenedProvider, StorageOptions, TaskHubStore
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host.testing.store_contract.agreement import Call, call_sequences, observe
from durable_host_providers.memory import MemoryHub
from durable_host_providers.sqlite import provider

# Store objects of one process tell each other of changes, so that virtual time need not pass poll by poll.
SIMULATED: Mapping[str, object] = {"synchronous": "off", "pollInterval": 0}


@asynccontextmanager
async def sqlite(values: Mapping[str, object] = SIMULATED) -> AsyncGenerator[ContractHub]:
    """A hub in a file of its own."""
    environment = contract_environment()
    opened: list[OpenedProvider] = []
    with TemporaryDirectory() as folder:
        lease = timedelta(seconds=30)
        options = StorageOptions("Hub", values, Path(folder), "sqlite:///hub.db", lease)

        def open_store() -> TaskHubStore:
            opened.append(provider.open(options, environment))
            return opened[-1].hub

        def host_state() -> HostStateStore:
            return opened[0].host_state

        yield ContractHub(open=open_store, environment=environment, host_state=host_state)


@asynccontextmanager
async def memory() -> AsyncGenerator[ContractHub]:
    environment = contract_environment()
    yield ContractHub(open=MemoryHub(environment).open, environment=environment)


class TestSqlite(StoreContract):
    """A file, on virtual time, in several orders of callbacks."""

    seeds = (0, 1)
    values: ClassVar[Mapping[str, object]] = SIMULATED

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        async with sqlite(self.values) as hub:
            yield hub


class TestSqliteOnARealLoop(TestSqlite):
    """As users run it: threads of its own, synced to disk, polling for other processes."""

    simulated = False
    values: ClassVar[Mapping[str, object]] = {}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(call_sequences())
def test_sqlite_and_memory_agree(calls: list[Call]) -> None:
    assert observe(calls, sqlite) == observe(calls, memory)
