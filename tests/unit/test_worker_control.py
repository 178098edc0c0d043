"""Limits, reuse of ids, termination and purging while things are going on, on the memory provider and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from durable_host.engine.activities import ActivityDispatcher, FinishedActivity
from durable_host.engine.client import ANY_STATE, TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.episode import Episodes
from durable_host.engine.orchestrations import OrchestrationDispatcher
from durable_host.engine.settings import EngineSettings
from durable_host.errors import ActivityFailedError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.simulated
HOUR = timedelta(hours=1)


class Gauge:
    """How many are inside at once, now and at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@asynccontextmanager
async def running(*orchestrators: Any, activity: Any = None, **settings: Any) -> AsyncGenerator[TaskHubWorker]:
    environment = simulated_environment()
    store = MemoryHub(environment).open()
    worker = TaskHubWorker(store, environment=environment, settings=EngineSettings(**settings), lease_thread=False)
    for each in orchestrators:
        worker.orchestrator(each)
    if activity is not None:
        worker.activity(activity, name="work")
    async with worker:
        yield worker


async def found(client: TaskHubClient, **conditions: Any) -> list[str]:
    return [state.instance_id async for state in client.instances(InstanceQuery(**conditions))]


async def test_no_more_activities_run_at_once_than_allowed() -> None:
    gauge = Gauge()

    async def work(number: int) -> int:
        with gauge:
            await asyncio.sleep(1)
        return number

    async def total(context: Context) -> int:
        return sum(await context.when_all([context.call_activity(work, number) for number in range(10)]))

    async with running(total, activity=work, max_concurrent_activities=3) as worker:
        started = [await worker.client.start(total) for _ in range(5)]
        assert [await worker.client.result(each, int, timeout=HOUR) for each in started] == [45] * 5

    assert (gauge.now, gauge.most) == (0, 3)


async def test_results_on_their_way_to_the_store_keep_nobody_from_running_until_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, original = Gauge(), ActivityDispatcher.complete

    async def complete(self: ActivityDispatcher, finished: FinishedActivity) -> None:
        with inside:
            await asyncio.sleep(100)
        await original(self, finished)

    def fold(*_: object) -> bool:
        return False

    monkeypatch.setattr(ActivityDispatcher, "complete", complete)
    monkeypatch.setattr(OrchestrationDispatcher, "fold", fold)
    gauge, begun = Gauge(), 0

    async def work(number: int) -> int:
        nonlocal begun
        begun += 1
        with gauge:
            await asyncio.sleep(1)
        return number

    async def total(context: Context) -> int:
        return sum(await context.when_all([context.call_activity(work, number) for number in range(10)]))

    async with running(total, activity=work, max_concurrent_activities=3) as worker:
        started = await worker.client.start(total)
        await asyncio.sleep(50)
        assert (begun, gauge.most, inside.now) == (6, 3, 6)
        assert await worker.client.result(started, int, timeout=HOUR) == 45


async def test_no_more_orchestrations_advance_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = Gauge()
    original = Episodes.advance

    async def advance(self: Episodes, position: Any, inbox: Any) -> Any:
        with gauge:
            await asyncio.sleep(1)
            return await original(self, position, inbox)

    monkeypatch.setattr(Episodes, "advance", advance)

    async def work(number: int) -> int:
        return number

    async def child(context: Context) -> Any:
        return await context.call_activity("work", context.get_input())

    async def parent(context: Context) -> int:
        calls = [context.call_sub_orchestrator(child, number) for number in range(10)]
        return sum(await context.when_all(calls))

    async with running(parent, child, activity=work, max_concurrent_orchestrations=2) as worker:
        assert await worker.client.result(await worker.client.start(parent), int, timeout=HOUR) == 45

    assert (gauge.now, gauge.most) == (0, 2)


async def test_first_failure_is_raised_at_once_and_the_instance_ends_when_the_others_have() -> None:
    async def work(seconds: int) -> int:
        await asyncio.sleep(seconds)
        if seconds == 1:
            raise ValueError("too short")
        return seconds

    async def race(context: Context) -> str:
        try:
            await context.when_all(context.call_activity(work, 1), context.call_activity(work, 100))
        except ActivityFailedError:
            context.set_custom_status("failed")
        return "went on"

    async with running(race, activity=work) as worker:
        instance = await worker.client.start(race)
        await asyncio.sleep(10)
        early = await worker.client.require(instance)
        assert (early.status, early.custom_status, early.output) == (RuntimeStatus.RUNNING, '"failed"', None)
        assert await worker.client.result(instance, timeout=HOUR) == "went on"


