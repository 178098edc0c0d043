"""An automatic choice of the store must not hide what an earlier choice still has to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from durable_host.config.host_json import HostJson
from durable_host.config.settings import Settings
from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.host import HostConfig, host_id, refuse_hidden_instances
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host.storage.choice import StorageChoice
from durable_host.storage.contract import OpenedProvider, StorageOptions
from durable_host_providers.sqlite import SqliteProvider
from durable_host_providers.sqlite import provider as sqlite


class _Elsewhere:
    name = "azureStorage"
    schemes: Collection[str] = ()

    def problems(self, options: StorageOptions) -> Sequence[str]:
        return ()

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        raise NotImplementedError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostConfig:
    def find_provider(name: str) -> SqliteProvider:
        return sqlite

    monkeypatch.setattr("durable_host.host.find_provider", find_provider)
    return HostConfig(
        folder=tmp_path,
        host_json=HostJson(),
        settings=Settings({}),
        choice=StorageChoice(_Elsewhere(), {}, "AzureWebJobsStorage is set", automatic=True),
        storage=StorageOptions(hub="TestHubName", settings={"partitionCount": 4}, folder=tmp_path),
    )


async def _leave_an_instance(folder: Path) -> None:
    opened = sqlite.open(StorageOptions(hub="TestHubName", settings={}, folder=folder), Environment())
    await opened.hub.create()
    event = ExecutionStarted(
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        instance_id=InstanceId("a"),
        execution_id=ExecutionId("e"),
        name="f",
    )
    async with opened.hub as store:
        start = Message(id=MessageId("m"), target=InstanceId("a"), event=event, deliveries=0)
        await store.create_instance(start, replaceable=())


async def test_without_a_sqlite_hub_nothing_is_hidden(config: HostConfig, tmp_path: Path) -> None:
    await refuse_hidden_instances(config, Environment())

    assert not (tmp_path / ".durable").exists()


async def test_unfinished_instances_stop_an_automatic_choice(config: HostConfig, tmp_path: Path) -> None:
    await _leave_an_instance(tmp_path)

    with pytest.raises(ConfigurationError) as caught:
        await refuse_hidden_instances(config, Environment())

    text = str(caught.value)
    assert "The SQLite hub at .durable/TestHubName.db holds 1 unfinished instance(s)" in text
    assert "azureStorage instead, because AzureWebJobsStorage is set" in text
    assert "storageProvider.type in host.json to 'sqlite'" in text


async def test_an_explicit_choice_is_obeyed(config: HostConfig, tmp_path: Path) -> None:
    await _leave_an_instance(tmp_path)

    await refuse_hidden_instances(replace(config, choice=replace(config.choice, automatic=False)), Environment())


def test_a_host_id_is_stable_for_a_folder_and_may_be_set() -> None:
    def unset(name: str) -> str | None:
        return None

    first, again = host_id(Path("/app/one"), unset), host_id(Path("/app/one"), unset)

    assert first == again
    assert first != host_id(Path("/app/two"), unset)
    assert len(first) <= 32
    assert host_id(Path("/app"), lambda name: "my-app-1") == "my-app-1"
    for wrong in ("A", "a--b", "-a", "a" * 33, "a_b"):
        with pytest.raises(ConfigurationError, match="AzureFunctionsWebHost__hostid"):
            host_id(Path("/app"), lambda name, wrong=wrong: wrong)  # type: ignore[misc]
