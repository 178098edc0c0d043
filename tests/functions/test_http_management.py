"""The management API beyond the recording: our additions, and what the recording does not show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import ANY_STATE, TaskHubClient
from durable_host.environment import system_environment
from durable_host.errors import StoreUnavailableError, UnsupportedError
from durable_host.executors.native import NativeOrchestrations
from durable_host.http.listing import CONTINUATION
from durable_host.http.management import ManagementApi
from durable_host.http.messages import Answer, Request
from durable_host.http.routing import Route, below, match
from durable_host.model.status import RuntimeStatus
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory import MemoryHub
from tests.functions.reference_app import reference_registry

URLS = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "TestHub")
JSON = {"content-type": "application/json"}


class Host:
    """A management API over a worker."""

    def __init__(self, worker: TaskHubWorker) -> None:
        orchestrations = NativeOrchestrations(worker.registry)
        self.client: TaskHubClient = worker.client
        self.api = ManagementApi(
            client=worker.client,
            urls=URLS,
            knows=lambda name: orchestrations.handles(name, None),
            names=orchestrations.names,
            now=worker.environment.clock.now,
        )

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        local: bool = False,
    ) -> Answer:
        path, _, query = target.partition("?")
        request = Request(method, f"/durabletask/{path}", query, headers or {}, body, host="here")
        return await self.api.handle(request, f"/{path}", local=local)

    async def start(self, name: str, instance_id: str, value: object = None, **tags: str) -> None:
        await self.client.start(name, value, instance_id=instance_id, tags=tags)

    async def reach(self, instance_id: str, *statuses: RuntimeStatus) -> None:
        state = await self.client.require(instance_id)
        while state.status not in statuses:
            changed = await self.client.store.wait_for_change(
                state.instance_id, after=state, timeout=timedelta(seconds=5)
            )
            assert changed is not None
            state = changed


@asynccontextmanager
async def running() -> AsyncGenerator[Host]:
    environment = system_environment()
    store = MemoryHub(environment).open()
    async with TaskHubWorker(store, registry=reference_registry(asyncio.Event()), environment=environment) as worker:
        yield Host(worker)


def _json(answer: Answer) -> Any:
    return json.loads(answer.body)


def _ids(answer: Answer) -> list[str]:
    return [each["instanceId"] for each in _json(answer)]


# Routes.


@pytest.mark.parametrize(
    ("method", "rest", "route"),
    [
        ("POST", "/orchestrators/A+B", Route("start", "A B")),
        ("POST", "/Orchestrators/A/i%2Bd/", Route("start", "A", "i+d")),
        ("GET", "/instances", Route("list")),
        ("GET", "/instances///", Route("list")),
        ("POST", "/instances/i/RestartWithOptions", Route("restartwithoptions", key="i")),
        ("POST", "/instances/i/raiseevent/E", Route("raise_event", "E", "i")),
        ("GET", "/instances/a%2Fb", Route("")),
        ("GET", "/instances/%FF", Route("status", key="\ufffd")),
        ("GET", "//instances", Route("")),
        ("GET", "", Route("")),
        ("PATCH", "/instances/i", Route("", key="i")),
    ],
)
def test_paths_are_matched_as_form_fields(method: str, rest: str, route: Route) -> None:
    assert match(method, rest) == route


def test_the_base_path_is_compared_without_case_and_ends_at_a_slash() -> None:
    assert below("/DurableTask/instances", "/durabletask") == "/instances"
    assert below("/durabletask", "/durabletask") == ""
    assert below("/durabletaskinstances", "/durabletask") is None
    assert below("/", "/durabletask") is None


# Start.


@pytest.mark.parametrize("body", [b"{", b"[1,", b"nope", b"\xff", b'"\\ud800"', b"NaN", b"[" * 100_000, b"1e999"])
async def test_what_no_orchestrator_could_read_is_refused_and_not_started(body: bytes) -> None:
    async with running() as host:
        answer = await host.ask("POST", "orchestrators/Sequence/x", body)

        assert answer.status == 400
        assert _json(answer)["Message"] == "Invalid JSON content"
        assert _json(answer)["ExceptionType"] == "Newtonsoft.Json.JsonReaderException"
        assert _json(answer)["ExceptionMessage"]
        assert await host.client.get("x") is None


@pytest.mark.parametrize(
    ("body", "stored"), [(b"", None), (b" \r\n\t", None), (b'\xef\xbb\xbf{"a" : 1.0}', '{"a" : 1.0}')]
)
async def test_input_text_is_kept_as_received(body: bytes, stored: str | None) -> None:
    async with running() as host:
        await host.ask("POST", "orchestrators/Approval/x", body)

        assert (await host.client.require("x")).input == stored


async def test_letters_are_embedded_as_such_however_they_were_sent() -> None:
    sent = rb'["\u65e5\u672C", "\ud83d\ude00", "\\u65e5", "\u0022\u000a\u007f", 1.0]'
    async with running() as host:
        await host.ask("POST", "orchestrators/Approval/x", sent)
        answer = await host.ask("GET", "instances/x")

        assert '"input":["日本","😀","\\\\u65e5","\\u0022\\u000a\\u007f",1.0]' in answer.body.decode()
        assert _json(answer)["input"] == json.loads(sent)


async def test_unknown_orchestrator_lists_the_known_ones_and_starts_nothing() -> None:
    async with running() as host:
        answer = await host.ask("POST", "orchestrators/Sequnce/x")

        assert answer.status == 404
        assert "'Sequnce' doesn't exist" in _json(answer)["ExceptionMessage"]
        assert "'Sequence', 'SignalsLater', 'Sleep'" in _json(answer)["ExceptionMessage"]
        assert await host.client.get("x") is None


async def test_trace_context_version_and_tags_of_the_start_are_kept() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with running() as host:
        await host.ask("POST", "orchestrators/Approval/x?version=2.1", headers={"traceparent": trace})

        state = await host.client.require("x")
        assert (state.traceparent, state.orchestrator_version) == (trace, "2.1")


async def test_any_state_lets_a_running_instance_give_way() -> None:
    async with running() as host:
        await host.ask("POST", "orchestrators/Approval/x")
        await host.reach("x", RuntimeStatus.RUNNING)
        assert (await host.ask("POST", "orchestrators/Approval/x")).status == 409

        host.api.replaceable = ANY_STATE
        assert (await host.ask("POST", "orchestrators/Sequence/x")).status == 202
        await host.reach("x", RuntimeStatus.COMPLETED)


async def test_an_interval_above_the_timeout_starts_nothing() -> None:
    async with running() as host:
        answer = await host.ask("POST", "orchestrators/Sequence/x?timeout=1.5&pollingInterval=2")

        assert _json(answer) == {"Message": "Total timeout 1.5 should be bigger than retry timeout 2"}
        assert await host.client.get("x") is None


async def test_waiting_hears_the_end_at_once() -> None:
    async with running() as host:
        answer = await host.ask("POST", "orchestrators/Sequence?timeout=1e300&pollingInterval=1e299")

        assert (answer.status, _json(answer)) == (200, ["Hello Tokyo!", "Hello Seattle!", "Hello London!"])


async def test_addresses_follow_the_forwarded_host_only_when_told_to() -> None:
    forwarded = {"x-forwarded-host": "example.org, proxy", "x-forwarded-proto": "https"}
    async with running() as host:
        answer = await host.ask("POST", "orchestrators/Approval/x", headers=forwarded)
        assert (answer.header("Location") or "").startswith("http://localhost:7071/")

        host.api.forwarded_host = True
        answer = await host.ask("POST", "orchestrators/Approval/y", headers=forwarded)
        assert (answer.header("Location") or "").startswith("https://example.org/runtime/webhooks/durabletask/")
        answer = await host.ask("GET", "instances/y", headers=forwarded)
        assert answer.header("Location") == "https://example.org/durabletask/instances/y"


# Other hubs and connections.


async def test_another_hub_that_cannot_be_created_is_the_callers_mistake() -> None:
    async with running() as host:
        assert (await host.ask("POST", "orchestrators/Sequence/x?taskHub=Other")).status == 400
        assert (await host.ask("GET", "instances/x?taskHub=Other")).status == 404
        assert _json(await host.ask("GET", "instances?taskHub=Other")) == []
        assert (await host.ask("DELETE", "instances/x?taskHub=Other")).status == 404
        assert (await host.ask("DELETE", "instances?createdTimeFrom=2020-01-01&taskHub=Other")).status == 404
        assert (await host.ask("POST", "instances/x/raiseEvent/E?taskHub=Other", b"1", JSON)).status == 404
        assert (await host.ask("POST", "instances/x/restart?taskHub=Other")).status == 400


@pytest.mark.parametrize("name", ["connection", "connectionName", "CONNECTION"])
async def test_connections_that_resolve_to_nothing_are_refused(name: str) -> None:
    async with running() as host:
        answer = await host.ask("GET", f"instances?{name}=Nope")

        assert answer.status == 400
        assert _json(answer)["ExceptionMessage"] == "Unable to resolve the Azure Storage connection named 'Nope'."
        assert (await host.ask("GET", f"instances?{name}=storage&taskHub=TESTHUB")).status == 200


# List and purge: ours beyond the reference.


async def _listed(host: Host) -> None:
    await host.start("Sequence", "a-1", team="red", stage="test")
    await host.start("Sequence", "a-2", team="blue")
    await host.start("Failing", "b-1", "x", team="red")
    for instance_id in ("a-1", "a-2", "b-1"):
        await host.client.wait_for_completion(instance_id)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=Sequence", ["a-1", "a-2"]),
        ("name=Sequence,Failing", ["a-1", "a-2", "b-1"]),
        ("name=Sequence&name=Failing", ["a-1", "a-2", "b-1"]),
        ("name=Other", []),
        ("tag=team:red", ["a-1", "b-1"]),
        ("tag=team:red&tag=stage:test", ["a-1"]),
        ("tag=team:", []),
        ("instanceIdPrefix=a&tag=team:red", ["a-1"]),
        ("lastUpdatedTimeFrom=2100-01-01", []),
        ("lastUpdatedTimeTo=2100-01-01&lastUpdatedTimeFrom=2020-01-01T00:00:00+02:00", ["a-1", "a-2", "b-1"]),
    ],
)
async def test_lists_filter_by_name_tag_and_last_update(query: str, found: list[str]) -> None:
    async with running() as host:
        await _listed(host)

        assert _ids(await host.ask("GET", f"instances?{query}")) == found


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("name=Sequence", ["b-1"]),
        ("tag=team:blue", ["a-1", "b-1"]),
        ("instanceIdPrefix=a", ["b-1"]),
        ("lastUpdatedTimeTo=2020-01-01", ["a-1", "a-2", "b-1"]),
    ],
)
async def test_purges_filter_likewise(query: str, left: list[str]) -> None:
    async with running() as host:
        await _listed(host)

        await host.ask("DELETE", f"instances?createdTimeFrom=2020-01-01&{query}")

        assert _ids(await host.ask("GET", "instances")) == left


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("tag", "nocolon"),
        ("tag", ":value"),
        ("top", "-1"),
        ("top", "1_0"),
        ("top", "²"),
        ("createdTimeTo", "tomorrow"),
        ("lastUpdatedTimeFrom", "12"),
        ("runtimeStatus", "Unknown"),
    ],
)
async def test_filters_that_are_not_understood_are_refused_with_name_and_value(parameter: str, value: str) -> None:
    async with running() as host:
        answer = await host.ask("GET", f"instances?{parameter}={quote(value)}")

        assert answer.status == 400
        assert list(_json(answer)) == ["Message"]
        assert f"'{parameter}'" in _json(answer)["Message"]
        assert value in _json(answer)["Message"]


async def test_a_purge_whose_filter_is_not_understood_deletes_nothing() -> None:
    async with running() as host:
        await _listed(host)

        for query in ("runtimeStatus=Complted", "tag=x", "createdTimeTo=never", "runtimeStatus=Running"):
            assert (await host.ask("DELETE", f"instances?createdTimeFrom=2020-01-01&{query}")).status == 400

        assert len(_ids(await host.ask("GET", "instances"))) == 3


async def test_nothing_that_lives_is_purged_without_force() -> None:
    async with running() as host:
        await host.start("Approval", "living")
        await host.start("Sequence", "ended")
        await host.client.wait_for_completion("ended")

        assert _json(await host.ask("DELETE", "instances?createdTimeFrom=2020-01-01")) == {"instancesDeleted": 1}
        assert (await host.ask("DELETE", "instances/living")).status == 412
        assert _json(await host.ask("DELETE", "instances/living?force=true")) == {"instancesDeleted": 1}


async def test_pages_join_to_the_whole_list_whatever_the_ids() -> None:
    ids = ["plain", "ä b", "日本", "z+%"]
    async with running() as host:
        for instance_id in ids:
            await host.start("Approval", instance_id)

        found: list[str] = []
        headers: dict[str, str] = {}
        while True:
            answer = await host.ask("GET", "instances?top=1", headers=headers)
            found += _ids(answer)
            token = answer.header(CONTINUATION)
            if not token:
                break
            assert token.isascii()
            headers = {CONTINUATION: token}

        assert found == sorted(ids)


async def test_the_python_client_sees_more_than_a_hundred_instances_at_once() -> None:
    async with running() as host:
        for number in range(101):
            await host.client.start("Approval", instance_id=f"{number:03}", start_at=timedelta(days=1))

        assert len(_ids(await host.ask("GET", "instances/"))) == 100
        assert len(_ids(await host.ask("GET", "instances/", local=True))) == 101


# Events and control.


async def test_event_data_is_compact_and_keeps_its_numbers() -> None:
    async with running() as host:
        await host.start("Approval", "x")
        await host.ask("POST", "instances/x/raiseEvent/approval", b'{ "n" : 1.0, "t": "\xc3\xa4" }', JSON)

        state = await host.client.wait_for_completion("x")
        assert state.status is RuntimeStatus.COMPLETED
        answer = await host.ask("GET", "instances/x?showHistory=true")
        assert '{"n":1.0,"t":"ä"}' in [each.get("Input") for each in _json(answer)["historyEvents"]]


@pytest.mark.parametrize(
    ("local", "unwrap", "data"),
    [(True, True, "hi"), (True, False, '"hi"'), (False, True, '"hi"')],
)
async def test_double_encoding_is_undone_on_the_rpc_endpoint_only_and_only_when_told_to(
    local: bool, unwrap: bool, data: str
) -> None:
    async with running() as host:
        host.api.unwrap_events = unwrap
        await host.start("Approval", "x")
        await host.ask("POST", "instances/x/raiseEvent/Approval", b'"\\"hi\\""', JSON, local=local)

        assert await host.client.result("x") == data


async def test_recursive_termination_ends_the_children() -> None:
    async with running() as host:
        await host.start("Parent", "parent", {"child": "Approval", "input": None, "id": "child"})
        await host.client.wait_for_start("child")
        await host.ask("POST", "instances/parent/terminate?reason=all&recursive=true")

        await host.reach("parent", RuntimeStatus.TERMINATED)
        await host.reach("child", RuntimeStatus.TERMINATED)


async def test_a_resume_right_after_a_suspend_is_not_lost() -> None:
    async with running() as host:
        await host.start("Approval", "x")
        await host.client.wait_for_start("x")
        # Neither waits for what the other does to the status.
        assert (await host.ask("POST", "instances/x/suspend?reason=a")).status == 202
        assert (await host.ask("POST", "instances/x/resume")).status == 202
        await host.ask("POST", "instances/x/raiseEvent/Approval", b"1", JSON)

        assert await host.client.result("x", timeout=timedelta(seconds=5)) == 1


async def test_repeating_a_suspension_leaves_no_trace() -> None:
    async with running() as host:
        await host.start("Approval", "x")
        for _ in range(2):
            await host.ask("POST", "instances/x/suspend?reason=wait")
        await host.reach("x", RuntimeStatus.SUSPENDED)
        await host.ask("POST", "instances/x/resume")
        await host.ask("POST", "instances/x/resume")
        await host.ask("POST", "instances/x/raiseEvent/Approval", b"1", JSON)
        await host.client.wait_for_completion("x")

        history = _json(await host.ask("GET", "instances/x?showHistory=true"))["historyEvents"]
        assert [each["EventType"] for each in history] == [
            *("ExecutionStarted", "ExecutionSuspended", "ExecutionResumed", "EventRaised", "ExecutionCompleted"),
        ]


async def test_entities_are_refused_with_a_reason() -> None:
    async with running() as host:
        for method, target in (("GET", "entities"), ("POST", "entities/Counter/k?op=add"), ("DELETE", "entities/C")):
            answer = await host.ask(method, target)
            assert answer.status == 501
            assert "later version" in _json(answer)["Message"]
        assert (await host.ask("PUT", "entities/Counter/k")).status == 404


# Trouble in the store.


async def test_a_store_in_trouble_is_a_500_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailableError("The disk is full; free some space.")

    async with running() as host:
        monkeypatch.setattr(host.client, "get", unavailable)
        answer = await host.ask("GET", "instances/x")

        assert answer.status == 500
        assert _json(answer) == {
            "Message": "Something went wrong while processing your request",
            "ExceptionMessage": "The disk is full; free some space.",
            "ExceptionType": "durable_host.errors.StoreUnavailableError",
            "StackTrace": "",
        }


async def test_a_store_without_rewind_is_a_501(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unsupported(*_: object, **__: object) -> None:
        raise UnsupportedError("This store cannot rewind.")

    async with running() as host:
        monkeypatch.setattr(host.client, "rewind", unsupported)

        assert (await host.ask("POST", "instances/x/rewind")).status == 501
