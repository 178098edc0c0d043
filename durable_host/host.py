"""The composition root: config → storage → engine → functions → http, and their life as one host.

A host is loaded, started and stopped once. `load` imports the app and builds everything without touching the store, so
that a reload learns whether the new code is any good before the old host stops. Entering the context opens the store,
starts the worker and the listeners, and puts the site behind the HTTP server; leaving it drains: no new work is
fetched, requests and work in progress get the grace period, the rest goes back to the hub.

Source: functions-host.md 9.7, 11.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from durable_host.bindings.contract import HostServices
from durable_host.bindings.routes import RouteTable
from durable_host.bindings.urls import WEBHOOK_PATH, ManagementUrls
from durable_host.config.host_json import HostJson, hub_name_problem
from durable_host.config.settings import Settings
from durable_host.engine.client import ANY_STATE, NON_RUNNING_STATES, TaskHubClient
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment, system_environment
from durable_host.errors import ConfigurationError, StoreMismatchError
from durable_host.executors.native import FunctionRegistry, NativeOrchestrations
from durable_host.http.admin import AdminApi
from durable_host.http.background import Background
from durable_host.http.control import FunctionView
from durable_host.http.health import Health
from durable_host.http.keys import KeyRing
from durable_host.http.management import ManagementApi
from durable_host.http.server import HttpOptions, HttpServer
from durable_host.http.site import Site
from durable_host.http.throttle import Throttle
from durable_host.model.status import TERMINAL
from durable_host.storage.choice import StorageChoice
from durable_host.storage.contract import OpenedProvider, StorageOptions
from durable_host.storage.observed import observe
from durable_host.storage.registry import find_provider
from durable_host.telemetry.metrics import Metrics
from durable_host.worker import TaskHubWorker

if TYPE_CHECKING:
    from durable_host.functions.runtime import FunctionDescription, FunctionRuntime

__all__ = ["Host", "HostConfig", "host_id", "refuse_hidden_instances"]

logger = logging.getLogger(__name__)

_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Everything a host is made from.

    Attributes:
        folder: of the app.
        storage: what the chosen provider is opened with.
        functions: names of the functions to load; None: all.
    """

    folder: Path
    host_json: HostJson
    settings: Settings
    choice: StorageChoice
    storage: StorageOptions
    http: HttpOptions = field(default_factory=HttpOptions)
    functions: tuple[str, ...] | None = None


