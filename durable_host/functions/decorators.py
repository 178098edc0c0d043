"""The decorators of FunctionApp and Blueprint, made from one table of binding types.

A row of `TABLE` says which bindings a decorator declares and where its arguments go; the methods are generated from it.
What type checkers and editors see stands under `TYPE_CHECKING` in `DecoratorApi`; a test keeps the two in step. A new
binding type of ours is one row and one stub; a third party's needs neither, `generic_trigger` and its kin serve any.

Decorators return the user's own function. What they declare is kept in a `FunctionBuilder` beside it, so their order
does not matter, and a wrapper put between two of them (with `functools.wraps`) is understood as the same function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from durable_host.bindings.contract import RETURN, Direction
from durable_host.bindings.http_types import AuthLevel
from durable_host.functions.descriptor import Declaration, FunctionBuilder
from durable_host.functions.retry_policy import parse_retry

__all__ = ["TABLE", "BindingSpec", "DecoratorApi", "DecoratorSpec"]

F = TypeVar("F", bound=Callable[..., Any])

_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class BindingSpec:
    """A binding that a decorator declares.

    Attributes:
        type: its type; empty: the decorator's argument `type`.
        name: the argument that names the function's parameter.
        properties: property of the binding by argument.
        extra: the argument that holds further properties.
    """

    type: str
    direction: Direction
    name: str
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class DecoratorSpec:
    """A row of the table: the decorator's arguments with their defaults, and what it declares."""

    arguments: Mapping[str, object]
    bindings: tuple[BindingSpec, ...]
    doc: str
    further: bool = False  # takes any other keyword, in snake case, as property


_GENERIC = {"arg_name": _REQUIRED, "type": _REQUIRED, "data_type": None}
_DATA_TYPE = {"data_type": "dataType"}

TABLE: Mapping[str, DecoratorSpec] = {
    "route": DecoratorSpec(
        {
            "route": None,
            "trigger_arg_name": "req",
            "binding_arg_name": RETURN,
            "methods": None,
            "auth_level": None,
            "trigger_extra_fields": None,
            "binding_extra_fields": None,
        },
        (
            BindingSpec(
                "httpTrigger",
                "in",
                "trigger_arg_name",
                {"methods": "methods", "auth_level": "authLevel", "route": "route"},
                "trigger_extra_fields",
            ),
            BindingSpec("http", "out", "binding_arg_name", extra="binding_extra_fields"),
        ),
        "Run the function for HTTP requests that match a route.",
    ),
    "orchestration_trigger": DecoratorSpec(
        {"context_name": _REQUIRED, "orchestration": None, "input_type": None},
        (BindingSpec("orchestrationTrigger", "in", "context_name", {"orchestration": "orchestration"}),),
        "Make the function an orchestrator.",
    ),
    "activity_trigger": DecoratorSpec(
        {"input_name": _REQUIRED, "activity": None},
        (BindingSpec("activityTrigger", "in", "input_name", {"activity": "activity"}),),
        "Make the function an activity.",
    ),
    "durable_client_input": DecoratorSpec(
        {"client_name": _REQUIRED, "task_hub": None, "connection_name": None},
        (
            BindingSpec(
                "durableClient", "in", "client_name", {"task_hub": "taskHub", "connection_name": "connectionName"}
            ),
        ),
        "Give the function a DurableOrchestrationClient.",
    ),
    "generic_trigger": DecoratorSpec(
        _GENERIC, (BindingSpec("", "in", "arg_name", _DATA_TYPE),), "Run the function by a trigger of any type.", True
    ),
    "generic_input_binding": DecoratorSpec(
        _GENERIC, (BindingSpec("", "in", "arg_name", _DATA_TYPE),), "Give the function an input of any type.", True
    ),
    "generic_output_binding": DecoratorSpec(
        _GENERIC, (BindingSpec("", "out", "arg_name", _DATA_TYPE),), "Give the function an output of any type.", True
    ),
}
"""All decorators that declare bindings."""


