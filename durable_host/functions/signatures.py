"""Checks of one declared function: its name, its bindings, and its parameters against its bindings.

Each check yields sentences; the indexer collects them all and adds file and line. Source: functions-host.md 2.3, 2.4.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_origin

from durable_host.bindings.contract import RETURN
from durable_host.functions.descriptor import Declaration, FunctionBuilder
from durable_host.functions.values import Context, Out

__all__ = ["annotations_of", "check_function", "takes_context"]

_FUNCTION_NAME = re.compile(r"[a-z][a-z0-9_\-]{0,127}\Z", re.IGNORECASE)
_BINDING_NAME = re.compile(r"([a-zA-Z][a-zA-Z0-9]{0,127}|\$return)\Z")
_ALONE = ("orchestrationtrigger",)
_WITH_RESULT = (*_ALONE, "activitytrigger", "httptrigger")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_function(builder: FunctionBuilder) -> Iterator[str]:
    """Everything wrong with a function, each as a sentence without file and line."""
    yield from builder.problems
    if not _FUNCTION_NAME.match(builder.name) or builder.name.lower() == "host":
        yield (
            f"'{builder.name}' is not a valid function name. Use letters, digits, '_' and '-', a letter first, "
            "at most 128 characters, and not 'host'."
        )
    yield from _check_bindings(builder)
    yield from _check_parameters(builder)
    yield from _check_yields(builder)


def _check_bindings(builder: FunctionBuilder) -> Iterator[str]:
    triggers = [each for each in builder.bindings if each.is_trigger]
    if not triggers:
        yield (
            "No trigger binding specified. A function must have a trigger input binding; add one of "
            "@app.route, @app.orchestration_trigger, @app.activity_trigger or @app.generic_trigger."
        )
    elif len(triggers) > 1:
        listed = ", ".join(f"{each.type} '{each.name}'" for each in triggers)
        yield f"Multiple trigger bindings defined. A function can only have a single trigger binding: {listed}."
    for each in builder.bindings:
        if not _BINDING_NAME.match(each.name):
            yield (
                f"The binding name {each.name} is invalid. Please assign a valid name to the binding: letters and "
                "digits, a letter first. Rename the parameter."
            )
        if not each.type:
            yield f"Binding '{each.name}' is invalid. Bindings must specify a Type."
        if each.name == RETURN and each.direction != "out":
            yield "$return bindings must specify a direction of 'out'."
    for name, times in Counter(each.name for each in builder.bindings).items():
        if times > 1 and len(triggers) < 2:
            yield f"Multiple bindings with name '{name}' discovered. Binding names must be unique."
    alone = next((each for each in triggers if each.type.lower() in _ALONE), None)
    if alone is not None and len(triggers) == 1 and len(builder.bindings) > 1:
        others = ", ".join(f"{each.type} '{each.name}'" for each in builder.bindings if each is not alone)
        yield (
            f"An orchestrator can have no bindings beside its trigger, but {others} is declared: inputs and outputs "
            "are not deterministic. Use them in an activity."
        )


def _check_parameters(builder: FunctionBuilder) -> Iterator[str]:
    try:
        signature = inspect.signature(builder.target)
    except (TypeError, ValueError):
        yield f"The parameters of {builder.target!r} cannot be read; decorate a plain function."
        return
    parameters = {name: each for name, each in signature.parameters.items() if each.kind in _BY_NAME}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    positional = [name for name, each in signature.parameters.items() if each.kind is inspect.Parameter.POSITIONAL_ONLY]
    if positional:
        yield f"Parameters are passed by name, but {', '.join(map(repr, positional))} can be passed by position only."
    bound = {each.name: each for each in builder.bindings if each.name != RETURN}
    orchestrator = any(each.type.lower() in _ALONE for each in builder.bindings)
    missing = [name for name in bound if name not in parameters and name not in positional]
    if missing and not takes_any:
        have = ", ".join(map(repr, parameters)) or "none"
        for name in missing:
            yield (
                f"The binding '{name}' ({bound[name].type}) has no parameter of that name; the function's parameters "
                f"are: {have}. Rename one of the two."
            )
    for name in parameters:
        if name in bound or (name == "context" and not orchestrator):
            continue
        names = ", ".join(map(repr, bound)) or "none"
        yield (
            f"The parameter '{name}' has no binding; the function's bindings are: {names}. Add a decorator for it or "
            "remove it."
        )
    yield from _check_annotations(builder.target, parameters, bound)


def _check_yields(builder: FunctionBuilder) -> Iterator[str]:
    kind = next((each.type.lower() for each in builder.bindings if each.is_trigger), "")
    if kind not in _WITH_RESULT:
        return
    if inspect.isasyncgenfunction(builder.target):
        yield "It is an `async def` with `yield`, which has no result. In an `async def` write `await` instead."
    elif inspect.isgeneratorfunction(builder.target) and kind not in _ALONE:
        yield "It contains `yield`, so calling it only makes a generator. Only orchestrators yield; return the result."


def _check_annotations(
    target: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], bound: Mapping[str, Declaration]
) -> Iterator[str]:
    hints = annotations_of(target)
    for name in parameters:
        annotation = hints.get(name)
        if annotation is None or isinstance(annotation, str):
            continue
        is_out = annotation is Out or get_origin(annotation) is Out
        binding = bound.get(name)
        if binding is None:
            if name == "context" and annotation not in (Context, Any, object):
                yield (
                    f'The "context" parameter is expected to be of type durable_host.Context, got {annotation!r}. '
                    "A parameter of this name that has no binding is the invocation's context."
                )
        elif binding.direction == "out" and not is_out and annotation not in (Any, object):
            yield f"The binding '{name}' is an output; annotate its parameter as Out[...], not {annotation!r}."
        elif binding.direction == "in" and is_out:
            yield f"The binding '{name}' is an input, but its parameter is annotated as Out."


def takes_context(builder: FunctionBuilder) -> bool:
    """Whether the function has a parameter `context` that no binding claims."""
    if any(each.name == "context" for each in builder.bindings):
        return False
    parameter = inspect.signature(builder.target).parameters.get("context")
    return parameter is not None and parameter.kind in _BY_NAME


def annotations_of(target: Callable[..., Any]) -> dict[str, object]:
    """Annotations by parameter, `return` included; a name that cannot be resolved leaves that annotation as text."""
    function = inspect.unwrap(target)
    try:
        return dict(typing.get_type_hints(function, include_extras=True))
    except Exception:  # a name that exists only for type checkers; the others are resolved one by one
        pass
    found: dict[str, object] = {}
    names = getattr(function, "__globals__", None) or vars(sys.modules.get(function.__module__, typing))
    for name, annotation in getattr(function, "__annotations__", {}).items():
        found[name] = annotation
        if isinstance(annotation, str):
            holder = type("_", (), {"__annotations__": {name: annotation}})
            try:
                found[name] = typing.get_type_hints(holder, globalns=names, include_extras=True)[name]
            except Exception:  # stays text: an annotation that only a type checker understands is not an error
                continue
    return found
