"""The engine as a whole: every promise of its control surface, on the memory provider and virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from durable_host.engine import episode
from durable_host.engine.client import ANY_STATE, TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.engine.episode import Episodes
from durable_host.engine.settings import EngineSettings
from durable_host.errors import (
    ActivityFailedError,
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    StoreUnavailableError,
    SubOrchestrationFailedError,
    WaitTimeoutError,
)
from durable_host.model.history import ExecutionStarted, HistoryEvent, event_type
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.retry import RetryOptions
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub

pytestmark = pytest.mark.simulated
Context = DurableOrchestrationContext
HOUR = timedelta(hours=1)


@asynccontextmanager
async def running(
    register: Callable[[TaskHubWorker], object], *, hub: MemoryHub | None = None, settings: EngineSettings | None = None
) -> AsyncGenerator[TaskHubWorker]:
    environment = simulated_environment()
    store = (hub or MemoryHub(environment)).open()
    worker = TaskHubWorker(store, environment=environment, settings=settings, lease_thread=False)
    register(worker)
    async with worker:
        yield worker


async def finished(client: TaskHubClient, instance_id: str) -> InstanceState:
    return await client.wait_for_completion(instance_id, timeout=timedelta(days=30))


def types(events: Any) -> list[str]:
    return [event_type(event) for event in events]


class Recorder:
    """Activities that can be told to fail."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.failing: set[Any] = set()
        self.hold: asyncio.Event | None = None

    async def work(self, value: Any) -> Any:
        self.calls.append(value)
        if self.hold is not None:
            await self.hold.wait()
        if value in self.failing:
            raise ValueError(f"boom {value}")
        return value

    def register(self, worker: TaskHubWorker) -> None:
        worker.registry.add_activity(self.work, name="work", input_type=Any)


async def test_chain_leaves_the_history_of_the_reference() -> None:
    recorder = Recorder()

    async def chain(context: Context) -> str:
        return await context.call_activity("work", "Tokyo")

    async with running(lambda worker: (recorder.register(worker), worker.orchestrator(chain))) as worker:
        instance = await worker.client.start(chain)
        state = await finished(worker.client, instance)
        history = await worker.client.history(instance)

    assert state.output == '"Tokyo"'
    assert types(history) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TaskScheduled",
        "OrchestratorCompleted",
        "OrchestratorStarted",
        "TaskCompleted",
        "ExecutionCompleted",
        "OrchestratorCompleted",
    ]
    assert [event.event_id for event in history if event.event_id >= 0] == [0, 1]


async def test_a_started_instance_can_be_queried_at_once_and_an_unknown_one_not() -> None:
    def never(context: Context) -> Generator[Any, Any, None]:
        yield context.wait_for_external_event("never")

    async with running(lambda worker: worker.orchestrator(never)) as worker:
        instance = await worker.client.start(never, instance_id="known")
        assert (await worker.client.require(instance)).instance_id == "known"
        with pytest.raises(InstanceNotFoundError):
            await worker.client.require("unknown")
        with pytest.raises(WaitTimeoutError):
            await worker.client.wait_for_completion(instance, timeout=HOUR)


async def test_failure_reaches_the_parent_and_the_client_with_its_causes() -> None:
    def explode(value: str) -> str:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError(f"outer {value}") from error

    async def child(context: Context) -> str:
        return await context.call_activity("explode", "x")

    seen: list[SubOrchestrationFailedError] = []

    async def parent(context: Context) -> str:
        try:
            return await context.call_sub_orchestrator("child")
        except SubOrchestrationFailedError as error:
            seen.append(error)
            raise

    def register(worker: TaskHubWorker) -> None:
        worker.activity(explode)
        worker.orchestrator(child)
        worker.orchestrator(parent)

    async with running(register) as worker:
        state = await finished(worker.client, await worker.client.start(parent))

    assert state.status is RuntimeStatus.FAILED
    assert state.output is not None
    assert state.output.startswith(
        "Orchestrator function 'parent' failed: Orchestrator function 'child' failed: "
        "Activity function 'explode' failed: ValueError: outer x"
    )
    assert state.failure is not None
    assert [each.short_type for each in state.failure.chain()][-2:] == ["ValueError", "KeyError"]
    assert seen[0].failure is not None


