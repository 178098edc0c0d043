"""The host's own operations as data: what the OpenAPI document says about them, and what its test tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durable_host.bindings.urls import WEBHOOK_PATH
from durable_host.http.openapi_schemas import Schema

__all__ = ["OPERATIONS", "Operation", "Parameter"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation; those in the path are required."""

    name: str
    place: str = "query"
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    text: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        answers: names of schemas by status; None: no body. `text` and `html` are bodies that are no JSON.
        body: schema of a JSON body; None: there is none.
        key: which key it needs where keys are demanded: `system`, `admin` or none.
        headers: of successful answers.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    answers: Mapping[int, str | None]
    parameters: Sequence[Parameter] = ()
    body: Schema | None = None
    body_required: bool = False
    key: str | None = None
    headers: Mapping[int, Sequence[str]] = field(default_factory=dict[int, Sequence[str]])


_ANY: Schema = {}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_NUMBER: Schema = {"type": "number"}
_LIST: Schema = {"type": "array", "items": {"type": "string"}}

_COMMON = (
    Parameter("taskHub", text="Task hub to act on; the app's own by default."),
    Parameter("connection", text="Name of the storage connection; the provider's default by default."),
)
_INSTANCE = Parameter("instanceId", "path", {"type": "string", "minLength": 1})
_FUNCTION = Parameter("functionName", "path", {"type": "string", "minLength": 1})
_REASON = Parameter("reason")
_WAIT = (
    Parameter("timeout", schema=_NUMBER, text="Wait this many seconds for the end; needs pollingInterval, too."),
    Parameter("pollingInterval", schema=_NUMBER),
)
_FILTERS = (
    Parameter("instanceIdPrefix", text="Literal prefix of the id."),
    Parameter("createdTimeTo", schema=_TIME, text="Inclusive."),
    Parameter("lastUpdatedTimeFrom", schema=_TIME, text="Inclusive; ours beyond the reference."),
    Parameter("lastUpdatedTimeTo", schema=_TIME, text="Inclusive; ours beyond the reference."),
    Parameter("runtimeStatus", schema=_LIST, text="Names separated by commas or repeated."),
    Parameter("name", schema=_LIST, text="Orchestrator names, repeated or separated by commas; ours."),
    Parameter("tag", schema=_LIST, text="`key:value`, repeated; all must hold; ours."),
)
_ACCEPTED: Mapping[int, Sequence[str]] = {202: ("Location", "Retry-After")}


def _management(
    method: str,
    path: str,
    name: str,
    summary: str,
    answers: Mapping[int, str | None],
    *parameters: Parameter,
    body: Schema | None = None,
    body_required: bool = False,
    headers: Mapping[int, Sequence[str]] | None = None,
) -> Operation:
    # An unknown connection is 400 everywhere, trouble in the store 500.
    stated = {400: "Failure", 500: "Failure", **answers}
    return Operation(
        method,
        f"{WEBHOOK_PATH}/{path}",
        name,
        summary,
        "management",
        stated,
        (*parameters, *_COMMON),
        body,
        body_required,
        "system",
        headers or {},
    )


