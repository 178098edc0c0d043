"""Sites for the tests of the HTTP layer: a management API over a worker or a client, with everything around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from durable_host.bindings.routes import RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.environment import Environment
from durable_host.executors.native import NativeOrchestrations
from durable_host.http.admin import AdminApi
from durable_host.http.background import Background
from durable_host.http.control import FunctionView
from durable_host.http.health import Health
from durable_host.http.keys import KeyRing
from durable_host.http.management import HubOpener, ManagementApi
from durable_host.http.site import Site
from durable_host.storage.contract import HostStateStore
from durable_host.worker import TaskHubWorker

__all__ = ["FakeControl", "make_site"]


@dataclass
class FakeControl:
    """A host as the admin API sees it."""

    host_id: str = "test-host"
    instance_id: str = "1234"
    state: str = "Running"
    errors: Sequence[str] = ()
    uptime: float = 5.12
    draining: bool = False
    outstanding: int = 0
    views: list[FunctionView] = field(default_factory=list[FunctionView])
    invoked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def functions(self) -> Sequence[FunctionView]:
        return self.views

    async def invoke(self, name: str, value: str) -> None:
        self.invoked.append((name, value))

    async def drain(self) -> None:
        self.draining = True

    async def resume(self) -> bool:
        drained, self.draining = self.draining, False
        return drained


def make_site(
    worker: TaskHubWorker,
    urls: ManagementUrls,
    routes: RouteTable,
    environment: Environment,
    *,
    open_hub: HubOpener | None = None,
    host_state: HostStateStore | None = None,
    demands_keys: bool = False,
    control: FakeControl | None = None,
    homepage: bool = True,
) -> Site:
    """A site over a worker."""
    orchestrations = NativeOrchestrations(worker.registry)
    api = ManagementApi(
        client=worker.client,
        urls=urls,
        knows=lambda name: orchestrations.handles(name, None),
        names=orchestrations.names,
        now=environment.clock.now,
        open_hub=open_hub,
    )
    keys = KeyRing(host_state, environment)
    return Site(
        api=api,
        routes=routes,
        keys=keys,
        admin=AdminApi(control or FakeControl(), keys, Background(), version="0.1.0", metrics=lambda: "# none\n"),
        health=Health(worker.store.check),
        demands_keys=demands_keys,
        homepage=homepage,
    )
