"""Where durable_host answers otherwise than the recording, entry by entry, with the reason and what it answers instead.

Each entry must be needed: the test fails when the recorded answer would have been met as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from durable_host.http.management import ENTITIES_LATER
from durable_host.model.names import unknown_function
from tests.functions.comparison import Recorded

__all__ = ["DIFFERENCES", "Difference"]

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}
INCORRECT = "One or more of the arguments submitted is incorrect"
NAMES = [
    *("Approval", "ApprovalOrTimeout", "CallsHttp", "CallsNobody", "Compensating", "EarlyEvent", "EntityFailure"),
    *("Eternal", "Failing", "FanOut", "GatedFanOut", "GatedSequence", "Large", "LeavesOpen", "LocksTwo", "Parent"),
    *("Retrying", "ReturnsNothing", "Sequence", "SignalsLater", "Sleep", "Starter", "Throwing", "UsesCounter"),
    "WithStatus",
]
GREETINGS = ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]

Edit = Callable[[Recorded], Recorded]


@dataclass(frozen=True)
class Difference:
    """Why an entry is not met as recorded, and the answer that is expected in its place."""

    reason: str
    expected: Edit


def _json(status: int, body: object) -> Edit:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return lambda recorded: replace(recorded, status=status, answer_headers=JSON_HEADERS, answer=text)


def _empty(status: int) -> Edit:
    return lambda recorded: replace(recorded, status=status, answer_headers={}, answer="")


def _first(status: int, message: str) -> Edit:
    return _json(status, {"Message": message})


def _second(status: int, text: str, *, message: str = INCORRECT, kind: str = "System.ArgumentException") -> Edit:
    return _json(status, {"Message": message, "ExceptionMessage": text, "ExceptionType": kind, "StackTrace": ""})


def _not_understood(name: str, value: str, expected: str) -> Edit:
    return _first(400, f"The value {value!r} of the parameter '{name}' is not understood: expected {expected}.")


def _bad_id(instance_id: str, rule: str) -> Difference:
    return Difference(
        "an id that collides with entities or breaks links is refused",
        _second(400, f"Instance id {instance_id!r} is not valid: {rule}."),
    )


def _members(change: Callable[[dict[str, Any]], Mapping[str, Any]], status: int = 200) -> Edit:
    """The recorded body, changed; pairs keep their order in a dict."""

    def edit(recorded: Recorded) -> Recorded:
        return _json(status, change(json.loads(recorded.answer)))(recorded)

    return edit


def _items(change: Callable[[list[dict[str, Any]]], Iterable[Mapping[str, Any]]]) -> Edit:
    def edit(recorded: Recorded) -> Recorded:
        text = json.dumps(list(change(json.loads(recorded.answer))), ensure_ascii=False, separators=(",", ":"))
        return replace(recorded, answer=text)

    return edit


# Single shapes.


def _ran(payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"runtimeStatus": "Completed", "output": GREETINGS}


def _ran_as_child(payload: dict[str, Any]) -> dict[str, Any]:
    time = "2026-11-21T11:47:42.0279129Z"
    history = [
        {
            "EventType": "ExecutionStarted",
            "Input": '{"child": "FanOut", "input": 3, "id": null}',
            "Correlation": None,
            "ParentTraceContext": None,
            "ScheduledStartTime": None,
            "Generation": 0,
            "GenerateNewTrace": False,
            "Timestamp": time,
            "FunctionName": "Parent",
        },
        {
            "EventType": "SubOrchestrationInstanceCompleted",
            "Timestamp": time,
            "ScheduledTime": "2026-11-21T11:47:42.0279129+00:00",
            "FunctionName": "FanOut",
            "InstanceId": "00000000000000000000000000000137:0",
            "Input": None,
        },
        {
            "EventType": "ExecutionCompleted",
            "OrchestrationStatus": "Completed",
            "FailureDetails": None,
            "Timestamp": time,
        },
    ]
    return payload | {"runtimeStatus": "Completed", "output": {"child": 5}, "historyEvents": history}


def _with_failed_call(payload: dict[str, Any]) -> dict[str, Any]:
    started, ended = payload["historyEvents"]
    text = unknown_function("Nope", "activity", ["echo", "fail", "flaky", "gate", "say_hello", "square"])
    failed = {
        "EventType": "TaskFailed",
        "Reason": text,
        "Details": None,
        "FailureDetails": None,
        "Timestamp": started["Timestamp"],
        "ScheduledTime": started["Timestamp"].removesuffix("Z") + "+00:00",
        "FunctionName": "Nope",
        "Input": None,
    }
    return payload | {"historyEvents": [started, failed, ended]}


# Lists.

_REFUSED = {"@id", "a\\b", "a#b", "a?b", "a\x01b", "j" * 257, "activity-name", "unknown-function", "wait-interval"}


def _everything(items: list[dict[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for item in items:
        name = item["instanceId"]
        if name in _REFUSED or name.startswith("@") or name == "uses-counter":
            continue
        if name == "versioned":
            yield _ran(item)
        elif name == "restarted-as":
            yield item | {"runtimeStatus": "Completed", "input": None, "output": {"child": 5}}
        else:
            yield item | {"input": None}
    # The child of `restarted-as`, which runs here.
    yield {
        "name": "FanOut",
        "instanceId": "00000000000000000000000000000137:0",
        "runtimeStatus": "Completed",
        "input": None,
        "customStatus": None,
        "output": 5,
        "createdTime": "2026-11-21T11:47:42Z",
        "lastUpdatedTime": "2026-11-21T11:47:42Z",
    }


def _left(items: list[dict[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for item in items:
        if not item["instanceId"].startswith("@") and item["instanceId"] not in {"versioned", "restarted-as"}:
            yield item | {"input": None}


_UNKNOWN = "an unknown orchestrator is refused at once"
_VERSION = "where versions are not configured, an instance with a version runs"
_FILTER = "a filter that is not understood must not widen a query"
_ENTITIES = "needs entities"
_REPEATED = "repeating a suspension or a resumption is harmless"

DIFFERENCES: dict[int, Difference] = {
    4: Difference(
        "JSON that ends early is the client's mistake",
        _second(400, "?", message="Invalid JSON content", kind="Newtonsoft.Json.JsonReaderException"),
    ),
    10: Difference(_UNKNOWN, _second(404, unknown_function("Nope", "orchestrator", NAMES))),
    11: Difference(_UNKNOWN, _second(404, unknown_function("say_hello", "orchestrator", NAMES))),
    16: _bad_id("@id", "it starts with '@', which is reserved for entities"),
    17: _bad_id("a#b", "it contains '#'; none of / \\ # ? is allowed"),
    18: _bad_id("a?b", "it contains '?'; none of / \\ # ? is allowed"),
    19: _bad_id("a\\b", "it contains '\\\\'; none of / \\ # ? is allowed"),
    21: _bad_id("a\x01b", "it contains the control character U+0001"),
    26: _bad_id("j" * 257, "it has 257 characters, 1 to 256 are allowed"),
    32: Difference(
        "an unknown connection is the client's mistake",
        _second(
            400,
            "Unable to resolve the Azure Storage connection named 'Nope'.",
            kind="System.InvalidOperationException",
        ),
    ),
    48: Difference(_VERSION, _members(_ran)),
    49: Difference(_UNKNOWN, _empty(404)),
    **{number: Difference("its start was refused", _empty(404)) for number in (51, 52, 53, 54)},
    71: Difference("the failed call is in the history and can be caught", _members(_with_failed_call)),
    **{number: Difference(_ENTITIES, _empty(404)) for number in (74, 80, 81)},
    102: Difference(_REPEATED, _empty(202)),
    112: Difference(_REPEATED, _empty(202)),
    137: Difference(_VERSION, _members(_ran_as_child)),
    148: Difference(
        "states are understood in any case", _items(lambda items: [i for i in items if i["runtimeStatus"] == "Failed"])
    ),
    149: Difference(
        _FILTER,
        _not_understood(
            "runtimeStatus",
            "Nope",
            "one of Canceled, Completed, ContinuedAsNew, Failed, Pending, Running, Suspended, Terminated",
        ),
    ),
    154: Difference(
        _FILTER,
        _not_understood("createdTimeFrom", "yesterday", "a time in ISO 8601, such as 2025-03-01T12:00:00Z"),
    ),
    157: Difference("a client would loop for ever", _not_understood("top", "0", "a number of at least 1")),
    158: Difference(_FILTER, _not_understood("top", "x", "a number of at least 1")),
    159: Difference(
        "an empty list would look like the end",
        _not_understood("x-ms-continuation-token", "nope", "a token from an earlier page"),
    ),
    161: Difference("refused starts and entities are missing, versions run, inputs are left out", _items(_everything)),
    **{
        number: Difference(_ENTITIES, _first(501, ENTITIES_LATER))
        for number in range(163, 201)
        if number != 199  # PUT is 404 in any case
    },
    207: Difference(_ENTITIES, _json(200, {"instancesDeleted": 0})),
    # Without `activity-name` and `unknown-function`.
    212: Difference("refused starts are missing", _json(200, {"instancesDeleted": 6})),
    # Without seven refused starts and `uses-counter`; with `versioned`, `restarted-as` and its child.
    213: Difference("refused starts are missing, versions run", _json(200, {"instancesDeleted": 45})),
    214: Difference("entities are missing, versions run, inputs are left out", _items(_left)),
    # The seven that #214 shows.
    215: Difference("entities are missing; sent with force=true", _json(200, {"instancesDeleted": 7})),
    244: Difference("a path outside the base path is nothing of ours", _empty(404)),
    254: Difference(_UNKNOWN, _second(404, unknown_function("Nope", "orchestrator", NAMES))),
}
