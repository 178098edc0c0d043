"""Schemas of everything the host answers, for the OpenAPI document (JSON Schema 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping

from durable_host.model.status import RuntimeStatus

__all__ = ["SCHEMAS", "Schema", "ref"]

Schema = Mapping[str, object]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
_SECONDS: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_FRACTION: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z$"}
_ADDRESS: Schema = {"type": "string", "pattern": "^https?://"}


def ref(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, closed: bool = True
) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": not closed,
    }


_STATUS_REQUIRED: Mapping[str, Schema] = {
    "name": _TEXT,
    "instanceId": _TEXT,
    "runtimeStatus": {"enum": sorted(status.value for status in RuntimeStatus)},
    "input": {},
    "customStatus": {},
    "output": {},
    "createdTime": _SECONDS,
    "lastUpdatedTime": _SECONDS,
}

_EVENTS = (
    "EventRaised",
    "EventSent",
    "ExecutionCompleted",
    "ExecutionResumed",
    "ExecutionStarted",
    "ExecutionSuspended",
    "ExecutionTerminated",
    "GenericEvent",
    "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceCreated",
    "SubOrchestrationInstanceFailed",
    "TaskCompleted",
    "TaskFailed",
    "TaskScheduled",
    "TimerCreated",
    "TimerFired",
)

SCHEMAS: Mapping[str, Schema] = {
    "Message": _object({"Message": _TEXT}),
    "Failure": _object({"Message": _TEXT, "ExceptionMessage": _TEXT, "ExceptionType": _TEXT, "StackTrace": _TEXT}),
    "MessageOrFailure": {"oneOf": [ref("Message"), ref("Failure")]},
    "Text": _TEXT,
    "CheckStatus": _object(
        {
            "id": _TEXT,
            "statusQueryGetUri": _ADDRESS,
            "sendEventPostUri": _ADDRESS,
            "terminatePostUri": _ADDRESS,
            "purgeHistoryDeleteUri": _ADDRESS,
            "restartPostUri": _ADDRESS,
            "suspendPostUri": _ADDRESS,
            "resumePostUri": _ADDRESS,
        }
    ),
    "Instance": _object(
        _STATUS_REQUIRED,
        {"version": _TEXT, "historyEvents": {"type": "array", "items": ref("HistoryEvent")}},
    ),
    "Instances": {"type": "array", "items": ref("ListedInstance")},
    "ListedInstance": _object(_STATUS_REQUIRED, {"version": _TEXT}),
    "HistoryEvent": _object(
        {"EventType": {"enum": list(_EVENTS)}, "Timestamp": _FRACTION},
        {
            "Input": _OPTIONAL_TEXT,
            "Name": _TEXT,
            "FunctionName": _OPTIONAL_TEXT,
            "InstanceId": _TEXT,
            "Result": {},
            "Reason": _OPTIONAL_TEXT,
            "Details": _OPTIONAL_TEXT,
            "FireAt": _FRACTION,
            "Data": _OPTIONAL_TEXT,
            "OrchestrationStatus": {"enum": sorted(status.value for status in RuntimeStatus)},
            "Generation": {"type": ["integer", "null"]},
        },
        closed=False,
    ),
    "Purged": _object({"instancesDeleted": _COUNT}),
    "HostStatus": _object(
        {
            "id": _TEXT,
            "state": _TEXT,
            "version": _TEXT,
            "versionDetails": _TEXT,
            "platformVersion": _TEXT,
            "instanceId": _TEXT,
            "computerName": _TEXT,
            "processUptime": _COUNT,
            "functionAppContentEditingState": _TEXT,
        },
        {"errors": {"type": "array", "items": _TEXT}},
    ),
    "DrainStatus": _object(
        {
            "state": {"enum": ["Disabled", "InProgress", "Completed"]},
            "outstandingInvocations": _COUNT,
            "outstandingRetries": _COUNT,
        }
    ),
    "HostState": _object({"state": _TEXT}),
    "Synced": _object({"status": {"const": "success"}}),
    "Function": _object(
        {
            "name": _TEXT,
            "script_root_path_href": _ADDRESS,
            "script_href": _ADDRESS,
            "config_href": {"type": "null"},
            "test_data_href": {"type": "null"},
            "href": _ADDRESS,
            "invoke_url_template": _OPTIONAL_TEXT,
            "language": {"const": "python"},
            "config": {"type": "object"},
            "files": {"type": "null"},
            "test_data": {"type": "null"},
            "isDisabled": {"type": "boolean"},
            "isDirect": {"type": "boolean"},
            "isProxy": {"type": "boolean"},
        }
    ),
    "Functions": {"type": "array", "items": ref("Function")},
    "FunctionStatus": _object({}, {"errors": {"type": "array", "items": _TEXT}}),
    "Links": {"type": "array", "items": _object({"rel": {"const": "self"}, "href": _ADDRESS})},
    "Key": _object({"name": _TEXT, "value": _TEXT, "links": ref("Links")}),
    "Keys": _object(
        {"keys": {"type": "array", "items": _object({"name": _TEXT, "value": _TEXT})}, "links": ref("Links")}
    ),
    "Alive": _object({"status": {"const": "alive"}}),
    "Ready": _object({"status": {"const": "ready"}, "checks": {"type": "object"}}),
    "Unready": _object({"status": {"const": "unready"}, "reason": _TEXT, "checks": {"type": "object"}}),
    "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
}
