"""Recorded hubs on Azurite, under another name: read, taken over by a host, brought to their ends, and purged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_host.environment import Environment
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage import provider
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.rest import RestAccount
from tests.azure_recordings import RECORDINGS
from tests.servers.azurite import Azurite
from tests.servers.recorded_hubs import MovedHub
from tests.simulation.test_azure_recorded_hubs import ENDS, PUSHES, app

pytestmark = pytest.mark.live

MANAGERS: dict[str, dict[str, Any]] = {
    "table": {},
    "more": {},
    "safe": {"useTablePartitionManagement": False, "queueClientMessageEncoding": "Base64"},
    "legacy": {"useTablePartitionManagement": False, "useLegacyPartitionManagement": True},
}
ENDS_OF_MORE: dict[str, Any] = {"results-queued": [0, "passed 1", 4, "passed 3", 16]}
_SOON = timedelta(seconds=60)


async def _load(azurite: Azurite, kind: str) -> str:
    recorded = MovedHub(kind, azurite.new_name().capitalize())
    async with RestAccount(parse_connection_string(azurite.connection_string), Environment()) as account:
        await recorded.load(account)
    return recorded.hub


def _open(azurite: Azurite, kind: str, hub: str, folder: Path, *, worker: bool = True) -> TaskHubStore:
    settings = {"AzureWebJobsStorage": azurite.connection_string}
    provided = {**MANAGERS[kind], "maxQueuePollingInterval": "00:00:01"}
    options = StorageOptions(hub, provided, folder, setting=settings.get, worker=worker)
    return provider.open(options, Environment()).hub


@pytest.mark.parametrize("kind", RECORDINGS)
async def test_a_recorded_hub_is_read_taken_over_and_purged(azurite: Azurite, tmp_path: Path, kind: str) -> None:
    hub = await _load(azurite, kind)
    worker = TaskHubWorker(_open(azurite, kind, hub, tmp_path), registry=app())
    async with worker:
        client = worker.client
        for instance_id, (name, data) in PUSHES.items() if kind != "more" else ():
            await client.raise_event(instance_id, name, data)
        if kind != "more":
            await client.resume("suspended", "go on")
        expected = ENDS_OF_MORE if kind == "more" else ENDS

        ends = {each: await client.wait_for_completion(each, timeout=_SOON) for each in expected}

        assert {each: json.loads(state.output or "null") for each, state in ends.items()} == expected
        if kind != "more":
            assert (await client.wait_for_completion("terminate-queued", timeout=_SOON)).output == "queued end"
            assert (await client.require("suspend-queued")).status is RuntimeStatus.SUSPENDED
    async with _open(azurite, kind, hub, tmp_path, worker=False) as store:
        found = (await store.query_instances(InstanceQuery(limit=1_000))).instances
        ended = [state.instance_id for state in found if state.status.is_terminal]
        assert kind == "more" or "odd id ^ % äß 日本" in ended
        for instance_id in ended:
            assert await store.get_history(instance_id)

        assert await store.purge([state.instance_id for state in found]) == len(ended)

        left = (await store.query_instances(InstanceQuery(limit=1_000))).instances
        assert [state for state in found if not state.status.is_terminal] == list(left)
        await store.delete()
