"""Names, order and defaults of parameters are those of azure-functions-durable 1.7.0; additions come after them.

The tables are written down here, since that package is no dependency.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.functions.client import DurableOrchestrationClient
from durable_host.functions.status import DurableOrchestrationStatus, PurgeHistoryResult
from durable_host.model.retry import RetryOptions

REQUIRED = inspect.Parameter.empty

CONTEXT: dict[str, dict[str, Any]] = {
    "call_activity": {"name": REQUIRED, "input_": None, "expected_type": None},
    "call_activity_with_retry": {"name": REQUIRED, "retry_options": REQUIRED, "input_": None, "expected_type": None},
    "call_sub_orchestrator": {
        "name": REQUIRED,
        "input_": None,
        "instance_id": None,
        "version": None,
        "expected_type": None,
    },
    "call_sub_orchestrator_with_retry": {
        "name": REQUIRED,
        "retry_options": REQUIRED,
        "input_": None,
        "instance_id": None,
        "version": None,
        "expected_type": None,
    },
    "get_input": {"expected_type": None},
    "new_uuid": {},
    "new_guid": {},
    "task_all": {"activities": REQUIRED},
    "task_any": {"activities": REQUIRED},
    "set_custom_status": {"status": REQUIRED},
    "create_timer": {"fire_at": REQUIRED},
    "wait_for_external_event": {"name": REQUIRED, "expected_type": None},
    "continue_as_new": {"input_": REQUIRED},
}
CONTEXT_PROPERTIES = [
    "custom_status",
    "histories",
    "instance_id",
    "is_replaying",
    "parent_instance_id",
    "current_utc_datetime",
    "function_context",
    "will_continue_as_new",
    "version",
]

CLIENT: dict[str, dict[str, Any]] = {
    "start_new": {
        "orchestration_function_name": REQUIRED,
        "instance_id": None,
        "client_input": None,
        "version": None,
    },
    "create_check_status_response": {"request": REQUIRED, "instance_id": REQUIRED},
    "create_http_management_payload": {"instance_id": REQUIRED},
    "get_client_response_links": {"request": REQUIRED, "instance_id": REQUIRED},
    "read_entity_state": {"entityId": REQUIRED, "task_hub_name": None, "connection_name": None},
    "signal_entity": {
        "entityId": REQUIRED,
        "operation_name": REQUIRED,
        "operation_input": None,
        "task_hub_name": None,
        "connection_name": None,
    },
    "raise_event": {
        "instance_id": REQUIRED,
        "event_name": REQUIRED,
        "event_data": None,
        "task_hub_name": None,
        "connection_name": None,
    },
    "get_status": {
        "instance_id": REQUIRED,
        "show_history": False,
        "show_history_output": False,
        "show_input": False,
    },
    "get_status_all": {},
    "get_status_by": {
        "created_time_from": None,
        "created_time_to": None,
        "runtime_status": None,
        "instance_id_prefix": None,
    },
    "purge_instance_history": {"instance_id": REQUIRED},
    "purge_instance_history_by": {"created_time_from": None, "created_time_to": None, "runtime_status": None},
    "terminate": {"instance_id": REQUIRED, "reason": REQUIRED},
    "suspend": {"instance_id": REQUIRED, "reason": REQUIRED},
    "resume": {"instance_id": REQUIRED, "reason": REQUIRED},
    "rewind": {"instance_id": REQUIRED, "reason": REQUIRED, "task_hub_name": None, "connection_name": None},
    "restart": {"instance_id": REQUIRED, "restart_with_new_instance_id": True},
    "wait_for_completion_or_create_check_status_response": {
        "request": REQUIRED,
        "instance_id": REQUIRED,
        "timeout_in_milliseconds": 10000,
        "retry_interval_in_milliseconds": 1000,
    },
}
ASYNCHRONOUS = set(CLIENT) - {
    "create_check_status_response",
    "create_http_management_payload",
    "get_client_response_links",
}

STATUS_PROPERTIES = [
    "name",
    "instance_id",
    "created_time",
    "last_updated_time",
    "input_",
    "output",
    "runtime_status",
    "custom_status",
    "history",
]


def judge(function: Any, expected: dict[str, Any]) -> None:
    parameters = [each for name, each in inspect.signature(function).parameters.items() if name != "self"]
    positional = [each for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    added = [each for each in parameters if each not in positional]

    assert [each.name for each in positional][: len(expected)] == list(expected)
    assert all(each.default is not REQUIRED for each in [*positional[len(expected) :], *added])
    for each in positional[: len(expected)]:
        # What is required there may have a default here: `continue_as_new()`, `terminate(id)`.
        assert expected[each.name] is REQUIRED or each.default == expected[each.name]


@pytest.mark.parametrize("method", CONTEXT)
def test_methods_of_the_context(method: str) -> None:
    judge(getattr(DurableOrchestrationContext, method), CONTEXT[method])


@pytest.mark.parametrize("method", ["call_http", "call_entity", "signal_entity"])
def test_methods_that_come_later_are_there_to_say_so(method: str) -> None:
    assert callable(getattr(DurableOrchestrationContext, method))


@pytest.mark.parametrize("method", CLIENT)
def test_methods_of_the_client(method: str) -> None:
    judge(getattr(DurableOrchestrationClient, method), CLIENT[method])
    assert inspect.iscoroutinefunction(getattr(DurableOrchestrationClient, method)) is (method in ASYNCHRONOUS)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (DurableOrchestrationContext, CONTEXT_PROPERTIES),
        (DurableOrchestrationStatus, STATUS_PROPERTIES),
        (PurgeHistoryResult, ["instances_deleted"]),
    ],
)
def test_properties(owner: type, names: list[str]) -> None:
    assert [name for name in names if not isinstance(inspect.getattr_static(owner, name), property)] == []


def test_retry_options() -> None:
    parameters = inspect.signature(RetryOptions).parameters

    assert list(parameters)[:2] == ["first_retry_interval_in_milliseconds", "max_number_of_attempts"]
    assert {name: each.default for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY} == {
        "first_retry_interval": None,
        "backoff_coefficient": 1,
        "max_retry_interval_in_milliseconds": None,
        "retry_timeout_in_milliseconds": None,
        "max_retry_interval": None,
        "retry_timeout": None,
        "jitter": 0,
        "retry_on": None,
        "handle": None,
    }
    assert RetryOptions(5000, 3).first_retry_interval_in_milliseconds == 5000
    assert RetryOptions(5000, 3).max_number_of_attempts == 3