async def test_unknown_function_fails_the_call_and_can_be_caught() -> None:
    async def careful(context: Context) -> list[str]:
        caught: list[str] = []
        for call in (context.call_activity("Nope"), context.call_sub_orchestrator("NoChild")):
            try:
                await call
            except (ActivityFailedError, SubOrchestrationFailedError) as error:
                caught.append(error.reason)
        return caught

    recorder = Recorder()
    async with running(lambda worker: (recorder.register(worker), worker.orchestrator(careful))) as worker:
        instance = await worker.client.start(careful)
        caught = await worker.client.result(instance, timeout=HOUR)
        history = await worker.client.history(instance)

    assert "The following are the known activity functions: 'work'." in caught[0]
    assert "is not an orchestrator function" in caught[1]
    assert types(history)[2:4] == ["TaskScheduled", "SubOrchestrationInstanceCreated"]


async def test_orchestrator_that_returns_with_open_work_stays_running_until_it_is_done() -> None:
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "late"

    async def leaves(context: Context) -> str:
        context.call_activity("slow")
        cancelled = context.create_timer(timedelta(days=300))
        cancelled.cancel()
        return "left"

    async with running(lambda worker: (worker.activity(slow), worker.orchestrator(leaves))) as worker:
        instance = await worker.client.start(leaves)
        await worker.client.wait_for_start(instance)
        assert (await worker.client.require(instance)).status is RuntimeStatus.RUNNING
        gate.set()
        state = await finished(worker.client, instance)

    assert state.output == '"left"'


async def test_timer_of_a_month_is_a_chain_and_fires() -> None:
    async def sleeps(context: Context) -> str:
        await context.create_timer(timedelta(days=10))
        return "awake"

    async with running(lambda worker: worker.orchestrator(sleeps)) as worker:
        begun = worker.environment.clock.now()
        instance = await worker.client.start(sleeps)
        state = await finished(worker.client, instance)
        history = await worker.client.history(instance)

    assert state.output == '"awake"'
    assert worker.environment.clock.now() - begun >= timedelta(days=10)
    assert types(history).count("TimerCreated") == 4


async def test_events_are_kept_before_the_wait_and_delivered_in_order_each_to_one_wait() -> None:
    async def waits(context: Context) -> list[Any]:
        await context.create_timer(HOUR)
        return [await context.wait_for_external_event("go"), await context.wait_for_external_event("GO")]

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        instance = await worker.client.start(waits)
        await worker.client.raise_event(instance, "go", 1, message_id="first")
        await worker.client.raise_event(instance, "Go", 2)
        await worker.client.raise_event(instance, "go", 1, message_id="first")
        result = await worker.client.result(instance, timeout=2 * HOUR)

    assert result == [1, 2]


async def test_event_for_a_scheduled_start_survives_until_then() -> None:
    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("go")

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        instance = await worker.client.start(waits, start_at=timedelta(hours=3))
        await worker.client.raise_event(instance, "go", "early")
        assert (await worker.client.require(instance)).status is RuntimeStatus.PENDING
        assert await worker.client.result(instance, timeout=timedelta(hours=4)) == "early"


async def test_pending_instance_that_is_terminated_never_starts() -> None:
    ran: list[str] = []

    async def later(context: Context) -> None:
        ran.append(context.instance_id)

    async with running(lambda worker: worker.orchestrator(later)) as worker:
        instance = await worker.client.start(later, start_at=HOUR)
        await worker.client.terminate(instance, "not needed")
        state = await finished(worker.client, instance)
        await asyncio.sleep(7200)
        after = await worker.client.require(instance)

    assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "not needed")
    assert (after.status, ran) == (RuntimeStatus.TERMINATED, [])


async def test_suspended_instance_keeps_what_arrives_and_goes_on_when_resumed() -> None:
    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("go")

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        client = worker.client
        instance = await client.start(waits)
        await client.wait_for_start(instance)
        await client.suspend(instance, "hold on")
        await client.raise_event(instance, "go", "kept")
        await asyncio.sleep(60)
        held = await client.require(instance)
        await client.resume(instance, "go on")
        state = await finished(client, instance)
        history = await client.history(instance)

    assert (held.status, held.suspended_reason) == (RuntimeStatus.SUSPENDED, "hold on")
    assert state.output == '"kept"'
    assert [each for each in types(history) if not each.startswith("Orchestrator")] == [
        "ExecutionStarted",
        "ExecutionSuspended",
        "EventRaised",
        "ExecutionResumed",
        "ExecutionCompleted",
    ]


