"""An app at work in a test: functions declared in the test, a worker and a runtime on the memory provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from durable_host.bindings.contract import HostServices
from durable_host.bindings.http_types import HttpRequest, HttpResponse
from durable_host.bindings.registry import BindingRegistry
from durable_host.bindings.routes import RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.environment import Environment
from durable_host.functions.app import FunctionApp
from durable_host.functions.indexing import LoadedApp, index_app
from durable_host.functions.runtime import FunctionRuntime
from durable_host.storage.contract import StorageOptions
from durable_host.telemetry.metrics import Metrics
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import provider

__all__ = ["RunningApp", "make_services", "running"]

WEBHOOK = "http://localhost:7071/runtime/webhooks/durabletask"


@dataclass
class RunningApp:
    """What tests talk to."""

    app: LoadedApp
    runtime: FunctionRuntime
    services: HostServices
    worker: TaskHubWorker

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Send a request through the route table, as the server does."""
        match = self.services.routes.match(method, path.partition("?")[0])
        assert match is not None, f"no route for {method} {path}"
        url = f"http://example.org:8080{path}"
        return await match.route.handler(HttpRequest.received(method, url, (headers or {}).items(), body, match.params))


def make_services(worker: TaskHubWorker, setting: Callable[[str], str | None] = lambda name: None) -> HostServices:
    """Services of a host whose hub is called `TestHub`."""
    return HostServices(
        environment=worker.environment,
        routes=RouteTable("api"),
        registry=worker.registry,
        client=worker.client,
        urls=ManagementUrls(WEBHOOK, "TestHub"),
        setting=setting,
    )


@asynccontextmanager
async def running(
    app: FunctionApp,
    *,
    timeout: timedelta | None = None,
    grace: timedelta = timedelta(seconds=5),
    on_stuck: Callable[[str], None] | None = None,
    bindings: BindingRegistry | None = None,
    metrics: Metrics | None = None,
    setting: Callable[[str], str | None] = lambda name: None,
) -> AsyncGenerator[RunningApp]:
    """Index the app, run it, and stop it at the end."""
    environment = Environment()
    opened = provider.open(StorageOptions(hub="TestHub", settings={}, folder=Path()), environment)
    worker = TaskHubWorker(opened.hub, environment=environment)
    services = make_services(worker, setting)
    loaded = index_app(app, Path("function_app.py"), setting=setting, bindings=bindings)
    runtime = FunctionRuntime(
        loaded, services, timeout=timeout, grace=grace, on_stuck=on_stuck, bindings=bindings, metrics=metrics
    )
    async with worker, runtime:
        yield RunningApp(loaded, runtime, services, worker)
