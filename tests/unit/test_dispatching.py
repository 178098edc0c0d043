"""What episodes and activities have to do with each other on one worker: nothing but slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.engine.settings import EngineSettings
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.storage.contract import Checkpoint, CommitOutcome, OrchestrationWorkItem
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.simulated
Context = DurableOrchestrationContext

_note: ContextVar[str] = ContextVar("note", default="nothing")


async def test_context_variables_stay_with_the_function_that_sets_them() -> None:
    seen: list[str] = []

    async def work(value: str) -> None:
        seen.append(_note.get())
        _note.set(value)

    async def chain(context: Context) -> None:
        for value in ("first", "second"):
            seen.append(_note.get())
            await context.call_activity(work, value)

    environment = simulated_environment()
    worker = TaskHubWorker(MemoryHub(environment).open(), environment=environment, lease_thread=False)
    worker.activity(work)
    worker.orchestrator(chain)
    async with worker:
        _note.set("the caller's")
        instance = await worker.client.start(chain)
        await worker.client.wait_for_completion(instance, timeout=timedelta(minutes=1))

    assert seen == ["nothing"] * 4


@pytest.mark.parametrize("slots", [1, 3])
async def test_an_episode_whose_checkpoint_is_being_written_leaves_its_slot_to_another_one(slots: int) -> None:
    environment = simulated_environment()
    store = MemoryHub(environment).open()
    commit = store.commit
    ran = 0
    after_writes: list[int] = []

    async def slow(checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        await asyncio.sleep(1)
        after_writes.append(ran)
        return await commit(checkpoints)

    async def quick(context: Context) -> int:
        nonlocal ran
        ran += 1
        return 1

    store.commit = slow  # type: ignore[method-assign]
    settings = EngineSettings(max_concurrent_orchestrations=slots)
    worker = TaskHubWorker(store, environment=environment, settings=settings, lease_thread=False)
    worker.orchestrator(quick)
    async with worker:
        instances = [await worker.client.start(quick) for _ in range(20)]
        for instance in instances:
            assert await worker.client.result(instance, int) == 1

    assert after_writes[0] == 2 * slots
    assert ran == 20


async def test_an_instance_that_somebody_else_has_gone_on_with_is_let_go() -> None:
    """Its lease ran out unnoticed, and the history that is read late is not the one that was locked."""
    environment = simulated_environment()
    store = MemoryHub(environment).open()
    receive, get_history = store.receive_orchestrations, store.get_history
    late: list[int] = []

    async def evicted(limit: int, **rest: Any) -> Sequence[OrchestrationWorkItem]:
        return [replace(item, history=None) for item in await receive(limit, **rest)]

    async def moved_on(instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        history = await get_history(instance_id)
        if history and not late:
            late.append(len(history))
            return [*history, *history]
        return history

    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("go")

    store.receive_orchestrations = evicted  # type: ignore[method-assign, assignment]
    store.get_history = moved_on  # type: ignore[method-assign]
    settings = EngineSettings(max_cached_sessions=0)
    worker = TaskHubWorker(store, environment=environment, settings=settings, lease_thread=False)
    worker.orchestrator(waits)
    async with worker:
        instance = await worker.client.start(waits)
        await asyncio.sleep(1)
        await worker.client.raise_event(instance, "go", 1)

        assert await worker.client.result(instance, int) == 1

    assert len(late) == 1
    assert worker.metrics.value("checkpoints_lost") == 1
    assert worker.metrics.value("episodes_failed") == 0