@pytest.mark.parametrize("recursive", [False, True])
async def test_termination_reaches_children_only_when_asked_to(recursive: bool) -> None:
    async def child(context: Context) -> Any:
        return await context.wait_for_external_event("never")

    async def parent(context: Context) -> Any:
        return await context.call_sub_orchestrator("child", None, "the-child")

    async with running(lambda worker: (worker.orchestrator(child), worker.orchestrator(parent))) as worker:
        client = worker.client
        instance = await client.start(parent)
        await client.wait_for_start("the-child")
        await client.terminate(instance, "enough", recursive=recursive)
        state = await finished(client, instance)
        await asyncio.sleep(60)
        of_child = (await client.require("the-child")).status

    assert (state.status, state.output) == (RuntimeStatus.TERMINATED, "enough")
    assert of_child is (RuntimeStatus.TERMINATED if recursive else RuntimeStatus.RUNNING)


async def test_only_the_failed_calls_run_again_after_a_rewind_children_included() -> None:
    recorder = Recorder()
    recorder.failing = {"bad"}

    async def child(context: Context) -> list[Any]:
        return [await context.call_activity("work", "good"), await context.call_activity("work", "bad")]

    async def parent(context: Context) -> list[Any]:
        first = await context.call_activity("work", "parent")
        context.set_custom_status("half way")
        return [first, *await context.call_sub_orchestrator("child")]

    def register(worker: TaskHubWorker) -> None:
        recorder.register(worker)
        worker.orchestrator(child)
        worker.orchestrator(parent)

    async with running(register) as worker:
        client = worker.client
        instance = await client.start(parent)
        assert (await finished(client, instance)).status is RuntimeStatus.FAILED
        await client.rewind(instance, "try again")
        await asyncio.sleep(60)
        assert (await finished(client, instance)).status is RuntimeStatus.FAILED
        recorder.failing = set()
        recorder.hold = asyncio.Event()
        await client.rewind(instance, "and again")
        await asyncio.sleep(60)
        meanwhile = await client.require(instance)
        recorder.hold.set()
        state = await finished(client, instance)

    assert (meanwhile.status, meanwhile.custom_status) == (RuntimeStatus.RUNNING, '"half way"')
    assert state.output == '["parent","good","bad"]'
    assert recorder.calls == ["parent", "good", "bad", "bad", "bad"]


async def test_rewind_of_a_retried_call_and_of_a_caught_failure() -> None:
    recorder = Recorder()
    recorder.failing = {"flaky"}

    async def retrying(context: Context) -> Any:
        return await context.call_activity_with_retry("work", RetryOptions(1000, 2), "flaky")

    async def compensating(context: Context) -> Any:
        try:
            return await context.call_activity("work", "flaky")
        except ActivityFailedError:
            await context.call_activity("work", "undo")
            raise

    def register(worker: TaskHubWorker) -> None:
        recorder.register(worker)
        worker.orchestrator(retrying)
        worker.orchestrator(compensating)

    async with running(register) as worker:
        client = worker.client
        ids = [await client.start(retrying), await client.start(compensating)]
        for instance in ids:
            assert (await finished(client, instance)).status is RuntimeStatus.FAILED
        recorder.failing = set()
        for instance in ids:
            await client.rewind(instance)
        await asyncio.sleep(3600)
        states = [await finished(client, instance) for instance in ids]

    assert [state.output for state in states] == ['"flaky"', '"flaky"']


async def test_only_a_failed_instance_can_be_rewound() -> None:
    async def done(context: Context) -> str:
        return "done"

    async with running(lambda worker: worker.orchestrator(done)) as worker:
        instance = await worker.client.start(done)
        await finished(worker.client, instance)
        with pytest.raises(InvalidStateError, match="Completed"):
            await worker.client.rewind(instance)


