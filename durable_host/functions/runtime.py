"""FunctionRuntime: an app's functions at work: bindings made, durable functions registered, listeners running.

Made in two steps, so that a mistake is found before anything starts: the constructor makes every binding (all refusals
are reported together) and registers orchestrators and activities; entering the context starts the listeners. A listener
that cannot start does not keep the others from running: it is tried again, for ever, with growing pauses.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Self

from durable_host.bindings.contract import (
    BindingError,
    HostServices,
    InvocationResult,
    Invoke,
    Listener,
    TriggerEvent,
)
from durable_host.bindings.http import HTTP_REASON
from durable_host.bindings.http_types import HttpRequest
from durable_host.bindings.registry import BindingRegistry
from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import TaskHubClient
from durable_host.errors import IndexingError, UnknownFunctionError
from durable_host.functions.client import DurableOrchestrationClient
from durable_host.functions.descriptor import FunctionDescriptor
from durable_host.functions.indexing import LoadedApp
from durable_host.functions.invoker import BoundFunction, Invoker
from durable_host.telemetry.metrics import Metrics

__all__ = ["FunctionDescription", "FunctionRuntime", "describe", "pool_size"]

logger = logging.getLogger(__name__)

_HTTP = "httptrigger"
_ORCHESTRATION = "orchestrationtrigger"
_RETRY_FIRST = 2.0
_RETRY_MOST = 120.0


@dataclass(frozen=True, slots=True)
class FunctionDescription:
    """A function as consoles and the admin API show it.

    Attributes:
        trigger: type of its trigger, for example `httpTrigger`.
        bindings: each with `direction`, `type`, `name` and the type's own properties.
        route: of an HTTP function, the template with prefix (`api/start/{name}`); else None.
        methods: of an HTTP function, upper case; empty: all.
        errors: why it does not run; empty when it does.
    """

    name: str
    trigger: str
    bindings: Sequence[Mapping[str, object]]
    script_file: str
    entry_point: str
    route: str | None = None
    methods: Sequence[str] = ()
    disabled: bool = False
    errors: Sequence[str] = ()


@dataclass
class _Active:
    function: BoundFunction
    listener: Listener | None
    errors: list[str] = field(default_factory=list[str])
    stack: AsyncExitStack | None = None


class FunctionRuntime:
    """Runs an app's functions; an async context manager.

    Args:
        timeout: `functionTimeout`; None: none.
        grace: how long a function may go on after its time limit.
        on_stuck: told the name of a function that does not end; the host has to end the process.
        bindings: binding types; the built-in and installed ones if None.

    Raises:
        IndexingError: bindings were refused; all of them are listed.
    """

    def __init__(
        self,
        app: LoadedApp,
        services: HostServices,
        *,
        timeout: timedelta | None = None,
        grace: timedelta = timedelta(seconds=5),
        on_stuck: Callable[[str], None] | None = None,
        metrics: Metrics | None = None,
        bindings: BindingRegistry | None = None,
    ) -> None:
        self.app = app
        self.services = services
        self.draining = False
        services.make_client = self._make_client
        self._bindings = bindings or BindingRegistry()
        self._invoker = Invoker(
            services.environment,
            pool_size=pool_size(services.setting("PYTHON_THREADPOOL_THREAD_COUNT")),
            timeout=timeout,
            grace=grace,
            on_stuck=on_stuck,
            directory=str(app.folder),
            metrics=metrics,
        )
        self._active: dict[str, _Active] = {}
        self._retries: set[asyncio.Task[None]] = set()
        for warning in app.warnings:
            logger.warning(warning, extra={"event": "function_warning"})
        self._activate()

    # What there is.

    @property
    def functions(self) -> Sequence[FunctionDescription]:
        """All functions by name, those switched off included."""
        errors = {name: each.errors for name, each in self._active.items()}
        return [
            describe(each, self.app, self.services.routes.prefix, errors.get(each.name, ()))
            for each in self.app.functions
        ]

    @property
    def outstanding(self) -> int:
        """Invocations that run, and retries that wait."""
        return self._invoker.outstanding

    async def drained(self, timeout: timedelta) -> bool:
        """Wait until nothing is outstanding; False when the time is up first."""
        return await self._invoker.drained(timeout)

    async def invoke(self, name: str, value: str | None = None) -> InvocationResult | None:
        """Run a function by hand and wait for it.

        The text becomes the body of an HTTP request, the input of an activity (JSON, or the text itself), the trigger's
        value otherwise. An orchestrator is started as a new instance; there is no result of it.

        Raises:
            UnknownFunctionError: there is none of this name.
        """
        found = next(
            (each for each in self._active.values() if each.function.descriptor.name.lower() == name.lower()), None
        )
        if found is None:
            known = ", ".join(repr(each.name) for each in self.app.functions) or "none"
            raise UnknownFunctionError(name, f"There is no function {name!r}. Known functions: {known}.")
        descriptor = found.function.descriptor
        kind = descriptor.trigger.type.lower()
        if kind == _ORCHESTRATION:
            await self.services.client.start(descriptor.durable_name, _json_or_text(value))
            return None
        argument: object = value
        if kind == _HTTP:
            url = f"{self.services.urls.webhook.partition('/runtime/')[0]}/admin/functions/{name}"
            argument = HttpRequest("POST", url, body=(value or "").encode())
        elif kind == "activitytrigger":
            argument = _json_or_text(value)
        return await self._invoker.invoke(found.function, TriggerEvent(argument, reason=HTTP_REASON))

    # Life.

    async def __aenter__(self) -> Self:
        for active in self._active.values():
            if active.listener is not None:
                await self._start(active, active.listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop(lambda active: True)

    async def drain(self) -> None:
        """Stop all listeners but HTTP routes; cancel nothing. Requests are served until the server closes."""
        self.draining = True
        logger.info("DrainMode mode enabled", extra={"event": "drain_enabled"})
        await self._stop(lambda active: active.function.descriptor.trigger.type.lower() != _HTTP)
        logger.info(
            "Call to StopAsync complete, registered listeners are now stopped", extra={"event": "listeners_stopped"}
        )

    async def resume(self) -> None:
        """Start the listeners again that `drain` stopped."""
        for active in self._active.values():
            if active.listener is not None and active.stack is None:
                await self._start(active, active.listener)
        self.draining = False
        logger.info("DrainMode mode disabled", extra={"event": "drain_disabled"})

    # Inside.

    def _activate(self) -> None:
        problems: list[str] = []
        for descriptor in self.app.functions:
            # A disabled HTTP function keeps its route: the master key still opens it.
            if descriptor.disabled and descriptor.trigger.type.lower() != _HTTP:
                logger.info("Function '%s' is disabled", descriptor.name, extra={"event": "function_disabled"})
                continue
            bound = self._bind(descriptor, problems)
            if bound is None:
                continue
            try:
                listener = bound.trigger.listener(self._invoke(bound))
            except (BindingError, TypeError, ValueError) as error:
                problems.append(f"{_where(descriptor)}: {error}")
                continue
            self._active[descriptor.name] = _Active(bound, listener)
        if problems:
            raise IndexingError(problems)

    def _bind(self, descriptor: FunctionDescriptor, problems: list[str]) -> BoundFunction | None:
        before = len(problems)

        def make(name: str, kind: str, build: Callable[[], object]) -> object:
            try:
                return build()
            except (BindingError, ValueError) as error:
                problems.append(f"{_where(descriptor)}: Unable to configure binding '{name}' of type '{kind}'. {error}")
                return None

        find, host = self._bindings.find, self.services
        trigger = descriptor.trigger
        made = make(trigger.name, trigger.type, lambda: find(trigger.type).trigger(trigger, host))
        inputs = {
            each.name: make(each.name, each.type, lambda each=each: find(each.type).input(each, host))  # type: ignore[misc]
            for each in descriptor.inputs
        }
        outputs = {
            each.name: make(each.name, each.type, lambda each=each: find(each.type).output(each, host))  # type: ignore[misc]
            for each in descriptor.outputs
        }
        if len(problems) > before:
            return None
        log = logging.getLogger(f"Function.{descriptor.name}")
        return BoundFunction(descriptor, made, inputs, outputs, log)  # type: ignore[arg-type]

    def _invoke(self, function: BoundFunction) -> Invoke:
        def invoke(event: TriggerEvent) -> Awaitable[InvocationResult]:
            return self._invoker.invoke(function, event)

        return invoke

    async def _start(self, active: _Active, listener: Listener) -> None:
        if await self._try_start(active, listener):
            return
        task = asyncio.create_task(self._keep_starting(active, listener), name=f"listener {_name(active)}")
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _try_start(self, active: _Active, listener: Listener) -> bool:
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(listener.listen())
        except Exception as error:  # whatever a source does wrong, the other functions run
            active.errors = [f"The listener for function '{_name(active)}' was unable to start. {error}"]
            logger.error(
                "The listener for function '%s' was unable to start.",
                _name(active),
                exc_info=True,
                extra={"event": "listener_failed"},
            )
            return False
        active.stack, active.errors = stack, []
        return True

    async def _keep_starting(self, active: _Active, listener: Listener) -> None:
        pause, attempt = _RETRY_FIRST, 0
        while True:
            await asyncio.sleep(pause * (0.8 + 0.4 * self.services.environment.ids.uniform()))
            pause, attempt = min(2 * pause, _RETRY_MOST), attempt + 1
            logger.info(
                "Retrying to start listener for function '%s' (Attempt %d)",
                _name(active),
                attempt,
                extra={"event": "listener_retry"},
            )
            if await self._try_start(active, listener):
                logger.info(
                    "Listener successfully started for function '%s' after %d retries.",
                    _name(active),
                    attempt,
                    extra={"event": "listener_started"},
                )
                return

    async def _stop(self, chosen: Callable[[_Active], bool]) -> None:
        for task in list(self._retries):
            task.cancel()
        if self._retries:
            await asyncio.wait(list(self._retries))
        for active in reversed(list(self._active.values())):
            if active.stack is None or not chosen(active):
                continue
            stack, active.stack = active.stack, None
            try:
                await stack.aclose()
            except Exception:  # the others must be stopped as well
                logger.error(
                    "The listener for function '%s' did not stop cleanly.",
                    _name(active),
                    exc_info=True,
                    extra={"event": "listener_stop_failed"},
                )

    def _make_client(self, client: TaskHubClient, urls: ManagementUrls) -> DurableOrchestrationClient:
        services = self.services
        own = client is services.client
        return DurableOrchestrationClient(
            client,
            urls,
            known=(lambda: services.registry.orchestrator_names) if own else None,
            open_hub=services.hub_client,
            replaceable=services.replaceable,
        )


def describe(
    function: FunctionDescriptor, app: LoadedApp, prefix: str = "api", errors: Sequence[str] = ()
) -> FunctionDescription:
    """How a function is shown; works for an app that does not run, too."""
    trigger = function.trigger
    route: str | None = None
    methods: Sequence[str] = ()
    if trigger.type.lower() == _HTTP:
        route = "/".join(part for part in (prefix.strip("/"), str(trigger.properties["route"]).strip("/")) if part)
        given = trigger.properties.get("methods") or ()
        methods = [given] if isinstance(given, str) else [str(each) for each in _listed(given)]
    return FunctionDescription(
        name=function.name,
        trigger=trigger.type,
        bindings=function.describe_bindings(),
        script_file=app.script.name,
        entry_point=str(getattr(function.target, "__name__", function.name)),
        route=route,
        methods=methods,
        disabled=function.disabled,
        errors=tuple(errors),
    )


def pool_size(text: str | None) -> int:
    """Threads for plain functions, from `PYTHON_THREADPOOL_THREAD_COUNT`; a bad value is warned about."""
    default = min(32, (os.cpu_count() or 1) + 4)
    if not text:
        return default
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        logger.warning(
            "PYTHON_THREADPOOL_THREAD_COUNT is %r; give a whole number from 1. Using %d.",
            text,
            default,
            extra={"event": "bad_setting"},
        )
        return default
    return count


def _listed(value: object) -> Sequence[object]:
    return list(value) if isinstance(value, list | tuple) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _json_or_text(text: str | None) -> object:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _name(active: _Active) -> str:
    return active.function.descriptor.name


def _where(function: FunctionDescriptor) -> str:
    return f"{function.info.file}:{function.info.line}: function '{function.name}'"
