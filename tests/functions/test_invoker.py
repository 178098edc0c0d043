"""Invocations: arguments, outputs, log lines, time limits, retries, counting."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from durable_host.bindings.contract import (
    BindingDescriptor,
    BoundTrigger,
    HostServices,
    InputBinding,
    InvocationResult,
    Invoke,
    Listener,
    OutputBinding,
    TriggerBinding,
    TriggerEvent,
    TriggerTraits,
)
from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.registry import BindingRegistry
from durable_host.bindings.templates import parse_binding_template
from durable_host.errors import IndexingError
from durable_host.functions.app import FunctionApp
from durable_host.functions.invoker import FunctionTimeoutError
from durable_host.functions.values import Context, Out, current_context
from durable_host.telemetry.metrics import Metrics
from tests.functions.running_app import running


class Bell:
    """Binding types of a third party: `bellTrigger` rings, `bell` reads a tone and records what is written."""

    def __init__(self) -> None:
        self.invoke: dict[str, Invoke] = {}
        self.written: list[tuple[str, object]] = []
        self.listening: set[str] = set()
        self.fail_to_listen = 0

    @property
    def types(self) -> Collection[str]:
        return ("bellTrigger", "bell", "bellQueue")

    def trigger(self, descriptor: BindingDescriptor, host: HostServices) -> TriggerBinding:
        return _BellTrigger(self, descriptor)

    def input(self, descriptor: BindingDescriptor, host: HostServices) -> InputBinding:
        return _BellInput(descriptor, host)

    def output(self, descriptor: BindingDescriptor, host: HostServices) -> OutputBinding:
        return _BellOutput(self, descriptor)

    async def ring(self, function: str, value: object = None) -> InvocationResult:
        return await self.invoke[function](TriggerEvent(value, reason="somebody rang"))


class _BellTrigger:
    def __init__(self, bell: Bell, descriptor: BindingDescriptor) -> None:
        self._bell = bell
        self._name = descriptor.function.name

    @property
    def traits(self) -> TriggerTraits:
        return TriggerTraits(implicit_return=True, retries=True)

    def bind(self, event: TriggerEvent) -> BoundTrigger:
        return BoundTrigger(event.value, {"tone": event.value})

    def listener(self, invoke: Invoke) -> Listener:
        self._bell.invoke[self._name] = invoke
        return self

    def listen(self) -> AbstractAsyncContextManager[None]:
        return self._listen()

    @asynccontextmanager
    async def _listen(self) -> AsyncGenerator[None]:
        if self._bell.fail_to_listen:
            self._bell.fail_to_listen -= 1
            raise OSError("no bell")
        self._bell.listening.add(self._name)
        yield
        self._bell.listening.discard(self._name)


class _BellInput:
    def __init__(self, descriptor: BindingDescriptor, host: HostServices) -> None:
        self._template = parse_binding_template(descriptor.text("text") or "{tone}")
        self._host = host

    async def read(self, data: Mapping[str, object]) -> object:
        return self._template.resolve(data, self._host.environment)


class _BellOutput:
    def __init__(self, bell: Bell, descriptor: BindingDescriptor) -> None:
        self._bell = bell
        self._name = descriptor.name
        self.step = 1 if descriptor.type == "bellQueue" else 0

    async def write(self, value: object, data: Mapping[str, object]) -> None:
        if value == "unwritable":
            raise OSError("cannot write")
        self._bell.written.append((self._name, value))


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def app() -> FunctionApp:
    return FunctionApp(http_auth_level=AuthLevel.ANONYMOUS)


async def test_async_and_plain_functions_get_their_arguments_by_name(app: FunctionApp, bell: Bell) -> None:
    @app.generic_input_binding("note", type="bell", text="<{tone}>")
    @app.generic_trigger("sound", type="bellTrigger")
    async def a(note: str, sound: str) -> str:
        return f"{sound} {note} {threading.current_thread() is threading.main_thread()}"

    @app.generic_input_binding("note", type="bell")
    @app.generic_trigger("sound", type="bellTrigger")
    def b(note: str, sound: str) -> str:
        return f"{sound} {note} {threading.current_thread() is threading.main_thread()}"

    async with running(app, bindings=BindingRegistry([bell])):
        results = [await bell.ring("a", "ding"), await bell.ring("b", "dong")]

    assert [each.value for each in results] == ["ding <ding> True", "dong dong False"]


async def test_context_tells_about_the_invocation_in_threads_too(app: FunctionApp, bell: Bell) -> None:
    @app.generic_trigger("x", type="bellTrigger")
    def f(x: object, context: Context) -> Any:
        current = current_context.get()
        assert current is not None
        return (
            context.function_name,
            context.invocation_id == current.invocation_id == context.thread_local_storage.invocation_id,
            context.retry_context.retry_count,
        )

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    assert result.value == ("f", True, 0)


async def test_outputs_are_written_in_steps_and_only_when_set(app: FunctionApp, bell: Bell) -> None:
    @app.generic_output_binding("queue", type="bellQueue")
    @app.generic_output_binding("first", type="bell")
    @app.generic_output_binding("unset", type="bell")
    @app.generic_output_binding("$return", type="bell")
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object, queue: Out[str], first: Out[str], unset: Out[str]) -> str:
        queue.set("later")
        first.set("now")
        return "returned"

    async with running(app, bindings=BindingRegistry([bell])):
        await bell.ring("f")

    assert sorted(bell.written[:2]) == [("$return", "returned"), ("first", "now")]
    assert bell.written[2:] == [("queue", "later")]


async def test_failing_output_fails_the_invocation(app: FunctionApp, bell: Bell) -> None:
    @app.generic_output_binding("$return", type="bell")
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> str:
        return "unwritable"

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    assert isinstance(result.error, OSError)


async def test_start_and_end_are_logged_with_the_same_id(
    app: FunctionApp, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None: ...

    with caplog.at_level(logging.INFO):
        async with running(app, bindings=BindingRegistry([bell])):
            result = await bell.ring("f")

    start, end = [each.getMessage() for each in caplog.records if each.name == "Function.f"]
    assert start == f"Executing 'Functions.f' (Reason='somebody rang', Id={result.invocation_id})"
    assert end.startswith(f"Executed 'Functions.f' (Succeeded, Id={result.invocation_id}, Duration=")


async def test_failure_is_logged_once_with_the_users_frames_only(
    app: FunctionApp, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    @app.generic_trigger("x", type="bellTrigger")
    def f(x: object) -> None:
        raise SystemExit("mine")

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith("Executed 'Functions.f' (Failed, Id=")
    assert record.exc_info is not None
    assert record.exc_info[2] is not None
    assert record.exc_info[2].tb_frame.f_code.co_name == "f"
    assert isinstance(result.error, SystemExit)


async def test_async_function_is_cancelled_when_its_time_is_up(
    app: FunctionApp, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with running(app, bindings=BindingRegistry([bell]), timeout=timedelta(milliseconds=20)):
        result = await bell.ring("f")

    assert seen == ["cancelled"]
    assert isinstance(result.error, FunctionTimeoutError)
    assert "was exceeded by function: Functions.f" in str(result.error)
    assert any("exceeded by function 'Functions.f' (Id: " in each.getMessage() for each in caplog.records)


async def test_swallowed_cancellation_is_a_timeout_all_the_same(app: FunctionApp, bell: Bell) -> None:
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "never mind"

    async with running(app, bindings=BindingRegistry([bell]), timeout=timedelta(milliseconds=20)):
        result = await bell.ring("f")

    assert isinstance(result.error, FunctionTimeoutError)


async def test_plain_function_over_time_fails_at_once_and_is_reported_as_stuck(app: FunctionApp, bell: Bell) -> None:
    release = threading.Event()
    stuck = asyncio.Event()
    names: list[str] = []

    def on_stuck(name: str) -> None:
        names.append(name)
        stuck.set()

    @app.generic_trigger("x", type="bellTrigger")
    def f(x: object) -> None:
        release.wait()

    short = timedelta(milliseconds=20)
    async with running(app, bindings=BindingRegistry([bell]), timeout=short, grace=short, on_stuck=on_stuck):
        result = await bell.ring("f")
        await stuck.wait()
        release.set()

    assert isinstance(result.error, FunctionTimeoutError)
    assert names == ["f"]


async def test_plain_function_that_ends_within_the_grace_is_not_stuck(app: FunctionApp, bell: Bell) -> None:
    release = threading.Event()
    ended = threading.Event()
    names: list[str] = []

    @app.generic_trigger("x", type="bellTrigger")
    def f(x: object) -> None:
        release.wait()
        ended.set()

    async with running(
        app,
        bindings=BindingRegistry([bell]),
        timeout=timedelta(milliseconds=20),
        grace=timedelta(seconds=60),
        on_stuck=names.append,
    ):
        await bell.ring("f")
        release.set()
        await asyncio.to_thread(ended.wait)

    assert names == []


async def test_cancelled_call_cancels_the_function(app: FunctionApp, bell: Bell) -> None:
    entered = asyncio.Event()

    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with running(app, bindings=BindingRegistry([bell])) as host:
        ringing = asyncio.ensure_future(bell.ring("f"))
        await entered.wait()
        ringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ringing
        assert host.runtime.outstanding == 0


async def test_function_that_cancels_itself_has_failed(app: FunctionApp, bell: Bell) -> None:
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None:
        raise asyncio.CancelledError

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    assert isinstance(result.error, asyncio.CancelledError)


async def test_retry_policy_repeats_and_tells_the_function(app: FunctionApp, bell: Bell) -> None:
    seen: list[tuple[int, int, str]] = []

    @app.retry("fixed_delay", "2", "00:00:00")
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object, context: Context) -> str:
        retry = context.retry_context
        seen.append((retry.retry_count, retry.max_retry_count, retry.exception.message))
        if retry.retry_count < 2:
            raise ValueError(f"attempt {retry.retry_count}")
        return "done"

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    assert result.value == "done"
    assert seen == [(0, 2, ""), (1, 2, "attempt 0"), (2, 2, "attempt 1")]


async def test_exhausted_retries_return_the_last_failure(
    app: FunctionApp, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    @app.retry("exponential_backoff", 1, minimum_interval="00:00:00", maximum_interval="00:00:00")
    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None:
        raise ValueError("again")

    async with running(app, bindings=BindingRegistry([bell])):
        result = await bell.ring("f")

    assert str(result.error) == "again"
    assert "Function execution failed after '1' retries." in caplog.messages


async def test_retry_policy_does_not_apply_to_http(app: FunctionApp) -> None:
    calls: list[int] = []

    @app.retry("fixed_delay", 3, "00:00:00")
    @app.route("f")
    async def f(req: HttpRequest) -> HttpResponse:
        calls.append(1)
        raise ValueError

    async with running(app) as host:
        response = await host.request("GET", "/api/f")

    assert (response.status_code, len(calls)) == (500, 1)


async def test_running_invocations_are_counted_and_can_be_waited_for(app: FunctionApp, bell: Bell) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    metrics = Metrics()

    @app.generic_trigger("x", type="bellTrigger")
    async def f(x: object) -> None:
        entered.set()
        await leave.wait()

    async with running(app, bindings=BindingRegistry([bell]), metrics=metrics) as host:
        ringing = asyncio.ensure_future(bell.ring("f"))
        await entered.wait()
        assert host.runtime.outstanding == 1
        assert not await host.runtime.drained(timedelta(0))
        leave.set()
        assert await host.runtime.drained(timedelta(seconds=30))
        await ringing

    assert metrics.value("function_invocations_total", function="f", outcome="succeeded") == 1


async def test_drain_stops_listeners_but_not_routes(app: FunctionApp, bell: Bell) -> None:
    app.function_name("ring")(app.generic_trigger("x", type="bellTrigger")(_ring))
    app.function_name("answer")(app.route("f")(_answer))

    async with running(app, bindings=BindingRegistry([bell])) as host:
        assert bell.listening == {"ring"}
        await host.runtime.drain()
        assert bell.listening == set()
        assert (await host.request("GET", "/api/f")).status_code == 200
    assert host.services.routes.match("GET", "/api/f") is None


async def test_listener_that_cannot_start_leaves_the_others_running(
    app: FunctionApp, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    bell.fail_to_listen = 1
    app.function_name("ring")(app.generic_trigger("x", type="bellTrigger")(_ring))
    app.function_name("answer")(app.route("f")(_answer))

    async with running(app, bindings=BindingRegistry([bell])) as host:
        assert (await host.request("GET", "/api/f")).status_code == 200
        (described,) = [each for each in host.runtime.functions if each.name == "ring"]

    assert "unable to start" in described.errors[0]
    assert "The listener for function 'ring' was unable to start." in caplog.messages


async def test_refused_bindings_are_reported_together(app: FunctionApp) -> None:
    @app.generic_input_binding("a", type="http")
    @app.generic_output_binding("b", type="durableClient")
    @app.route("f")
    async def f(req: HttpRequest, a: object, b: Out[object]) -> None: ...

    with pytest.raises(IndexingError) as caught:
        async with running(app):
            pass

    assert len(caught.value.problems) == 2


async def test_pool_is_sized_by_the_setting_and_a_bad_one_is_warned_about(
    app: FunctionApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app, setting={"PYTHON_THREADPOOL_THREAD_COUNT": "many"}.get):
        pass

    assert any("PYTHON_THREADPOOL_THREAD_COUNT is 'many'" in each for each in caplog.messages)


async def _ring(x: object) -> None: ...


async def _answer(req: HttpRequest) -> str:
    return "ok"