async def test_ids_are_reused_as_the_policy_says_and_restarts_record_their_origin() -> None:
    async def waits(context: Context) -> Any:
        return [context.get_input(), await context.wait_for_external_event("go")]

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        client = worker.client
        instance = await client.start(waits, 1, instance_id="same")
        await client.wait_for_start(instance)
        with pytest.raises(InstanceExistsError, match="Running"):
            await client.start(waits, 2, instance_id="same")
        await client.start(waits, 3, instance_id="same", replaceable=ANY_STATE)
        await asyncio.sleep(5)
        await client.raise_event(instance, "go", "x")
        first = await finished(client, instance)
        again = await client.restart(instance)
        await client.wait_for_start(again)
        copy = await client.require(again)
        await client.restart(instance, same_id=True)
        await asyncio.sleep(5)
        await client.raise_event(instance, "go", "y")
        second = await finished(client, instance)

    assert first.output == '[3,"x"]'
    assert (copy.input, copy.restarted_from, copy.starts) == ("3", "same", 0)
    assert second.output == '[3,"y"]'
    assert (first.starts, second.starts) == (1, 2)
    assert second.execution_id != first.execution_id


async def test_continue_as_new_carries_events_over_and_keeps_what_belongs_to_the_instance() -> None:
    async def counts(context: Context) -> Any:
        n = context.get_input()
        if n == 0:
            context.set_custom_status({"seen": True})
            await context.wait_for_external_event("go")
        if n < 3:
            context.continue_as_new(n + 1)
            return None
        return [n, await context.wait_for_external_event("kept")]

    async with running(lambda worker: worker.orchestrator(counts)) as worker:
        client = worker.client
        instance = await client.start(counts, 0, tags={"team": "blue"})
        await client.raise_event(instance, "kept", "k", message_id="k")
        await client.raise_event(instance, "go", message_id="g")
        state = await finished(client, instance)
        history = await client.history(instance)

    assert state.output == '[3,"k"]'
    assert (state.custom_status, state.tags, state.starts) == ('{"seen":true}', {"team": "blue"}, 0)
    assert types(history) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "EventRaised",
        "OrchestratorCompleted",
        "ExecutionCompleted",
        "OrchestratorCompleted",
    ]


async def test_endless_continue_as_new_lets_others_work_and_can_be_terminated() -> None:
    async def spins(context: Context) -> None:
        context.continue_as_new(context.get_input() + 1)

    async def calm(context: Context) -> str:
        return "calm"

    async with running(lambda worker: (worker.orchestrator(spins), worker.orchestrator(calm))) as worker:
        client = worker.client
        instance = await client.start(spins, 0)
        assert await client.result(await client.start(calm), timeout=HOUR) == "calm"
        await client.terminate(instance, "enough")
        state = await finished(client, instance)

    assert state.status is RuntimeStatus.TERMINATED
    assert int(state.input or "0") >= 100


async def test_detached_child_runs_for_itself() -> None:
    async def child(context: Context) -> str:
        await context.create_timer(HOUR)
        return f"child of {context.parent_instance_id}"

    async def parent(context: Context) -> str:
        return context.start_detached("child")

    async with running(lambda worker: (worker.orchestrator(child), worker.orchestrator(parent))) as worker:
        client = worker.client
        instance = await client.start(parent, instance_id="p")
        child_id = await client.result(instance, timeout=timedelta(minutes=1))
        assert await client.result(child_id, timeout=2 * HOUR) == "child of p"
        assert (await client.require("p")).status is RuntimeStatus.COMPLETED


async def test_child_under_an_id_in_use_fails_instead_of_waiting_for_ever() -> None:
    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("never")

    async def parent(context: Context) -> str:
        try:
            await context.call_sub_orchestrator("waits", None, "taken")
        except SubOrchestrationFailedError as error:
            return error.reason
        return "?"

    async with running(lambda worker: (worker.orchestrator(waits), worker.orchestrator(parent))) as worker:
        await worker.client.start(waits, instance_id="taken")
        reason = await worker.client.result(await worker.client.start(parent), timeout=HOUR)

    assert "'taken'" in reason
    assert "already exists" in reason


