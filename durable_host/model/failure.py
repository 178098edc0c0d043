"""A failure as a value: what went wrong, kept through activity, orchestrator, parent and client."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import msgspec

__all__ = ["Failure", "error_text", "failure_of", "failure_types", "matches", "storable", "type_name"]

_MAX_CAUSES = 16
_MAX_STACK = 16_000


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Type, message, stack and cause of one failure. The stored form is that of FailureDetails.

    Attributes:
        type: name of the exception's class; `module.QualName` unless it is a builtin.
        message: the exception's text.
        stack: the formatted traceback, or None.
        cause: the failure behind this one (`raise … from …`, or the exception that was being handled).
        non_retriable: no retry policy may try again.
        properties: further facts, JSON values.
    """

    type: str
    message: str
    stack: str | None = None
    cause: Failure | None = None
    non_retriable: bool = False
    properties: dict[str, Any] | None = None

    @property
    def short_type(self) -> str:
        """The class name without its module."""
        return self.type.rsplit(".", 1)[-1]

    def chain(self) -> tuple[Failure, ...]:
        """This failure and its causes, outermost first."""
        found: list[Failure] = []
        current: Failure | None = self
        while current is not None:
            found.append(current)
            current = current.cause
        return tuple(found)


def type_name(cls: type[BaseException]) -> str:
    """The name under which an exception class is recorded."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def failure_of(error: BaseException, *, stack: bool = True) -> Failure:
    """Describe an exception and its causes. A `failure` that the exception already carries becomes its cause."""
    return _describe(error, stack, _MAX_CAUSES, set())


def _describe(error: BaseException, stack: bool, depth: int, seen: set[int]) -> Failure:
    seen.add(id(error))
    cause: Failure | None = None
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    carried = getattr(error, "failure", None)
    if isinstance(carried, Failure):
        cause = carried
    elif behind is not None and depth > 0 and id(behind) not in seen:
        cause = _describe(behind, stack, depth - 1, seen)
    text: str | None = None
    if stack:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))[-_MAX_STACK:]
        text = storable(text)
    return Failure(type=storable(type_name(type(error))), message=error_text(error), stack=text, cause=cause)


def error_text(error: BaseException) -> str:
    """`str(error)`, whatever the class makes of it, as a text that can be stored."""
    try:
        return storable(str(error))
    except Exception as broken:  # a user's __str__ may fail; the failure itself must not be lost
        return f"<no text: {type(broken).__name__} in __str__>"


def storable(text: str) -> str:
    """The text with lone surrogates escaped, as the names of undecodable files bring them: no store takes those."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def failure_types(failure: Failure) -> frozenset[str]:
    """All names under which a retry filter may name this failure: full and short, of it and its base classes.

    Base classes are known only where the class is importable from a module that is already loaded; nothing is imported.
    """
    names = {failure.type, failure.short_type}
    module, _, qualname = failure.type.rpartition(".")
    found: object = sys.modules.get(module or "builtins")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        for base in found.__mro__[:-1]:
            names.add(type_name(base))
            names.add(base.__name__)
    return frozenset(names)


def matches(failure: Failure, cls: type[BaseException]) -> bool:
    """Whether the failure was an instance of `cls`, judged by recorded names."""
    return type_name(cls) in failure_types(failure)
