"""What stands behind the public endpoint: order of routes, keys, throttling, and answers of functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.routes import Route, RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.environment import system_environment
from durable_host.http.control import FunctionView
from durable_host.http.keys import KeyScope, create_key
from durable_host.http.messages import Answer, Request
from durable_host.http.site import Site
from durable_host.http.throttle import Throttle
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub
from tests.functions.http_support import FakeControl, make_site
from tests.functions.reference_app import reference_registry

STATUS = "/runtime/webhooks/durabletask/instances/none"
URLS = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "TestHub")

Respond = Callable[[HttpRequest], HttpResponse]


@dataclass
class Host:
    """A site, and a way to ask it."""

    site: Site
    routes: RouteTable
    control: FakeControl

    def serve(
        self,
        function: str,
        template: str,
        respond: Respond | None = None,
        level: AuthLevel = AuthLevel.ANONYMOUS,
        methods: tuple[str, ...] = (),
        *,
        disabled: bool = False,
    ) -> None:
        async def handle(request: HttpRequest) -> HttpResponse:
            return respond(request) if respond is not None else HttpResponse(function)

        self.routes.add(Route(function, methods, template, level, handle, disabled))

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        path, _, query = target.partition("?")
        named = {"host": "localhost:7071"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.site.public(Request(method, path, query, named, body, host=named["host"]))

    async def status(self, target: str, **headers: str) -> int:
        return (await self.ask("GET", target, b"", **headers)).status


@asynccontextmanager
async def running(*, keys: bool = False, prefix: str = "api", homepage: bool = True) -> AsyncGenerator[Host]:
    environment = system_environment()
    hub = MemoryHub(environment)
    routes, control = RouteTable(prefix), FakeControl()
    registry = reference_registry(asyncio.Event())
    async with TaskHubWorker(hub.open(), registry=registry, environment=environment) as worker:
        site = make_site(
            worker,
            URLS,
            routes,
            environment,
            host_state=hub.host_state,
            demands_keys=keys,
            control=control,
            homepage=homepage,
        )
        yield Host(site, routes, control)


async def _key(host: Host, scope: KeyScope, name: str, value: str) -> None:
    ring = host.site.keys
    assert ring.store is not None
    await create_key(ring.store, ring.environment, scope, name, value)


# Order of routes.


async def test_homepage_and_fall_through() -> None:
    async with running() as host:
        page = await host.ask("GET", "/")
        assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
        for method, target in (
            ("POST", "/"),
            ("GET", "/nope"),
            ("GET", "/runtime/webhooks/other/x"),
            ("GET", "/admin"),
        ):
            answer = await host.ask(method, target)
            assert (answer.status, answer.body, answer.headers) == (404, b"", ())


async def test_without_homepage_the_root_is_a_functions_or_empty() -> None:
    async with running(prefix="", homepage=False) as host:
        assert (await host.ask("GET", "/")).status == 204

        host.serve("Root", "{*rest}")
        assert (await host.ask("GET", "/")).body == b"Root"


async def test_host_routes_come_before_functions() -> None:
    async with running(prefix="") as host:
        host.serve("All", "{*rest}")

        assert (await host.ask("GET", "/health/live")).body == b'{"status":"alive"}'
        assert (await host.ask("GET", "/health/other")).body == b"All"
        assert (await host.ask("GET", "/anything/else")).body == b"All"
        assert (await host.ask("GET", "/runtime/x")).status == 404


async def test_a_function_gets_url_params_route_values_and_body() -> None:
    def respond(request: HttpRequest) -> HttpResponse:
        seen = [request.method, request.url, dict(request.params), dict(request.route_params), len(request.get_body())]
        return HttpResponse(json.dumps(seen), mimetype="application/json")

    async with running() as host:
        host.serve("Echo", "echo/{id}", respond, methods=("POST",))
        answer = await host.ask("POST", "/api/Echo/a%20b?q=1&q=2", b"123")

        assert answer.header("content-type") == "application/json"
        assert json.loads(answer.body) == [
            *("POST", "http://localhost:7071/api/Echo/a%20b?q=1&q=2", {"q": "1,2"}, {"id": "a b"}, 3),
        ]
        assert (await host.ask("GET", "/api/echo/x")).status == 404


# What a function answers.


def _answers(response: HttpResponse) -> Respond:
    return lambda _: response


async def test_headers_are_passed_on_cookies_repeatedly_others_once_framing_never() -> None:
    response = HttpResponse(
        "x",
        headers=[
            *(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-A", "1"), ("x-a", "2")),
            *(("Content-Length", "999"), ("Transfer-Encoding", "chunked"), ("Content-Type", "text/html")),
        ],
    )
    async with running() as host:
        host.serve("F", "f", _answers(response))
        answer = await host.ask("GET", "/api/f")

        assert answer.headers == [
            ("Content-Type", "text/html"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-A", "1"),
        ]


@pytest.mark.parametrize(
    "response",
    [
        HttpResponse("x", status_code=99),
        HttpResponse("x", status_code=600),
        HttpResponse("x", headers={"X-A": "a\r\nSet-Cookie: evil=1"}),
        HttpResponse("x", headers={"X\nA": "a"}),
    ],
)
async def test_what_http_cannot_carry_is_a_500(response: HttpResponse) -> None:
    async with running() as host:
        host.serve("F", "f", _answers(response))
        answer = await host.ask("GET", "/api/f")

        assert (answer.status, answer.body) == (500, b"")


async def test_no_content_has_no_content_type() -> None:
    async with running() as host:
        host.serve("F", "f", _answers(HttpResponse(status_code=204)))

        assert (await host.ask("GET", "/api/f")).headers == []


async def test_custom_headers_are_added_where_they_are_missing() -> None:
    async with running() as host:
        host.site = replace(host.site, custom_headers={"X-Frame-Options": "DENY", "X-A": "default"})
        host.serve("F", "f", _answers(HttpResponse("x", headers={"x-a": "own"})))

        answer = await host.ask("GET", "/api/f")
        assert answer.header("X-Frame-Options") == "DENY"
        assert [value for name, value in answer.headers if name.lower() == "x-a"] == ["own"]
        assert (await host.ask("GET", "/nope")).header("X-Frame-Options") == "DENY"


@pytest.mark.simulated
async def test_requests_beyond_the_limits_are_turned_away_and_waiting_ones_take_turns() -> None:
    running_now = most = 0

    async with running() as host:
        host.site = replace(host.site, throttle=Throttle(outstanding=3, concurrent=2))

        async def handle(_: HttpRequest) -> HttpResponse:
            nonlocal running_now, most
            running_now += 1
            most = max(most, running_now)
            await asyncio.sleep(1)
            running_now -= 1
            return HttpResponse("done")

        host.routes.add(Route("Slow", (), "slow", AuthLevel.ANONYMOUS, handle))
        answers = await asyncio.gather(*(host.ask("GET", "/api/slow") for _ in range(5)))

        assert sorted(each.status for each in answers) == [200, 200, 200, 429, 429]
        assert most == 2
        refused = next(each for each in answers if each.status == 429)
        assert refused.headers == (("X-FUNCTION-SCALEOUT", "1"),)
        assert (await host.ask("GET", "/api/slow")).status == 200
        assert (await host.ask("GET", "/admin/host/ping")).status == 200


# Keys.


async def test_loopback_needs_no_keys() -> None:
    async with running() as host:
        host.serve("F", "f", level=AuthLevel.ADMIN)

        for target in ("/api/f", "/admin/host/status", "/admin/host/keys", "/runtime/openapi.json"):
            assert await host.status(target, x_functions_key="wrong") == 200
        assert await host.status(f"{STATUS}?code=wrong") == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:7071"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost:7071", "origin": "https://evil.example"},
        {"host": "localhost:7071", "origin": "null"},
    ],
)
async def test_a_page_of_another_site_needs_keys_even_on_loopback(headers: dict[str, str]) -> None:
    async with running() as host:
        host.serve("Open", "open")
        host.serve("Closed", "closed", level=AuthLevel.FUNCTION)

        assert await host.status(STATUS, **headers) == 401
        assert await host.status("/admin/host/status", **headers) == 401
        assert await host.status("/api/closed", **headers) == 401
        assert await host.status("/api/open", **headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7071"},
        {"host": "[::1]:7071"},
        {"host": "LOCALHOST"},
        {"host": "app.localhost:1", "origin": "http://localhost:3000"},
    ],
)
async def test_names_of_this_machine_are_spared(headers: dict[str, str]) -> None:
    async with running() as host:
        assert await host.status("/admin/host/status", **headers) == 200


async def test_the_rpc_endpoint_knows_loopback_names_only() -> None:
    async with running() as host:
        request = Request("GET", "/durabletask/instances", headers={"host": "evil.example"})

        assert (await host.site.local(request)).status == 403
        assert (await host.site.local(replace(request, headers={"host": "127.0.0.1:17071"}))).status == 200
        assert (await host.site.local(replace(request, path="/other", headers={}))).status == 404


async def test_the_management_api_opens_to_its_system_key_and_the_master_key() -> None:
    async with running(keys=True) as host:
        await _key(host, KeyScope.system(), "other_extension", "other")
        await _key(host, KeyScope.host(), "extra", "host")
        system, master = await host.site.keys.system_key() or "", await host.site.keys.master_key() or ""

        assert await host.status(STATUS) == 401
        for wrong in ("x", "host", "other"):
            assert await host.status(STATUS, x_functions_key=wrong) == 401
        for right in (system, master):
            assert await host.status(STATUS, x_functions_key=right) == 404
            assert await host.status(f"{STATUS}?code={right}") == 404
        # The header wins, even when it is wrong.
        assert await host.status(f"{STATUS}?code={master}", x_functions_key="x") == 401


async def test_functions_open_by_their_level() -> None:
    async with running(keys=True) as host:
        for level in AuthLevel:
            host.serve(level.value, level.value, level=level)
        await _key(host, KeyScope.function("function"), "own", "own")
        await _key(host, KeyScope.host(), "extra", "host")
        system, master = await host.site.keys.system_key() or "", await host.site.keys.master_key() or ""
        opened = {
            key: [await host.status(f"/api/{level.value}", x_functions_key=key) == 200 for level in AuthLevel]
            for key in ("wrong", "own", "host", system, master)
        }

        assert list(AuthLevel) == [AuthLevel.ANONYMOUS, AuthLevel.FUNCTION, AuthLevel.ADMIN]
        assert opened == {
            "wrong": [True, False, False],
            "own": [True, True, False],
            "host": [True, True, False],
            system: [True, False, False],
            master: [True, True, True],
        }
        refused = await host.ask("GET", "/api/function")
        assert (refused.status, refused.body) == (401, b"")


async def test_disabled_functions_exist_for_the_master_key_only() -> None:
    async with running(keys=True) as host:
        host.serve("Off", "off", disabled=True)
        master = await host.site.keys.master_key() or ""

        assert await host.status("/api/off") == 404
        assert await host.status("/api/off", x_functions_key=master) == 200


async def test_the_admin_api_needs_the_master_key_but_ping_none() -> None:
    async with running(keys=True) as host:
        system, master = await host.site.keys.system_key() or "", await host.site.keys.master_key() or ""

        for target in ("/admin/host/status", "/admin/functions", "/admin/host/keys", "/runtime/openapi.json"):
            assert await host.status(target) == 401
            assert await host.status(target, x_functions_key=system) == 401
            assert await host.status(target, x_functions_key=master) == 200
        assert await host.status("/admin/host/ping") == 200
        assert await host.status("/health/live") == 200
        assert await host.status("/health/ready") == 200


# The admin API.


def _body(answer: Answer) -> Any:
    return json.loads(answer.body)


async def test_host_status_names_its_members_in_order() -> None:
    async with running() as host:
        status = _body(await host.ask("GET", "/Admin/Host/Status"))

        assert list(status) == [
            *("id", "state", "version", "versionDetails", "platformVersion", "instanceId", "computerName"),
            *("processUptime", "functionAppContentEditingState"),
        ]
        assert (status["id"], status["state"], status["processUptime"]) == ("test-host", "Running", 5120)

        host.control.state, host.control.errors = "Error", ["broken"]
        assert _body(await host.ask("GET", "/admin/host/status"))["errors"] == ["broken"]


async def test_functions_are_shown_with_absolute_addresses() -> None:
    async with running() as host:
        host.control.views = [
            FunctionView("Start", [{"type": "httpTrigger"}], route="api/start/{name}"),
            FunctionView("Work", [{"type": "activityTrigger"}], disabled=True, errors=["no"]),
        ]
        shown = _body(await host.ask("GET", "/admin/functions"))

        assert [each["invoke_url_template"] for each in shown] == ["http://localhost:7071/api/start/{name}", None]
        assert shown[1]["isDisabled"] is True
        assert shown[0]["config"]["bindings"] == [{"type": "httpTrigger"}]
        assert _body(await host.ask("GET", "/admin/functions/START")) == shown[0]
        assert _body(await host.ask("GET", "/admin/functions/Start/status")) == {}
        assert _body(await host.ask("GET", "/admin/functions/Work/status")) == {"errors": ["no"]}
        assert await host.status("/admin/functions/Nope") == 404
        assert (await host.ask("DELETE", "/admin/functions/Work")).status == 405


async def test_functions_are_run_by_hand_in_the_background() -> None:
    async with running() as host:
        host.control.views = [FunctionView("Work")]

        assert (await host.ask("POST", "/admin/functions/work", b'{"input": "text"}')).status == 202
        assert (await host.ask("POST", "/admin/functions/Work", b"{}")).status == 202
        assert (await host.ask("POST", "/admin/functions/Work")).status == 400
        assert (await host.ask("POST", "/admin/functions/Nope", b"{}")).status == 404
        await asyncio.sleep(0)
        assert host.control.invoked == [("Work", "text"), ("Work", "")]


async def test_drain_is_followed_to_its_end_and_undone() -> None:
    async with running() as host:

        async def state() -> str:
            return str(_body(await host.ask("GET", "/admin/host/drain/status"))["state"])

        assert await state() == "Disabled"
        assert (await host.ask("POST", "/admin/host/drain")).status == 202
        await asyncio.sleep(0)
        host.control.outstanding = 1
        assert await state() == "InProgress"
        host.control.outstanding = 0
        assert await state() == "Completed"
        assert _body(await host.ask("POST", "/admin/host/resume")) == {"state": "Running"}
        assert (await host.ask("POST", "/admin/host/resume")).status == 409


async def test_keys_are_managed_over_http() -> None:
    async with running() as host:
        host.control.views = [FunctionView("Start")]
        for scope in ("/admin/host/keys", "/admin/host/systemkeys", "/admin/functions/start/keys"):
            made = await host.ask("POST", f"{scope}/new")
            assert made.status == 201
            assert (await host.ask("POST", f"{scope}/new")).status == 200
            put = await host.ask("PUT", f"{scope}/new", b'{"name": "new", "value": "v"}')
            assert (put.status, _body(put)["value"]) == (200, "v")
            assert (await host.ask("PUT", f"{scope}/new", b"{}")).status == 400
            assert _body(await host.ask("GET", f"{scope}/NEW"))["value"] == "v"
            listed = _body(await host.ask("GET", scope))
            assert ("new", "v") in [(key["name"], key["value"]) for key in listed["keys"]]
            assert listed["links"] == [{"rel": "self", "href": f"http://localhost:7071{scope}"}]
            assert (await host.ask("DELETE", f"{scope}/new")).status == 204
            assert (await host.ask("DELETE", f"{scope}/new")).status == 404
        assert (await host.ask("DELETE", "/admin/host/systemkeys/_master")).status == 400
        master = await host.site.keys.master_key()
        assert _body(await host.ask("GET", "/admin/host/systemkeys/_master"))["value"] == master
        assert await host.status("/admin/functions/Nope/keys") == 404


async def test_metrics_are_text() -> None:
    async with running() as host:
        answer = await host.ask("GET", "/admin/host/metrics")

        assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