class DecoratorApi:
    """What FunctionApp and Blueprint have in common: the decorators and the functions they saw."""

    def __init__(self) -> None:
        self._builders: list[FunctionBuilder] = []

    def function_name(self, name: str) -> Callable[[F], F]:
        """Name the function; otherwise its Python name is taken."""
        _refuse_bare("function_name", name)

        def declare(builder: FunctionBuilder) -> None:
            builder.own_name = name

        return self._decorator(declare)

    def retry(
        self,
        strategy: str,
        max_retry_count: str | int,
        delay_interval: str | None = None,
        minimum_interval: str | None = None,
        maximum_interval: str | None = None,
        setting_extra_fields: Mapping[str, Any] | None = None,
    ) -> Callable[[F], F]:
        """Repeat a failed invocation, for triggers that support it; durable functions use RetryOptions instead.

        Args:
            strategy: `fixed_delay` or `exponential_backoff`.
            max_retry_count: -1 for no limit.
            delay_interval: of `fixed_delay`, `HH:MM:SS`; the other two are bounds of `exponential_backoff`.
        """

        def declare(builder: FunctionBuilder) -> None:
            try:
                builder.retry = parse_retry(
                    strategy, max_retry_count, delay_interval, minimum_interval, maximum_interval
                )
            except ValueError as error:
                builder.problems.append(f"the retry policy cannot be used: {error}")

        return self._decorator(declare)

    if TYPE_CHECKING:

        def route(
            self,
            route: str | None = None,
            trigger_arg_name: str = "req",
            binding_arg_name: str = "$return",
            methods: Iterable[str | Enum] | None = None,
            auth_level: AuthLevel | str | None = None,
            trigger_extra_fields: Mapping[str, Any] | None = None,
            binding_extra_fields: Mapping[str, Any] | None = None,
        ) -> Callable[[F], F]:
            """Run the function for HTTP requests that match a route.

            Args:
                route: template below the prefix of host.json, such as `orders/{id:int}`; the function's name if None.
                trigger_arg_name: parameter for the HttpRequest.
                binding_arg_name: parameter for an `Out[HttpResponse]`; `$return`: the return value.
                methods: all if None.
                auth_level: which key is demanded; that of the app if None.
            """
            ...

        def orchestration_trigger(
            self, context_name: str, orchestration: str | None = None, input_type: type | None = None
        ) -> Callable[[F], F]:
            """Make the function an orchestrator.

            Args:
                context_name: parameter for the DurableOrchestrationContext.
                orchestration: name of the orchestrator; the function's name if None.
                input_type: what `get_input()` decodes the input as.
            """
            ...

        def activity_trigger(self, input_name: str, activity: str | None = None) -> Callable[[F], F]:
            """Make the function an activity.

            Args:
                input_name: parameter for the input; its annotation says what the JSON is decoded as.
                activity: name of the activity; the function's name if None.
            """
            ...

        def durable_client_input(
            self, client_name: str, task_hub: str | None = None, connection_name: str | None = None
        ) -> Callable[[F], F]:
            """Give the function a DurableOrchestrationClient.

            Args:
                client_name: parameter for it.
                task_hub: another hub than the app's; `%NAME%` is replaced by that setting.
                connection_name: another storage connection.
            """
            ...

        def generic_trigger(
            self, arg_name: str, type: str, data_type: str | Enum | None = None, **kwargs: Any
        ) -> Callable[[F], F]:
            """Run the function by a trigger of any type that a binding provider serves."""
            ...

        def generic_input_binding(
            self, arg_name: str, type: str, data_type: str | Enum | None = None, **kwargs: Any
        ) -> Callable[[F], F]:
            """Give the function an input of any type that a binding provider serves."""
            ...

        def generic_output_binding(
            self, arg_name: str, type: str, data_type: str | Enum | None = None, **kwargs: Any
        ) -> Callable[[F], F]:
            """Give the function an output of any type that a binding provider serves."""
            ...

    def _decorator(self, declare: Callable[[FunctionBuilder], None]) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            if not callable(function) or isinstance(function, type):
                raise TypeError(
                    f"Unsupported type for function app decorator found: {function!r}. Decorate a function."
                )
            builder = self._builder(function)
            declare(builder)
            builder.mark()
            return function

        return decorate

    def _builder(self, function: Callable[..., Any]) -> FunctionBuilder:
        inner: object = function
        while inner is not None:
            for builder in self._builders:
                if builder.target is inner:
                    builder.target = function
                    return builder
            inner = getattr(inner, "__wrapped__", None)
        builder = FunctionBuilder(function)
        self._builders.append(builder)
        return builder


def _generate(name: str, spec: DecoratorSpec) -> Callable[..., Any]:
    kinds = inspect.Parameter
    parameters = [kinds("self", kinds.POSITIONAL_OR_KEYWORD)]
    parameters += [kinds(each, kinds.POSITIONAL_OR_KEYWORD, default=spec.arguments[each]) for each in spec.arguments]
    if spec.further:
        parameters.append(kinds("kwargs", kinds.VAR_KEYWORD))
    signature = inspect.Signature(parameters)

    def method(*args: Any, **kwargs: Any) -> Callable[[F], F]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        api: DecoratorApi = given.pop("self")
        if len(args) == 2 and not kwargs:
            _refuse_bare(name, args[1])

        def declare(builder: FunctionBuilder) -> None:
            for binding in spec.bindings:
                builder.bindings.append(_declaration(binding, given))
            builder.input_type = given.get("input_type", builder.input_type)

        return api._decorator(declare)  # pyright: ignore[reportPrivateUsage]

    method.__name__ = name
    method.__qualname__ = f"DecoratorApi.{name}"
    method.__doc__ = spec.doc
    method.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature and help() show
    return method


def _refuse_bare(decorator: str, first: object) -> None:
    """A decorator without parentheses is given the function itself, and would lose it without a word."""
    if inspect.isroutine(first):
        raise TypeError(
            f"@app.{decorator} needs parentheses: write @app.{decorator}(…) above function {first.__name__!r}."
        )


def _declaration(binding: BindingSpec, given: Mapping[str, Any]) -> Declaration:
    properties: dict[str, object] = {}
    for argument, name in binding.properties.items():
        if given[argument] is not None:
            properties[name] = _plain(given[argument], upper=argument in ("auth_level", "methods", "data_type"))
    extra: Mapping[str, object] = given.get(binding.extra or "kwargs") or {}
    properties |= {_camel(name): _plain(value) for name, value in extra.items()}
    return Declaration(str(given[binding.name]), binding.type or str(given["type"]), binding.direction, properties)


def _plain(value: object, *, upper: bool = False) -> object:
    """Enumerations as upper-case texts, iterables as lists: what JSON shows."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return value.upper() if upper else value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, upper=upper) for each in cast("Iterable[object]", value)]
    return value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each[:1].upper() + each[1:] for each in others)


for _name, _spec in TABLE.items():
    setattr(DecoratorApi, _name, _generate(_name, _spec))
