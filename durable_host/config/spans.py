"""Time spans in the .NET form, as host.json writes them: `[-][d.]hh:mm[:ss[.fffffff]]`.

A bare integer is a number of days, and three parts whose first exceeds 23 are days, hours and minutes: `24:00:00` is 24
days. Both surprise people, both are what Azure does; `reading` says so where it happens.

Source: functions-host.md, conventions; System.TimeSpan.Parse.
"""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["format_span", "parse_span", "span_hint"]

_SPAN = re.compile(r"(-)?(?:(\d{1,8})\.)?(\d{1,8}(?::\d{1,2}){0,3})(?:\.(\d{1,7}))?", re.ASCII)
_LARGEST_DAYS = 10_675_199


def parse_span(text: str) -> timedelta:
    """Read a time span; a tenth of a microsecond is cut off.

    Raises:
        ValueError: it has another form, or a part is out of range.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a time span of the form [-][d.]hh:mm[:ss[.fffffff]]")
    sign, leading, body, fraction = found.groups()
    parts = [int(each) for each in body.split(":")]
    if leading is not None:
        parts.insert(0, int(leading))
        while len(parts) < 4 and ":" in body:
            parts.append(0)
    elif len(parts) == 1:
        parts += [0, 0, 0]
    elif len(parts) == 2:
        parts = [0, *parts, 0]
    elif len(parts) == 3:
        parts = [*parts, 0] if parts[0] > 23 else [0, *parts]
    days, hours, minutes, seconds = parts if len(parts) == 4 else (0, 99, 0, 0)
    if days > _LARGEST_DAYS or hours > 23 or minutes > 59 or seconds > 59 or (fraction and body.count(":") < 2):
        raise ValueError(f"{text!r} is not a time span: a part is missing or out of range")
    micro = int((fraction or "").ljust(7, "0")) // 10
    value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=micro)
    return -value if sign else value


def span_hint(text: str) -> str | None:
    """What to tell somebody who wrote days and may have meant something shorter; None: nothing to tell."""
    stripped = text.strip()
    first = stripped.split(":")[0]
    if stripped.isdigit() and stripped != "0":
        return f"{stripped} means {stripped} days; write hh:mm:ss for anything shorter"
    if stripped.count(":") == 2 and first.isdigit() and int(first) > 23:
        return f"{stripped} means {first} days; write d.hh:mm:ss, for example 1.00:00:00 for 24 hours"
    return None


def format_span(value: timedelta) -> str:
    """The .NET text of a time span: `00:00:30`, `1.02:03:04`, `-00:00:00.5000000`."""
    sign = "-" if value < timedelta() else ""
    value = abs(value)
    hours, rest = divmod(value.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    days = f"{value.days}." if value.days else ""
    fraction = f".{value.microseconds * 10:07d}" if value.microseconds else ""
    return f"{sign}{days}{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}"
