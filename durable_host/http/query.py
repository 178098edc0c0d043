"""Query strings: names without case, repeats kept, and the few types that parameters have.

Two temperaments (http-api.md section 2). A *flag* or a wait time that cannot be read is ignored, as the reference does.
A *filter* that cannot be read raises `FilterError`, because guessing would show or delete more than was meant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qsl

__all__ = ["FilterError", "Query"]


class FilterError(ValueError):
    """A filter parameter cannot be read; the text names parameter and value and goes to the caller."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        self.name = name
        self.value = value
        super().__init__(f"The value {value!r} of the parameter '{name}' is not understood: expected {expected}.")


class Query:
    """The decoded parameters of one request."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Sequence[str]] | None = None) -> None:
        self._values: Mapping[str, Sequence[str]] = values or {}

    @classmethod
    def parse(cls, text: str) -> Query:
        """Decode a query as form fields; bytes that are no UTF-8 become replacement characters."""
        if not text:
            return _NOTHING
        values: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True, errors="replace"):
            values.setdefault(name.lower(), []).append(value)
        return cls(values)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def text(self, name: str) -> str | None:
        """The first value as sent, an empty one included; None when absent."""
        found = self._values.get(name.lower())
        return found[0] if found else None

    def value(self, name: str) -> str | None:
        """The first value without blanks around it; None when absent or blank."""
        found = self.text(name)
        return (found.strip() or None) if found is not None else None

    def items(self, name: str) -> Sequence[str]:
        """All values, also those separated by commas, without blanks around them and without empty ones."""
        found = self._values.get(name.lower(), ())
        return [item.strip() for value in found for item in value.split(",") if item.strip()]

    def values(self, name: str) -> Sequence[str]:
        """All values of a repeated parameter, without empty ones."""
        return [value for value in self._values.get(name.lower(), ()) if value.strip()]

    def flag(self, name: str, default: bool) -> bool:
        """A boolean in any case; anything else counts as absent."""
        found = (self.value(name) or "").lower()
        return True if found == "true" else False if found == "false" else default

    def seconds(self, name: str) -> float | None:
        """A finite number; anything else counts as absent."""
        found = self.value(name)
        if found is None:
            return None
        try:
            number = float(found)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def instant(self, name: str) -> datetime | None:
        """A filter: an ISO 8601 time, UTC when without offset. Raises FilterError."""
        found = self.value(name)
        if found is None:
            return None
        try:
            return _instant(found)
        except (ValueError, OverflowError):
            raise FilterError(name, found, "a time in ISO 8601, such as 2025-03-01T12:00:00Z") from None

    def page_size(self, default: int, most: int) -> int:
        """The filter `top`. Raises FilterError."""
        found = self.value("top")
        if found is None:
            return default
        # isdecimal keeps out signs, underscores and blanks that int() would take; the length keeps out huge numbers.
        if not found.isdecimal() or not found.isascii() or len(found) > 18 or int(found) < 1:
            raise FilterError("top", found, "a number of at least 1")
        return min(int(found), most)


_NOTHING = Query()


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        # A plus in a query arrives as a blank unless it was escaped: `12:00:00 02:00` meant `+02:00`.
        start, _, offset = text.upper().rpartition(" ")
        if not start or not offset[:1].isdecimal():
            raise
        moment = datetime.fromisoformat(f"{start}+{offset}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
