"""The OpenAPI 3.1 document of a running host: its own operations, and one for each method of each function's route."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from durable_host.bindings.http_types import AuthLevel
from durable_host.bindings.routes import Route, RouteTable
from durable_host.http.messages import Answer, json_answer
from durable_host.http.openapi_schemas import SCHEMAS, Schema, ref
from durable_host.http.operations import OPERATIONS, Operation, Parameter

__all__ = ["document", "document_answer"]

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_MEANING = {
    200: "Done.",
    201: "Made.",
    202: "Accepted.",
    204: "Done; nothing to say.",
    400: "Something in the request is not understood.",
    401: "The key is missing or wrong.",
    404: "Not found.",
    409: "In conflict with the present state.",
    410: "The instance has ended.",
    412: "The state of the instance does not allow it.",
    500: "Something went wrong.",
    501: "Not supported.",
    503: "Not ready.",
}
_UNIONS: Mapping[str, Sequence[str]] = {
    "InstanceOrFailure": ("Instance", "Failure"),
    "MessageFailureOrText": ("Message", "Failure", "Text"),
}
_MAYBE_EMPTY: Mapping[str, str] = {"FailureOrNothing": "Failure", "TextOrNothing": "Text"}


def document_answer(routes: RouteTable, server: str, demands_keys: bool) -> Answer:
    """The document as an answer."""
    return json_answer(200, document(routes, server, demands_keys))


def document(routes: RouteTable, server: str, demands_keys: bool) -> dict[str, object]:
    """The document.

    Args:
        server: scheme and authority of the host.
        demands_keys: operations name the key they need.
    """
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, demands_keys)
    for route in routes.routes:
        if not route.disabled:
            _add_function(paths, routes, route, demands_keys)
    return {
        "openapi": "3.1.0",
        "info": {"title": "durable_host", "version": "1"},
        "servers": [{"url": server}],
        "tags": [{"name": name} for name in ("functions", "management", "admin", "health", "host")],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Anything": {}},
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "query": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }


def _described(operation: Operation, demands_keys: bool) -> dict[str, object]:
    answers = dict(operation.answers)
    if demands_keys and operation.key is not None:
        answers[401] = None
    described: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            str(status): _response(status, name, operation.headers.get(status, ()))
            for status, name in sorted(answers.items())
        },
    }
    if operation.parameters:
        described["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": operation.body}},
        }
    if demands_keys and operation.key is not None:
        described["security"] = [{"header": []}, {"query": []}]
    return described


def _response(status: int, name: str | None, headers: Sequence[str]) -> dict[str, object]:
    response: dict[str, object] = {"description": _MEANING.get(status, "")}
    if headers:
        response["headers"] = {each: {"schema": {"type": "string"}} for each in headers}
    if name == "text":
        response["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif name == "html":
        response["content"] = {"text/html": {"schema": {"type": "string"}}}
    elif name is not None:
        schema: Schema = {"anyOf": [ref(each) for each in _UNIONS[name]]} if name in _UNIONS else ref(name)
        if name in _MAYBE_EMPTY:
            schema = ref(_MAYBE_EMPTY[name])
            response["x-may-be-empty"] = True
            response["description"] = f"{_MEANING.get(status, '')} The body may be empty."
        response["content"] = {"application/json": {"schema": schema}}
    return response


def _parameter(parameter: Parameter) -> dict[str, object]:
    described: dict[str, object] = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "schema": parameter.schema,
    }
    if parameter.text:
        described["description"] = parameter.text
    if parameter.schema.get("type") == "array":
        described |= {"style": "form", "explode": True}
    return described


# Functions.

_PART = re.compile(r"\{\{|\}\}|\{((?:[^{}]|\{\{|\}\})+)\}")


def _openapi_path(template: str) -> str:
    """`api/start/{name:regex(...)?}` as `/api/start/{name}`; doubled braces are literals."""

    def plain(found: re.Match[str]) -> str:
        inside = found[1]
        if inside is None:
            return found[0][0]
        return "{" + re.split(r"[:=?]", inside.lstrip("*"), maxsplit=1)[0] + "}"

    return "/" + _PART.sub(plain, template)


def _add_function(paths: dict[str, dict[str, object]], routes: RouteTable, route: Route, demands_keys: bool) -> None:
    template = routes.full_template(route)
    parameters = routes.parameters(route)
    path = _openapi_path(template)
    _add_path(paths, path, route, [each.name for each in parameters], demands_keys)
    # OpenAPI knows no optional path parameters: an address without the last one is another path.
    shorter, _, last = path.rpartition("/")
    if parameters and parameters[-1].may_be_missing and last == f"{{{parameters[-1].name}}}":
        _add_path(paths, shorter or "/", route, [each.name for each in parameters[:-1]], demands_keys)


def _operation_id(function: str, method: str, path: str) -> str:
    # A function with an optional parameter has two paths; the number of parameters tells them apart.
    return "_".join(part for part in (function, method, str(path.count("{"))) if part)


def _add_path(
    paths: dict[str, dict[str, object]], path: str, route: Route, names: Sequence[str], demands_keys: bool
) -> None:
    parameters = [Parameter(name, "path", {"type": "string", "minLength": 1}) for name in names]
    methods = [method.lower() for method in route.methods] or list(_METHODS)
    needs_key = demands_keys and route.auth_level is not AuthLevel.ANONYMOUS
    for method in methods:
        if method in paths.get(path, {}) or method not in (*_METHODS, "trace"):
            continue  # an earlier function, or the host itself, answers it; OpenAPI knows no other methods
        described: dict[str, object] = {
            "operationId": _operation_id(route.function, method if len(methods) > 1 else "", path),
            "tags": ["functions"],
            "parameters": [_parameter(each) for each in parameters],
            "responses": {
                "default": {"description": "What the function answers."},
                "500": {"description": "The function failed."},
                "429": {"description": "Too many requests."},
            },
            "x-auth-level": route.auth_level.value,
        }
        if needs_key:
            described["security"] = [{"header": []}, {"query": []}]
        if method in {"post", "put", "patch"}:
            described["requestBody"] = {"required": False, "content": {"*/*": {"schema": {}}}}
        paths.setdefault(path, {})[method] = described
