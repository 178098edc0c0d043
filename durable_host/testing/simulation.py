"""Run orchestrators through everything that can go wrong, from a seed.

    from durable_host.testing import simulation

    scenario = simulation.Scenario("orders", orchestrators=[order], activities=[charge, ship], drive=drive)
    simulation.run(scenario, seed=7).require()

One run is a small hub on virtual time: several workers, each a process of its own with a clock that is off; store
calls that fail before or after their effect; workers that die at any `await` and are replaced; workers that hear
nothing from the store for longer than their leases. `drive` acts as the client. When everything that was started has
ended, the oracle (`durable_host.testing.oracle`) looks at what is stored.

The same seed gives the same run to the last step: `Report.digest` says so. A failing run names its seed.

A *crash* cancels every task of one worker and makes its store object deaf; nothing it still tries has an effect. The
hub (`SimulatedHub`) is what survives.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from durable_host.engine.client import TaskHubClient
from durable_host.engine.executor import ActivityResult
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment
from durable_host.errors import DurableHostError, StoreUnavailableError
from durable_host.executors.native import FunctionRegistry, NativeActivities, NativeOrchestrations
from durable_host.model.ids import InstanceId
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import CommitOutcome, OrchestrationWorkItem, TaskHubStore
from durable_host.telemetry.metrics import Metrics
from durable_host.testing.environment import InlineThreads, SeededIds, SimulatedClock
from durable_host.testing.faults import FaultKind, FaultPlan, FaultyStore, Rates, StoreCall
from durable_host.testing.loop import SimulatedLoop
from durable_host.testing.oracle import Final, Raised, violations
from durable_host.testing.tape import Tape
from durable_host.worker import TaskHubWorker

__all__ = [
    "CRASH_TABLE",
    "Load",
    "Report",
    "Scenario",
    "SimulatedHub",
    "SimulationFailedError",
    "World",
    "run",
]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PATIENCE = timedelta(days=1)

CRASH_TABLE: tuple[str, ...] = (
    "before anything",
    "after some or all outgoing messages",
    "between history batches",
    "after history",
    "after projection",
    "after some deletes",
    "with a finished activity not yet committed",
    "before `completed` is removed",
    "before a late row write",
    "with work handed over, not fetched",
    "lease lost while computing",
)
"""Where a process may die, and what else may happen to a checkpoint; the rows of the design's table."""


class SimulationFailedError(DurableHostError):
    """A run ended otherwise than it should; `report` says how."""

    def __init__(self, report: Report) -> None:
        self.report = report
        lines = [f"{report.scenario} on {report.hub}, seed {report.seed}:", *report.violations]
        if report.command:
            lines.append(f"Replay it with: {report.command}")
        super().__init__("\n".join(lines))


