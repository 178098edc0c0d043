"""Constraints of route parameters: `{id:int:min(1)}`. Each is a test of the text; values are never converted."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

__all__ = ["CONSTRAINTS", "Check", "make_constraint"]

Check = Callable[[str], bool]
"""Whether a value passes."""

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*\Z")
_DECIMAL = re.compile(r"\s*[+-]?(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)\s*\Z")
_FLOAT = re.compile(
    r"\s*[+-]?(?:(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|infinity|∞)\s*\Z", re.IGNORECASE
)
_GUID = re.compile(
    r"\s*(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}|\([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\))\s*\Z",
    re.IGNORECASE,
)
_ALPHA = re.compile(r"[a-z]*\Z", re.IGNORECASE)
_DATE_FORMATS = (
    "%m/%d/%Y",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M",
    "%d %b %Y",
    "%d %B %Y",
)
_INT32 = 2**31
_INT64 = 2**63


def _whole(bound: int) -> Check:
    return lambda text: bool(_INTEGER.match(text)) and -bound <= int(text) < bound


def _is_datetime(text: str) -> bool:
    text = text.strip()
    try:
        datetime.fromisoformat(text)
    except ValueError:
        for form in _DATE_FORMATS:
            try:
                datetime.strptime(text, form)  # noqa: DTZ007 - only its form matters
            except ValueError:
                continue
            return True
        return False
    return True


def _is_file(text: str) -> bool:
    name = text.rpartition("/")[2]
    dot = name.find(".")
    return 0 <= dot < len(name) - 1


_PLAIN: dict[str, Check] = {
    "int": _whole(_INT32),
    "long": _whole(_INT64),
    "bool": lambda text: text.strip().lower() in ("true", "false"),
    "datetime": _is_datetime,
    "decimal": lambda text: bool(_DECIMAL.match(text)),
    "double": lambda text: bool(_FLOAT.match(text)),
    "float": lambda text: bool(_FLOAT.match(text)),
    "guid": lambda text: bool(_GUID.match(text)),
    "alpha": lambda text: bool(_ALPHA.match(text)),
    "required": bool,
    "file": _is_file,
    "nonfile": lambda text: not _is_file(text),
}

_NUMBERS: dict[str, tuple[int, ...]] = {  # how many whole numbers each takes
    "minlength": (1,),
    "maxlength": (1,),
    "length": (1, 2),
    "min": (1,),
    "max": (1,),
    "range": (2,),
}

CONSTRAINTS = frozenset({*_PLAIN, *_NUMBERS, "regex"})
"""Names of all constraints, in lower case."""


def make_constraint(name: str, argument: str | None) -> Check | str:
    """The test of a constraint, or a sentence saying why there is none.

    Args:
        name: any case.
        argument: what stands in the brackets; None without brackets.
    """
    key = name.lower()
    if key not in CONSTRAINTS:
        return f"the constraint {name!r} does not exist; known are {', '.join(sorted(CONSTRAINTS))}"
    if key == "regex":
        try:
            pattern = re.compile(argument or "", re.IGNORECASE)
        except re.error as error:
            return f"the constraint {name!r} has an invalid expression: {error}"
        return f"the constraint {name!r} needs an expression" if not argument else _searches(pattern)
    if key in _PLAIN:
        return f"the constraint {name!r} takes no argument" if argument else _PLAIN[key]
    try:
        numbers = [int(each) for each in (argument or "").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in _NUMBERS[key]:
        wanted = " or ".join(map(str, _NUMBERS[key]))
        return f"the constraint {name!r} takes {wanted} whole number(s), got {argument!r}"
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        return f"the constraint {name!r} has its bounds the wrong way round: {argument!r}"
    return _numeric(key, numbers)


def _searches(pattern: re.Pattern[str]) -> Check:
    return lambda text: pattern.search(text) is not None


def _numeric(key: str, numbers: list[int]) -> Check:
    low, high = numbers[0], numbers[-1]
    long = _PLAIN["long"]
    checks: dict[str, Check] = {
        "minlength": lambda text: len(text) >= low,
        "maxlength": lambda text: len(text) <= high,
        "length": lambda text: low <= len(text) <= high,
        "min": lambda text: long(text) and int(text) >= low,
        "max": lambda text: long(text) and int(text) <= high,
        "range": lambda text: long(text) and low <= int(text) <= high,
    }
    return checks[key]
