"""OData filters of the table service, evaluated over rows in memory.

What the provider asks for and no more: comparisons of a column with a literal, `and`, `or`, `not`, parentheses. A
column that a row lacks makes every comparison false, as the service does it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from durable_host_providers.azure_storage.ports import (
    EdmDateTime,
    EdmGuid,
    EdmInt64,
    RequestRefusedError,
    Value,
    Values,
)

__all__ = ["Predicate", "parse_filter", "sort_key", "ticks"]

Predicate = Callable[[Values], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<typed>(?:datetime|guid|X|binary)'(?:[^']|'')*')|(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>-?\d+(?:\.\d+)?L?)|(?P<word>[^\W\d]\w*))"
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def parse_filter(text: str) -> Predicate:
    """The filter as a function of a row; empty text matches every row.

    Raises:
        RequestRefusedError: the service would not understand it.
    """
    if not text.strip():
        return lambda row: True
    parser = _Parser(text)
    predicate = parser.disjunction()
    parser.expect_end()
    return predicate


def sort_key(text: str) -> bytes:
    """Keys are ordered by UTF-16 code units."""
    return text.encode("utf-16-be", "surrogatepass")


def ticks(text: str) -> str:
    """A date in a form that compares as text: seven digits of a second, no zone."""
    body, _, fraction = text.rstrip("Z").partition(".")
    return f"{body}.{fraction:0<7}"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._error()
            self._tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        self._at = 0

    def _error(self) -> RequestRefusedError:
        return RequestRefusedError(f"the filter {self._text!r} is not valid", status=400, code="InvalidInput")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def expect_end(self) -> None:
        if self._peek()[0] != "end":
            raise self._error()

    def disjunction(self) -> Predicate:
        parts = [self.conjunction()]
        while self._peek() == ("word", "or"):
            self._next()
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def conjunction(self) -> Predicate:
        parts = [self.term()]
        while self._peek() == ("word", "and"):
            self._next()
            parts.append(self.term())
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def term(self) -> Predicate:
        kind, text = self._next()
        if kind == "open":
            inner = self.disjunction()
            if self._next()[0] != "close":
                raise self._error()
            return inner
        if (kind, text) == ("word", "not"):
            negated = self.term()
            return lambda row: not negated(row)
        if kind != "word":
            raise self._error()
        compare = _COMPARISONS.get(self._next()[1])
        if compare is None:
            raise self._error()
        literal = self._literal()
        wanted = _comparable(literal)

        def matches(row: Values) -> bool:
            value = row.get(text)
            if value is None:
                return False
            found = _comparable(value)
            if found[0] != wanted[0]:
                return False
            return compare(found[1], wanted[1])

        return matches

    def _literal(self) -> Value:
        kind, text = self._next()
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "typed":
            name, _, body = text.partition("'")
            body = body[:-1].replace("''", "'")
            return EdmDateTime(body) if name == "datetime" else EdmGuid(body)
        if kind == "number":
            if text.endswith("L"):
                return EdmInt64(text[:-1])
            return float(text) if "." in text else int(text)
        if kind == "word" and text in {"true", "false"}:
            return text == "true"
        raise self._error()


def _comparable(value: Value) -> tuple[str, object]:
    """Kind and a form in which values of that kind compare as the service compares them."""
    if isinstance(value, EdmDateTime):
        return "datetime", ticks(value)
    if isinstance(value, EdmGuid):
        return "guid", value.lower()
    if isinstance(value, str):
        return "text", sort_key(value)
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, bytes):
        return "binary", value
    return "number", value
