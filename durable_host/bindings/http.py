"""The HTTP trigger and output: `httpTrigger` and `http` (functions-host.md 3).

There is no server per function: activating a trigger puts a route into the host's one table. A request comes in as an
`HttpCall`, which carries the place where the output binding leaves the response; so the conversion of what a function
returned happens inside the invocation, and a value that cannot become a response is a failed invocation.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from durable_host.bindings.contract import (
    BindingDescriptor,
    BindingError,
    BoundTrigger,
    HostServices,
    InputBinding,
    Invoke,
    Listener,
    OutputBinding,
    OutputError,
    TriggerBinding,
    TriggerEvent,
    TriggerTraits,
)
from durable_host.bindings.datum import json_properties
from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse, MalformedBodyError
from durable_host.bindings.routes import Route, route_problem
from durable_host.errors import UnknownFunctionError

__all__ = ["HTTP_REASON", "HttpBindings", "HttpCall", "http_route", "to_response"]

HTTP_REASON = "This function was programmatically called via the host APIs."
"""Why an HTTP function runs, in its log lines."""

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_RESPONSE = "$response"


@dataclass
class HttpCall:
    """One request on its way through the function; the `http` output leaves the response here."""

    request: HttpRequest
    response: HttpResponse | None = None


class _HttpData(Mapping[str, object]):
    """Binding data of a request, computed when a binding asks for it: most functions never do."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._computed: dict[str, object] | None = None

    def __getitem__(self, name: str) -> object:
        if name == _RESPONSE:
            return self._call
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def _values(self) -> dict[str, object]:
        if self._computed is None:
            request = self._call.request
            query = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
            values: dict[str, object] = json_properties(request.get_body())
            values |= {name: value for name, value in query.items() if name != "code"}
            values |= request.route_params
            folded = {name.lower() for name in values}
            for name, whole in (("Query", query), ("Headers", request.headers)):
                if name.lower() not in folded:
                    values[name] = whole
            self._computed = {**values, "$request": request}
        return self._computed


class HttpBindings:
    """Provider of `httpTrigger` and `http`."""

    @property
    def types(self) -> Collection[str]:
        return ("httpTrigger", "http")

    def trigger(self, descriptor: BindingDescriptor, host: HostServices) -> TriggerBinding:
        if descriptor.type.lower() != "httptrigger":
            raise BindingError("Http binding can only be used for output.")
        return _HttpTrigger(descriptor, host)

    def input(self, descriptor: BindingDescriptor, host: HostServices) -> InputBinding:
        raise BindingError("Http binding can only be used for output.")

    def output(self, descriptor: BindingDescriptor, host: HostServices) -> OutputBinding:
        return _HttpOutput(descriptor.function.name)


def http_route(descriptor: BindingDescriptor) -> tuple[str, tuple[str, ...], AuthLevel]:
    """Template, methods and level of an `httpTrigger`.

    Raises:
        BindingError: one of them is wrong.
    """
    template = descriptor.text("route")
    if template is None:
        template = descriptor.function.name
    problem = route_problem(template)
    if problem is not None:
        raise BindingError(problem)
    given = descriptor.properties.get("methods") or ()
    listed = [given] if isinstance(given, str) else list(cast("Collection[object]", given))
    methods = tuple(str(each).upper() for each in listed)
    unknown = sorted(set(methods) - _METHODS)
    if unknown:
        raise BindingError(
            f"Can not parse str '{unknown[0]}' to HttpMethod. Allowed values are {', '.join(sorted(_METHODS))}"
        )
    level = descriptor.text("authLevel") or AuthLevel.FUNCTION.name
    try:
        return template, methods, AuthLevel[level.upper()]
    except KeyError:
        names = ", ".join(each.name for each in AuthLevel)
        raise BindingError(f"Can not parse str '{level}' to AuthLevel. Allowed values are {names}") from None


class _HttpTrigger:
    def __init__(self, descriptor: BindingDescriptor, host: HostServices) -> None:
        self._host = host
        self._function = descriptor.function
        self._template, self._methods, self._level = http_route(descriptor)

    @property
    def traits(self) -> TriggerTraits:
        return TriggerTraits(implicit_return=False, retries=False)

    def bind(self, event: TriggerEvent) -> BoundTrigger:
        call = event.value if isinstance(event.value, HttpCall) else None
        if call is None:
            if not isinstance(event.value, HttpRequest):
                raise TypeError("An HttpRequest is required")
            call = HttpCall(event.value)
        return BoundTrigger(call.request, _HttpData(call))

    def listener(self, invoke: Invoke) -> Listener:
        async def handle(request: HttpRequest) -> HttpResponse:
            call = HttpCall(request)
            result = await invoke(
                TriggerEvent(
                    call,
                    reason=HTTP_REASON,
                    traceparent=request.headers.get("traceparent"),
                    tracestate=request.headers.get("tracestate"),
                )
            )
            if not result.succeeded:
                return _failure(result.error)
            return call.response or HttpResponse(status_code=204)

        function = self._function
        route = Route(function.name, self._methods, self._template, self._level, handle, function.disabled)
        return _RouteListener(route, self._host)


