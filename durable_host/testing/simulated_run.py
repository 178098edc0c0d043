"""One run of a simulation: workers that come and go, the trouble they are in, and what the oracle says in the end.

Every task belongs to a process, by a context variable that tasks inherit; a crash cancels the tasks of one process at
whatever `await` they stand and makes its store deaf, so that no clean-up of the dying has an effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, TypeVar, cast

from durable_host.engine.client import TaskHubClient
from durable_host.engine.executor import ActivityResult
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment
from durable_host.executors.native import FunctionRegistry, NativeActivities, NativeOrchestrations
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import ActivityCompletion, Checkpoint, CommitOutcome, Lease, OrchestrationWorkItem
from durable_host.telemetry.metrics import Metrics
from durable_host.testing.environment import InlineThreads, SeededIds, SimulatedClock
from durable_host.testing.faults import FaultPlan, FaultyStore, StoreCall
from durable_host.testing.oracle import Final, violations
from durable_host.testing.scenario import Report, Scenario, SimulatedHub, World
from durable_host.testing.tape import Tape
from durable_host.worker import TaskHubWorker

__all__ = ["Process", "SimulatedRun", "innermost"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PATIENCE = timedelta(days=1)


@dataclass(slots=True)
class Process:
    """One simulated process: its tasks die together."""

    number: int
    clock: SimulatedClock
    dead: bool = False
    store: FaultyStore | None = None
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict[asyncio.Task[Any], None])
    held: dict[str, None] = field(default_factory=dict[str, None])
    finished: dict[str, str] = field(default_factory=dict[str, str])
    """Dispatch ids of activities that have run and whose result is not stored, with their instances."""


_process: ContextVar[Process | None] = ContextVar("simulated_process", default=None)


class _WatchedActivities:
    """Notes which activities have run, so that a death in between can be counted."""

    def __init__(self, inner: NativeActivities, process: Process, ran: Counter[str]) -> None:
        self._inner = inner
        self._process = process
        self._ran = ran

    def handles(self, name: str) -> bool:
        return self._inner.handles(name)

    def names(self) -> Sequence[str]:
        return self._inner.names()

    async def execute(self, task: ActivityTask) -> ActivityResult:
        result = await self._inner.execute(task)
        self._ran[task.dispatch_id] += 1
        self._process.finished[task.dispatch_id] = task.instance_id
        return result


class SimulatedRun:
    """One run: processes, what goes wrong with them, and the verdict."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        hub: SimulatedHub,
        report: Report,
        mutate: Callable[[TaskHubWorker], None] | None,
    ) -> None:
        self.scenario = scenario
        self.load = scenario.load
        self.random = Random(f"{seed}/chaos")
        self.seed = seed
        self.hub = hub
        self.report = report
        self.tape = Tape()
        self.plan = FaultPlan(Random(f"{seed}/faults"), rates=self.load.rates)
        self.quiet = self.plan if hub.call_rates else FaultPlan(Random(0))
        self.processes: list[Process] = []
        self.numbers = 0
        self.calm = False
        self.over = False
        self.failures: list[str] = []
        self.ran: Counter[str] = Counter()
        self.stirred = asyncio.Event()
        self.ended = asyncio.Event()
        self.broken = asyncio.Event()
        self.mutate = mutate
        self.metrics = Metrics()
        self.registry = FunctionRegistry()
        for orchestrator in scenario.orchestrators:
            self.registry.add_orchestrator(orchestrator)
        for activity in scenario.activities:
            self.registry.add_activity(activity)

    # Processes.

    def spawn(self, coroutine: Coroutine[Any, Any, T], process: Process | None = None) -> asyncio.Task[T]:
        token = _process.set(process)
        try:
            return asyncio.get_running_loop().create_task(coroutine)
        finally:
            _process.reset(token)

    async def keep_worker(self) -> None:
        """One slot: a worker, and when it has gone, another."""
        while not self.over:
            self.numbers += 1
            skew = timedelta(seconds=self.random.uniform(-self.load.skew, self.load.skew))
            process = Process(self.numbers, SimulatedClock(skew=skew))
            self.processes.append(process)
            main = self.spawn(self.run_worker(process), process)
            await asyncio.wait([main])
            self.processes.remove(process)
            if not process.dead and not main.cancelled() and main.exception() is not None:
                error = main.exception()
                assert error is not None
                self.failures.append(f"worker {process.number} failed: {innermost(error)!r}")
                logger.error("simulated worker failed", exc_info=error)
                self.over = True
                self.broken.set()
            for task in list(process.tasks):
                task.cancel()
            rest = list(process.tasks)
            if rest:
                await asyncio.wait(rest)
            for task in rest:
                if not task.cancelled():
                    task.exception()  # seen
            await asyncio.sleep(self.random.random() * self.load.replacement * (0.0 if self.calm else 1.0))

    async def run_worker(self, process: Process) -> None:
        random = Random(f"{self.seed}/{process.number}")
        environment = Environment(process.clock, SeededIds(f"{self.seed}/{process.number}"), InlineThreads())

        def crash() -> None:
            self.kill(process)

        inner = await self.hub.open(environment, self.plan, random, crash)
        process.store = FaultyStore(inner, self.quiet, crash=crash, observe=lambda call: self.observe(process, call))
        process.store.patience = _PATIENCE
        settings = self.scenario.settings or EngineSettings(
            store_inputs=True,
            max_concurrent_orchestrations=8,
            max_concurrent_activities=6,
            max_cached_sessions=random.choice((0, 1, 3, 100)),
        )
        worker = TaskHubWorker(
            process.store,
            environment=environment,
            settings=settings,
            orchestrations=NativeOrchestrations(self.registry),
            activities=_WatchedActivities(NativeActivities(self.registry, environment), process, self.ran),
            metrics=self.metrics,
            lease_thread=False,
        )
        if self.mutate is not None:
            self.mutate(worker)
        await worker.start()
        # Some workers stop in good order before the trouble is over; the last ones stay.
        lifetime = self.random.expovariate(1 / 200.0)
        if asyncio.get_running_loop().time() + lifetime > self.load.trouble:
            lifetime = self.load.limit
        try:
            async with asyncio.timeout(lifetime):
                await self.ended.wait()
        except TimeoutError:
            pass
        await worker.stop()

    def kill(self, process: Process) -> None:
        """The process is gone at whatever `await` its tasks stand."""
        if process.dead or process.store is None:
            return
        self.count_rows(process)
        process.dead = True
        process.store.crashed = True
        self.report.kills += 1
        self.tape.write("killed", process.number)
        self.hub.vanish(process.store.inner)
        for task in list(process.tasks):
            task.cancel()

    def count_rows(self, process: Process) -> None:
        assert process.store is not None
        rows = set(self.hub.stages(process.store.inner))
        if process.held:
            rows.add("before anything")
        if any(instance in process.held for instance in process.finished.values()):
            rows.add("with a finished activity not yet committed")
        self.report.rows.update(rows)

    # What is seen.

    def observe(self, process: Process, call: StoreCall) -> None:
        if call.method in ("commit", "complete_activities", "lock_orchestrations", "lock_activities"):
            self.stirred.set()
        self.tape.record(process.number, call)
        if call.error is not None:
            return
        match call.method:
            case "lock_orchestrations":
                for item in cast(Sequence[OrchestrationWorkItem], call.result):
                    process.held[item.lease.key] = None
            case "commit":
                checkpoints = cast(Sequence[Checkpoint], call.arguments)
                for checkpoint, outcome in zip(checkpoints, cast(Sequence[CommitOutcome], call.result), strict=True):
                    self.observe_commit(process, checkpoint, outcome)
            case "complete_activities":
                for completion in cast(Sequence[ActivityCompletion], call.arguments):
                    process.finished.pop(completion.lease.key, None)
            case "abandon":
                for lease in cast(Sequence[Lease], call.arguments):
                    process.held.pop(lease.key, None)
            case _:
                pass

    def observe_commit(self, process: Process, checkpoint: Checkpoint, outcome: CommitOutcome) -> None:
        self.report.commits += 1
        if outcome is CommitOutcome.LEASE_LOST:
            self.report.rows["lease lost while computing"] += 1
        if outcome is CommitOutcome.LEASE_LOST or not checkpoint.hold:
            process.held.pop(checkpoint.lease.key, None)
        for lease in checkpoint.completed:
            process.finished.pop(lease.key, None)

    # Trouble.

    async def trouble(self) -> None:
        """Kill, stall and mislead workers until the time for it is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.load.trouble
        async with asyncio.TaskGroup() as group:
            if self.load.kills:
                group.create_task(self.kill_at_random(end))
            if self.load.stalls:
                group.create_task(self.stall_at_random(end))
        await asyncio.sleep(max(0.0, end - loop.time()))
        self.calm = True
        self.plan.enabled = False
        for process in self.processes:
            if process.store is not None:
                process.store.stalled_until = 0.0

    async def kill_at_random(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.load.kills))
            if loop.time() >= end:
                return
            # Strike while something happens, some steps of the loop after it began.
            self.stirred.clear()
            await self.stirred.wait()
            for _ in range(self.random.randrange(30)):
                await asyncio.sleep(0)
            alive = [process for process in self.processes if not process.dead]
            if alive and loop.time() < end:
                self.kill(self.random.choice(alive))

    async def stall_at_random(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.load.stalls))
            if loop.time() >= end:
                return
            alive = [process for process in self.processes if process.store is not None and not process.dead]
            if not alive:
                continue
            process = self.random.choice(alive)
            assert process.store is not None
            process.store.stalled_until = min(end, loop.time() + self.random.random() * self.load.stall)
            if self.random.random() < 0.5:
                process.clock.step(timedelta(seconds=self.random.uniform(-self.load.skew, self.load.skew)))
            self.tape.write("stalled", process.number)

    # The run.

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(cast(Any, _own_tasks))  # typeshed's protocol changes with every Python
        workers = [self.spawn(self.keep_worker()) for _ in range(self.load.workers)]
        trouble = self.spawn(self.trouble())
        environment = Environment(SimulatedClock(), SeededIds(f"{self.seed}/client"), InlineThreads())
        try:
            async with self.client_store(environment) as store:
                world = World(TaskHubClient(store, environment), Random(f"{self.seed}/scenario"))
                watch = self.spawn(self.drive(world))
                try:
                    async with asyncio.timeout(self.load.limit):
                        broken = self.spawn(self.broken.wait())
                        await asyncio.wait([watch, broken], return_when=asyncio.FIRST_COMPLETED)
                        await self.end(broken)
                except TimeoutError:
                    self.failures.append(
                        f"nothing had ended after {self.load.limit} s: {await self.stuck(store, world)}"
                    )
                if watch.done() and (error := watch.exception()) is not None:
                    self.failures.append(f"the client failed: {innermost(error)!r}")
                    logger.error("the scenario's drive failed", exc_info=error)
                self.plan.enabled = False
                self.over = self.calm = True
                self.ended.set()
                await self.end(watch, trouble)
                if not self.failures:
                    await self.wind_up(workers)
                    await self.judge(store, world)
        finally:
            await self.end(*workers)
            for process in self.processes:
                await self.end(*process.tasks)
            self.report.elapsed = loop.time()
            self.report.digest = self.tape.digest(loop.time())
            self.report.violations = self.failures

    async def wind_up(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Let the workers stop in good order: what is stored after their last commit is final."""
        await asyncio.wait(workers, timeout=300)

    async def end(self, *tasks: asyncio.Task[Any]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()

    @asynccontextmanager
    async def client_store(self, environment: Environment) -> AsyncGenerator[FaultyStore]:
        inner = await self.hub.open(environment, self.plan, Random(f"{self.seed}/client"), None)
        store = FaultyStore(inner, self.quiet, observe=lambda call: self.tape.record(0, call))
        store.patience = _PATIENCE
        await store.create()
        async with store:
            yield store

    async def drive(self, world: World) -> None:
        if self.scenario.drive is not None:
            await self.scenario.drive(world)
        else:
            for orchestrator in self.scenario.orchestrators:
                await world.start(orchestrator)
        for instance_id in world.started:
            if instance_id not in world.optional:
                await world.ask(lambda instance_id=instance_id: world.client.wait_for_completion(instance_id))  # type: ignore[misc]
        # What they started, or what is still to be answered, may need longer.
        pause = 10.0
        while await self.open_instances(world) or await self.busy(world):
            await asyncio.sleep(pause)
            pause *= 1.5

    async def open_instances(self, world: World) -> list[str]:
        return [
            f"{state.instance_id} {state.status.value}"
            async for state in world.client.instances()
            if not state.status.is_terminal and state.instance_id not in world.optional
        ]

    async def busy(self, world: World) -> bool:
        depths = await world.client.store.statistics()
        return bool(
            depths.inbox_waiting or depths.inbox_delayed or depths.activities_waiting or depths.activities_running
        )

    async def stuck(self, store: FaultyStore, world: World) -> str:
        self.plan.enabled = False
        return f"{await self.open_instances(world)}, {await store.statistics()}"

    async def judge(self, store: FaultyStore, world: World) -> None:
        final = Final()
        async for state in world.client.instances():
            history = await store.get_history(state.instance_id)
            final.add(state, history or ())
        final.raised = world.raised
        final.optional = world.optional
        final.commits = self.tape.commits
        self.failures += await violations(final, NativeOrchestrations(self.registry), reply=self.scenario.reply)
        if broken := self.metrics.value("episodes_failed"):
            self.failures.append(f"{broken:.0f} episodes failed in durable_host itself; see its log")
        if self.scenario.check is not None:
            self.failures += self.scenario.check(world, final)
        known = final.dispatched()
        self.report.orphans = sum(1 for id in self.ran if id not in known)


def _own_tasks(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A task factory that notes which process a task belongs to."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    process = _process.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda done: process.tasks.pop(done, None))
    return task


def innermost(error: BaseException) -> BaseException:
    """The one error inside of groups that hold nothing else."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return innermost(inner[0]) if len(inner) == 1 else error