class Host:
    """One run of an app. Implements what the admin endpoints ask for (`http/control.py`)."""

    def __init__(
        self,
        config: HostConfig,
        *,
        environment: Environment | None = None,
        metrics: Metrics | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.config = config
        self.environment = environment or system_environment()
        self.metrics = metrics or Metrics()
        self.server = HttpServer(config.http, self.environment, self.metrics, sockets)
        self.host_id = host_id(config.folder, config.settings.get)
        self.instance_id = self.environment.ids.new_id()
        self.state = "Starting"
        self.errors: Sequence[str] = ()
        self.failed = asyncio.Event()
        self.failure: str | None = None
        self._began = self.environment.clock.monotonic()
        self._provider: OpenedProvider | None = None
        self._worker: TaskHubWorker | None = None
        self._runtime: FunctionRuntime | None = None
        self._orchestrations: NativeOrchestrations | None = None
        self._services: HostServices | None = None
        self._hubs: _OtherHubs | None = None
        self._background = Background()
        self._stack = AsyncExitStack()
        self._listening = False
        self._turning = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    # Making it.

    def load(self) -> None:
        """Import the app and build the host; nothing is opened but what the app itself opens.

        Raises:
            IndexingError, UserImportError: the app cannot be loaded.
            ConfigurationError: a binding or a setting is wrong.
        """
        from durable_host.functions.indexing import load_app
        from durable_host.functions.runtime import FunctionRuntime

        config, environment = self.config, self.environment
        host_json = config.host_json
        opened = config.choice.provider.open(config.storage, environment)
        store = observe(opened.hub, self.metrics, environment.clock)
        registry = FunctionRegistry()
        orchestrations = NativeOrchestrations(registry)
        worker = TaskHubWorker(
            store,
            environment=environment,
            settings=_engine_settings(host_json),
            registry=registry,
            orchestrations=orchestrations,
            metrics=self.metrics,
            manage_store=False,
        )
        urls = ManagementUrls(f"{self.server.public_origin}{WEBHOOK_PATH}", config.storage.hub)
        hubs = _OtherHubs(config, environment, worker.client)
        services = HostServices(
            environment=environment,
            routes=RouteTable(host_json.http.route_prefix),
            registry=registry,
            client=worker.client,
            urls=urls,
            setting=config.settings.get,
            host_state=opened.host_state,
            route_prefix=host_json.http.route_prefix,
            hub_client=hubs.declared,
            script_root=config.folder,
            replaceable=ANY_STATE if host_json.durable.replace_any_state else NON_RUNNING_STATES,
        )
        app = load_app(config.folder, setting=config.settings.get, functions=config.functions)
        self._runtime = FunctionRuntime(
            app, services, timeout=host_json.function_timeout, on_stuck=self._stuck, metrics=self.metrics
        )
        self._provider, self._worker, self._orchestrations = opened, worker, orchestrations
        self._services, self._hubs = services, hubs

    async def listen(self) -> None:
        """Bind the ports; requests wait until the host is ready. Called by entering the context, at the latest.

        Raises:
            ConfigurationError: the port is taken, or the address is not one of this machine.
        """
        if not self._listening:
            await self.server.__aenter__()
            self._listening = True

    async def __aenter__(self) -> Self:
        try:
            await self.listen()
            if self._runtime is None:
                self.load()
            await self._start()
        except BaseException as error:
            self.state, self.errors = "Error", (str(error),)
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> None:
        provider, worker, runtime, services, hubs = self._parts()
        config = self.config
        await refuse_hidden_instances(config, self.environment)
        await provider.hub.create()
        await self._stack.enter_async_context(worker.store)
        await hubs.open(self._stack)
        keys = KeyRing(provider.host_state, self.environment)
        if self.server.demands_keys:
            services.urls = replace(services.urls, code=await keys.system_key())
        await worker.start()
        self._stack.push_async_callback(worker.stop)
        await self._stack.enter_async_context(runtime)
        self._watch = asyncio.get_running_loop().create_task(self._watch_worker(worker), name="worker watch")
        self._stack.push_async_callback(_cancelled, self._watch)
        self.server.attach(self._site(keys))
        self.state = "Running"

    def _site(self, keys: KeyRing) -> Site:
        _, worker, _, services, hubs = self._parts()
        host_json, http = self.config.host_json, self.config.host_json.http
        assert self._orchestrations is not None
        orchestrations = self._orchestrations
        api = ManagementApi(
            client=worker.client,
            urls=services.urls,
            knows=lambda name: orchestrations.handles(name, None),
            names=orchestrations.names,
            now=self.environment.clock.now,
            open_hub=hubs.opened,
            replaceable=frozenset(services.replaceable),
            forwarded_host=host_json.durable.use_forwarded_host,
        )
        from durable_host import __version__

        return Site(
            api=api,
            routes=services.routes,
            keys=keys,
            admin=AdminApi(self, keys, self._background, version=__version__, metrics=self.metrics.prometheus),
            health=Health(worker.store.check, self._unready),
            demands_keys=self.server.demands_keys,
            homepage=(self.config.settings.get("AzureWebJobsDisableHomepage") or "").lower() not in ("true", "1"),
            throttle=Throttle(http.max_outstanding_requests, http.max_concurrent_requests),
            custom_headers=http.custom_headers,
        )

    # Ending it.

    async def stop(self) -> None:
        """Stop fetching, finish what is held within the grace period, hand back the rest, close. Idempotent."""
        if self.state == "Stopped":
            return
        if self.state != "Error":
            self.state = "Stopping"
        # Requests may wait for instances, so both end together; each has the grace period.
        stopped = [self._worker.stop()] if self._worker is not None else []
        await asyncio.gather(self._background.close(_GRACE.total_seconds()), self._stop_listening(), *stopped)
        await self._close()
        self.state = "Stopped"

    async def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            await self.server.__aexit__(None, None, None)

    async def _close(self) -> None:
        await self._stop_listening()
        await self._stack.aclose()

    async def _watch_worker(self, worker: TaskHubWorker) -> None:
        try:
            await worker.wait()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self.state == "Running":
                logger.error(
                    "An unhandled exception has occurred. Host is shutting down.",
                    exc_info=error,
                    extra={"event": "worker_failed"},
                )
                self.fail("The worker ended with an error; see the log.")

    def _stuck(self, function: str) -> None:
        self.fail(f"Function '{function}' did not end after its time limit. Host is shutting down.")

    def fail(self, reason: str) -> None:
        """End the host: whoever runs it waits for `failed`."""
        self.failure = reason
        self.state, self.errors = "Error", (reason,)
        self.failed.set()

    # What the admin endpoints ask.

    @property
    def uptime(self) -> float:
        """Seconds since the host was made."""
        return self.environment.clock.monotonic() - self._began

    @property
    def draining(self) -> bool:
        """Whether listeners were stopped by `drain`."""
        return self._runtime is not None and self._runtime.draining

    @property
    def outstanding(self) -> int:
        """Invocations that run now."""
        return 0 if self._runtime is None else self._runtime.outstanding

    def functions(self) -> Sequence[FunctionView]:
        """All functions by name."""
        return () if self._runtime is None else [_view(each) for each in self._runtime.functions]

    async def invoke(self, name: str, value: str) -> None:
        """Run a function by hand."""
        _, _, runtime, _, _ = self._parts()
        await runtime.invoke(name, value)

    async def drain(self) -> None:
        """Stop all listeners, cancel nothing; HTTP goes on being served."""
        _, worker, runtime, _, _ = self._parts()
        async with self._turning:
            await runtime.drain()
            await worker.drain()

    async def resume(self) -> bool:
        """Undo a drain, once what was held is done or its grace period over; False: the host is not drained.

        Deviation: the host is not started anew, as in Azure (functions-host.md 9.7): it listens and fetches again, and
        nobody's memory is lost.
        """
        _, worker, runtime, _, _ = self._parts()
        async with self._turning:
            if self.state != "Running" or not runtime.draining:
                return False
            worker.resume()
            await runtime.resume()
            return True

    def _unready(self) -> str | None:
        if self.state != "Running":
            return f"The host is {self.state.lower()}."
        problem = None if self._worker is None else self._worker.problem
        return None if problem is None else str(problem)

    def _parts(self) -> tuple[OpenedProvider, TaskHubWorker, FunctionRuntime, HostServices, _OtherHubs]:
        assert self._provider is not None and self._worker is not None, "load the host first"
        assert self._runtime is not None and self._services is not None and self._hubs is not None
        return self._provider, self._worker, self._runtime, self._services, self._hubs

    @property
    def location(self) -> str:
        """Where the hub is, without secrets."""
        return "" if self._provider is None else self._provider.location


class _OtherHubs:
    """Clients of other task hubs in the same store: those that bindings name, and those that requests name."""

    def __init__(self, config: HostConfig, environment: Environment, own: TaskHubClient) -> None:
        self._config = config
        self._environment = environment
        self._own = own
        self._declared: dict[str, TaskHubClient] = {}
        self._stack: AsyncExitStack | None = None

    def declared(self, hub: str | None, connection: str | None) -> TaskHubClient | None:
        """The client of a hub that a binding names, opened with the host; None: it cannot be reached from here."""
        if hub is None or hub.lower() == self._config.storage.hub.lower():
            return self._own
        if self._stack is not None or self._config.storage.url is not None or hub_name_problem(hub) is not None:
            return None
        key = hub.lower()
        if key not in self._declared:
            self._declared[key] = self._client(hub)
        return self._declared[key]

    async def open(self, stack: AsyncExitStack) -> None:
        """Make and open the hubs that bindings name."""
        self._stack = stack
        for client in self._declared.values():
            await client.store.create()
            await stack.enter_async_context(client.store)

    async def opened(self, hub: str, *, create: bool) -> TaskHubClient | None:
        """The client of a hub that a request names; None when it does not exist and is not to be created."""
        if self._stack is None or self._config.storage.url is not None or hub_name_problem(hub) is not None:
            return None
        known = self._declared.get(hub.lower())
        if known is None:
            known = self._client(hub)
            if create:
                await known.store.create()
            try:
                await self._stack.enter_async_context(known.store)
            except StoreMismatchError:
                return None
            self._declared[hub.lower()] = known
        return known

    def _client(self, hub: str) -> TaskHubClient:
        options = msgspec.structs.replace(self._config.storage, hub=hub, worker=False, app="")
        opened = self._config.choice.provider.open(options, self._environment)
        return TaskHubClient(opened.hub, self._environment)


async def refuse_hidden_instances(config: HostConfig, environment: Environment) -> None:
    """Refuse an automatic choice that would hide unfinished instances in the SQLite hub of an earlier choice.

    Raises:
        ConfigurationError: it would; the text says how to decide.
    """
    choice = config.choice
    sqlite = None if not choice.automatic or choice.provider.name == "sqlite" else find_provider("sqlite")
    if sqlite is None:
        return
    options = msgspec.structs.replace(config.storage, settings={}, url=None, worker=False, app="")
    opened = sqlite.open(options, environment)
    try:
        async with opened.hub as store:
            counted = (await store.statistics()).instances
    except StoreMismatchError:
        return  # there is no such hub, so there is nothing to hide
    ended = {status.value for status in TERMINAL}
    unfinished = sum(count for status, count in counted.items() if status not in ended)
    if unfinished:
        raise ConfigurationError(
            f"The SQLite hub at {opened.location} holds {unfinished} unfinished instance(s), and this start would use "
            f"{choice.provider.name} instead, because {choice.reason}. Say which one you mean: set "
            "extensions.durableTask.storageProvider.type in host.json to 'sqlite' to go on with them, or to "
            f"{choice.provider.name!r} to leave them where they are."
        )


def host_id(folder: Path, setting: Callable[[str], str | None]) -> str:
    """The identity of an app on this machine, or the one that is set.

    Raises:
        ConfigurationError: the one that is set breaks the rules.

    Source: functions-host.md 11.1.
    """
    explicit = setting("AzureFunctionsWebHost__hostid")
    if explicit:
        parts = explicit.split("-")
        if len(explicit) > 32 or not all(part.isascii() and part.isalnum() and part == part.lower() for part in parts):
            raise ConfigurationError(
                f"AzureFunctionsWebHost__hostid is {explicit!r}; a host id has 1 to 32 characters: lower-case letters, "
                "digits and single dashes between them."
            )
        return explicit
    digest = 23
    for each in str(folder):
        digest = (digest * 31 + ord(each)) & 0xFFFFFFFF
    number = abs(digest - 0x100000000 if digest & 0x80000000 else digest)
    machine = "".join(each for each in platform.node() if each.isascii() and each.isalnum())
    return f"{machine}-{number}".lower()[:32].strip("-")


def _engine_settings(host_json: HostJson) -> EngineSettings:
    durable = host_json.durable
    defaults = EngineSettings()
    return EngineSettings(
        max_concurrent_orchestrations=durable.max_orchestrations or defaults.max_concurrent_orchestrations,
        max_concurrent_activities=durable.max_activities or defaults.max_concurrent_activities,
        max_orchestration_actions=durable.max_orchestration_actions,
        store_inputs=durable.store_inputs,
        drain=_GRACE,
    )


def _view(function: FunctionDescription) -> FunctionView:
    return FunctionView(
        name=function.name,
        bindings=function.bindings,
        script_file=function.script_file,
        entry_point=function.entry_point,
        route=function.route,
        disabled=function.disabled,
        errors=function.errors,
    )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
