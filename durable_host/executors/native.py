"""Functions registered in this process: the registry, and the executors that run them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any

from durable_host.engine.annotations import input_type
from durable_host.engine.callsites import user_traceback
from durable_host.engine.executor import ActivityResult, Episode, EpisodeResult, current_activity
from durable_host.engine.replay import Replay
from durable_host.environment import Environment, SystemThreads
from durable_host.errors import OrchestratorError, PayloadError
from durable_host.model.failure import Failure, failure_of
from durable_host.model.history import ExecutionStarted
from durable_host.model.messages import ActivityTask
from durable_host.model.names import NAME_ATTRIBUTE, function_name, unknown_function
from durable_host.model.payloads import decode_payload, encode_payload
from durable_host.telemetry.logging import function_scope

__all__ = ["FunctionRegistry", "NativeActivities", "NativeActivity", "NativeOrchestrations", "NativeOrchestrator"]

_DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class NativeOrchestrator:
    """A registered orchestrator. `keeps_histories`: its code names `context.histories`."""

    name: str
    function: Callable[[Any], Any]
    place: str
    keeps_histories: bool


@dataclass(frozen=True, slots=True)
class NativeActivity:
    """A registered activity. `parameter`: whether it takes the input; `input_type`: what the input is decoded as."""

    name: str
    function: Callable[..., Any]
    place: str
    parameter: bool
    input_type: Any
    is_async: bool


class FunctionRegistry:
    """The orchestrators and activities of a process; names compare without case."""

    def __init__(self) -> None:
        self._orchestrators: dict[str, NativeOrchestrator] = {}
        self._activities: dict[str, NativeActivity] = {}

    def add_orchestrator(self, function: Callable[[Any], Any], *, name: str | None = None) -> str:
        """Register a generator function, an `async def` or a plain function of one parameter, the context.

        Returns:
            Its name.

        Raises:
            TypeError: it does not take exactly one argument, or is an asynchronous generator.
            ValueError: the name is taken; the text names both places.
        """
        chosen = _name(function, name)
        place = _place(function)
        if inspect.isasyncgenfunction(_plain(function)):
            raise TypeError(
                f"Orchestrator '{chosen}' ({place}) is an `async def` with `yield`; use one of them: `yield` in a "
                "plain `def`, or `await` in an `async def`."
            )
        if _required(function, chosen, "orchestrator", place) is None:
            raise TypeError(f"Orchestrator '{chosen}' ({place}) takes no parameter; it must take the context.")
        self._refuse_duplicate("orchestrator", chosen, place, self._orchestrators.get(chosen.lower()))
        code = getattr(_plain(function), "__code__", None)
        self._orchestrators[chosen.lower()] = NativeOrchestrator(
            chosen, function, place, code is not None and _names_histories(code)
        )
        _remember(function, chosen)
        return chosen

    def add_activity(
        self, function: Callable[..., Any], *, name: str | None = None, input_type: object = inspect.Parameter.empty
    ) -> str:
        """Register a function, sync or `async`, of no parameter or of one, the input.

        Args:
            input_type: what the input is decoded as; by default the parameter's annotation.

        Returns, Raises: as `add_orchestrator`.
        """
        chosen = _name(function, name)
        place = _place(function)
        if inspect.isasyncgenfunction(_plain(function)) or inspect.isgeneratorfunction(_plain(function)):
            raise TypeError(
                f"Activity '{chosen}' ({place}) is a generator; an activity returns one value. Register it as an "
                "orchestrator if it calls other functions."
            )
        parameter = _required(function, chosen, "activity", place)
        self._refuse_duplicate("activity", chosen, place, self._activities.get(chosen.lower()))
        self._activities[chosen.lower()] = NativeActivity(
            chosen,
            function,
            place,
            parameter is not None,
            _input_type(function, parameter) if input_type is inspect.Parameter.empty else input_type,
            inspect.iscoroutinefunction(_plain(function)),
        )
        _remember(function, chosen)
        return chosen

    def orchestrator(self, name: str) -> NativeOrchestrator | None:
        """The orchestrator of this name, or None."""
        return self._orchestrators.get(name) or self._orchestrators.get(name.lower())

    def activity(self, name: str) -> NativeActivity | None:
        """The activity of this name, or None."""
        return self._activities.get(name) or self._activities.get(name.lower())

    @property
    def orchestrator_names(self) -> Sequence[str]:
        """Names of all orchestrators, sorted."""
        return sorted(each.name for each in self._orchestrators.values())

    @property
    def activity_names(self) -> Sequence[str]:
        """Names of all activities, sorted."""
        return sorted(each.name for each in self._activities.values())

    def _refuse_duplicate(
        self, kind: str, name: str, place: str, present: NativeOrchestrator | NativeActivity | None
    ) -> None:
        if present is not None:
            raise ValueError(
                f"Two {kind} functions are called '{name}': {present.place} and {place}. Names compare without case; "
                "give one of them another name."
            )


class NativeOrchestrations:
    """Runs the registry's orchestrators; an OrchestrationExecutor."""

    def __init__(self, registry: FunctionRegistry) -> None:
        self._registry = registry

    def handles(self, name: str, version: str | None) -> bool:
        """Whether the registry knows the orchestrator."""
        return self._registry.orchestrator(name) is not None

    def names(self) -> Sequence[str]:
        """Known orchestrators."""
        return self._registry.orchestrator_names

    async def execute(self, episode: Episode) -> EpisodeResult:
        """Run one episode on the calling thread; it takes as long as the user's code between two waits."""
        session = episode.session
        if session is None:
            replay = self._begin(episode)
            with function_scope(replay.name):
                return replay.episode(episode.past, episode.new)
        if not isinstance(session, Replay):
            raise TypeError(f"a session of this executor is a Replay, not {session!r}")
        with function_scope(session.name):
            return session.episode((), episode.new)

    def _begin(self, episode: Episode) -> Replay:
        for events in (episode.past, episode.new):
            for event in events:
                if isinstance(event, ExecutionStarted):
                    found = self._registry.orchestrator(event.name)
                    if found is None:
                        raise LookupError(unknown_function(event.name, "orchestrator", self.names()))
                    return Replay(
                        found.function,
                        episode.instance_id,
                        episode.execution_id,
                        keep_histories=found.keeps_histories,
                        name=found.name,
                    )
        raise OrchestratorError(f"the events of instance {episode.instance_id!r} hold no ExecutionStarted")


