"""A checkpoint that contradicts itself fails alone, whatever it shares its batch with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from durable_host.engine.committer import GroupCommit
from durable_host.environment import system_environment
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import Checkpoint, CommitOutcome, OrchestrationWorkItem, StorageOptions
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import advance, create, event, lock
from durable_host_providers.postgres import provider

pytestmark = pytest.mark.live

_NAMES = ("step", "bad", "first", "sends", "ends")


def _inconsistent(hub: ContractHub, item: OrchestrationWorkItem) -> Checkpoint:
    checkpoint = advance(hub, item, hold=True)
    assert checkpoint.state is not None
    return msgspec.structs.replace(
        checkpoint, state=msgspec.structs.replace(checkpoint.state, version=HistoryVersion(1, 1000))
    )


async def test_an_inconsistent_checkpoint_fails_alone(postgres_database: str) -> None:
    environment = system_environment()
    store = provider.open(StorageOptions("Hub", {}, Path(), postgres_database, timedelta(minutes=5)), environment).hub
    hub = ContractHub(open=lambda: store, environment=environment)
    await store.create()
    batches: list[int] = []

    async def write(checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        batches.append(len(checkpoints))
        return await store.commit(checkpoints)

    async with store:
        await create(hub, store, *_NAMES)
        items = {item.instance_id: item for item in await lock(store)}
        for name in ("step", "bad", "sends", "ends"):
            (outcome,) = await store.commit([advance(hub, items[InstanceId(name)], hold=True)])
            assert outcome is CommitOutcome.COMMITTED
        await store.send([event(hub, name) for name in ("step", "bad", "sends", "ends")])
        items.update({item.instance_id: item for item in await lock(store)})
        step, wrong, first, sends, ends = (
            msgspec.structs.replace(items[InstanceId(name)], version=None if name == "first" else HistoryVersion(1, 2))
            for name in _NAMES
        )
        checkpoints = [
            advance(hub, step, hold=True),
            _inconsistent(hub, wrong),
            advance(hub, first, hold=True),
            advance(hub, sends, hold=True, messages=[event(hub, "another")]),
            advance(hub, ends),
        ]
        commits: GroupCommit[Checkpoint] = GroupCommit(write, batch=64, concurrency=2)

        outcomes = await asyncio.gather(*(commits.put(each) for each in checkpoints), return_exceptions=True)

        assert batches[0] == 5
        assert isinstance(outcomes.pop(1), ValueError)
        assert outcomes == [CommitOutcome.COMMITTED] * 4
        for name in ("step", "first", "sends", "ends"):
            checkpoint = next(each for each in checkpoints if each.lease.key == name)
            state = await store.get_instance(InstanceId(name))
            assert checkpoint.state is not None
            assert (state and state.version) == checkpoint.state.version