async def test_limit_of_actions_fails_the_instance() -> None:
    async def greedy(context: Context) -> None:
        await context.when_all([context.call_activity("work", n) for n in range(20)])

    recorder = Recorder()
    settings = EngineSettings(max_orchestration_actions=10)

    def register(worker: TaskHubWorker) -> None:
        recorder.register(worker)
        worker.orchestrator(greedy)

    async with running(register, settings=settings) as worker:
        state = await finished(worker.client, await worker.client.start(greedy))

    assert state.status is RuntimeStatus.FAILED
    assert "maxOrchestrationActions" in (state.output or "")
    assert recorder.calls == []


async def test_instance_of_an_unknown_orchestrator_is_handed_back_and_runs_where_it_is_known() -> None:
    async def known(context: Context) -> str:
        return "here"

    environment = simulated_environment()
    hub = MemoryHub(environment)
    async with running(lambda worker: None, hub=hub) as stranger:
        instance = await stranger.client.start("known")
        await asyncio.sleep(120)
        assert (await stranger.client.require(instance)).status is RuntimeStatus.PENDING
        assert stranger.metrics.value("orchestrations_handed_back") >= 3
        assert [each.kind for each in (await stranger.store.statistics()).handed_back] == ["orchestration"]
        async with running(lambda worker: worker.orchestrator(known), hub=hub) as worker:
            assert await worker.client.result(instance, timeout=HOUR) == "here"


