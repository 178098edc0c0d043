"""The OpenAPI document tells the truth: every operation in it is fuzzed, every answer validated against it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.routes import Route, RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import TaskHubClient
from durable_host.environment import system_environment
from durable_host.http.control import FunctionView
from durable_host.http.messages import Answer, Request
from durable_host.http.openapi import document
from durable_host.http.operations import OPERATIONS
from durable_host.http.site import OPENAPI_PATH, Site
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub
from tests.functions.http_support import FakeControl, make_site
from tests.functions.reference_app import reference_registry

Document = dict[str, Any]
Values = st.SearchStrategy[str]

HOST = "localhost:7071"
KNOWN: Mapping[str, tuple[str, ...]] = {
    "functionName": ("Sequence", "Approval", "failing", "Nope"),
    "instanceId": ("done", "failed", "waiting", "suspended", "terminated", "@counter@k"),
    "newInstanceId": ("done", "waiting", "other", "@no"),
    "eventName": ("Approval", "approval"),
    "runtimeStatus": ("Running", "completed", "Failed,Terminated", "Nope"),
    "createdTimeFrom": ("2020-01-01T00:00:00Z", "2020-01-01", "2100-01-01T00:00:00+02:00"),
    "instanceIdPrefix": ("", "d", "wait"),
    "name": ("Start", "Sequence", "Gone"),
    "tag": ("a:b", "a:", "nonsense"),
    "taskHub": ("TestHub", "testhub", "OtherHub"),
    "connection": ("Storage", "AzureWebJobsStorage", "Nope"),
    "version": ("1.0",),
    "keyName": ("default", "_master", "new"),
    "x-ms-continuation-token": ("", "ZG9uZQ=="),
}


async def _respond(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.method} {dict(request.route_params)}", status_code=418)


def _routes() -> RouteTable:
    routes = RouteTable("api")
    routes.add(Route("Start", ("POST",), "start/{name}", AuthLevel.FUNCTION, _respond))
    routes.add(Route("Items", (), "items/{id:int?}", AuthLevel.ANONYMOUS, _respond))
    routes.add(Route("Files", ("GET",), "files/{year:regex(^\\d{{4}}$)}/{*rest}", AuthLevel.ADMIN, _respond))
    return routes


DOCUMENT: Document = document(_routes(), f"http://{HOST}", False)


@dataclass(frozen=True)
class Described:
    """One operation of the document."""

    path: str
    method: str
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return str(self.body["operationId"])


def _operations(text: Document) -> list[Described]:
    return [
        Described(path, method, operation)
        for path, methods in text["paths"].items()
        for method, operation in methods.items()
    ]


# A host to ask.


async def _instances(client: TaskHubClient) -> None:
    for name, instance_id, value in (
        ("Sequence", "done", None),
        ("Failing", "failed", "x"),
        ("Approval", "waiting", None),
        ("Approval", "suspended", None),
        ("Approval", "terminated", None),
    ):
        await client.start(name, value, instance_id=instance_id, tags={"a": "b"})
    await client.suspend("suspended", "wait")
    await client.terminate("terminated")
    for instance_id in ("done", "failed", "terminated"):
        await client.wait_for_completion(instance_id)


Ask = Callable[[Request], Answer]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Asks a fresh host with a few instances."""
    with asyncio.Runner() as runner:
        worker, site = runner.run(_host())
        try:
            yield lambda request: runner.run(site.public(request))
        finally:
            runner.run(worker.stop())


async def _host() -> tuple[TaskHubWorker, Site]:
    environment = system_environment()
    hub = MemoryHub(environment)
    worker = TaskHubWorker(hub.open(), registry=reference_registry(asyncio.Event()), environment=environment)
    await worker.start()
    await _instances(worker.client)
    urls = ManagementUrls(f"http://{HOST}/runtime/webhooks/durabletask", "TestHub")
    binding = {"direction": "in", "type": "httpTrigger", "name": "req"}
    control = FakeControl(views=[FunctionView("Start", [binding], route="api/start/{name}")])
    site = make_site(worker, urls, _routes(), environment, host_state=hub.host_state, control=control)
    return worker, site


# Requests made from the document.


def _value(parameter: Mapping[str, Any]) -> Values:
    schema: Mapping[str, Any] = parameter["schema"]
    name: str = parameter["name"]
    smallest = 1 if parameter["in"] == "path" else 0
    if "enum" in schema:
        return st.sampled_from([str(each) for each in schema["enum"]])
    match schema.get("type"):
        case "boolean":
            sensible: Values = st.sampled_from(["true", "false", "True", "1"])
        case "integer":
            sensible = st.integers(-2, 5).map(str)
        case "number":
            # Waiting is real time here.
            sensible = st.floats(-1, 0.02).map(str)
        case _:
            sensible = st.sampled_from(KNOWN.get(name, ("text",)))
    if parameter["in"] == "header":
        return sensible | st.text(st.characters(min_codepoint=33, max_codepoint=126))
    if schema.get("type") == "number":
        return sensible | st.just("nan") | st.just("x")
    sensible = sensible.filter(lambda text: len(text) >= smallest)
    return sensible | sensible | st.text(min_size=smallest, max_size=40)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_TYPES = ("application/json", "application/json; charset=utf-8", "text/plain")
_BODIES = (
    _JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
    | st.just(b"")
    | st.just(b'{"value": "v"}')
    | st.just(b'{"input": "text"}')
    | st.just(b'{"a": ')
)


