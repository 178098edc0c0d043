"""Names of functions: calls may name a function by its text or by the function itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["NAME_ATTRIBUTE", "function_name", "unknown_function"]

NAME_ATTRIBUTE = "__durable_name__"
"""Set by decorators on a function whose registered name is not its Python name."""


def function_name(target: str | Callable[..., Any]) -> str:
    """The registered name of a function given by name or as object."""
    if isinstance(target, str):
        return target
    name = getattr(target, NAME_ATTRIBUTE, None) or getattr(target, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"{target!r} is neither a function name nor a function")
    return name


def unknown_function(name: str, kind: str, known: Iterable[str]) -> str:
    """The sentence that reports a function that does not exist.

    Args:
        kind: `activity`, `orchestrator` or `entity`.
        known: names of the functions of this kind.

    Source: http-api.md sections 2, 4 and 5.2.
    """
    names = sorted(known)
    found = (
        f"The following are the known {kind} functions: " + ", ".join(f"'{each}'" for each in names) + "."
        if names
        else f"No {kind} functions are currently registered!"
    )
    return f"The function '{name}' doesn't exist, is disabled, or is not an {kind} function. Additional info: {found}"
