"""Built-in bindings: HTTP results, durable triggers and client, binding expressions, values, the registry."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from durable_host.bindings.contract import BindingError
from durable_host.bindings.datum import as_bytes, as_text, json_properties, to_parameter
from durable_host.bindings.http import HttpBindings, HttpCall, to_response
from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.registry import BindingRegistry
from durable_host.bindings.templates import TemplateError, parse_binding_template
from durable_host.environment import Environment, SystemIds
from durable_host.errors import PayloadError
from durable_host.functions.app import FunctionApp
from durable_host.functions.client import DurableOrchestrationClient
from durable_host.functions.values import Out
from durable_host.model.status import RuntimeStatus
from durable_host.telemetry.logging import category_of
from tests.functions.running_app import running


class _Noon:
    def now(self) -> datetime:
        return datetime(2025, 3, 1, 12, 30, 15, 250_000, UTC)

    def monotonic(self) -> float:
        return 0.0


class _SameId(SystemIds):
    def new_id(self) -> str:
        return "0123456789abcdef0123456789abcdef"


FIXED = Environment(clock=_Noon(), ids=_SameId())


@pytest.fixture
def app() -> FunctionApp:
    return FunctionApp(http_auth_level=AuthLevel.ANONYMOUS)


async def _respond(app: FunctionApp, value: object) -> HttpResponse:
    @app.route("f")
    async def f(req: HttpRequest) -> Any:
        return value

    async with running(app) as host:
        return await host.request("GET", "/api/f")


async def test_response_object_is_sent_as_it_is(app: FunctionApp) -> None:
    response = await _respond(app, HttpResponse("x", status_code=201, headers={"A": "b"}, mimetype="text/html"))

    assert (response.status_code, response.headers["a"], response.content_type) == (
        201,
        "b",
        "text/html; charset=utf-8",
    )


@pytest.mark.parametrize("text", ["hello", '{"a":1}', "[1, 2]", " {not json", ""])
async def test_text_is_sent_exactly(app: FunctionApp, text: str) -> None:
    response = await _respond(app, text)

    assert (response.status_code, response.get_body(), response.content_type) == (
        200,
        text.encode(),
        "text/plain; charset=utf-8",
    )


def test_text_with_a_body_describes_a_response() -> None:
    text = json.dumps(
        {
            "Body": {"a": 1},
            "statusCode": "202",
            "headers": {"X-A": "b"},
            "cookies": [{"name": "c", "value": "1", "httpOnly": True, "maxAge": 5}],
        }
    )

    response = to_response(text, "f")

    assert (response.status_code, response.get_body()) == (202, b'{"a":1}')
    assert response.headers["x-a"] == "b"
    assert response.headers.getlist("set-cookie") == ["c=1; Max-Age=5; HttpOnly"]
    assert response.content_type == "application/json"


@pytest.mark.parametrize("value", [None, {"a": 1}, 5, b"x", ("a", 200), HttpResponse(status_code=700)])
async def test_anything_else_is_a_failed_invocation(
    app: FunctionApp, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    response = await _respond(app, value)

    assert (response.status_code, response.get_body()) == (500, b"")
    assert any("Executed 'Functions.f' (Failed" in each for each in caplog.messages)


def test_null_content_type_is_refused() -> None:
    with pytest.raises(ValueError, match="'content-type' of a response is null"):
        to_response('{"body": "x", "headers": {"content-type": null}}', "f")


async def test_response_may_be_left_in_an_output_parameter(app: FunctionApp) -> None:
    @app.route("f/{what}", binding_arg_name="res")
    async def f(req: HttpRequest, res: Out[HttpResponse]) -> None:
        if req.route_params["what"] == "set":
            res.set(HttpResponse("set", status_code=203))

    async with running(app) as host:
        answered = await host.request("GET", "/api/f/set")
        silent = await host.request("GET", "/api/f/not")

    assert (answered.status_code, silent.status_code) == (203, 204)


async def test_trigger_without_output_answers_204_or_fails_with_a_value(app: FunctionApp) -> None:
    @app.generic_trigger("req", type="httpTrigger", route="f/{what}", auth_level="ANONYMOUS")
    async def f(req: HttpRequest) -> str | None:
        return "value" if req.route_params["what"] == "value" else None

    async with running(app) as host:
        assert (await host.request("GET", "/api/f/nothing")).status_code == 204
        assert (await host.request("GET", "/api/f/value")).status_code == 500


@pytest.mark.parametrize("body", [b"", b"{bad", b"\xff", b"[" * 100_000])
async def test_body_that_is_no_json_is_the_callers_mistake_unless_caught(app: FunctionApp, body: bytes) -> None:
    @app.route("strict")
    def strict(req: HttpRequest) -> str:
        return str(req.get_json())

    @app.route("lenient")
    def lenient(req: HttpRequest) -> str:
        try:
            return str(req.get_json())
        except ValueError:
            return "none"

    async with running(app) as host:
        refused = await host.request("POST", "/api/strict", body)
        assert (refused.status_code, json.loads(refused.get_body())["Message"]) == (400, "Invalid JSON content")
        assert (await host.request("POST", "/api/lenient", body)).get_body() == b"none"


async def test_value_that_is_no_response_is_logged_without_frames_of_ours(
    app: FunctionApp, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await _respond(app, {"a": 1})).status_code == 500

    shown = logging.Formatter().format(caplog.records[-1])
    assert "Function 'f' returned dict; an HTTP function returns str or HttpResponse." in shown
    assert "Traceback" not in shown and "invoker.py" not in shown


async def test_what_the_client_raised_is_logged_where_it_was_called(
    app: FunctionApp, caplog: pytest.LogCaptureFixture
) -> None:
    @app.route("f")
    @app.durable_client_input("client")
    async def f(req: HttpRequest, client: DurableOrchestrationClient) -> str:
        return await client.start_new("nope")

    async with running(app) as host:
        assert (await host.request("POST", "/api/f", b"")).status_code == 404
    shown = logging.Formatter().format(caplog.records[-1])
    assert 'await client.start_new("nope")' in shown and "functions/client.py" not in shown


async def test_request_arrives_in_the_functions_shape(app: FunctionApp) -> None:
    @app.route("f/{id:int}/{more?}")
    def f(req: HttpRequest) -> str:
        return json.dumps([req.method, req.url, dict(req.params), dict(req.route_params), req.headers["X-A"]])

    async with running(app) as host:
        response = await host.request("POST", "/api/f/5?q=1&q=2", b"", {"x-a": "b"})

    assert json.loads(response.get_body()) == [
        "POST",
        "http://example.org:8080/api/f/5?q=1&q=2",
        {"q": "1,2"},
        {"id": "5"},
        "b",
    ]


async def test_disabled_http_function_keeps_a_route_marked_as_disabled(app: FunctionApp) -> None:
    @app.route("f")
    def f(req: HttpRequest) -> str:
        return "x"

    async with running(app, setting={"AzureWebJobs.f.Disabled": "1"}.get) as host:
        (route,) = host.services.routes.routes
        assert route.disabled


async def test_http_function_runs_by_hand_with_the_input_as_body(app: FunctionApp) -> None:
    bodies: list[bytes] = []

    @app.route("f")
    async def f(req: HttpRequest) -> str:
        bodies.append(req.get_body())
        return "x"

    async with running(app) as host:
        result = await host.runtime.invoke("F", "text")

    assert result is not None
    assert result.succeeded
    assert bodies == [b"text"]


def test_binding_data_of_a_request_comes_from_body_query_and_route() -> None:
    request = HttpRequest.received(
        "POST", "http://h/x?page=2&page=3&code=secret&b=q", [("x-id", "7")], b'{"a": 1, "b": "body"}', {"a": "route"}
    )
    trigger = HttpBindings()
    assert "httpTrigger" in trigger.types
    data = _http_data(request)

    assert (data["a"], data["b"], data["page"]) == ("route", "q", "3")
    assert "code" not in data
    assert parse_binding_template("{Headers.x-id}-{Query.page}-{a}").resolve(data, FIXED) == "7-3-route"


def _http_data(request: HttpRequest) -> Any:
    from durable_host.bindings import http

    return http._HttpData(HttpCall(request))  # pyright: ignore[reportPrivateUsage]


# Durable bindings.


@dataclass
class City:
    name: str


async def test_activity_takes_what_its_annotation_says_and_other_bindings(app: FunctionApp) -> None:
    @app.durable_client_input("client")
    @app.activity_trigger("city")
    async def greet(city: City, client: DurableOrchestrationClient) -> str:
        status = await client.get_status("i1")
        assert status.runtime_status is not None
        return f"Hello {city.name}, {status.runtime_status.name}"

    @app.orchestration_trigger("context")
    def chain(context: Any) -> Generator[Any, Any, Any]:
        return (yield context.call_activity(greet, City("Tokyo")))

    async with running(app) as host:
        await host.services.client.start("chain", instance_id="i1")
        state = await host.services.client.wait_for_completion("i1")

    assert state.output == '"Hello Tokyo, Running"'


async def test_orchestrator_decodes_its_input_as_declared(app: FunctionApp) -> None:
    @app.orchestration_trigger("context", input_type=City)
    def name_of(context: Any) -> str:
        city: City = context.get_input()
        return city.name

    async with running(app) as host:
        id = await host.services.client.start("name_of", City("Tokyo"))
        assert await host.services.client.result(id) == "Tokyo"


async def test_failing_activity_keeps_type_and_the_users_traceback(app: FunctionApp) -> None:
    @app.activity_trigger("x")
    def broken(x: object) -> None:
        raise ValueError("boom")

    @app.orchestration_trigger("context")
    def calls(context: Any) -> Any:
        yield context.call_activity("broken", None)

    async with running(app) as host:
        id = await host.services.client.start("calls")
        state = await host.services.client.wait_for_completion(id)

    assert state.status is RuntimeStatus.FAILED
    assert state.output is not None
    assert state.output.startswith(
        "Orchestrator function 'calls' failed: Activity function 'broken' failed: ValueError: boom \n "
    )
    assert "invoker.py" not in state.output


async def test_what_an_orchestrator_logs_belongs_to_its_function(app: FunctionApp) -> None:
    categories: list[str] = []

    class Categories(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("said"):
                categories.append(category_of(record.name))

    @app.orchestration_trigger("context")
    def talks(context: Any) -> None:
        context.logger.warning("said by the context's logger")
        logging.getLogger("mine").warning("said by the user's")

    handler = Categories()
    logging.getLogger().addHandler(handler)
    try:
        async with running(app) as host:
            await host.services.client.result(await host.services.client.start("talks"))
    finally:
        logging.getLogger().removeHandler(handler)

    assert categories == ["Function.talks.User", "Function.talks.User"]


async def test_disabled_durable_functions_are_unknown(app: FunctionApp) -> None:
    @app.activity_trigger("x")
    def off(x: object) -> None: ...

    async with running(app, setting={"AzureWebJobs.off.Disabled": "true"}.get) as host:
        assert host.services.registry.activity_names == []
        assert host.runtime.functions[0].disabled


async def test_client_of_an_unreachable_hub_fails_the_invocation(
    app: FunctionApp, caplog: pytest.LogCaptureFixture
) -> None:
    @app.route("f")
    @app.durable_client_input("client", task_hub="Elsewhere")
    async def f(req: HttpRequest, client: DurableOrchestrationClient) -> str:
        return client.task_hub_name

    async with running(app) as host:
        assert (await host.request("GET", "/api/f")).status_code == 500
        host.services.hub_client = lambda hub, connection: host.services.client
        assert (await host.request("GET", "/api/f")).get_body() == b"Elsewhere"

    assert "The task hub 'Elsewhere' on connection 'Storage' cannot be reached" in caplog.text


async def test_activities_and_orchestrators_run_by_hand(app: FunctionApp) -> None:
    @app.activity_trigger("x")
    def double(x: int) -> int:
        return 2 * x

    @app.orchestration_trigger("context")
    def echo(context: Any) -> Any:
        return context.get_input()

    async with running(app) as host:
        result = await host.runtime.invoke("double", "21")
        assert result is not None
        assert result.value == 42
        assert await host.runtime.invoke("echo", "not json") is None
        (state,) = [each async for each in host.services.client.instances()]
        assert await host.services.client.result(state.instance_id) == "not json"


# Binding expressions.


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{x}}", "{x}"),
        ("a/{NAME}/{order.Id}", "a/Anna/7"),
        ("{sys.utcnow}", "2025-03-01T12-30-15Z"),
        ("{datetime:yyyyMMdd'T'HHmmss.fff}", "20250301T123015.250"),
        ("{rand-guid}", "01234567-89ab-cdef-0123-456789abcdef"),
        ("{sys.randguid:N}", "0123456789abcdef0123456789abcdef"),
        ("{sys.methodname}", "f"),
        ("{count}", "3"),
    ],
)
def test_expression_is_resolved(template: str, expected: str) -> None:
    data = {"name": "Anna", "order": {"id": "7"}, "count": 3}

    assert parse_binding_template(template).resolve(data, FIXED, "f") == expected


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{}", "The parameter name at position 1 is empty."),
        ("a{b", "Missing closing bracket at position 1."),
        ("a}b", "Missing opening bracket at position 1."),
        ("{a b}", "The parameter name 'a b' is invalid."),
        ("{datetime:yyyyq}", "not a supported date format"),
    ],
)
def test_bad_template_is_refused(template: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_binding_template(template)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{nope}", "No value for named parameter 'nope'."),
        ("{datetimeoffset}", "No value for named parameter 'datetimeoffset'."),
        ("{order.nope}", "Error while accessing 'nope': property doesn't exist."),
        ("{order}", "only texts, numbers, dates and ids"),
    ],
)
def test_missing_value_fails_the_invocation(template: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_binding_template(template).resolve({"order": {"id": "7"}}, FIXED)

    assert problem in str(caught.value)


# Values.


def test_value_becomes_what_the_annotation_asks_for() -> None:
    stream = to_parameter("é", io.BytesIO)

    assert isinstance(stream, io.BytesIO)
    assert stream.read() == "é".encode()
    assert to_parameter(b"x", str) == "x"
    assert to_parameter({"a": 1}, str) == '{"a":1}'
    assert to_parameter('{"name": "Tokyo"}', City) == City("Tokyo")
    assert to_parameter("x") == "x"
    assert to_parameter(None, str) is None
    assert as_bytes({"a": 1}) == b'{"a":1}'
    assert as_text(b"x") == "x"
    with pytest.raises(PayloadError):
        to_parameter('{"other": 1}', City)


def test_payload_gives_binding_data_when_it_is_an_object() -> None:
    assert json_properties('{"a": 1.50, "b": true, "c": null, "d": [1], "e": {"f": "g"}}') == {
        "a": "1.50",
        "b": "true",
        "e": {"f": "g"},
    }
    assert json_properties(b"\xff{}") == {}
    assert json_properties("{broken}") == {}
    assert json_properties(None) == {}


# The registry.


class Custom:
    types = ("customTrigger", "HTTP")


def test_installed_provider_is_found_without_replacing_built_in_types(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: EntryPoint) -> object:
        return Custom

    monkeypatch.setattr(EntryPoint, "load", load)
    registry = BindingRegistry(installed=lambda: [EntryPoint("custom", "x:y", "durable_host.bindings")])

    assert isinstance(registry.find("CustomTrigger"), Custom)
    assert isinstance(registry.find("http"), HttpBindings)


def test_broken_provider_is_named_when_its_type_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: EntryPoint) -> object:
        raise ImportError("no driver")

    monkeypatch.setattr(EntryPoint, "load", load)
    registry = BindingRegistry(installed=lambda: [EntryPoint("custom", "x:y", "durable_host.bindings")])

    with pytest.raises(BindingError, match=r"'fooTrigger' are not.*Known types: .*'custom' cannot be loaded"):
        registry.find("fooTrigger")


def test_entry_points_are_read_only_for_types_that_are_not_built_in() -> None:
    asked: list[Callable[..., Any]] = []
    registry = BindingRegistry(installed=lambda: asked.append(print) or [])  # type: ignore[func-returns-value]

    registry.find("durableClient")

    assert asked == []


async def test_start_of_an_unknown_orchestrator_answers_404_with_the_known_names(app: FunctionApp) -> None:
    @app.orchestration_trigger("context")
    def known(context: object) -> None: ...

    @app.route("f")
    @app.durable_client_input("client")
    async def f(req: HttpRequest, client: DurableOrchestrationClient) -> str:
        return await client.start_new("nope")

    async with running(app) as host:
        answer = await host.request("GET", "/api/f")

    assert answer.status_code == 404
    assert "'known'" in json.loads(answer.get_body())["ExceptionMessage"]
