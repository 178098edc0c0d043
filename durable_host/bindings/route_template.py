"""Route templates: parsing, constraints and matching of one path (functions-host.md 3.1).

A template is a list of segments. A segment is a literal, one parameter, a catch-all, or *complex*: several parameters
with literals between them, kept as a regular expression. Paths are split before they are decoded, so that an escaped
slash stays inside its value. Constraints only filter; values stay texts.

Source: the syntax and its errors follow RoutePatternParser of ASP.NET Core, on which the reference builds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import unquote

from durable_host.bindings.route_constraints import Check, make_constraint

__all__ = ["RouteParameter", "RouteTemplate", "RouteTemplateError", "parse_template", "split_path"]

_NAME = re.compile(r"[^/{}*?:=]+\Z")
_CONSTRAINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RouteTemplateError(ValueError):
    """A route template that cannot be used; the text names the template and what is wrong."""

    def __init__(self, template: str, problem: str) -> None:
        self.template = template
        self.problem = problem
        super().__init__(f"Route template {template!r}: {problem}.")


@dataclass(frozen=True, slots=True)
class RouteParameter:
    """One parameter of a template.

    Attributes:
        default: value when the path has none.
        optional: may be missing; then the route values hold None.
        catch_all: takes the rest of the path, slashes included; may be empty.
        constraints: as written, `name` or `name(argument)`.
    """

    name: str
    default: str | None = None
    optional: bool = False
    catch_all: bool = False
    constraints: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def may_be_missing(self) -> bool:
        """Whether a path without this parameter matches."""
        return self.optional or self.catch_all or self.default is not None

    def accepts(self, value: str) -> bool:
        """Whether every constraint holds."""
        return all(check(value) for check in self.checks)


_Part = str | RouteParameter
_Complex = tuple[tuple[re.Pattern[str], tuple[RouteParameter, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    parts: tuple[_Part, ...]
    literal: str | None = None  # lower case
    parameter: RouteParameter | None = None
    complex: _Complex = ()

    def match(self, text: str, values: dict[str, str | None]) -> bool:
        if self.literal is not None:
            return text.lower() == self.literal
        if self.parameter is not None:
            if not text or not self.parameter.accepts(text):
                return False
            values[self.parameter.name] = text
            return True
        for pattern, parameters in self.complex:
            found = pattern.fullmatch(text)
            if found is None:
                continue
            if all(each.accepts(value) for each, value in zip(parameters, found.groups(), strict=True)):
                values.update(zip((each.name for each in parameters), found.groups(), strict=True))
                return True
        return False


class RouteTemplate:
    """A parsed template.

    Attributes:
        text: as given, without slashes at either end.
        parameters: in order.
    """

    __slots__ = ("_catch_all", "_defaults", "_segments", "parameters", "text")

    def __init__(self, text: str, segments: Sequence[_Segment]) -> None:
        self.text = text
        parameters = tuple(part for segment in segments for part in segment.parts if isinstance(part, RouteParameter))
        self.parameters = parameters
        self._segments = tuple(segments)
        last = parameters[-1] if parameters and parameters[-1].catch_all else None
        self._catch_all = last
        if last is not None:
            self._segments = self._segments[:-1]
        self._defaults: dict[str, str | None] = {each.name: each.default for each in parameters}

    def match(self, segments: Sequence[str]) -> dict[str, str | None] | None:
        """Route values when the path matches, else None; a missing optional parameter is None.

        Args:
            segments: of the path, decoded, without an empty one at the end.
        """
        own = self._segments
        if len(segments) > len(own) and self._catch_all is None:
            return None
        values = dict(self._defaults)
        for at, segment in enumerate(own):
            if at >= len(segments):
                if segment.parameter is None or not segment.parameter.may_be_missing:
                    return None
            elif not segment.match(segments[at], values):
                return None
        if self._catch_all is not None:
            rest = "/".join(segments[len(own) :])
            if rest:
                if not self._catch_all.accepts(rest):
                    return None
                values[self._catch_all.name] = rest
        return values

    def __str__(self) -> str:
        return self.text


def split_path(path: str) -> list[str]:
    """Decoded segments of a percent-encoded path; one trailing slash is ignored."""
    text = path.removeprefix("/")
    text = text.removesuffix("/")
    if not text:
        return []
    if "%" in text:
        return [unquote(segment) for segment in text.split("/")]
    return text.split("/")


def parse_template(text: str) -> RouteTemplate:
    """Parse a template.

    Raises:
        RouteTemplateError: bad syntax, an unknown constraint, a name used twice.
    """
    trimmed = text.strip("/")
    if "?" in re.sub(r"\{[^{}]*\}", "", trimmed):
        raise RouteTemplateError(text, "a literal cannot contain '?'")
    segments = [_segment(text, parts) for parts in _split(text, trimmed)]
    seen: set[str] = set()
    for at, segment in enumerate(segments):
        for part in segment.parts:
            if isinstance(part, RouteParameter):
                if part.name.lower() in seen:
                    raise RouteTemplateError(text, f"the parameter {part.name!r} appears more than once")
                seen.add(part.name.lower())
                if part.catch_all and (at != len(segments) - 1 or len(segment.parts) > 1):
                    raise RouteTemplateError(text, "a catch-all parameter can only be the last segment")
    return RouteTemplate(trimmed, segments)


def _split(template: str, text: str) -> list[list[_Part]]:
    """Literals and parameters of each segment."""
    segments: list[list[_Part]] = [[]]
    literal = ""
    at = 0

    def flush() -> None:
        nonlocal literal
        if literal:
            segments[-1].append(literal)
            literal = ""

    while at < len(text):
        two = text[at : at + 2]
        if two in ("{{", "}}"):
            literal += two[0]
            at += 2
        elif text[at] == "/":
            flush()
            if not segments[-1]:
                raise RouteTemplateError(template, "two slashes stand next to each other")
            segments.append([])
            at += 1
        elif text[at] == "{":
            flush()
            inside, at = _inside(template, text, at + 1)
            segments[-1].append(_parameter(template, inside))
        elif text[at] == "}":
            raise RouteTemplateError(template, f"the brace at position {at} closes nothing; write '}}}}' for a brace")
        else:
            literal += text[at]
            at += 1
    flush()
    return segments if segments != [[]] else []


def _inside(template: str, text: str, at: int) -> tuple[str, int]:
    inside = ""
    while at < len(text):
        two = text[at : at + 2]
        if two in ("{{", "}}"):
            inside += two[0]
            at += 2
        elif text[at] == "}":
            return inside, at + 1
        elif text[at] == "{":
            break
        else:
            inside += text[at]
            at += 1
    raise RouteTemplateError(template, "a parameter lacks its closing brace")


def _parameter(template: str, text: str) -> RouteParameter:
    body = text.lstrip("*") if text.startswith(("*", "**")) else text
    catch_all = body != text
    optional = body.endswith("?")
    if optional:
        body = body[:-1]
    end = min((at for at in (body.find(":"), body.find("=")) if at >= 0), default=len(body))
    name, rest = body[:end], body[end:]
    if not _NAME.match(name):
        raise RouteTemplateError(template, f"{name!r} is not a valid parameter name")
    written: list[str] = []
    checks: list[Check] = []
    while rest.startswith(":"):
        constraint, argument, rest = _constraint(template, rest[1:])
        check = make_constraint(constraint, argument)
        if isinstance(check, str):
            raise RouteTemplateError(template, check)
        checks.append(check)
        written.append(constraint if argument is None else f"{constraint}({argument})")
    default = rest[1:] if rest.startswith("=") else None
    if default is not None and optional:
        raise RouteTemplateError(template, f"the optional parameter {name!r} cannot have a default value")
    if catch_all and optional:
        raise RouteTemplateError(template, f"the catch-all parameter {name!r} cannot be marked optional")
    return RouteParameter(name, default, optional, catch_all, tuple(written), tuple(checks))


def _constraint(template: str, text: str) -> tuple[str, str | None, str]:
    found = _CONSTRAINT.match(text)
    if found is None:
        raise RouteTemplateError(template, f"a constraint is missing before {text!r}")
    name, rest = found.group(), text[found.end() :]
    if not rest.startswith("("):
        if rest and rest[0] not in ":=":
            raise RouteTemplateError(template, f"{text!r} is not a valid constraint")
        return name, None, rest
    # The argument ends at the bracket that the parameter, another constraint or a default follows: expressions may
    # hold brackets of their own.
    for at, character in enumerate(rest):
        if character == ")" and (at + 1 == len(rest) or rest[at + 1] in ":="):
            return name, rest[1:at], rest[at + 1 :]
    raise RouteTemplateError(template, f"the constraint {name!r} lacks its closing bracket")


def _segment(template: str, parts: list[_Part]) -> _Segment:
    fixed = tuple(parts)
    if len(fixed) == 1:
        only = fixed[0]
        return _Segment(fixed, literal=only.lower()) if isinstance(only, str) else _Segment(fixed, parameter=only)
    for left, right in pairwise(fixed):
        if isinstance(left, RouteParameter) and isinstance(right, RouteParameter):
            raise RouteTemplateError(template, "two parameters must be separated by a literal")
    for at, part in enumerate(fixed):
        if isinstance(part, RouteParameter) and part.optional and (at != len(fixed) - 1 or fixed[at - 1] != "."):
            raise RouteTemplateError(
                template, f"the optional parameter {part.name!r} must stand at the end of its segment, after a '.'"
            )
    variants = [_expression(fixed)]
    last = fixed[-1]
    if isinstance(last, RouteParameter) and last.optional:
        pattern, parameters = _expression(fixed[:-2])
        variants.append((re.compile(f"(?:{pattern.pattern})(?<!\\.)", re.IGNORECASE | re.DOTALL), parameters))
    return _Segment(fixed, complex=tuple(variants))


def _expression(parts: Sequence[_Part]) -> tuple[re.Pattern[str], tuple[RouteParameter, ...]]:
    text = "".join(re.escape(part) if isinstance(part, str) else "(.+)" for part in parts)
    return re.compile(text, re.IGNORECASE | re.DOTALL), tuple(
        part for part in parts if isinstance(part, RouteParameter)
    )