class NativeActivities:
    """Runs the registry's activities; an ActivityExecutor.

    Coroutine functions run on the loop, all others in threads.

    Args:
        threads: bound of the pool for functions that are not asynchronous; by default that of Azure's Python worker.
            An environment with threads of its own (the simulation) is used instead of a pool.
    """

    def __init__(self, registry: FunctionRegistry, environment: Environment, *, threads: int | None = None) -> None:
        self._registry = registry
        self._environment = environment
        self._pool: ThreadPoolExecutor | None = None
        if isinstance(environment.threads, SystemThreads):
            self._pool = ThreadPoolExecutor(threads or _DEFAULT_THREADS, thread_name_prefix="activity")

    def handles(self, name: str) -> bool:
        """Whether the registry knows the activity."""
        return self._registry.activity(name) is not None

    def names(self) -> Sequence[str]:
        """Known activities."""
        return self._registry.activity_names

    async def execute(self, task: ActivityTask) -> ActivityResult:
        """Run one activity to its end. Cancellation passes through; a thread that runs cannot be stopped."""
        found = self._registry.activity(task.name)
        if found is None:
            raise LookupError(unknown_function(task.name, "activity", self.names()))
        try:
            arguments: tuple[Any, ...] = (decode_payload(task.input, found.input_type),) if found.parameter else ()
        except PayloadError as error:
            return ActivityResult(failure=_unfit(f"The input of activity '{found.name}' does not fit: {error}", error))
        current_activity.set(task)
        try:
            if found.is_async:
                value = await found.function(*arguments)
            else:
                value, failed = await self._in_thread(found.function, arguments)
                if failed is not None:
                    return _failed(failed)
                if inspect.isawaitable(value):  # a plain function that hands back a coroutine
                    value = await value
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            return _failed(error)  # the activity's own doing
        except BaseException as error:
            return _failed(error)
        if value is None:
            return ActivityResult()
        try:
            return ActivityResult(encode_payload(value))
        except PayloadError as error:
            return ActivityResult(
                failure=_unfit(f"The result of activity '{found.name}' cannot be carried: {error}", error)
            )

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(
        self, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[Any, BaseException | None]:
        context = contextvars.copy_context()

        def work() -> tuple[Any, BaseException | None]:
            return context.run(_outcome, function, arguments)

        if self._pool is None:
            return await self._environment.threads.run(work)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    # Exceptions travel as values: a StopIteration set on a future would never reach the one who awaits it.
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


def _failed(error: BaseException) -> ActivityResult:
    if isinstance(error, KeyboardInterrupt):
        raise error
    user_traceback(error)
    return ActivityResult(failure=failure_of(error))


def _unfit(message: str, error: PayloadError) -> Failure:
    # Another attempt gets the same input; but user code made the result, so only inputs could be called hopeless, and
    # a policy that retries them does no harm.
    return failure_of(PayloadError(message, path=error.path), stack=False)


def _plain(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function) and callable(function):
        return type(function).__call__
    return inspect.unwrap(function) if hasattr(function, "__wrapped__") and not _drives(function) else function


def _drives(function: Any) -> bool:
    """Whether a decorated function is itself a coroutine or generator function: then that is what counts."""
    return inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)


def _name(function: Callable[..., Any], name: str | None) -> str:
    chosen = function_name(function) if name is None else name
    if not chosen:
        raise ValueError(f"{function!r} needs a name")
    return chosen


def _place(function: Callable[..., Any]) -> str:
    code = getattr(_plain(function), "__code__", None)
    if isinstance(code, CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}"
    return repr(function)


def _required(function: Callable[..., Any], name: str, kind: str, place: str) -> str | None:
    """The name of the parameter that takes the one argument; None when there is none."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin that does not tell
        return "input"
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    required = [each.name for each in positional if each.default is inspect.Parameter.empty]
    keywords = [
        each.name
        for each in parameters
        if each.kind is inspect.Parameter.KEYWORD_ONLY and each.default is inspect.Parameter.empty
    ]
    if len(required) > 1 or keywords:
        many = ", ".join([*required, *keywords])
        rule = "the context" if kind == "orchestrator" else "its input; pass a dict, a dataclass or a tuple"
        raise TypeError(
            f"{kind.capitalize()} '{name}' ({place}) needs {many}; it can be given only one argument, {rule}."
        )
    if positional:
        return positional[0].name
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters):
        return next(each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL)
    return None


def _input_type(function: Callable[..., Any], parameter: str | None) -> Any:
    return Any if parameter is None else input_type(function, parameter)


def _remember(function: Callable[..., Any], name: str) -> None:
    # Calls by function find the registered name; one that a decorator has set already stays.
    if getattr(function, "__name__", None) != name and getattr(function, NAME_ATTRIBUTE, None) is None:
        try:
            setattr(function, NAME_ATTRIBUTE, name)
        except (AttributeError, TypeError):  # bound methods and builtins take no attributes; call them by name
            return


def _names_histories(code: CodeType) -> bool:
    return "histories" in code.co_names or any(
        isinstance(each, CodeType) and _names_histories(each) for each in code.co_consts
    )