class SimulatedHub(ABC):
    """The side of a simulation that survives crashes: one hub, reached through one store object per process.

    Attributes:
        name: for reports.
        points: names of fault points that this hub adds to those of `FaultyStore`.
        rows: the rows of `CRASH_TABLE` that this hub can show.
        call_rates: False leaves whole calls alone, since the hub has finer fault points of its own.
    """

    name: str = "hub"
    points: Collection[str] = ()
    rows: Collection[str] = ()
    call_rates: bool = True

    @abstractmethod
    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        """A store object for a new process, not entered; `crash` None: for a client."""

    def vanish(self, store: TaskHubStore) -> None:  # noqa: B027  # not every hub notices
        """The process that owned the store object is gone, without a good-bye."""

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        """Rows of the crash table that the owner's death would show at this moment, as far as only the store knows."""
        return ()

    async def close(self) -> None:  # noqa: B027  # not every hub has something to close
        """The run is over."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a run is on its workers. Times are virtual seconds.

    Attributes:
        workers: processes at once.
        rates: faults of every point.
        kills: mean time between two kills; 0: none but those of fault points.
        replacement: longest time until a dead worker is replaced.
        stalls: mean time between two stalls, in which a worker hears nothing from the store.
        stall: longest stall; leases last 30 s.
        skew: farthest that a worker's clock is off.
        trouble: everything above ends after so long, so that the run does.
        limit: a run that takes longer is stuck.
    """

    workers: int = 3
    rates: Rates = field(default_factory=lambda: Rates(error=0.02, crash=0.01))
    kills: float = 20.0
    replacement: float = 20.0
    stalls: float = 60.0
    stall: float = 80.0
    skew: float = 5.0
    trouble: float = 400.0
    limit: float = 40 * 86_400.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What runs, and who drives it.

    Attributes:
        drive: acts as the client; whatever it starts must end. None: one instance of each orchestrator, without input.
        check: more that must hold at the end; yields what does not.
        reply: what an activity answers to an input, for the oracle; None: activities are not functions of their input.
        loosely: True where history may end with tasks answered twice or never (terminated instances and the like are
            known to the oracle; this is for what it cannot know).
    """

    name: str
    orchestrators: Sequence[Callable[..., Any]]
    activities: Sequence[Callable[..., Any]] = ()
    drive: Callable[[World], Awaitable[None]] | None = None
    check: Callable[[World, Final], Iterable[str]] | None = None
    reply: Callable[[str, Any], object] | None = None
    settings: EngineSettings | None = None
    load: Load = field(default_factory=Load)


@dataclass(slots=True)
class Report:
    """How a run went.

    Attributes:
        digest: of every step; equal for equal seeds.
        violations: empty when all is well.
        passes, hits: of fault points.
        rows: how often each row of the crash table was shown.
        elapsed: virtual seconds.
        kills: workers that died.
        orphans: executions of instances or activities that nobody had recorded; a measure, not a failure.
        command: replays this run.
    """

    scenario: str
    hub: str
    seed: int
    digest: str = ""
    violations: list[str] = field(default_factory=list[str])
    passes: Counter[str] = field(default_factory=Counter[str])
    hits: Counter[tuple[str, FaultKind]] = field(default_factory=Counter[tuple[str, FaultKind]])
    rows: Counter[str] = field(default_factory=Counter[str])
    elapsed: float = 0.0
    kills: int = 0
    commits: int = 0
    orphans: int = 0
    command: str = ""

    def require(self) -> Report:
        """This report; raises SimulationFailedError if anything is wrong."""
        if self.violations:
            raise SimulationFailedError(self)
        return self


class World:
    """What `drive` sees of a run.

    Attributes:
        client: a client whose store calls fail now and then; it repeats them with the same ids.
        random: the scenario's own chance.
        raised: external events that were acknowledged.
        optional: instances that need not exist or end.
        notes: for the scenario's own check.
    """

    def __init__(self, client: TaskHubClient, random: Random) -> None:
        self.client = client
        self.random = random
        self.started: list[InstanceId] = []
        self.raised: list[Raised] = []
        self.optional: set[InstanceId] = set()
        self.notes: dict[str, Any] = {}

    async def start(self, orchestrator: str | Callable[..., Any], input: object = None, **options: Any) -> InstanceId:
        """Start an instance as TaskHubClient.start does, however long the store is out of reach."""
        instance_id = await self._insist(lambda: self.client.start(orchestrator, input, **options))
        self.started.append(instance_id)
        return instance_id

    async def raise_event(self, instance_id: str, name: str, data: object = None, *, id: str | None = None) -> None:
        """Raise an external event and note that it was acknowledged."""
        message_id = id or f"event-{self.random.getrandbits(64):016x}"
        await self._insist(lambda: self.client.raise_event(instance_id, name, data, message_id=message_id))
        if not any(each.message_id == message_id for each in self.raised):
            self.raised.append(Raised(InstanceId(instance_id), message_id, name))

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Any call of the client, repeated while the store is out of reach."""
        return await self._insist(call)

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def pause(self, most: float = 5.0) -> None:
        """Let a random time pass, often none."""
        await asyncio.sleep(self.random.choice((0.0, 0.0, 0.01, 1.0)) * self.random.random() * most)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await asyncio.sleep(self.random.random())


@dataclass(slots=True)
class _Process:
    """One simulated process: its tasks die together."""

    number: int
    clock: SimulatedClock
    dead: bool = False
    store: FaultyStore | None = None
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict[asyncio.Task[Any], None])
    held: dict[str, None] = field(default_factory=dict[str, None])
    finished: dict[str, str] = field(default_factory=dict[str, str])
    """Dispatch ids of activities that have run and whose result is not stored, with their instances."""


