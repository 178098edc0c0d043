"""Binding expressions: `out/{name}.{datetime:yyyyMMdd}` (functions-host.md 7).

`%SETTING%` is resolved when the app is loaded, before a property comes here; `{…}` for each invocation, from binding
data and a few built-ins. A template is parsed once. Unlike the reference, only the exact names are built-ins, so that a
mistyped `{datetimeoffset}` fails instead of yielding the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from durable_host.environment import Environment

__all__ = ["Template", "TemplateError", "parse_binding_template"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
_DATE_DEFAULT = "yyyy-MM-ddTHH-mm-ssK"
_DATE_PART = re.compile(r"'[^']*'|(?P<letter>[A-Za-z])(?P=letter)*|.", re.DOTALL)


class TemplateError(ValueError):
    """A template is wrong, or lacks a value in this invocation."""


@dataclass(frozen=True, slots=True)
class _Expression:
    name: str
    members: tuple[str, ...]
    form: str | None


class Template:
    """A parsed text with expressions."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, parts: Sequence[str | _Expression]) -> None:
        self.text = text
        self._parts = tuple(parts)

    @property
    def is_constant(self) -> bool:
        """Whether it holds no expression."""
        return all(isinstance(part, str) for part in self._parts)

    @property
    def names(self) -> frozenset[str]:
        """Names of the values it needs."""
        return frozenset(part.name for part in self._parts if isinstance(part, _Expression))

    def resolve(self, data: Mapping[str, object], environment: Environment, function: str = "") -> str:
        """The text for one invocation.

        Raises:
            TemplateError: a value is missing, or cannot be text.
        """
        return "".join(
            part if isinstance(part, str) else _evaluate(part, data, environment, function) for part in self._parts
        )

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def parse_binding_template(text: str) -> Template:
    """Parse a property.

    Raises:
        TemplateError: the syntax is wrong; the text says where.
    """
    parts: list[str | _Expression] = []
    literal = ""
    at = 0
    while at < len(text):
        two = text[at : at + 2]
        if two in ("{{", "}}"):
            literal += two[0]
            at += 2
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                raise TemplateError(f"Invalid template '{text}'. Missing closing bracket at position {at}.")
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_expression(text, text[at + 1 : end], at))
            at = end + 1
        elif text[at] == "}":
            raise TemplateError(f"Invalid template '{text}'. Missing opening bracket at position {at}.")
        else:
            literal += text[at]
            at += 1
    if literal:
        parts.append(literal)
    return Template(text, parts)


def _expression(template: str, text: str, at: int) -> _Expression:
    path, colon, form = text.partition(":")
    if not path.strip():
        raise TemplateError(f"Invalid template '{template}'. The parameter name at position {at + 1} is empty.")
    if path == "rand-guid":
        return _Expression("rand-guid", (), form if colon else None)
    name, *members = path.split(".")
    if not _NAME.match(name) or not all(_MEMBER.match(member) for member in members):
        raise TemplateError(f"Invalid template '{template}'. The parameter name '{path}' is invalid.")
    expression = _Expression(name, tuple(members), form if colon else None)
    if expression.form is not None:
        _date(datetime(2000, 1, 1, tzinfo=UTC), expression.form, strict=_is_date(expression))
    return expression


def _is_date(expression: _Expression) -> bool:
    return expression.name.lower() == "datetime" or (
        expression.name.lower() == "sys" and expression.members[:1] == ("utcnow",)
    )


def _evaluate(expression: _Expression, data: Mapping[str, object], environment: Environment, function: str) -> str:
    found, value = _lookup(data, expression.name)
    if not found:
        value = _built_in(expression, environment, function)
        return _text(expression, value)
    for member in expression.members:
        if isinstance(value, Mapping):
            there, value = _lookup(cast("Mapping[str, object]", value), member)
        else:
            name = next((each for each in dir(value) if each.lower() == member.lower()), None)
            there, value = (False, None) if name is None else (True, getattr(value, name))
        if not there:
            raise TemplateError(f"Error while accessing '{member}': property doesn't exist.")
    return _text(expression, value)


def _lookup(data: Mapping[str, object], name: str) -> tuple[bool, object]:
    if name in data:
        return True, data[name]
    folded = name.lower()
    for key in data:
        if key.lower() == folded:
            return True, data[key]
    return False, None


def _built_in(expression: _Expression, environment: Environment, function: str) -> object:
    name = expression.name.lower()
    key = ".".join((name, *(member.lower() for member in expression.members)))
    match key:
        case "sys.utcnow" | "datetime":
            return environment.clock.now()
        case "sys.randguid" | "rand-guid":
            return UUID(environment.ids.new_id())
        case "sys.methodname":
            return function
        case _:
            if name == "sys" and expression.members:
                raise TemplateError(f"Error while accessing '{expression.members[0]}': property doesn't exist.")
            raise TemplateError(f"No value for named parameter '{expression.name}'.")


def _text(expression: _Expression, value: object) -> str:
    match value:
        case str():
            return value
        case datetime():
            return _date(value.astimezone(UTC), expression.form or _DATE_DEFAULT)
        case UUID():
            return _guid(value, expression.form or "D")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            raise TemplateError(
                f"The value of '{expression.name}' is {type(value).__name__}; only texts, numbers, dates and ids can "
                "be part of a binding expression."
            )


def _guid(value: UUID, form: str) -> str:
    forms = {"D": str(value), "N": value.hex, "B": f"{{{value}}}", "P": f"({value})"}
    if form.upper() not in forms:
        raise TemplateError(f"'{form}' is not a format of an id; use D, N, B or P.")
    return forms[form.upper()]


def _date(value: datetime, form: str, *, strict: bool = True) -> str:
    parts: list[str] = []
    values = {
        "yyyy": f"{value.year:04d}",
        "MM": f"{value.month:02d}",
        "dd": f"{value.day:02d}",
        "HH": f"{value.hour:02d}",
        "mm": f"{value.minute:02d}",
        "ss": f"{value.second:02d}",
        "fff": f"{value.microsecond // 1000:03d}",
        "K": "Z",
    }
    for found in _DATE_PART.finditer(form):
        token = found.group()
        if token in values:
            parts.append(values[token])
        elif token[0] == "'":
            parts.append(token[1:-1])
        elif not token[0].isalpha() or token == "T":
            parts.append(token)
        elif strict:
            raise TemplateError(f"'{form}' is not a supported date format: {token!r} is unknown.")
    return "".join(parts)
