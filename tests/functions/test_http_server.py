"""The listeners on the wire: limits, broken requests, readiness, stopping."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from aiohttp import ClientSession, ClientTimeout

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.routes import Route, RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.environment import system_environment
from durable_host.errors import ConfigurationError
from durable_host.http.server import HttpOptions, HttpServer
from durable_host.http.site import Site
from durable_host.telemetry.metrics import Metrics
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub
from tests.functions.http_support import make_site
from tests.functions.reference_app import reference_registry

OPTIONS = HttpOptions(port=0, rpc_port=0, body_limit=1000, grace=timedelta(seconds=5))
URLS = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "TestHub")


class Host:
    """A server with a site and one function, `/api/f`, that counts and can be held."""

    def __init__(self, server: HttpServer, site: Site, session: ClientSession) -> None:
        self.server = server
        self.site = site
        self.session = session
        self.calls: list[int] = []
        self.held = asyncio.Event()
        self.held.set()
        self.entered = asyncio.Event()
        self.finished = 0
        site.routes.add(Route("F", (), "f", AuthLevel.ANONYMOUS, self._function))

    async def _function(self, request: HttpRequest) -> HttpResponse:
        self.calls.append(len(request.get_body()))
        self.entered.set()
        await self.held.wait()
        self.finished += 1
        return HttpResponse("done", headers={"X-Encoding": request.headers.get("content-encoding", "")})

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def asked(self) -> None:
        """Wait until a request has arrived."""
        while not self.server.running:  # noqa: ASYNC110 - the server counts and tells nobody
            await asyncio.sleep(0)

    async def raw(self, text: bytes) -> bytes:
        """Send bytes and return everything up to the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def running(options: HttpOptions = OPTIONS, *, attach: bool = True) -> AsyncGenerator[Host]:
    environment = system_environment()
    store = MemoryHub(environment).open()
    registry = reference_registry(asyncio.Event())
    async with (
        TaskHubWorker(store, registry=registry, environment=environment) as worker,
        HttpServer(options, environment, Metrics()) as server,
        ClientSession(timeout=ClientTimeout(total=20)) as session,
    ):
        host = Host(server, make_site(worker, URLS, RouteTable(), environment), session)
        if attach:
            server.attach(host.site)
        yield host


# Bodies.


async def test_a_body_over_the_limit_is_413_and_runs_nothing() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with running() as host:
        for body in (b"x" * 1001, chunks()):
            async with host.session.post(f"{host.origin}/api/f", data=body) as response:
                assert (response.status, await response.read()) == (413, b"")
        async with host.session.post(f"{host.origin}/api/f", data=b"x" * 1000) as response:
            assert response.status == 200
        assert host.calls == [1000]


async def test_the_rpc_endpoint_has_no_limit() -> None:
    async with running() as host:
        address = f"{host.server.rpc_base}orchestrators/Approval/x"
        async with host.session.post(address, data=json.dumps("x" * 200_000).encode()) as response:
            assert response.status == 202


async def test_bodies_are_handed_on_as_sent() -> None:
    async with running() as host:
        headers = {"Content-Encoding": "gzip"}
        async with host.session.post(f"{host.origin}/api/f", data=b"not gzip", headers=headers) as response:
            assert (response.status, response.headers["X-Encoding"]) == (200, "gzip")
        assert host.calls == [8]


