"""A configuration tree: host.json with the environment laid over it, keys compared without case.

Every leaf can be replaced by `AzureFunctionsJobHost__a__b=value`, so values may be texts where the file has numbers;
the typed getters take both. A getter that cannot use a value notes a problem and returns the default, so that one
reading finds everything that is wrong.

Source: functions-host.md 1.1, 1.11, 1.14.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from durable_host.config.jsonc import Json
from durable_host.config.spans import parse_span, span_hint

__all__ = ["OVERRIDE_PREFIX", "Node", "Report", "overlay"]

OVERRIDE_PREFIX = "AzureFunctionsJobHost"


_SPELLINGS = {
    "object": "an object: {…}",
    "System.Boolean": "true or false",
    "System.Double": "a number",
    "System.Int32": "a whole number",
    "System.String": "a text",
    "System.String[]": "a list of texts",
    "System.TimeSpan": "hours, minutes and seconds, such as '00:05:00'",
}
"""What to write instead of a value that is not of a type; the types are called as the Azure host calls them."""


class Report:
    """Problems and warnings found while reading, in order; the same sentence is kept once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.overrides: dict[str, str] = {}  # lower-case dotted path → environment variable

    def problem(self, path: str, value: object, text: str) -> None:
        """A value that cannot be used."""
        sentence = f"{self._where(path)} is {_shown(value)}: {text}"
        if sentence not in self.problems:
            self.problems.append(sentence)

    def warn(self, path: str, text: str) -> None:
        """A value that is not used, or not as one may think."""
        sentence = f"{self._where(path)} {text}"
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def named_by(self, path: str) -> str:
        """The environment variable that set a value, else the file."""
        return self.overrides.get(path.lower(), self.source)

    def _where(self, path: str) -> str:
        variable = self.overrides.get(path.lower())
        return f"{variable} ({path})" if variable else f"{self.source}: {path}"


