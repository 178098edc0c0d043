"""Instants as .NET writes them: seven fractional digits in table columns, trailing zeros trimmed in JSON.

The seventh digit (100 ns) is cut off when reading, always downwards, so that the same instant read from a message and
from a row stays the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from durable_host_providers.azure_storage.ports import EdmDateTime

__all__ = ["edm_time", "instant_of", "json_time"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def edm_time(instant: datetime) -> EdmDateTime:
    """The column's text, `2026-11-21T10:43:17.6071990Z`."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return EdmDateTime(f"{instant.isoformat(timespec='microseconds')[:26]}0Z")


def json_time(instant: datetime) -> str:
    """The member's text, `2026-11-21T10:43:17.607199Z`."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    text = instant.isoformat()[:-6]
    return f"{text.rstrip('0')}Z" if instant.microsecond else f"{text}Z"


def instant_of(text: str) -> datetime:
    """The instant of either form, aware, UTC.

    Accepts any number of digits and offsets. A text without a zone is UTC: .NET leaves the `Z` out at times. Also the
    form of its data contract serializer, `/Date(1700000000000)/`.

    Raises:
        ValueError: it is no time.
    """
    if text.startswith("/Date("):
        return _contract_time(text)
    instant = datetime.fromisoformat(text)
    zone = instant.tzinfo
    if zone is UTC:
        return instant
    return instant.replace(tzinfo=UTC) if zone is None else instant.astimezone(UTC)


def _contract_time(text: str) -> datetime:
    number = text[6:].removesuffix(")/")
    sign = max(number.rfind("+"), number.rfind("-"))
    try:
        # The offset only tells the writer's zone; the number counts from 1970 in UTC.
        return _EPOCH + timedelta(milliseconds=int(number[:sign] if sign > 0 else number))
    except OverflowError as error:
        raise ValueError(f"no time: {text!r}") from error


assert datetime.fromisoformat("2026-01-01T00:00:00Z").tzinfo is UTC  # what `zone is UTC` relies on
assert isinstance(UTC, timezone)