_MANAGEMENT = (
    *(
        _management(
            "post",
            path,
            name,
            "Start an instance; with timeout and pollingInterval, wait for its end.",
            {200: "Anything", 202: "CheckStatus", 400: "MessageOrFailure", 404: "FailureOrNothing", 409: "Message"},
            *parameters,
            *_WAIT,
            Parameter("version"),
            body=_ANY,
            headers=_ACCEPTED,
        )
        for path, name, parameters in (
            ("orchestrators/{functionName}", "start", (_FUNCTION,)),
            ("orchestrators/{functionName}/{instanceId}", "startWithId", (_FUNCTION, _INSTANCE)),
        )
    ),
    _management(
        "get",
        "instances/{instanceId}",
        "getStatus",
        "Status of an instance: 202 while it has not ended.",
        {200: "Instance", 202: "Instance", 404: None, 500: "InstanceOrFailure"},
        _INSTANCE,
        Parameter("showInput", schema=_FLAG),
        Parameter("showHistory", schema=_FLAG),
        Parameter("showHistoryOutput", schema=_FLAG),
        Parameter("returnInternalServerErrorOnFailure", schema=_FLAG),
        headers=_ACCEPTED,
    ),
    _management(
        "get",
        "instances",
        "listInstances",
        "One page of instances; the token for the next page is a header.",
        {200: "Instances", 400: "MessageOrFailure"},
        Parameter("createdTimeFrom", schema=_TIME, text="Inclusive."),
        *_FILTERS,
        Parameter("showInput", schema=_FLAG),
        Parameter("top", schema={"type": "integer", "minimum": 1}),
        Parameter("x-ms-continuation-token", "header"),
        headers={200: ("x-ms-continuation-token",)},
    ),
    _management(
        "delete",
        "instances/{instanceId}",
        "purge",
        "Remove an ended instance; with force, any.",
        {200: "Purged", 404: None, 412: "Text"},
        _INSTANCE,
        Parameter("force", schema=_FLAG),
    ),
    _management(
        "delete",
        "instances",
        "purgeMany",
        "Remove all ended instances that match; with force, also those that have not ended.",
        {200: "Purged", 400: "MessageFailureOrText", 404: None},
        Parameter("createdTimeFrom", schema=_TIME, text="Required. Inclusive."),
        *_FILTERS,
        Parameter("force", schema=_FLAG),
    ),
    _management(
        "post",
        "instances/{instanceId}/raiseEvent/{eventName}",
        "raiseEvent",
        "Raise an external event; its data is the body.",
        {202: None, 400: "MessageOrFailure", 404: None, 410: None},
        _INSTANCE,
        Parameter("eventName", "path", {"type": "string", "minLength": 1}),
        body=_ANY,
        body_required=True,
    ),
    _management(
        "post",
        "instances/{instanceId}/terminate",
        "terminate",
        "End an instance; with recursive, its open children as well.",
        {202: None, 404: None, 410: None},
        _INSTANCE,
        _REASON,
        Parameter("recursive", schema=_FLAG, text="Ours beyond the reference."),
    ),
    *(
        _management(
            "post",
            f"instances/{{instanceId}}/{name}",
            name,
            summary,
            {202: None, 404: None, 410: None},
            _INSTANCE,
            _REASON,
        )
        for name, summary in (
            ("suspend", "Stop running the orchestrator's code until it is resumed."),
            ("resume", "Go on after a suspension."),
        )
    ),
    _management(
        "post",
        "instances/{instanceId}/rewind",
        "rewind",
        "Run the failed calls of a failed instance again.",
        {202: None, 404: "TextOrNothing", 412: "Text", 501: "Message"},
        _INSTANCE,
        _REASON,
    ),
    _management(
        "post",
        "instances/{instanceId}/restart",
        "restart",
        "Start the same orchestrator with the stored input.",
        {200: "Anything", 202: "CheckStatus", 400: "MessageOrFailure", 404: None, 409: "Failure"},
        _INSTANCE,
        Parameter("restartWithNewInstanceId", schema=_FLAG),
        *_WAIT,
        headers=_ACCEPTED,
    ),
    _management(
        "post",
        "instances/{instanceId}/restartWithOptions",
        "restartWithOptions",
        "Restart under an id and a version of the caller's choice.",
        {200: "Anything", 202: "CheckStatus", 400: "MessageOrFailure", 404: None, 409: "Failure"},
        _INSTANCE,
        Parameter("newInstanceId", text="Required."),
        Parameter("version"),
        *_WAIT,
        headers=_ACCEPTED,
    ),
    *(
        _management(method, "makeprimary", f"makePrimary{method.title()}", "No effect on one host.", {200: None})
        for method in ("get", "post")
    ),
    *(
        _management(
            method,
            path,
            f"{method}Entit{'y' if path.endswith('}') else 'ies'}{path.count('{') or ''}",
            "Entities come in a later version.",
            {404: None, 501: "Message"},
            *(Parameter(each, "path", {"type": "string", "minLength": 1}) for each in names),
        )
        for path, names, methods in (
            ("entities", (), ("get",)),
            ("entities/{entityName}", ("entityName",), ("get", "post", "delete")),
            ("entities/{entityName}/{entityKey}", ("entityName", "entityKey"), ("get", "post", "delete")),
        )
        for method in methods
    ),
)

