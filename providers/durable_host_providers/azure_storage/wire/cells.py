"""One column of a row: how a member that is no plain value becomes a text, and what a reader may find.

Columns that hold JSON have the text `null` where there is nothing; all others are left out then.
Source: azure-storage-task-hub.md 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from durable_host.model.failure import Failure
from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.wire.objects import (
    FailureDetails,
    TraceContext,
    failure_from,
    failure_to,
    tags_from,
    tags_to,
)
from durable_host_providers.azure_storage.wire.texts import json_text
from durable_host_providers.azure_storage.wire.times import instant_of

__all__ = [
    "NULL",
    "Columns",
    "Stored",
    "failure_column",
    "failure_of_column",
    "number",
    "optional",
    "optional_instant",
    "optional_number",
    "put",
    "required",
    "tags_column",
    "tags_of_column",
    "trace_column",
    "trace_of",
]

Columns = dict[str, Value]
Stored = Mapping[str, Value]

NULL = "null"
"""The text of a column that holds JSON, where there is nothing."""

_traces = msgspec.json.Decoder(TraceContext | None).decode
_failures = msgspec.json.Decoder(FailureDetails | None).decode
_tags = msgspec.json.Decoder(dict[str, str | None] | None).decode


def required(values: Stored, name: str) -> str:
    """A text that must be there.

    Raises:
        KeyError: it is not.
        TypeError: it is something else.
    """
    value = values[name]
    if not isinstance(value, str):
        raise TypeError(f"column {name} is no text")
    return value


def optional(values: Stored, name: str) -> str | None:
    """A text that may be there."""
    return None if name not in values else required(values, name)


def number(values: Stored, name: str) -> int:
    """A whole number; a missing one is 0, as .NET reads it."""
    value = values.get(name, 0)
    if not isinstance(value, int):
        raise TypeError(f"column {name} is no whole number")
    return value


def put(values: Columns, name: str, text: str | None) -> None:
    """Write a text where there is one."""
    if text is not None:
        values[name] = text


def failure_column(failure: Failure | None) -> str:
    """A failure as the text of its column."""
    return NULL if failure is None else json_text(failure_to(failure))


def failure_of_column(text: str | None) -> Failure | None:
    """The failure of a column."""
    return failure_from(_failures(text)) if text and text != NULL else None


def trace_column(traceparent: str | None, tracestate: str | None = None) -> str:
    """A trace as the text of its column."""
    return NULL if traceparent is None else json_text(TraceContext(traceparent, tracestate))


def trace_of(values: Stored) -> TraceContext:
    """The trace of a row."""
    text = optional(values, "ParentTraceContext")
    return (_traces(text) if text and text != NULL else None) or TraceContext()


def tags_column(tags: dict[str, str] | None, detached: bool = False) -> str:
    """Tags as the text of their column."""
    return NULL if tags is None and not detached else json_text(tags_to(tags, detached))


def tags_of_column(text: str | None) -> tuple[dict[str, str] | None, bool]:
    """Tags of a column, and whether they mark a detached start."""
    return tags_from(_tags(text)) if text and text != NULL else (None, False)


def optional_instant(values: Stored, name: str) -> datetime | None:
    """An instant that may be there."""
    text = optional(values, name)
    return None if text is None else instant_of(text)


def optional_number(values: Stored, name: str) -> int | None:
    """A whole number that may be there."""
    return None if name not in values else number(values, name)