def _failure(error: BaseException | None) -> HttpResponse:
    """The answer for a function that raised: 500 without a body, unless it was the caller's mistake.

    Deviation: a start of an unknown orchestrator and a body that is no JSON, when the function lets them escape, are
    answered as the management API answers them (http-api.md section 4), so that the caller learns of it.
    """
    match error:
        case UnknownFunctionError():
            status, message, kind = (
                404,
                "One or more of the arguments submitted is incorrect",
                "System.ArgumentException",
            )
        case MalformedBodyError():
            status, message, kind = 400, "Invalid JSON content", "Newtonsoft.Json.JsonReaderException"
        case _:
            return HttpResponse(status_code=500)
    body = {
        "Message": message,
        "ExceptionMessage": str(error),
        "ExceptionType": kind,
        "StackTrace": "",
    }
    return HttpResponse(msgspec.json.encode(body), status_code=status, mimetype="application/json")


class _RouteListener:
    def __init__(self, route: Route, host: HostServices) -> None:
        self._route = route
        self._host = host

    def listen(self) -> AbstractAsyncContextManager[None]:
        return self._listen()

    @asynccontextmanager
    async def _listen(self) -> AsyncGenerator[None]:
        # The route stays while the host drains: requests are served until the server closes (functions-host.md 9.7).
        self._host.routes.add(self._route)
        try:
            yield
        finally:
            self._host.routes.remove(self._route)


class _HttpOutput:
    def __init__(self, function: str) -> None:
        self._function = function

    async def write(self, value: object, data: Mapping[str, object]) -> None:
        call = data.get(_RESPONSE)
        response = to_response(value, self._function)
        if isinstance(call, HttpCall):
            call.response = response


def to_response(value: object, function: str) -> HttpResponse:
    """The response for what a function returned (functions-host.md 3.5).

    A text that is a JSON object with a member `body` describes a response; any other text is sent as it is.

    Raises:
        OutputError: the value is neither text nor HttpResponse, or its status or a header cannot be sent.
    """
    if isinstance(value, HttpResponse):
        response = value
    elif isinstance(value, str):
        response = _described(value) or HttpResponse(value)
    else:
        raise OutputError(
            f"Function '{function}' returned {type(value).__name__}; an HTTP function returns str or HttpResponse. "
            "For JSON return HttpResponse(json.dumps(value), mimetype='application/json')."
        )
    if not 100 <= response.status_code <= 599:
        raise OutputError(f"Function '{function}' answered with status {response.status_code}; 100 to 599 are allowed.")
    return response


def _described(text: str) -> HttpResponse | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return None
    members = {str(name).lower(): value for name, value in decoded.items()}
    if "body" not in members:
        return None
    headers: list[tuple[str, str]] = []
    for name, value in dict(members.get("headers") or {}).items():
        if value is None:
            raise OutputError(f"The header {name!r} of a response is null.")
        headers.append((str(name), value if isinstance(value, str) else msgspec.json.encode(value).decode()))
    for cookie in list(members.get("cookies") or []):
        headers.append(("Set-Cookie", _cookie({str(name).lower(): value for name, value in dict(cookie).items()})))
    status = members.get("status", members.get("statuscode", 200))
    body = members["body"]
    if body is None or isinstance(body, str):
        return HttpResponse(body, status_code=int(status), headers=headers)
    return HttpResponse(
        msgspec.json.encode(body), status_code=int(status), headers=headers, mimetype="application/json"
    )


def _cookie(members: Mapping[str, object]) -> str:
    parts = [f"{members.get('name', '')}={members.get('value', '')}"]
    for key, label in (("maxage", "Max-Age"), ("domain", "Domain"), ("path", "Path"), ("samesite", "SameSite")):
        if members.get(key) is not None:
            parts.append(f"{label}={members[key]}")
    parts += [label for key, label in (("secure", "Secure"), ("httponly", "HttpOnly")) if members.get(key)]
    return "; ".join(parts)