class Node:
    """An object of the tree. Children are looked up without case; `used` collects what was looked at."""

    def __init__(self, path: str, values: Mapping[str, Json], report: Report) -> None:
        self.path = path
        self.report = report
        self._values = {key.lower(): (key, value) for key, value in values.items()}

    def __contains__(self, key: str) -> bool:
        return key.lower() in self._values

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        return iter(self._values.values())

    def raw(self, key: str) -> Json:
        """The value as it stands, None when absent."""
        return self._values.get(key.lower(), (key, None))[1]

    def at(self, key: str) -> str:
        """The dotted path of a child."""
        return f"{self.path}.{key}" if self.path else key

    def node(self, key: str) -> Node:
        """A child object; absent or null: an empty one."""
        value = self.raw(key)
        if value is not None and not isinstance(value, dict):
            self._not_convertible(key, value, "object")
            value = None
        return Node(self.at(key), value or {}, self.report)

    def text(self, key: str, default: str) -> str:
        """A string; numbers and booleans are taken as their text."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, (dict, list)):
            self._not_convertible(key, value, "System.String")
            return default
        return _text(value)

    def flag(self, key: str, default: bool) -> bool:
        """A boolean, or the texts `true` and `false` in any case."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        self._not_convertible(key, value, "System.Boolean")
        return default

    def integer(
        self, key: str, default: int, low: int = -(2**31), high: int = 2**31 - 1, *, message: str | None = None
    ) -> int:
        """A whole number within bounds, or its text; `message` replaces the sentence for one out of bounds."""
        value = self.raw(key)
        if value is None:
            return default
        number: int | None = None
        if isinstance(value, str):
            try:
                number = int(value.strip())
            except ValueError:
                number = None
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        if number is None:
            self._not_convertible(key, value, "System.Int32")
            return default
        if not low <= number <= high:
            self.report.problem(self.at(key), value, message or f"{self.at(key)} must be between {low} and {high}.")
            return default
        return number

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A finite number within bounds, or its text."""
        value = self.raw(key)
        if value is None:
            return default
        try:
            number = math.nan if isinstance(value, (bool, dict, list)) else float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._not_convertible(key, value, "System.Double")
            return default
        if not low <= number <= high:
            self.report.problem(self.at(key), value, f"{self.at(key)} must be between {low:g} and {high:g}.")
            return default
        return number

    def span(
        self, key: str, default: timedelta, low: timedelta | None = None, high: timedelta | None = None
    ) -> timedelta:
        """A time span; a number is one of days, as its text would be."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, (bool, dict, list)):
            self._not_convertible(key, value, "System.TimeSpan")
            return default
        try:
            span = parse_span(_text(value))
        except ValueError:
            self._not_convertible(key, value, "System.TimeSpan")
            return default
        if (low is not None and span < low) or (high is not None and span > high):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            self.report.problem(self.at(key), value, f"{self.at(key)} must be {bounds}.")
            return default
        hint = span_hint(_text(value))
        if hint is not None:
            self.report.warn(self.at(key), f"is {_shown(value)}: {hint}.")
        return span

    def choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        """One of some names, compared without case, returned as spelled in `allowed`."""
        value = self.raw(key)
        if value is None:
            return default
        for each in allowed:
            if isinstance(value, str) and each.lower() == value.strip().lower():
                return each
        self.report.problem(self.at(key), value, f"{self.at(key)} must be one of {', '.join(allowed)}.")
        return default

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None when absent. A single text counts as a list of one."""
        value = self.raw(key)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        if any(isinstance(each, (dict, list)) or each is None for each in items):
            self._not_convertible(key, value, "System.String[]")
            return None
        return tuple(_text(each) for each in items if isinstance(each, (str, int, float)))

    def _not_convertible(self, key: str, value: Json, kind: str) -> None:
        path = self.at(key)
        colons = path.replace(".", ":")
        self.report.problem(
            path,
            value,
            f"Failed to convert configuration value at '{OVERRIDE_PREFIX}:{colons}' to type '{kind}'. "
            f"Write {_SPELLINGS[kind]}.",
        )


def overlay(document: Mapping[str, Json], environ: Mapping[str, str], report: Report) -> dict[str, Json]:
    """The document with `AzureFunctionsJobHost__a__b` laid over it; names the variables used in the report.

    Leaves are replaced one by one; element 0 of a list leaves elements 1… in place. The document is not changed.
    """
    tree = _copied(document)
    prefix = OVERRIDE_PREFIX.lower()
    for variable in sorted(environ):
        head, separator, rest = variable.replace("__", ":").partition(":")
        if head.lower() != prefix or not separator or not rest:
            continue
        steps = rest.split(":")
        taken = _put(tree, steps, environ[variable])
        report.overrides[".".join(taken).lower()] = variable
    return tree


def _copied(value: Mapping[str, Json]) -> dict[str, Json]:
    copy: dict[str, Json] = {}
    for key, each in value.items():
        copy[key] = _copied(each) if isinstance(each, dict) else each
    return copy


def _put(tree: dict[str, Json], steps: list[str], value: str) -> list[str]:
    taken: list[str] = []
    at: dict[str, Json] = tree
    for index, step in enumerate(steps):
        key = next((each for each in at if each.lower() == step.lower()), step)
        taken.append(key)
        below = at.get(key)
        rest = steps[index + 1 :]
        if not rest:
            at[key] = value
            break
        if rest[0].isdigit() and len(rest) == 1 and not isinstance(below, dict):
            items = list(below) if isinstance(below, list) else []
            position = int(rest[0])
            items[position : position + 1] = [value]  # beyond the end: appended
            at[key] = items
            taken.append(rest[0])
            break
        if not isinstance(below, dict):
            below = {}
            at[key] = below
        at = below
    return taken


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _shown(value: object) -> str:
    shown = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
    return shown if len(shown) <= 200 else shown[:200] + "…"