async def test_start_that_replaces_any_instance_wins_over_activities_that_still_run() -> None:
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(5)
        return number

    async def three(context: Context) -> list[int]:
        return [await context.call_activity("work", context.get_input(int) * 10 + step) for step in range(3)]

    async with running(three, activity=work) as worker:
        client = worker.client
        await client.start(three, 0, instance_id="same")
        for number in range(1, 6):
            await asyncio.sleep(3.3)
            await client.start(three, number, instance_id="same", replaceable=ANY_STATE)
        state = await client.wait_for_completion("same", timeout=HOUR)
        await asyncio.sleep(60)

        assert (state.output, state.starts) == ("[50,51,52]", 5)
        assert (await client.require("same")).output == "[50,51,52]"
    # Each has asked for one activity, or for two where the first was done in time.
    assert begun[-3:] == [50, 51, 52]
    assert sorted(set(begun)) == sorted(begun)


async def test_termination_reaches_grandchildren_and_leaves_what_runs_to_end_in_vain() -> None:
    done: list[int] = []

    async def work(seconds: int) -> int:
        await asyncio.sleep(seconds)
        done.append(seconds)
        return seconds

    async def grandchild(context: Context) -> Any:
        return await context.call_activity("work", 100)

    async def child(context: Context) -> Any:
        return await context.call_sub_orchestrator(grandchild, None, "grandchild")

    async def parent(context: Context) -> Any:
        return await context.call_sub_orchestrator(child, None, "child")

    async with running(parent, child, grandchild, activity=work) as worker:
        client = worker.client
        await client.start(parent, instance_id="parent")
        await asyncio.sleep(10)
        await client.terminate("parent", "enough", recursive=True)
        for name in ("parent", "child", "grandchild"):
            state = await client.wait_for_completion(name, timeout=timedelta(seconds=30))
            assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "enough")
        assert done == []
        await asyncio.sleep(200)
        assert done == [100]
        assert (await client.require("grandchild")).status is RuntimeStatus.TERMINATED
        left = await client.store.statistics()
        assert (left.activities_waiting, left.activities_running, left.inbox_waiting) == (0, 0, 0)


async def test_instances_are_found_and_purged_by_times_status_tags_parent_and_prefix() -> None:
    async def child(context: Context) -> None:
        await context.create_timer(timedelta(seconds=1))

    async def parent(context: Context) -> None:
        await context.call_sub_orchestrator(child)
        if context.get_input() == 3:
            raise ValueError("three")

    async with running(parent, child) as worker:
        client = worker.client
        now = worker.environment.clock.now
        began: list[datetime] = []
        for number in range(6):
            began.append(now())
            await client.start(
                parent, number, instance_id=f"i{number}", tags={"even": str(number % 2 == 0)}, version="2"
            )
            await asyncio.sleep(10)
        parents = frozenset({"parent"})

        assert await found(client, names=parents) == [f"i{number}" for number in range(6)]
        assert len(await found(client, parent="i2")) == 1
        assert await found(client, names=parents, created_from=began[2], created_to=began[3]) == ["i2", "i3"]
        assert await found(client, names=parents, updated_from=began[4]) == ["i4", "i5"]
        assert await found(client, names=parents, tags=(("even", "True"),)) == ["i0", "i2", "i4"]
        assert await found(client, prefix="i1") == ["i1"]
        assert await found(client, statuses=frozenset({RuntimeStatus.FAILED})) == ["i3"]
        of_two = (await client.query(InstanceQuery(parent=InstanceId("i2")))).instances[0]
        assert (of_two.tags, (await client.require("i2")).orchestrator_version) == ({"even": "True"}, "2")

        assert await client.purge_by(InstanceQuery(names=parents, created_from=began[2], created_to=began[2])) == 1
        assert await client.purge_by(InstanceQuery(parent=InstanceId("i0"))) == 1
        assert await client.purge_by(InstanceQuery(names=parents, updated_to=began[1])) == 1
        assert await client.purge_by(InstanceQuery(statuses=frozenset({RuntimeStatus.FAILED}))) == 1
        assert await client.purge_by(InstanceQuery(statuses=frozenset({RuntimeStatus.RUNNING}))) == 0
        assert await found(client, names=parents) == ["i1", "i4", "i5"]
        assert await found(client, names=parents, limit=1) == ["i1", "i4", "i5"]
