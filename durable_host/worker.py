"""TaskHubWorker: store + engine + executors; start, drain, stop. Usable without the Functions layer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from durable_host.engine.activities import ActivityDispatcher, FinishedActivity
from durable_host.engine.client import TaskHubClient
from durable_host.engine.committer import GroupCommit
from durable_host.engine.decide import Rules
from durable_host.engine.episode import Episodes
from durable_host.engine.executor import ActivityExecutor, OrchestrationExecutor
from durable_host.engine.leases import LeaseKeeper
from durable_host.engine.orchestrations import OrchestrationDispatcher
from durable_host.engine.pump import Pump
from durable_host.engine.sessions import SessionCache
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment, system_environment
from durable_host.executors.native import FunctionRegistry, NativeActivities, NativeOrchestrations
from durable_host.model.names import unknown_function
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    Lease,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.telemetry.metrics import Metrics

__all__ = ["TaskHubWorker"]

logger = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


class TaskHubWorker:
    """Runs the instances and activities of one task hub in this process.

        worker = TaskHubWorker(store)

        @worker.activity
        def greet(name: str) -> str: ...

        @worker.orchestrator
        async def hello(context): return await context.call_activity(greet, "Tokyo")

        async with worker:
            id = await worker.client.start(hello)
            print(await worker.client.result(id))

    Args:
        store: a task hub; created and entered with the worker, unless `manage_store` is False.
        registry: functions of this process; others come with `orchestrations` and `activities`.
        orchestrations, activities: executors to use in place of the native ones.
        lease_thread: renew leases on a thread of its own (always, but in simulations).
    """

    def __init__(
        self,
        store: TaskHubStore,
        *,
        environment: Environment | None = None,
        settings: EngineSettings | None = None,
        registry: FunctionRegistry | None = None,
        orchestrations: OrchestrationExecutor | None = None,
        activities: ActivityExecutor | None = None,
        metrics: Metrics | None = None,
        manage_store: bool = True,
        lease_thread: bool = True,
    ) -> None:
        self.store = store
        self.environment = environment or system_environment()
        self.settings = settings or EngineSettings()
        self.registry = registry if registry is not None else FunctionRegistry()
        self.metrics = metrics if metrics is not None else Metrics()
        self.client = TaskHubClient(store, self.environment)
        self._native: NativeActivities | None = None
        if activities is None:
            threads = self.settings.max_concurrent_activities
            activities = self._native = NativeActivities(self.registry, self.environment, threads=threads)
        self._activities: ActivityExecutor = activities
        self._orchestrations: OrchestrationExecutor = orchestrations or NativeOrchestrations(self.registry)
        self._manage_store = manage_store
        self._lease_thread = lease_thread
        self._main: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._pumps: list[Pump[Any]] = []
        self._pumping: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._orchestration_dispatcher: OrchestrationDispatcher | None = None
        self._activity_dispatcher: ActivityDispatcher | None = None
        self._stop = asyncio.Event()

    # Registration, for library use.

    @overload
    def orchestrator(self, function: F, *, name: str | None = None) -> F: ...
    @overload
    def orchestrator(self, *, name: str | None = None) -> Callable[[F], F]: ...
    def orchestrator(self, function: F | None = None, *, name: str | None = None) -> F | Callable[[F], F]:
        """Register an orchestrator: a generator function or an `async def` with one parameter, the context."""

        def register(target: F) -> F:
            self.registry.add_orchestrator(target, name=name)
            return target

        return register if function is None else register(function)

    @overload
    def activity(self, function: F, *, name: str | None = None) -> F: ...
    @overload
    def activity(self, *, name: str | None = None) -> Callable[[F], F]: ...
    def activity(self, function: F | None = None, *, name: str | None = None) -> F | Callable[[F], F]:
        """Register an activity: `def` (runs in a thread) or `async def`, with at most one parameter, the input."""

        def register(target: F) -> F:
            self.registry.add_activity(target, name=name)
            return target

        return register if function is None else register(function)

    # Life cycle.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the store and begin to fetch work. A worker runs once.

        Raises:
            StoreError: the store cannot be opened; nothing runs.
            RuntimeError: it runs, or has run; make another worker, with the same `registry` if you like.
        """
        if self._main is not None or self._started.is_set():
            raise RuntimeError("a worker can be started only once; make another one, `registry` may be the same")
        if self._manage_store:
            await self.store.create()
            await self.store.__aenter__()
        self._main = asyncio.get_running_loop().create_task(self._run(), name="durable-host-worker")
        started = asyncio.ensure_future(self._started.wait())
        await asyncio.wait({self._main, started}, return_when=asyncio.FIRST_COMPLETED)
        if not self._started.is_set():
            started.cancel()
            await self._main  # raises what kept it from starting

    async def drain(self) -> bool:
        """Stop fetching and finish what is held, for at most `settings.drain`; False: something is still running."""
        for pumping in self._pumping:
            pumping.cancel()
        await asyncio.gather(*self._pumping, return_exceptions=True)
        self._pumping.clear()
        if self._orchestration_dispatcher is None or self._activity_dispatcher is None:
            return True
        try:
            async with asyncio.timeout(self.settings.drain.total_seconds()):
                await asyncio.gather(self._orchestration_dispatcher.drain(), self._activity_dispatcher.drain())
        except TimeoutError:
            return False
        return True

    def resume(self) -> None:
        """Fetch work again after a drain. Nothing happens to a worker that fetches, or that has stopped."""
        group, orchestrations, activities = self._group, self._orchestration_dispatcher, self._activity_dispatcher
        if group is None or orchestrations is None or activities is None or self._pumping:
            return
        orchestrations.resume()
        activities.resume()
        self._pumping = [group.create_task(pump.run()) for pump in self._pumps]

    async def stop(self) -> None:
        """Drain, give back what is left, close. Idempotent."""
        if self._main is None:
            return
        if not self._main.done():
            if not await self.drain():
                logger.warning(
                    "stopping with work unfinished; it goes back to the hub", extra={"event": "drain_timeout"}
                )
            assert self._activity_dispatcher is not None and self._orchestration_dispatcher is not None
            await self._activity_dispatcher.cancel_all()
            await self._orchestration_dispatcher.stop()
            self._stop.set()
        self._group = None
        try:
            await self._main
        finally:
            self._main = None
            if self._native is not None:
                self._native.close()
            if self._manage_store:
                await self.store.__aexit__(None, None, None)

    async def wait(self) -> None:
        """Wait until the worker has stopped; raises what ended it, unless somebody asked for it."""
        if self._main is not None:
            await asyncio.shield(self._main)

    @property
    def problem(self) -> Exception | None:
        """Why work cannot be fetched at the moment; None when all is well."""
        if self._main is not None and self._main.done() and not self._main.cancelled():
            error = self._main.exception()
            if isinstance(error, Exception):
                return error
        for pump in self._pumps:
            if pump.error is not None:
                return pump.error
        return None

    @property
    def idle(self) -> bool:
        """Whether nothing runs on this worker."""
        orchestrations, activities = self._orchestration_dispatcher, self._activity_dispatcher
        return orchestrations is None or activities is None or (not orchestrations.busy and not activities.busy)

    @property
    def cached_instances(self) -> int:
        """Instances whose position this worker keeps, those it holds included."""
        dispatcher = self._orchestration_dispatcher
        return 0 if dispatcher is None else dispatcher.kept[0]

    @property
    def cached_bytes(self) -> int:
        """About how many bytes these positions keep alive."""
        dispatcher = self._orchestration_dispatcher
        return 0 if dispatcher is None else dispatcher.kept[1]

    # Inside.

    async def _run(self) -> None:
        settings, environment = self.settings, self.environment
        cache = SessionCache(instances=settings.max_cached_sessions, size=settings.max_cached_bytes)
        rules = Rules(
            unknown=self._unknown,
            store_inputs=settings.store_inputs,
            max_actions=settings.max_orchestration_actions,
        )
        episodes = Episodes(
            self.store, self._orchestrations, rules, environment.clock, max_deferrals=settings.max_reply_deferrals
        )
        traits = self.store.traits
        leases = LeaseKeeper(
            self._renew,
            clock=environment.clock,
            watchdog=settings.watchdog,
            metrics=self.metrics,
            thread=self._lease_thread,
        )
        leases.start()
        try:
            async with asyncio.TaskGroup() as group:
                commits: GroupCommit[Checkpoint] = GroupCommit(
                    self.store.commit,
                    batch=traits.commit_batch,
                    concurrency=traits.commit_concurrency,
                    patience=traits.commit_patience,
                )
                completions: GroupCommit[ActivityCompletion] = GroupCommit(
                    self.store.complete_activities,
                    batch=traits.commit_batch,
                    concurrency=traits.commit_concurrency,
                    patience=traits.commit_patience,
                )
                orchestrations = OrchestrationDispatcher(
                    self.store,
                    self._orchestrations,
                    episodes,
                    commits=commits,
                    complete=self._complete,
                    leases=leases,
                    cache=cache,
                    settings=settings,
                    metrics=self.metrics,
                    group=group,
                )
                activities = ActivityDispatcher(
                    self.store,
                    self._activities,
                    fold=orchestrations.fold,
                    completions=completions,
                    leases=leases,
                    settings=settings,
                    clock=environment.clock,
                    metrics=self.metrics,
                    group=group,
                )
                self._orchestration_dispatcher, self._activity_dispatcher = orchestrations, activities
                self._start_pumps(group, orchestrations, activities, cache)
                self._started.set()
                await self._stop.wait()
        finally:
            await leases.stop()
            cache.clear()

    def _start_pumps(
        self,
        group: asyncio.TaskGroup,
        orchestrations: OrchestrationDispatcher,
        activities: ActivityDispatcher,
        cache: SessionCache,
    ) -> None:
        batch = self.store.traits.lock_batch

        async def lock_orchestrations(
            limit: int, wait: timedelta, deliver: Callable[[OrchestrationWorkItem], None]
        ) -> Sequence[OrchestrationWorkItem]:
            return await self.store.receive_orchestrations(min(limit, batch), wait=wait, cache=cache, deliver=deliver)

        async def lock_activities(
            limit: int, wait: timedelta, deliver: Callable[[ActivityWorkItem], None]
        ) -> Sequence[ActivityWorkItem]:
            return await self.store.receive_activities(min(limit, batch), wait=wait, deliver=deliver)

        episodes_pump = Pump(
            lock_orchestrations,
            room=orchestrations.room,
            deliver=orchestrations.deliver,
            ids=self.environment.ids,
            name="orchestrations",
        )
        orchestrations.on_room = episodes_pump.freed
        activities_pump = Pump(
            lock_activities,
            room=activities.room,
            deliver=activities.deliver,
            ids=self.environment.ids,
            name="activities",
        )
        activities.on_room = activities_pump.freed
        self._pumps = [episodes_pump, activities_pump]
        self._pumping = [group.create_task(pump.run()) for pump in self._pumps]
        self._group = group

    async def _renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        return await self.store.renew(leases)

    async def _complete(self, finished: FinishedActivity) -> None:
        assert self._activity_dispatcher is not None
        await self._activity_dispatcher.complete(finished)

    def _unknown(self, kind: str, name: str) -> str | None:
        if kind == "activity":
            if self._activities.handles(name):
                return None
            return unknown_function(name, "activity", self._activities.names())
        if self._orchestrations.handles(name, None):
            return None
        return unknown_function(name, "orchestrator", self._orchestrations.names())