async def test_continue_is_said_before_the_body_and_not_to_one_that_is_too_large() -> None:
    head = (
        "POST /api/f HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        "Connection: close\r\nContent-Length: {}\r\n\r\n"
    )
    async with running() as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        writer.write(head.format(3).encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()

        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        writer.write(head.format(5000).encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()


@pytest.mark.parametrize(
    "part",
    [
        b"POST /api/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /api/f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /api/f HTTP/1.1\r\nHost: loc",
        b"",
    ],
)
async def test_a_request_cut_off_mid_way_is_harmless(part: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as host:
        _, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.05)  # the request is read when its client goes away
        writer.close()
        await writer.wait_closed()

        async with host.session.get(f"{host.origin}/api/f") as response:
            assert response.status == 200
        assert await host.server.idle(timedelta(seconds=5))
        assert host.calls == [0]
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


# Protocol.


@pytest.mark.parametrize(
    "text", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n"]
)
async def test_what_is_no_http_is_an_empty_400(text: bytes) -> None:
    async with running() as host:
        head, _, body = (await host.raw(text)).partition(b"\r\n\r\n")

        assert b" 400 " in head.splitlines()[0]
        assert body == b""


async def test_a_very_long_line_is_refused_without_a_page() -> None:
    async with running() as host:
        head, _, body = (await host.raw(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")).partition(
            b"\r\n\r\n"
        )

        assert b" 400 " in head.splitlines()[0]
        assert body == b""


async def test_one_connection_serves_many_requests() -> None:
    async with running() as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        for _ in range(3):
            writer.write(b"GET /api/f HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(4) == b"done"
        writer.close()
        assert len(host.calls) == 3


async def test_head_keeps_the_headers_and_drops_the_body() -> None:
    async with running() as host:
        head, _, body = (
            await host.raw(b"HEAD /api/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        ).partition(b"\r\n\r\n")

        assert b"200 OK" in head
        assert b"Content-Type: text/plain; charset=utf-8" in head
        assert body == b""


async def test_empty_answers_have_a_length_and_no_content_type() -> None:
    async with running() as host:
        head, _, body = (
            await host.raw(b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        ).partition(b"\r\n\r\n")

        assert body == b""
        assert b"Content-Length: 0" in head
        assert b"Content-Type" not in head


async def test_absolute_targets_and_missing_hosts_are_understood() -> None:
    async with running() as host:
        assert b"200 OK" in await host.raw(
            b"GET http://localhost/api/f?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert b"200 OK" in await host.raw(b"GET /api/f HTTP/1.0\r\n\r\n")


async def test_nothing_but_json_leaves_the_rpc_endpoint() -> None:
    async with running() as host:
        base = host.server.rpc_base or ""
        for method, target in (("GET", "nope"), ("PATCH", "instances/x"), ("POST", "orchestrators/Nope"), ("GET", "/")):
            async with host.session.request(method, base + target) as response:
                body = await response.read()
                if body:
                    json.loads(body)


# Readiness.


async def test_requests_wait_for_the_host_to_be_ready() -> None:
    async with running(attach=False) as host:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(host.session.get(f"{host.origin}/api/f"))
            await host.asked()
            async with host.session.get(f"{host.origin}/health/live") as response:
                assert response.status == 200
            async with host.session.get(f"{host.origin}/health/ready") as response:
                assert response.status == 503
                assert (await response.json())["reason"] == "The host is starting."
            host.server.attach(host.site)
        assert waiting.result().status == 200
        waiting.result().release()


async def test_a_host_that_does_not_get_ready_is_a_503() -> None:
    async with running(replace(OPTIONS, ready_wait=timedelta(0)), attach=False) as host:
        async with host.session.get(f"{host.origin}/api/f") as response:
            assert (response.status, await response.text()) == (503, "Function host is not running.")
        async with host.session.get(f"{host.server.rpc_base}instances/") as response:
            assert (response.status, await response.json()) == (503, {"Message": "Function host is not running."})


async def test_after_a_detach_requests_wait_for_the_next_site() -> None:
    async with running() as host:
        host.server.detach()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(host.session.get(f"{host.origin}/api/f"))
            await host.asked()
            assert host.calls == []
            host.server.attach(host.site)
        assert waiting.result().status == 200
        waiting.result().release()


# Stopping, and clients that go away.


async def test_stopping_finishes_what_runs_and_accepts_nothing_new() -> None:
    async with running() as host:
        host.held.clear()
        async with asyncio.TaskGroup() as group:
            request = group.create_task(host.session.get(f"{host.origin}/api/f"))
            await host.entered.wait()
            stopping = group.create_task(host.server.__aexit__(None, None, None))
            await asyncio.sleep(0)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", host.server.port)
            host.held.set()
        assert request.result().status == 200
        request.result().release()
        assert stopping.done()


async def test_stopping_does_not_wait_beyond_the_grace_period() -> None:
    async with running(replace(OPTIONS, grace=timedelta(milliseconds=50))) as host:
        host.held.clear()
        request = asyncio.ensure_future(host.session.get(f"{host.origin}/api/f"))
        await host.entered.wait()
        await host.server.__aexit__(None, None, None)

        with pytest.raises(OSError):
            await request
        assert host.finished == 0


async def test_a_client_that_goes_away_interrupts_nothing() -> None:
    async with running() as host:
        host.held.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        writer.write(b"GET /api/f HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await host.entered.wait()
        writer.close()
        await writer.wait_closed()
        host.held.set()

        assert await host.server.idle(timedelta(seconds=5))
        assert host.finished == 1


# Addresses.


async def test_a_port_in_use_is_reported_with_what_to_do() -> None:
    async with running() as host:
        with pytest.raises(ConfigurationError, match="--port"):
            await HttpServer(replace(OPTIONS, port=host.server.port)).__aenter__()


async def test_the_rpc_endpoint_finds_another_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with HttpServer(replace(OPTIONS, rpc_port=taken.getsockname()[1])) as server:
            port = int((server.rpc_base or "").split(":")[2].split("/")[0])

    assert 30_000 <= port <= 31_000
    assert (server.rpc_base or "").endswith("/durabletask/")


@pytest.mark.parametrize(
    ("options", "demanded"),
    [
        (replace(OPTIONS, host="127.0.0.1"), False),
        (replace(OPTIONS, host="localhost"), False),
        (replace(OPTIONS, host="127.0.0.1", enable_auth=True), True),
        (replace(OPTIONS, host="0.0.0.0"), True),
        (replace(OPTIONS, host=""), True),
    ],
)
async def test_the_bound_address_decides_whether_keys_are_demanded(options: HttpOptions, demanded: bool) -> None:
    async with HttpServer(options) as server:
        assert server.demands_keys is demanded
        assert server.origin == f"http://localhost:{server.port}"


@pytest.mark.parametrize(
    ("hostname", "origin"),
    [("", None), ("localhost:8080", "http://localhost:8080"), ("example.org", "https://example.org")],
)
async def test_generated_addresses_name_what_callers_use(hostname: str, origin: str | None) -> None:
    async with HttpServer(replace(OPTIONS, hostname=hostname)) as server:
        assert server.public_origin == (origin or server.origin)


async def test_without_the_rpc_endpoint_there_is_no_address_for_it() -> None:
    async with HttpServer(replace(OPTIONS, rpc=False)) as server:
        assert server.rpc_base is None


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        await HttpServer(replace(OPTIONS, host="192.0.2.1")).__aenter__()