_process: ContextVar[_Process | None] = ContextVar("simulated_process", default=None)


class _WatchedActivities:
    """Notes which activities have run, so that a death in between can be counted."""

    def __init__(self, inner: NativeActivities, process: _Process, ran: Counter[str]) -> None:
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


class _Simulation:
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
        self.processes: list[_Process] = []
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

    def spawn(self, coroutine: Coroutine[Any, Any, T], process: _Process | None = None) -> asyncio.Task[T]:
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
            process = _Process(self.numbers, SimulatedClock(skew=skew))
            self.processes.append(process)
            main = self.spawn(self.run_worker(process), process)
            await asyncio.wait([main])
            self.processes.remove(process)
            if not process.dead and not main.cancelled() and main.exception() is not None:
                error = main.exception()
                assert error is not None
                self.failures.append(f"worker {process.number} failed: {_innermost(error)!r}")
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

    async def run_worker(self, process: _Process) -> None:
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

    def kill(self, process: _Process) -> None:
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

    def count_rows(self, process: _Process) -> None:
        assert process.store is not None
        rows = set(self.hub.stages(process.store.inner))
        if process.held:
            rows.add("before anything")
        if any(instance in process.held for instance in process.finished.values()):
            rows.add("with a finished activity not yet committed")
        self.report.rows.update(rows)

    # What is seen.

    def observe(self, process: _Process, call: StoreCall) -> None:
        if call.method in ("commit", "complete_activities", "lock_orchestrations", "lock_activities"):
            self.stirred.set()
        self.tape.record(process.number, call)
        if call.error is not None:
            return
        if call.method == "lock_orchestrations":
            for item in call.result:  # type: ignore[attr-defined]  # what lock_orchestrations returns
                assert isinstance(item, OrchestrationWorkItem)
                process.held[item.lease.key] = None
        elif call.method == "commit":
            for checkpoint, outcome in zip(call.arguments, call.result, strict=True):  # type: ignore[call-overload]
                self.report.commits += 1
                if outcome is CommitOutcome.LEASE_LOST:
                    self.report.rows["lease lost while computing"] += 1
                if outcome is CommitOutcome.LEASE_LOST or not checkpoint.hold:
                    process.held.pop(checkpoint.lease.key, None)
                for lease in checkpoint.completed:
                    process.finished.pop(lease.key, None)
        elif call.method == "complete_activities":
            for completion in call.arguments:  # type: ignore[attr-defined]  # its argument
                process.finished.pop(completion.lease.key, None)
        elif call.method == "abandon":
            for lease in call.arguments:  # type: ignore[attr-defined]  # its argument
                process.held.pop(lease.key, None)

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
        loop.set_task_factory(_own_tasks)
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
                if watch.done() and watch.exception() is not None:
                    self.failures.append(f"the client failed: {_innermost(watch.exception())!r}")  # type: ignore[arg-type]
                    logger.error("the scenario's drive failed", exc_info=watch.exception())
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
    async def client_store(self, environment: Environment) -> AsyncIterator[FaultyStore]:
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


def run(
    scenario: Scenario,
    seed: int,
    *,
    hub: Callable[[Random], SimulatedHub],
    load: Load | None = None,
    command: str = "",
    mutate: Callable[[TaskHubWorker], None] | None = None,
) -> Report:
    """Run a scenario once and judge it.

    Args:
        hub: makes an empty hub from the seed's chance.
        load: in place of the scenario's own.
        command: what to tell people who want to see this run again.
        mutate: changes a worker before it starts, for negative controls.
    """
    if load is not None:
        scenario = replace(scenario, load=load)
    report = Report(scenario.name, "", seed, command=command)

    async def main() -> None:
        simulated = hub(Random(f"{seed}/hub"))
        report.hub = simulated.name
        simulation = _Simulation(scenario, seed, simulated, report, mutate)
        try:
            await simulation.main()
        finally:
            await simulated.close()
            report.passes, report.hits = simulation.plan.passes, simulation.plan.hits

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed)) as runner:
        try:
            runner.run(main())
        except Exception as error:
            logger.error("simulation failed", exc_info=error)
            report.violations.append(f"the run ended with {_innermost(error)!r}")
    return report


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


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