@st.composite
def _requests(draw: st.DrawFn, operation: Described) -> Request:
    path, query, headers = operation.path, list[tuple[str, str]](), {"host": HOST}
    for parameter in operation.body.get("parameters", ()):
        match parameter["in"]:
            case "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(draw(_value(parameter)), safe=""))
            case "query" if draw(st.booleans()):
                query += [(parameter["name"], value) for value in draw(st.lists(_value(parameter), max_size=2))]
            case "header" if draw(st.booleans()):
                headers[parameter["name"]] = draw(_value(parameter))
            case _:
                pass
    body = b""
    if "requestBody" in operation.body:
        body = draw(_BODIES)
        headers["content-type"] = draw(st.sampled_from(_TYPES))
    return Request(operation.method.upper(), path, urlencode(query), headers, body, host=HOST)


# Answers judged by the document.


def _problems(text: Document, operation: Described, answer: Answer) -> list[str]:
    responses: Mapping[str, Any] = operation.body["responses"]
    response = responses.get(str(answer.status), responses.get("default"))
    if response is None:
        return [f"status {answer.status} is not described: {answer.body[:300]!r}"]
    if b"Something went wrong while" in answer.body:
        return [f"the store is fine, so this is our own fault: {answer.body[:300]!r}"]
    if "default" in responses:
        return []  # what a function answers is its own business
    missing = [name for name in response.get("headers", {}) if answer.header(name) is None]
    if missing:
        return [f"status {answer.status}: headers {missing} are missing"]
    content: Mapping[str, Any] | None = response.get("content")
    if content is None:
        return [f"status {answer.status} has a body: {answer.body[:300]!r}"] if answer.body else []
    if not answer.body:
        return [] if response.get("x-may-be-empty") else [f"status {answer.status} has no body"]
    kind = (answer.header("content-type") or "").partition(";")[0]
    if kind not in content:
        return [f"status {answer.status} is {kind}, not {sorted(content)}"]
    if kind != "application/json":
        return []
    schema = {"components": text["components"], **content[kind]["schema"]}
    validator: Any = Draft202012Validator(schema)
    found: Iterator[Any] = validator.iter_errors(json.loads(answer.body))
    return [f"status {answer.status}: {error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("operation", _operations(DOCUMENT), ids=str)
def test_every_answer_is_as_described(operation: Described, ask: Ask) -> None:
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(request=_requests(operation))
    def fuzz(request: Request) -> None:
        assert _problems(DOCUMENT, operation, ask(request)) == []

    fuzz()


def test_the_judge_sees_what_is_not_described() -> None:
    operation = next(each for each in _operations(DOCUMENT) if str(each) == "purge")

    assert _problems(DOCUMENT, operation, Answer(418)) != []
    assert _problems(DOCUMENT, operation, Answer(404, b"x")) != []
    json_type = (("Content-Type", "application/json"),)
    assert _problems(DOCUMENT, operation, Answer(200, b'{"instancesDeleted":-1}', json_type)) != []
    assert _problems(DOCUMENT, operation, Answer(200, b'{"instancesDeleted":1,"x":2}', json_type)) != []
    assert _problems(DOCUMENT, operation, Answer(200, b'{"instancesDeleted":1}', json_type)) == []


# The document itself.


def test_the_document_is_served_and_is_this_one(ask: Ask) -> None:
    answer = ask(Request("GET", OPENAPI_PATH, headers={"host": HOST}, host=HOST))

    assert answer.status == 200
    assert json.loads(answer.body) == json.loads(json.dumps(DOCUMENT))


def test_schemas_are_schemas_and_references_lead_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    assert set(_references(DOCUMENT)) <= {f"#/components/schemas/{name}" for name in schemas}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in cast("Mapping[str, Any]", value).items():
            if key == "$ref":
                yield each
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _references(each)


def test_operation_ids_are_unique_and_path_parameters_declared() -> None:
    operations = _operations(DOCUMENT)

    assert len({str(each) for each in operations}) == len(operations)
    for operation in operations:
        declared = {each["name"] for each in operation.body.get("parameters", ()) if each["in"] == "path"}
        assert {part[1:-1] for part in operation.path.split("/") if part.startswith("{")} == declared


def test_functions_are_described_with_their_methods_and_without_constraints() -> None:
    paths = DOCUMENT["paths"]

    assert list(paths["/api/start/{name}"]) == ["post"]
    assert len(paths["/api/items/{id}"]) == 7
    assert paths["/api/items"].keys() == paths["/api/items/{id}"].keys()
    assert paths["/api/files/{year}/{rest}"]["get"]["x-auth-level"] == "admin"


def test_disabled_functions_are_not_described() -> None:
    routes = RouteTable("api")
    routes.add(Route("Off", (), "off", AuthLevel.ANONYMOUS, _respond, disabled=True))

    assert "/api/off" not in document(routes, f"http://{HOST}", False)["paths"]  # type: ignore[operator]


def test_where_keys_are_demanded_the_document_says_which_operations_need_one() -> None:
    text: Document = document(_routes(), f"http://{HOST}", True)
    named = {each.name: each for each in OPERATIONS}

    for operation in _operations(text):
        known = named.get(str(operation))
        if known is not None:
            assert ("security" in operation.body) == (known.key is not None)
            assert ("401" in operation.body["responses"]) == (known.key is not None)
    assert "security" in text["paths"]["/api/start/{name}"]["post"]
    assert "security" not in text["paths"]["/api/items"]["get"]