async def test_episode_that_keeps_failing_in_our_code_is_quarantined_and_can_be_released(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fine(context: Context) -> str:
        return "fine"

    original = Episodes.advance
    broken = True

    async def advance(self: Episodes, position: Any, inbox: Any) -> Any:
        if broken:
            raise RuntimeError("a bug of ours")
        return await original(self, position, inbox)

    monkeypatch.setattr(Episodes, "advance", advance)
    async with running(lambda worker: worker.orchestrator(fine)) as worker:
        client = worker.client
        with caplog.at_level(logging.CRITICAL):
            instance = await client.start(fine)
            state = await finished(client, instance)
        assert state.status is RuntimeStatus.FAILED
        assert "a bug of ours" in (state.quarantined or "")
        with pytest.raises(InvalidStateError, match="release"):
            await client.rewind(instance)
        broken = False
        assert await client.release_quarantined([instance]) == 1
        await asyncio.sleep(700)
        assert await client.result(instance, timeout=HOUR) == "fine"


async def test_work_of_a_stopped_worker_goes_on_at_once_elsewhere() -> None:
    gate = asyncio.Event()

    async def slow(value: int) -> int:
        await gate.wait()
        return value

    async def chain(context: Context) -> int:
        return await context.call_activity("slow", 1) + await context.call_activity("slow", 2)

    def register(worker: TaskHubWorker) -> None:
        worker.activity(slow)
        worker.orchestrator(chain)

    hub = MemoryHub(simulated_environment())
    settings = EngineSettings(drain=timedelta(seconds=2))
    async with running(register, hub=hub, settings=settings) as first:
        instance = await first.client.start(chain)
        await asyncio.sleep(1)
    gate.set()
    async with running(register, hub=hub) as second:
        assert await second.client.result(instance, timeout=timedelta(seconds=5)) == 3


async def test_purge_takes_ended_instances_only_and_filters_by_name_and_time() -> None:
    async def done(context: Context) -> str:
        return "done"

    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("never")

    async with running(lambda worker: (worker.orchestrator(done), worker.orchestrator(waits))) as worker:
        client = worker.client
        ended = [await client.start(done) for _ in range(3)]
        open_one = await client.start(waits)
        for instance in ended:
            await finished(client, instance)
        with pytest.raises(InvalidStateError):
            await client.purge(open_one)
        assert await client.purge(ended[0]) == 1
        assert await client.purge_by(InstanceQuery(names=frozenset({"waits"}))) == 0
        assert await client.purge_by(InstanceQuery()) == 2
        assert [each.instance_id async for each in client.instances()] == [open_one]
        assert await client.purge(open_one, force=True) == 1


async def test_sessions_are_dropped_at_the_limit_and_replayed_to_the_same_end() -> None:
    recorder = Recorder()

    async def steps(context: Context) -> list[Any]:
        found: list[Any] = []
        for n in range(5):
            await context.create_timer(timedelta(minutes=1))
            found.append(await context.call_activity("work", n))
        return found

    settings = EngineSettings(max_cached_sessions=2)

    def register(worker: TaskHubWorker) -> None:
        recorder.register(worker)
        worker.orchestrator(steps)

    async with running(register, settings=settings) as worker:
        ids = [await worker.client.start(steps) for _ in range(20)]
        results = [await worker.client.result(instance, timeout=HOUR) for instance in ids]

    assert results == [[0, 1, 2, 3, 4]] * 20
    assert len(recorder.calls) == 100


async def test_time_within_a_history_never_steps_back() -> None:
    environment = simulated_environment()
    seen: list[Any] = []

    async def waits(context: Context) -> None:
        seen.append(context.current_utc_datetime)
        await context.wait_for_external_event("go")
        seen.append(context.current_utc_datetime)

    store = MemoryHub(environment).open()
    worker = TaskHubWorker(store, environment=environment, lease_thread=False)
    worker.orchestrator(waits)
    async with worker:
        instance = await worker.client.start(waits)
        await worker.client.wait_for_start(instance)
        environment.clock.step(-HOUR)  # type: ignore[attr-defined]
        await worker.client.raise_event(instance, "go")
        await finished(worker.client, instance)
        events: list[HistoryEvent] = list(await worker.client.history(instance))

    assert seen[1] >= seen[0]
    starts = [event.timestamp for event in events if event_type(event) == "OrchestratorStarted"]
    assert starts == sorted(starts)


async def test_memory_stays_bounded_with_ten_thousand_instances_and_large_payloads() -> None:
    gate = asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    async def holds(context: Context) -> int:
        await context.call_activity("waits")
        data = await context.wait_for_external_event("go")
        return len(data)

    def register(worker: TaskHubWorker) -> None:
        worker.activity(waits)
        worker.orchestrator(holds)

    settings = EngineSettings(max_cached_sessions=200, max_cached_bytes=20_000_000)
    async with running(register, settings=settings) as worker:
        client = worker.client
        small = [await client.start(holds) for _ in range(10_000)]
        large = [await client.start(holds, "x" * 1_000_000) for _ in range(100)]
        await asyncio.sleep(60)
        assert worker.cached_instances <= 200 + settings.max_concurrent_orchestrations
        assert worker.cached_bytes <= 20_000_000 + settings.max_concurrent_orchestrations * 2_100_000
        gate.set()
        for instance in (*small[:5], *large):
            await client.raise_event(instance, "go", "y" * 100)
        assert [await client.result(each, timeout=HOUR) for each in large] == [100] * 100
        assert worker.cached_instances <= 200 + settings.max_concurrent_orchestrations
        assert worker.cached_bytes <= 20_000_000 + settings.max_concurrent_orchestrations * 2_100_000


async def test_start_and_event_that_a_cut_connection_makes_the_client_repeat_count_once() -> None:
    async def waits(context: Context) -> list[Any]:
        return [await context.wait_for_external_event("go"), await context.wait_for_external_event("go")]

    cut = {"create_instance": 1, "send": 2}

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        store = worker.store

        def cutting(name: str) -> Any:
            original = getattr(store, name)

            async def call(*args: Any, **kwargs: Any) -> Any:
                result = await original(*args, **kwargs)
                if cut[name] > 0:
                    cut[name] -= 1
                    raise StoreUnavailableError("the connection was cut after the effect")
                return result

            return call

        for name in cut:
            setattr(store, name, cutting(name))
        instance = await worker.client.start(waits, instance_id="once")
        await worker.client.raise_event(instance, "go", 1)
        await worker.client.raise_event(instance, "go", 2)
        assert await worker.client.result(instance, timeout=HOUR) == [1, 2]
        page = await worker.client.query(InstanceQuery())

    assert cut == {"create_instance": 0, "send": 0}
    assert len(page.instances) == 1


async def test_a_start_that_comes_too_late_does_not_leave_the_instance_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    async def done(context: Context) -> str:
        return "done"

    async with running(lambda worker: worker.orchestrator(done)) as worker:
        client = worker.client
        instance = await client.start(done, instance_id="same")
        await finished(client, instance)
        original = episode.admit

        def admit(index: Any, inbox: Any, *, max_deferrals: int) -> Any:
            # As if the instance had been rewound between the client's look and this step.
            late = [each for each in inbox if isinstance(each.event, ExecutionStarted)]
            refusing = [replace(each, event=replace(each.event, replaceable=(RuntimeStatus.FAILED,))) for each in late]
            return original(index, refusing, max_deferrals=max_deferrals)

        monkeypatch.setattr(episode, "admit", admit)
        await client.start(done, instance_id="same")
        await asyncio.sleep(10)
        state = await client.require("same")

    assert (state.status, state.output) == (RuntimeStatus.COMPLETED, '"done"')


async def test_texts_that_no_store_takes_are_refused_before_they_reach_one() -> None:
    def wait(context: Context) -> Generator[Any, Any, None]:
        yield context.wait_for_external_event("never")

    async with running(lambda worker: worker.orchestrator(wait)) as worker:
        client = worker.client
        instance = await client.start(wait)
        for refused in (
            client.start("wait\udcff"),
            client.start(wait, instance_id="\udcff"),
            client.start(wait, tags={"owner": "\udcff"}),
            client.start(wait, "\udcff"),
            client.raise_event(instance, "event\udcff"),
            client.terminate(instance, "\udcff"),
            client.suspend(instance, "\udcff"),
        ):
            with pytest.raises(ValueError, match="surrogate"):
                await refused
        assert await client.get("\udcff") is None
        with pytest.raises(InstanceNotFoundError):
            await client.history("\udcff")
        assert await client.release_quarantined(["\udcff"]) == 0


async def test_a_worker_runs_once_and_its_registry_serves_the_next_one() -> None:
    def done(context: Context) -> str:
        return "done"

    environment = simulated_environment()
    hub = MemoryHub(environment)
    worker = TaskHubWorker(hub.open(), environment=environment, lease_thread=False)
    worker.orchestrator(done)
    async with worker:
        with pytest.raises(RuntimeError, match="only once"):
            await worker.start()
    with pytest.raises(RuntimeError, match="only once"):
        await worker.start()

    async with TaskHubWorker(
        hub.open(), environment=environment, registry=worker.registry, lease_thread=False
    ) as successor:
        assert await successor.client.result(await successor.client.start(done), timeout=HOUR) == "done"


async def test_who_waits_for_an_instance_that_is_purged_hears_that_it_is_gone() -> None:
    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("never")

    async with running(lambda worker: worker.orchestrator(waits)) as worker:
        client = worker.client
        instance = await client.start(waits)
        waiting = asyncio.ensure_future(client.wait_for_completion(instance))
        await asyncio.sleep(5)
        await client.purge(instance, force=True)
        with pytest.raises(InstanceNotFoundError):
            await waiting
        with pytest.raises(WaitTimeoutError, match="does not exist"):
            await client.wait_for_completion("nobody", timeout=HOUR)
        with pytest.raises(WaitTimeoutError):
            await client.wait_for_completion("nobody", timeout=timedelta(0))


async def test_an_instance_that_is_locked_again_before_its_checkpoint_is_answered_goes_on() -> None:
    """It is free once the checkpoint is stored: what comes then may be locked before the worker hears of the store."""

    def waits(context: Context) -> Generator[Any, Any, str]:
        data = yield context.wait_for_external_event("go")
        return f"went {data}"

    environment = simulated_environment()
    store = MemoryHub(environment).open()
    worker = TaskHubWorker(store, environment=environment, lease_thread=False)
    worker.registry.add_orchestrator(waits)
    commit, answers = store.commit, asyncio.Event()
    answers.set()

    async def answered_late(checkpoints: Any) -> Any:
        outcomes = await commit(checkpoints)
        await answers.wait()
        return outcomes

    store.commit = answered_late  # type: ignore[method-assign]
    async with worker:
        client = worker.client
        await client.start("waits", instance_id="a")
        await asyncio.sleep(1)
        answers.clear()
        await client.raise_event("a", "noise", message_id="noise-1")
        await asyncio.sleep(1)
        assert "EventRaised" in types(await client.history("a"))
        await client.raise_event("a", "noise", message_id="noise-1")  # a second delivery: it changes no history
        await asyncio.sleep(1)
        answers.set()
        await asyncio.sleep(1)

        await client.raise_event("a", "go", "on")

        state = await client.wait_for_completion("a", timeout=HOUR)
    assert state.output == '"went on"'
    assert types(await client.store.get_history(state.instance_id) or ()).count("EventRaised") == 2
