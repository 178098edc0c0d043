"""The SQLite provider keeps the contract, on virtual time and with its own threads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from durable_host.storage.contract import HostStateStore, OpenedProvider, StorageOptions, TaskHubStore
from durable_host.testing.store_contract import ContractHub, StoreContract, contract_environment
from durable_host_providers.sqlite import provider


class TestSqlite(StoreContract):
    """A file, on virtual time, in several orders of callbacks. Store objects of one process need no polling."""

    seeds = (0, 1)
    settings: dict[str, object] = {"synchronous": "off", "pollInterval": 0}

    @asynccontextmanager
    async def new_hub(self) -> AsyncGenerator[ContractHub]:
        environment = contract_environment()
        opened: list[OpenedProvider] = []
        with TemporaryDirectory() as folder:
            options = StorageOptions(
                hub="Hub",
                settings=self.settings,
                folder=Path(folder),
                url="sqlite:///hub.db",
                lease=timedelta(seconds=30),
            )

            def open_store() -> TaskHubStore:
                opened.append(provider.open(options, environment))
                return opened[-1].hub

            def host_state() -> HostStateStore:
                return opened[0].host_state

            yield ContractHub(open=open_store, environment=environment, host_state=host_state)


class TestSqliteOnARealLoop(TestSqlite):
    """As users run it: threads of its own, synced to disk, polling for other processes."""

    simulated = False
    settings: dict[str, object] = {}
