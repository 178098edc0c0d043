"""DurableOrchestrationClient: Azure's members with their documented meaning, and what stands beside them."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_host.bindings.http_types import HttpRequest
from durable_host.errors import (
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    NotSupportedYetError,
    UnknownFunctionError,
    UnsupportedError,
    WaitTimeoutError,
)
from durable_host.functions.app import FunctionApp
from durable_host.functions.client import DurableOrchestrationClient
from durable_host.functions.status import OrchestrationRuntimeStatus
from durable_host.model.status import RuntimeStatus
from tests.functions.running_app import RunningApp, running

REQUEST = HttpRequest("POST", "https://example.org/api/start?x=1")
WAIT = timedelta(seconds=30)


@asynccontextmanager
async def _clients() -> AsyncGenerator[tuple[DurableOrchestrationClient, RunningApp]]:
    app = FunctionApp()

    @app.orchestration_trigger("context")
    def echo(context: Any) -> Any:
        return context.get_input()

    @app.orchestration_trigger("context")
    def waits(context: Any) -> Generator[Any, Any, Any]:
        context.set_custom_status({"step": 1})
        return (yield context.wait_for_external_event("go"))

    @app.orchestration_trigger("context")
    def fails(context: Any) -> Generator[Any, Any, Any]:
        yield context.call_activity("flaky", None)
        return "healed"

    healthy: list[bool] = []

    @app.activity_trigger("x")
    def flaky(x: object) -> str:
        if not healthy:
            healthy.append(True)
            raise ValueError("boom")
        return "ok"

    async with running(app) as host:
        made = host.services.make_client
        assert made is not None
        client = made(host.services.client, host.services.urls)
        assert isinstance(client, DurableOrchestrationClient)
        yield client, host


AZURE = {
    "start_new": ["orchestration_function_name", "instance_id", "client_input", "version"],
    "create_check_status_response": ["request", "instance_id"],
    "create_http_management_payload": ["instance_id"],
    "read_entity_state": ["entityId", "task_hub_name", "connection_name"],
    "get_client_response_links": ["request", "instance_id"],
    "raise_event": ["instance_id", "event_name", "event_data", "task_hub_name", "connection_name"],
    "get_status": ["instance_id", "show_history", "show_history_output", "show_input"],
    "get_status_all": [],
    "get_status_by": ["created_time_from", "created_time_to", "runtime_status", "instance_id_prefix"],
    "purge_instance_history": ["instance_id"],
    "purge_instance_history_by": ["created_time_from", "created_time_to", "runtime_status"],
    "terminate": ["instance_id", "reason"],
    "wait_for_completion_or_create_check_status_response": [
        "request",
        "instance_id",
        "timeout_in_milliseconds",
        "retry_interval_in_milliseconds",
    ],
    "signal_entity": ["entityId", "operation_name", "operation_input", "task_hub_name", "connection_name"],
    "rewind": ["instance_id", "reason", "task_hub_name", "connection_name"],
    "suspend": ["instance_id", "reason"],
    "restart": ["instance_id", "restart_with_new_instance_id"],
    "resume": ["instance_id", "reason"],
}
"""Members of azure-functions-durable 1.7.0 and their positional parameters."""


@pytest.mark.parametrize("name", sorted(AZURE))
def test_member_takes_azures_parameters_in_azures_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(DurableOrchestrationClient, name)).parameters.values())[1:]

    positional = [each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == AZURE[name]


async def test_input_is_encoded_once_and_comes_back_as_it_went() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo", client_input={"a": [1, "é"]})
        status = await client.wait_for_completion(id, WAIT)

    assert status.output == status.input_ == {"a": [1, "é"]}
    assert status.runtime_status is OrchestrationRuntimeStatus.Completed


async def test_start_of_an_unknown_orchestrator_names_those_that_exist() -> None:
    async with _clients() as (client, _):
        with pytest.raises(UnknownFunctionError, match=r"'nope' doesn't exist.*'echo', 'fails', 'waits'"):
            await client.start_new("nope")
        assert await client.get_status_all() == []


async def test_names_compare_without_case_and_the_given_one_is_kept() -> None:
    async with _clients() as (client, _):
        status = await client.wait_for_completion(await client.start_new("ECHO"), WAIT)

    assert status.name == "ECHO"


async def test_id_of_a_running_instance_is_refused_and_of_an_ended_one_reused() -> None:
    async with _clients() as (client, _):
        await client.wait_for_completion(await client.start_new("echo", "i1", 1), WAIT)
        await client.start_new("waits", "i1")
        with pytest.raises(InstanceExistsError):
            await client.start_new("echo", "i1")


async def test_start_time_and_tags_are_taken() -> None:
    async with _clients() as (client, _):
        await client.start_new("echo", "later", start_at=timedelta(hours=1), tags={"team": "a"})
        await client.start_new("echo", "now")
        (found,) = await client.get_status_by(tags={"team": "a"})

    assert (found.instance_id, found.tags) == ("later", {"team": "a"})
    assert found.runtime_status is OrchestrationRuntimeStatus.Pending


async def test_missing_instance_has_a_status_that_is_false() -> None:
    async with _clients() as (client, _):
        status = await client.get_status("nobody")

    assert not status
    assert status.runtime_status is None
    assert status.to_json()["name"] is None


async def test_input_and_history_show_only_when_asked_for() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo", client_input=5)
        await client.wait_for_completion(id, WAIT)
        bare = await client.get_status(id)
        full = await client.get_status(id, show_history=True, show_history_output=True, show_input=True)

    assert (bare.input_, bare.history) == (None, None)
    assert full.input_ == 5
    assert full.history is not None
    assert [each["EventType"] for each in full.history] == ["ExecutionStarted", "ExecutionCompleted"]
    assert full.history[-1]["Result"] == 5
    assert full.historyEvents == full.history


async def test_list_follows_paging_to_the_end() -> None:
    async with _clients() as (client, _):
        for at in range(130):
            await client.start_new("echo", f"i{at:03d}", start_at=timedelta(days=1))
        found = await client.get_status_all()

    assert len(found) == 130


async def test_filters_of_a_list_must_all_hold() -> None:
    async with _clients() as (client, _):
        await client.wait_for_completion(await client.start_new("echo", "a1"), WAIT)
        await client.wait_for_start(await client.start_new("waits", "a2"), WAIT)
        await client.start_new("waits", "b1")
        found = await client.get_status_by(
            created_time_from=datetime(2000, 1, 1),  # noqa: DTZ001 - naive means UTC
            created_time_to=datetime(3000, 1, 1, tzinfo=UTC),
            runtime_status=[OrchestrationRuntimeStatus.Running, OrchestrationRuntimeStatus.Pending],
            instance_id_prefix="a",
            name="waits",
        )

    assert [each.instance_id for each in found] == ["a2"]


async def test_event_reaches_the_orchestrator_as_it_was_raised() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("waits")
        await client.raise_event(id, "go", "hello")
        status = await client.wait_for_completion(id, WAIT)

    assert status.output == "hello"
    assert status.custom_status == {"step": 1}


async def test_event_for_nobody_or_the_ended_or_without_a_name_is_refused() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo")
        await client.wait_for_completion(id, WAIT)
        with pytest.raises(ValueError, match="event_name must be a non-empty string"):
            await client.raise_event(id, "")
        with pytest.raises(InstanceNotFoundError):
            await client.raise_event("nobody", "go")
        with pytest.raises(InvalidStateError):
            await client.raise_event(id, "go")


async def test_a_store_without_transactions_of_callers_refuses_their_connection() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("waits")

        with pytest.raises(UnsupportedError):
            await client.start_new("echo", connection=object())
        with pytest.raises(UnsupportedError):
            await client.raise_event(id, "go", connection=object())
        with pytest.raises(UnsupportedError):
            await client.raise_event("started in the same transaction", "go", connection=object())

        assert [status.instance_id for status in await client.get_status_all()] == [id]


async def test_terminate_suspend_and_resume_leave_an_ended_instance_as_it_is() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo")
        await client.wait_for_completion(id, WAIT)
        await client.terminate(id, "late")
        await client.suspend(id, "late")
        await client.resume(id, "late")
        with pytest.raises(InstanceNotFoundError):
            await client.terminate("nobody", "why")
        status = await client.get_status(id)

    assert status.runtime_status is OrchestrationRuntimeStatus.Completed


async def test_terminated_instance_shows_the_reason() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("waits")
        await client.terminate(id, "no longer needed")
        status = await client.wait_for_completion(id, WAIT)

    assert (status.runtime_status, status.output) == (OrchestrationRuntimeStatus.Terminated, "no longer needed")


async def test_failed_instance_is_rewound() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("fails")
        failed = await client.wait_for_completion(id, WAIT)
        assert failed.runtime_status is OrchestrationRuntimeStatus.Failed
        assert failed.failure is not None
        await client.rewind(id, "try again")
        state = await client.hub.require(id)
        while state.status is not RuntimeStatus.COMPLETED:
            changed = await client.hub.store.wait_for_change(state.instance_id, after=state, timeout=WAIT)
            assert changed is not None
            state = changed

    assert state.output == '"healed"'


async def test_rewind_of_a_completed_instance_is_refused() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo")
        await client.wait_for_completion(id, WAIT)
        with pytest.raises(InvalidStateError, match='only orchestrations in the "Failed" state'):
            await client.rewind(id, "why")


async def test_restart_gives_the_id_as_text() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("echo", client_input=[1])
        await client.wait_for_completion(id, WAIT)
        new = await client.restart(id)
        same = await client.restart(id, restart_with_new_instance_id=False)
        status = await client.wait_for_completion(new, WAIT)
        with pytest.raises(InstanceNotFoundError):
            await client.restart("nobody")

    assert new != id
    assert same == id
    assert status.output == [1]


async def test_purge_counts_what_it_removed() -> None:
    async with _clients() as (client, _):
        await client.wait_for_completion(await client.start_new("echo", "a"), WAIT)
        await client.wait_for_completion(await client.start_new("echo", "b"), WAIT)
        await client.wait_for_start(await client.start_new("waits", "c"), WAIT)
        assert (await client.purge_instance_history("nobody")).instances_deleted == 0
        assert (await client.purge_instance_history("a")).instances_deleted == 1
        with pytest.raises(InvalidStateError):
            await client.purge_instance_history("c")
        result = await client.purge_instance_history_by(datetime(2000, 1, 1, tzinfo=UTC))
        left = await client.get_status_all()

    assert result.instances_deleted == 1
    assert [each.instance_id for each in left] == ["c"]


async def test_purge_by_filter_needs_a_start_and_ended_statuses() -> None:
    async with _clients() as (client, _):
        with pytest.raises(ValueError, match="created_time_from is required"):
            await client.purge_instance_history_by()
        with pytest.raises(ValueError, match="not those Running"):
            await client.purge_instance_history_by(
                datetime(2000, 1, 1, tzinfo=UTC), runtime_status=[OrchestrationRuntimeStatus.Running]
            )


async def test_check_status_response_uses_the_callers_origin() -> None:
    async with _clients() as (client, _):
        response = client.create_check_status_response(REQUEST, "abc")
        inside = client.create_http_management_payload("abc")

    payload = json.loads(response.get_body())
    assert response.status_code == 202
    assert response.headers["retry-after"] == "10"
    assert response.headers["location"] == payload["statusQueryGetUri"]
    assert payload["statusQueryGetUri"] == (
        "https://example.org/runtime/webhooks/durabletask/instances/abc?taskHub=TestHub&connection=Storage"
    )
    assert list(payload) == [
        "id",
        "statusQueryGetUri",
        "sendEventPostUri",
        "terminatePostUri",
        "rewindPostUri",
        "purgeHistoryDeleteUri",
        "restartPostUri",
        "suspendPostUri",
        "resumePostUri",
    ]
    assert inside["statusQueryGetUri"].startswith("http://localhost:7071/")


async def test_waiting_answers_with_the_output_of_a_completed_instance() -> None:
    async with _clients() as (client, _):
        text = await client.start_new("echo", client_input="plain")
        value = await client.start_new("echo", client_input={"a": 1})
        first = await client.wait_for_completion_or_create_check_status_response(REQUEST, text)
        second = await client.wait_for_completion_or_create_check_status_response(REQUEST, value)

    assert (first.status_code, first.get_body()) == (200, b"plain")
    assert (second.get_body(), second.content_type) == (b'{"a": 1}', "application/json")


async def test_waiting_answers_with_the_status_of_a_failed_instance() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("fails", client_input=1)
        response = await client.wait_for_completion_or_create_check_status_response(REQUEST, id)

    status = json.loads(response.get_body())
    assert response.status_code == 500
    assert list(status) == [
        "name",
        "instanceId",
        "createdTime",
        "lastUpdatedTime",
        "output",
        "input",
        "runtimeStatus",
        "customStatus",
        "history",
    ]
    assert status["input"] == 1


async def test_waiting_too_short_answers_like_a_starter() -> None:
    async with _clients() as (client, _):
        id = await client.start_new("waits")
        response = await client.wait_for_completion_or_create_check_status_response(REQUEST, id, 20, 10)
        with pytest.raises(ValueError, match="Total timeout 1"):
            await client.wait_for_completion_or_create_check_status_response(REQUEST, id, 1, 2)
        with pytest.raises(WaitTimeoutError):
            await client.wait_for_completion(id, timedelta(milliseconds=10))

    assert response.status_code == 202


async def test_entities_are_refused_by_name() -> None:
    async with _clients() as (client, _):
        with pytest.raises(NotSupportedYetError, match="entities come in a later version"):
            await client.read_entity_state(object())
        with pytest.raises(NotSupportedYetError, match="entities come in a later version"):
            await client.signal_entity(object(), "add")


async def test_other_hub_is_used_when_it_can_be_reached() -> None:
    async with _clients() as (client, host):
        id = await client.start_new("waits")
        with pytest.raises(UnsupportedError, match="'Elsewhere'"):
            await client.raise_event(id, "go", 1, task_hub_name="Elsewhere")
        await client.raise_event(id, "go", 1, task_hub_name="TESTHUB")
        await client.wait_for_completion(id, WAIT)
        assert host.services.client is client.hub
