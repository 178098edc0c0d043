"""What a user function's annotations say about its input and its result."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import lru_cache, partial
from typing import Any

__all__ = ["input_type", "result_type"]

_GENERATORS = (Generator, typing.Generator)
_ITERATORS = (Iterator, typing.Iterator, typing.Iterable, AsyncGenerator)
_AWAITABLES = (Awaitable, typing.Awaitable)
_COROUTINES = (Coroutine, typing.Coroutine)


@lru_cache(maxsize=4096)
def result_type(function: Callable[..., Any]) -> Any:
    """The type of what a call of `function` gives in the end; Any where the annotation does not tell.

    Of a generator function it is the type of its return value, of an asynchronous one what awaiting gives.
    """
    found = _hints(function).get("return", Any)
    origin = typing.get_origin(found) or found
    arguments = typing.get_args(found)
    if origin in _GENERATORS or origin in _COROUTINES:
        found = arguments[2] if len(arguments) == 3 else Any
    elif origin in _AWAITABLES:
        found = arguments[0] if arguments else Any
    elif origin in _ITERATORS:
        found = Any
    return Any if found is None or found is type(None) else found


def input_type(function: Callable[..., Any], parameter: str) -> Any:
    """The annotation of a parameter; Any where there is none or it cannot be resolved."""
    return _hints(function).get(parameter, Any)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function
    while isinstance(target, partial):
        target = target.func
    if not (inspect.isfunction(target) or inspect.ismethod(target)) and not isinstance(target, type):
        target = getattr(target, "__call__", target)  # noqa: B004 - the method that carries an object's annotations
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:  # names that exist only for type checkers; a hint must never stop an app
        return {}