_NAME = Parameter("name", "path", {"type": "string", "minLength": 1})
_KEY = Parameter("keyName", "path", {"type": "string", "minLength": 1})
_SCOPE = Parameter("scope", "path", {"enum": ["keys", "functionkeys", "systemkeys"]})
_VALUE: Schema = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "value": {"type": "string", "minLength": 1}},
    "required": ["value"],
}


def _admin(
    method: str,
    path: str,
    name: str,
    summary: str,
    answers: Mapping[int, str | None],
    *parameters: Parameter,
    body: Schema | None = None,
) -> Operation:
    stated = {500: "Failure", **answers}
    return Operation(
        method, f"/admin/{path}", name, summary, "admin", stated, parameters, body, body is not None, "admin"
    )


_KEYS = tuple(
    operation
    for path, name, parameters in (
        ("host/{scope}", "Host", (_SCOPE,)),
        ("functions/{name}/keys", "Function", (_NAME,)),
    )
    for operation in (
        _admin("get", path, f"list{name}Keys", "Keys.", {200: "Keys", 404: None, 501: "Message"}, *parameters),
        _admin(
            "get",
            f"{path}/{{keyName}}",
            f"get{name}Key",
            "One key.",
            {200: "Key", 404: None, 501: "Message"},
            *parameters,
            _KEY,
        ),
        _admin(
            "post",
            f"{path}/{{keyName}}",
            f"create{name}Key",
            "Give a key a generated value.",
            {200: "Key", 201: "Key", 404: None, 501: "Message"},
            *parameters,
            _KEY,
        ),
        _admin(
            "put",
            f"{path}/{{keyName}}",
            f"set{name}Key",
            "Give a key this value.",
            {200: "Key", 201: "Key", 400: "Message", 404: None, 501: "Message"},
            *parameters,
            _KEY,
            body=_VALUE,
        ),
        _admin(
            "delete",
            f"{path}/{{keyName}}",
            f"delete{name}Key",
            "Remove a key.",
            {204: None, 400: "Message", 404: None, 501: "Message"},
            *parameters,
            _KEY,
        ),
    )
)

_ADMIN = (
    _admin("get", "host/status", "hostStatus", "State of the host.", {200: "HostStatus"}),
    _admin("get", "host/metrics", "metrics", "Metrics in the text format of Prometheus.", {200: "text", 404: None}),
    _admin("post", "host/drain", "drain", "Stop all listeners; cancel nothing.", {202: None}),
    _admin("get", "host/drain/status", "drainStatus", "How far a drain is.", {200: "DrainStatus"}),
    _admin("post", "host/resume", "resumeHost", "Undo a drain.", {200: "HostState", 409: None}),
    _admin("post", "host/synctriggers", "syncTriggers", "No effect here.", {200: "Synced"}),
    _admin("get", "functions", "listFunctions", "All functions.", {200: "Functions"}),
    _admin("get", "functions/{name}", "getFunction", "One function.", {200: "Function", 404: None}, _NAME),
    _admin(
        "get",
        "functions/{name}/status",
        "getFunctionStatus",
        "Why a function does not run.",
        {200: "FunctionStatus", 404: None},
        _NAME,
    ),
    _admin(
        "post",
        "functions/{name}",
        "invokeFunction",
        "Run a function by hand, in the background.",
        {202: None, 400: "Message", 404: None},
        _NAME,
        body={"type": "object", "properties": {"input": {"type": ["string", "null"]}}},
    ),
    *_KEYS,
)

_OPEN = (
    *(
        Operation(method, "/admin/host/ping", f"{method}Ping", "The host answers.", "admin", {200: None})
        for method in ("get", "post")
    ),
    Operation("get", "/health/live", "live", "The process answers.", "health", {200: "Alive"}),
    Operation(
        "get",
        "/health/ready",
        "ready",
        "The host takes work: its store can be read and written.",
        "health",
        {200: "Ready", 503: "Unready"},
    ),
    Operation("get", "/", "homepage", "A page for people.", "host", {200: "html", 204: None}),
    Operation("get", "/runtime/openapi.json", "openapi", "This document.", "host", {200: "Document"}, key="admin"),
)

OPERATIONS: Sequence[Operation] = (*_MANAGEMENT, *_ADMIN, *_OPEN)
"""All operations of the host itself; those of functions come from the route table."""
