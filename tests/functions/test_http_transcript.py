"""The judge: every recorded request is sent, in order, and every answer compared.

The whole transcript is played once on each provider, over real connections to one host; each entry is a test of what
came back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, ClientTimeout
from yarl import URL

from durable_host.bindings.routes import RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import TaskHubClient
from durable_host.environment import system_environment
from durable_host.errors import StoreMismatchError
from durable_host.http.server import HttpOptions, HttpServer
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import StorageOptions, StorageProvider, TaskHubStore
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import provider as memory_provider
from durable_host_providers.sqlite import provider as sqlite_provider
from tests.functions.comparison import Ids, Recorded, differences
from tests.functions.http_support import make_site
from tests.functions.recorded_differences import DIFFERENCES
from tests.functions.reference_app import reference_registry

TRANSCRIPT = [
    Recorded.read(number, entry)
    for number, entry in enumerate(json.loads((Path(__file__).parent / "data" / "http.json").read_text("utf-8")))
]
SETTLES = timedelta(seconds=5)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Outcome:
    """What came back for one entry: differences from the recording, and from what is expected in its place."""

    recorded: list[str]
    expected: list[str]


@dataclass
class Stage:
    """The host under test and what the recorder did beside its requests."""

    client: TaskHubClient
    server: HttpServer
    session: ClientSession
    gate: asyncio.Event
    ids: Ids
    tokens: dict[str, str]
    mark: datetime = _NEVER

    async def start(self, name: str, instance_id: str, value: object = None, *, status: str = "Running") -> None:
        await self.client.start(name, value, instance_id=instance_id)
        await self.reach(instance_id, status)

    async def reach(self, instance_id: str, status: str) -> None:
        wanted = RuntimeStatus(status)
        if wanted.is_terminal:
            await self.client.wait_for_completion(instance_id, timeout=SETTLES)
        else:
            await self.client.wait_for_start(instance_id, timeout=SETTLES)

    async def send(self, entry: Recorded) -> tuple[int, dict[str, str], bytes]:
        port = self.server.port if entry.group == "webhook" else URL(self.server.rpc_base or "").port
        headers = {name: value for name, value in entry.headers.items() if name != "Content-Length"}
        token = headers.get("x-ms-continuation-token")
        if token is not None:
            headers["x-ms-continuation-token"] = self.tokens.get(token, token)
        address = URL(f"http://127.0.0.1:{port}{self.ids.translated(entry.target)}", encoded=True)
        body = None if entry.body is None else entry.body.encode()
        async with self.session.request(
            entry.method, address, headers=headers, data=body, skip_auto_headers=("Content-Type",)
        ) as response:
            answer = await response.read()
            return response.status, dict(response.headers), answer

    async def play(self, entry: Recorded) -> Outcome:
        """Send one request; a GET again until it settles, since states follow requests in their own time."""
        difference = DIFFERENCES.get(entry.number)
        expected = entry if difference is None else difference.expected(entry)
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLES.total_seconds()
        while True:
            status, headers, body = await self.send(entry)
            before = self.ids.copy()
            found = differences(expected, status, headers, body, self.ids)
            if not found or entry.method != "GET" or loop.time() > end:
                break
            await asyncio.sleep(0.02)
        recorded = found if difference is None else differences(entry, status, headers, body, before)
        token = entry.answer_headers.get("x-ms-continuation-token")
        if token:
            self.tokens[token] = headers.get("x-ms-continuation-token", "")
        return Outcome(recorded, found)


# What the recorder did on its own before a request, as the recording lets conclude.

Preparation = Callable[[Stage], Awaitable[None]]


async def _before_conflict(stage: Stage) -> None:
    await stage.reach("waiting", "Running")
    await stage.reach("no-body", "Completed")


async def _pending(stage: Stage) -> None:
    # Asked before any worker took it; here its time has not come yet.
    await stage.client.start("Sequence", input_json="null", instance_id="pending", start_at=timedelta(seconds=1))


async def _race_event(stage: Stage) -> None:
    await stage.start("ApprovalOrTimeout", "race-event", 3600)
    await stage.client.raise_event("race-event", "Approval", {"by": "anna"})


async def _to_suspend(stage: Stage) -> None:
    for name in ("to-suspend", "to-terminate", "to-terminate-plain"):
        await stage.start("Approval", name)


async def _suspended(stage: Stage) -> None:
    state = await stage.client.require("to-suspend")
    while state.status is not RuntimeStatus.SUSPENDED:
        changed = await stage.client.store.wait_for_change(state.instance_id, after=state, timeout=SETTLES)
        assert changed is not None
        state = changed


async def _parent(stage: Stage) -> None:
    value = {"child": "Approval", "input": None, "id": "child-of-terminated"}
    await stage.start("Parent", "parent-terminated", value)
    await stage.reach("child-of-terminated", "Running")


async def _listed(stage: Stage) -> None:
    await stage.reach("with-input", "Completed")
    children = await stage.client.query(InstanceQuery(names=frozenset({"FanOut"})))
    stage.mark = max(child.created_at for child in children.instances)
    for number in (1, 2, 3):
        await stage.start("Sequence", f"list-{number}", {"id": f"list-{number}"}, status="Completed")
    await stage.start("Failing", "list-4", "l", status="Failed")


async def _to_purge(stage: Stage) -> None:
    for name in ("purge-1", "purge-2"):
        await stage.start("Sequence", name, status="Completed")


def _starting(name: str, instance_id: str, value: object = None, *, status: str = "Running") -> Preparation:
    async def prepare(stage: Stage) -> None:
        await stage.start(name, instance_id, value, status=status)

    return prepare


def _reaching(instance_id: str, status: str) -> Preparation:
    async def prepare(stage: Stage) -> None:
        await stage.reach(instance_id, status)

    return prepare


PREPARATIONS: dict[int, Preparation] = {
    29: _before_conflict,
    42: _pending,
    67: _starting("Compensating", "compensated", "c", status="Completed"),
    68: _starting("ApprovalOrTimeout", "race-timeout", 1, status="Completed"),
    69: _race_event,
    70: _starting("LeavesOpen", "left-open"),
    71: _starting("CallsNobody", "calls-nobody", status="Failed"),
    72: _starting("Throwing", "thrown", status="Failed"),
    73: _starting("GatedSequence", "gated"),
    75: _starting("Eternal", "eternal", 1),
    76: _starting("WithStatus", "with-status"),
    100: _to_suspend,
    102: _suspended,
    107: _reaching("to-suspend", "Completed"),
    115: _reaching("to-terminate", "Terminated"),
    117: _reaching("to-terminate", "Terminated"),
    121: _parent,
    141: _listed,
    201: _to_purge,
    217: _starting("Approval", "purge-4"),
    235: _starting("Approval", "gated"),
    255: _reaching("by-webhook", "Completed"),
}


def _window(stage: Stage, entry: Recorded) -> Recorded:
    start = quote(stage.mark.isoformat().replace("+00:00", "Z"), safe=":")
    target = entry.target.replace("2026-11-21T11:47:57.6926641Z", start)
    return replace(entry, target=target.replace("2026-11-21T11:47:58.9458119Z", "2100-01-01T00:00:00Z"))


def _forced(_: Stage, entry: Recorded) -> Recorded:
    # Deliberate difference: what is not terminal goes with force=true only.
    return replace(entry, target=f"{entry.target}&force=true")


REQUESTS: dict[int, Callable[[Stage, Recorded], Recorded]] = {151: _window, 152: _window, 215: _forced, 217: _forced}


async def _play(provider: StorageProvider, folder: Path) -> list[Outcome]:
    environment = system_environment()
    gate = asyncio.Event()

    def store(hub: str) -> TaskHubStore:
        return provider.open(StorageOptions(hub=hub, settings={}, folder=folder), environment).hub

    async with AsyncExitStack() as stack:
        worker = TaskHubWorker(store("recorded"), registry=reference_registry(gate), environment=environment)
        await stack.enter_async_context(worker)

        async def open_hub(hub: str, *, create: bool) -> TaskHubClient | None:
            opened = store(hub)
            if create:
                await opened.create()
            try:
                return TaskHubClient(await stack.enter_async_context(opened), environment)
            except StoreMismatchError:
                return None

        server = await stack.enter_async_context(HttpServer(HttpOptions(port=0, rpc_port=0), environment))
        urls = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "recorded", code="KEY")
        server.attach(make_site(worker, urls, RouteTable(), environment, open_hub=open_hub))
        session = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=30)))
        stage = Stage(worker.client, server, session, gate, Ids(), {})
        outcomes: list[Outcome] = []
        for entry in TRANSCRIPT:
            prepare = PREPARATIONS.get(entry.number)
            if prepare is not None:
                await prepare(stage)
            rewrite = REQUESTS.get(entry.number)
            outcomes.append(await stage.play(entry if rewrite is None else rewrite(stage, entry)))
        gate.set()
        return outcomes


@pytest.fixture(scope="module", params=[memory_provider, sqlite_provider], ids=lambda each: each.name)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    with asyncio.Runner() as runner:
        return runner.run(_play(request.param, tmp_path_factory.mktemp("app")))


@pytest.mark.parametrize("entry", TRANSCRIPT, ids=[f"{each.number}-{each.group}-{each.name}" for each in TRANSCRIPT])
def test_answer_is_the_recorded_one(entry: Recorded, outcomes: list[Outcome]) -> None:
    outcome = outcomes[entry.number]
    difference = DIFFERENCES.get(entry.number)

    assert outcome.expected == []
    if difference is not None:
        assert outcome.recorded != [], f"the exemption is not needed any more: {difference.reason}"


def test_every_exemption_belongs_to_an_entry() -> None:
    assert DIFFERENCES.keys() <= {entry.number for entry in TRANSCRIPT}
