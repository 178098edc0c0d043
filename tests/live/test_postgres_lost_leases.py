"""A host that was paused between two calls finds its leases lost; it must not work on what others have made since."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.history import ExecutionStarted, HistoryEvent, OrchestratorCompleted, OrchestratorStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    Checkpoint,
    CommitOutcome,
    OrchestrationWorkItem,
    StorageOptions,
    TaskHubStore,
)
from durable_host_providers.postgres import provider
from durable_host_providers.postgres.connection import Pool
from durable_host_providers.postgres.grants import InstanceToken
from durable_host_providers.postgres.questions import Questions

pytestmark = pytest.mark.live

_LEASE = timedelta(seconds=1)
_NOW = system_environment().clock.now()
_ID = InstanceId("a")


class _Forgetful:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


def _store(url: str, lease: timedelta = _LEASE) -> TaskHubStore:
    return provider.open(StorageOptions("Hub", {}, Path(), url, lease), system_environment()).hub


def _message(number: int, event: HistoryEvent) -> Message:
    return Message(MessageId(f"message-{number}"), _ID, event, ExecutionId("execution"))


_STARTED = ExecutionStarted(timestamp=_NOW, instance_id=_ID, execution_id=ExecutionId("execution"), name="Orchestrator")
_NUDGE = OrchestratorStarted(timestamp=_NOW)


async def _lock(store: TaskHubStore) -> Sequence[OrchestrationWorkItem]:
    return await store.lock_orchestrations(1, wait=timedelta(0), cache=_Forgetful())


async def _advance(store: TaskHubStore, item: OrchestrationWorkItem, *, hold: bool = False) -> CommitOutcome:
    """Append three events."""
    length = 0 if item.version is None else item.version.length
    events = [OrchestratorStarted(timestamp=_NOW), _STARTED, OrchestratorCompleted(timestamp=_NOW)]
    version = HistoryVersion(0, length + len(events))
    state = InstanceState(
        _ID, ExecutionId("execution"), "Orchestrator", RuntimeStatus.RUNNING, _NOW, _NOW, version=version
    )
    consumed = [message.id for message in item.inbox]
    (outcome,) = await store.commit([Checkpoint(item.lease, item.version, state, events, consumed=consumed, hold=hold)])
    return outcome


async def test_an_instance_that_was_lost_before_its_history_was_read_is_not_delivered(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Questions.histories
    other = _store(postgres_database)
    await other.create()
    async with other, _store(postgres_database) as paused:
        await other.create_instance(_message(0, _STARTED), replaceable=())
        (item,) = await _lock(other)
        assert await _advance(other, item) is CommitOutcome.COMMITTED
        await other.send([_message(1, _NUDGE)])
        outcomes: list[CommitOutcome] = []

        async def read_later(questions: Questions, locked: Sequence[tuple[InstanceToken, HistoryVersion]]) -> object:
            monkeypatch.undo()
            await asyncio.sleep(1.5 * _LEASE.total_seconds())
            (taken,) = await _lock(other)
            outcomes.append(await _advance(other, taken))
            return await read(questions, locked)

        monkeypatch.setattr(Questions, "histories", read_later)

        assert await _lock(paused) == []

        assert outcomes == [CommitOutcome.COMMITTED]
        await other.send([_message(2, _NUDGE)])
        (again,) = await _lock(paused)
        assert again.history is not None
        assert (again.version, len(again.history)) == (HistoryVersion(0, 6), 6)


async def test_what_came_for_an_instance_comes_again_when_it_was_forgotten_meanwhile(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Pool.fetch
    store = _store(postgres_database, timedelta(minutes=5))
    await store.create()
    async with store:
        await store.create_instance(_message(0, _STARTED), replaceable=())
        (item,) = await _lock(store)
        assert await _advance(store, item, hold=True) is CommitOutcome.COMMITTED
        await store.send([_message(1, _NUDGE)])

        async def fetch_and_lose_an_answer(pool: Pool, query: str, *arguments: object) -> Sequence[Any]:
            answers = await fetch(pool, query, *arguments)
            if "history" in query:
                monkeypatch.undo()
                raise StoreUnavailableError("cut")
            if "fetch_instances" in query:
                held = OrchestrationWorkItem(_ID, HistoryVersion(0, 3), None, (), item.lease)
                with pytest.raises(StoreUnavailableError):
                    await _advance(store, held, hold=True)
            return answers

        monkeypatch.setattr(Pool, "fetch", fetch_and_lose_an_answer)

        assert await _lock(store) == []

        # Under another lease, long before the first one ends.
        (again,) = await store.lock_orchestrations(1, wait=timedelta(seconds=20), cache=_Forgetful())
        assert again.lease.token != item.lease.token
        assert (again.version, [message.id for message in again.inbox]) == (HistoryVersion(0, 6), ["message-1"])
        assert again.history is not None
        assert len(again.history) == 6
        assert await _advance(store, again) is CommitOutcome.COMMITTED
