"""One invocation: bind, call, write outputs, log (functions-host.md 9.1 to 9.6).

An invocation never raises for what user code or a binding did: its result carries the error. What passes through is
cancellation, which a listener asks for (the host stops, an activity lost its lease): an `async def` function sees
`CancelledError`, a plain function in the pool runs on and its result is dropped.

The time limit ends an `async def` function the same way. A plain function cannot be stopped: its caller gets the
failure at once, and if the function still runs when the grace period is over, the host is told to shut down, because
threads that never return would use up the pool one by one. The same holds for an `async def` function that swallows its
cancellation.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

from durable_host.bindings.contract import (
    RETURN,
    BoundTrigger,
    InputBinding,
    InvocationResult,
    OutputBinding,
    OutputError,
    TriggerBinding,
    TriggerEvent,
)
from durable_host.config.spans import format_span
from durable_host.environment import Environment, SystemThreads, Threads
from durable_host.errors import DurableHostError
from durable_host.functions.descriptor import FunctionDescriptor
from durable_host.functions.tracebacks import user_traceback
from durable_host.functions.values import Context, Out, RetryContext, RetryFailure, TraceContext, current_context
from durable_host.model.failure import failure_of
from durable_host.telemetry.logging import function_scope
from durable_host.telemetry.metrics import Metrics

__all__ = ["BoundFunction", "FunctionTimeoutError", "Invoker"]

logger = logging.getLogger(__name__)

_FORCED = (SystemExit,)  # raised by user code it is a failure of this invocation, not the end of the host


class FunctionTimeoutError(DurableHostError, TimeoutError):
    """A function ran longer than `functionTimeout`."""

    def __init__(self, function: str, limit: timedelta) -> None:
        self.function = function
        self.limit = limit
        super().__init__(f"Timeout value of {format_span(limit)} was exceeded by function: Functions.{function}")


@dataclass(frozen=True, slots=True)
class BoundFunction:
    """A function with its bindings made: what an invocation needs.

    Attributes:
        inputs, outputs: by the name of the function's parameter, or `$return`.
    """

    descriptor: FunctionDescriptor
    trigger: TriggerBinding
    inputs: Mapping[str, InputBinding]
    outputs: Mapping[str, OutputBinding]
    log: logging.Logger


class Invoker:
    """Runs functions.

    Args:
        threads: the pool for plain functions; one of `pool_size` threads if None.
        timeout: per attempt; None: none.
        grace: how long a function may go on after its time limit.
        on_stuck: told the function's name when the grace period is over; the host has to end the process.
        directory: the app folder, for `Context`.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        threads: Threads | None = None,
        pool_size: int | None = None,
        timeout: timedelta | None = None,
        grace: timedelta = timedelta(seconds=5),
        on_stuck: Callable[[str], None] | None = None,
        directory: str = "",
        metrics: Metrics | None = None,
    ) -> None:
        self._environment = environment
        self._threads = threads or SystemThreads(pool_size, "function")
        self._in_threads: set[asyncio.Task[tuple[object, BaseException | None]]] = set()
        self._timeout = timeout
        self._grace = grace
        self._on_stuck = on_stuck
        self._directory = directory
        self._metrics = metrics or Metrics()
        self._outstanding = 0
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def outstanding(self) -> int:
        """Invocations between their start and end line, and retries that wait."""
        return self._outstanding + self._waiting

    async def drained(self, timeout: timedelta) -> bool:
        """Wait until nothing is outstanding; False when the time is up first."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def invoke(self, function: BoundFunction, event: TriggerEvent) -> InvocationResult:
        """Run a function for an event, with its retry policy where the trigger supports one."""
        policy = function.descriptor.retry if function.trigger.traits.retries else None
        if policy is None:
            return await self._attempt(function, event, RetryContext())
        retry = RetryContext(0, policy.max_retry_count)
        while True:
            result = await self._attempt(function, event, retry)
            if result.error is None:
                return result
            if retry.retry_count == policy.max_retry_count:
                function.log.error(
                    "Function execution failed after '%d' retries.",
                    retry.retry_count,
                    extra={"event": "function_retries_exhausted"},
                )
                return result
            failure = failure_of(result.error)
            retry = RetryContext(
                retry.retry_count + 1,
                policy.max_retry_count,
                RetryFailure(failure.type, failure.stack or "", failure.message),
            )
            delay = policy.delay_before(retry.retry_count, self._environment.ids.uniform)
            if not await self._wait(function, delay, retry):
                return result

    async def _wait(self, function: BoundFunction, delay: timedelta, retry: RetryContext) -> bool:
        function.log.debug(
            "Waiting for `%s` before retrying function execution. Next attempt: '%d'. Max retry count: '%d'.",
            format_span(delay),
            retry.retry_count,
            retry.max_retry_count,
        )
        self._waiting += 1
        self._idle.clear()
        try:
            await asyncio.sleep(delay.total_seconds())
        except asyncio.CancelledError:
            function.log.info("Invocation cancelled - exiting retry loop.", extra={"event": "function_retry_cancelled"})
            return False
        finally:
            self._waiting -= 1
            self._settle()
        return True

    async def _attempt(self, function: BoundFunction, event: TriggerEvent, retry: RetryContext) -> InvocationResult:
        name = function.descriptor.name
        digits = self._environment.ids.new_id()
        invocation = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        context = Context(
            invocation,
            name,
            self._directory,
            TraceContext(event.traceparent or "", event.tracestate or ""),
            retry,
        )
        facts = {"event": "function_executing", "invocation_id": invocation, "function": name}
        function.log.info("Executing 'Functions.%s' (Reason='%s', Id=%s)", name, event.reason, invocation, extra=facts)
        if event.details:
            details = ", ".join(f"{key}: {value}" for key, value in event.details.items())
            function.log.info("Trigger Details: %s", details, extra=facts)
        started = self._environment.clock.monotonic()
        self._outstanding += 1
        self._idle.clear()
        token = current_context.set(context)
        value: object = None
        error: BaseException | None = None
        try:
            with function_scope(name):
                value = await self._run(function, event, context)
        except asyncio.CancelledError as cancelled:
            if not _asked_for():
                error = cancelled  # the function cancelled itself; nobody asked the host to stop
            else:
                self._finish(function, invocation, started, cancelled)
                raise
        except (Exception, *_FORCED) as failed:
            error = failed
        finally:
            current_context.reset(token)
            self._outstanding -= 1
            self._settle()
        self._finish(function, invocation, started, error)
        return InvocationResult(invocation, value, error)

    def _finish(self, function: BoundFunction, invocation: str, started: float, error: BaseException | None) -> None:
        name = function.descriptor.name
        seconds = self._environment.clock.monotonic() - started
        outcome = "Succeeded" if error is None else "Failed"
        self._metrics.count("function_invocations_total", function=name, outcome=outcome.lower())
        self._metrics.observe("function_duration_seconds", seconds, function=name)
        function.log.log(
            logging.INFO if error is None else logging.ERROR,
            "Executed 'Functions.%s' (%s, Id=%s, Duration=%dms)",
            name,
            outcome,
            invocation,
            seconds * 1000,
            extra={"event": "function_executed", "invocation_id": invocation, "function": name},
            exc_info=None if error is None else (type(error), error, _shown(error)),
        )

    def _settle(self) -> None:
        if self._outstanding + self._waiting == 0:
            self._idle.set()

    async def _run(self, function: BoundFunction, event: TriggerEvent, context: Context) -> object:
        descriptor = function.descriptor
        bound = function.trigger.bind(event)
        arguments: dict[str, object] = {descriptor.trigger.name: bound.value}
        await self._read_inputs(function, bound, arguments)
        outs = {name: Out[object]() for name in function.outputs if name != RETURN}
        arguments |= outs
        if descriptor.context_parameter:
            arguments["context"] = context
        value = await self._call(function, arguments, context)
        if function.outputs:
            await self._write_outputs(function, value, outs, bound.data)
        if RETURN not in function.outputs and value is not None and not function.trigger.traits.implicit_return:
            raise OutputError(f"function '{descriptor.name}' without a $return binding returned a non-None value")
        return value

    async def _read_inputs(self, function: BoundFunction, bound: BoundTrigger, arguments: dict[str, object]) -> None:
        if len(function.inputs) == 1:
            for name, binding in function.inputs.items():
                arguments[name] = await binding.read(bound.data)
        elif function.inputs:
            values = await _all(binding.read(bound.data) for binding in function.inputs.values())
            arguments.update(zip(function.inputs, values, strict=True))

    async def _write_outputs(
        self, function: BoundFunction, value: object, outs: Mapping[str, Out[object]], data: Mapping[str, object]
    ) -> None:
        steps: dict[int, list[tuple[OutputBinding, object]]] = {}
        for name, binding in function.outputs.items():
            if name != RETURN and not outs[name].is_set:
                continue
            written = value if name == RETURN else outs[name].get()
            steps.setdefault(int(getattr(binding, "step", 0)), []).append((binding, written))
        for step in sorted(steps):
            writes = steps[step]
            if len(writes) == 1:
                await writes[0][0].write(writes[0][1], data)
            else:
                await _all(binding.write(written, data) for binding, written in writes)

    async def _call(self, function: BoundFunction, arguments: dict[str, Any], context: Context) -> object:
        descriptor = function.descriptor
        target = descriptor.target
        if not descriptor.is_async:
            return await self._call_in_thread(function, arguments, context)
        if self._timeout is None:
            return await target(**arguments)
        limit = asyncio.timeout(self._timeout.total_seconds())
        watch = asyncio.get_running_loop().call_later(
            (self._timeout + self._grace).total_seconds(), self._stuck, descriptor.name, context.invocation_id
        )
        try:
            async with limit:
                value = await target(**arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise  # the function's own
            self._report_timeout(function, context)
            raise FunctionTimeoutError(descriptor.name, self._timeout) from error.__cause__
        finally:
            watch.cancel()
        if limit.expired():  # it swallowed the cancellation and returned
            self._report_timeout(function, context)
            raise FunctionTimeoutError(descriptor.name, self._timeout)
        return value

    async def _call_in_thread(self, function: BoundFunction, arguments: dict[str, Any], context: Context) -> object:
        descriptor = function.descriptor
        copied = contextvars.copy_context()
        started = threading.Event()

        def call() -> tuple[object, BaseException | None]:
            started.set()
            context.thread_local_storage.invocation_id = context.invocation_id
            # Exceptions travel as values: a StopIteration set on a future would never reach the one who awaits it.
            try:
                return copied.run(descriptor.target, **arguments), None
            except BaseException as error:
                return None, error

        if self._timeout is None:
            return await _value_of(await self._threads.run(call))
        # A task of its own: a caller that is cancelled leaves, the thread cannot.
        running = asyncio.create_task(self._threads.run(call))
        self._in_threads.add(running)
        running.add_done_callback(self._left_thread)
        done, _ = await asyncio.wait((running,), timeout=self._timeout.total_seconds())
        if done:
            return await _value_of(running.result())
        self._report_timeout(function, context)
        if started.is_set():
            watch = asyncio.get_running_loop().call_later(
                self._grace.total_seconds(), self._stuck, descriptor.name, context.invocation_id
            )
            running.add_done_callback(lambda _: watch.cancel())
        else:
            running.cancel()  # still queued behind others: it never runs
        raise FunctionTimeoutError(descriptor.name, self._timeout)

    def _left_thread(self, task: asyncio.Task[tuple[object, BaseException | None]]) -> None:
        self._in_threads.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it may have left; fetched so that asyncio does not warn

    def _report_timeout(self, function: BoundFunction, context: Context) -> None:
        assert self._timeout is not None
        self._metrics.count("function_timeouts_total", function=function.descriptor.name)
        function.log.error(
            "Timeout value of %s exceeded by function 'Functions.%s' (Id: '%s'). Initiating cancellation.",
            format_span(self._timeout),
            function.descriptor.name,
            context.invocation_id,
            extra={"event": "function_timeout", "invocation_id": context.invocation_id},
        )

    def _stuck(self, name: str, invocation: str) -> None:
        logger.error(
            "A function timeout has occurred. Host is shutting down.",
            extra={"event": "function_stuck", "function": name, "invocation_id": invocation},
        )
        if self._on_stuck is not None:
            self._on_stuck(name)


async def _value_of(outcome: tuple[object, BaseException | None]) -> object:
    value, error = outcome
    if error is not None:
        raise error
    # A plain function may hand back a coroutine, for example a wrapper around an `async def`.
    return await value if inspect.isawaitable(value) else value


def _asked_for() -> bool:
    """Whether somebody cancelled the current task; else the function raised CancelledError on its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(calls: Any) -> Sequence[object]:
    """Results of coroutines run together; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _shown(error: BaseException) -> TracebackType | None:
    """The part of the traceback that is the user's; the whole of it when the mistake may be ours."""
    shown = user_traceback(error.__traceback__)
    if shown is not None or isinstance(error, OutputError | FunctionTimeoutError):
        return shown
    return error.__traceback__
