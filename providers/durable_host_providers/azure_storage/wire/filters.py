"""OData filters for the questions that are asked of the tables, in the form of the reference.

Source: azure-storage-task-hub.md 4.4 and 5.4.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host_providers.azure_storage.wire.keys import escape_key
from durable_host_providers.azure_storage.wire.times import edm_time

__all__ = [
    "ALL_INSTANCES",
    "literal",
    "matches",
    "partition_filter",
    "query_filter",
]

ALL_INSTANCES = "RowKey eq ''"
"""Every row of Instances."""


def literal(value: str | datetime) -> str:
    """A text or an instant as a filter writes it."""
    if isinstance(value, datetime):
        return f"datetime'{edm_time(value)}'"
    return f"'{value.replace(chr(39), chr(39) * 2)}'"


def partition_filter(instance_id: str) -> str:
    """All rows of an instance's history, of whatever generation, and the sentinel."""
    return f"PartitionKey eq {literal(escape_key(instance_id))}"


def query_filter(query: InstanceQuery, *, after: str | None = None) -> str:
    """The filter of a query; empty when nothing is asked for. Entities are found, as by the reference (http-api.md 6).

    It lets through all that the query wants, and where a filter cannot say it (tags) some that it does not want:
    `matches` tells.

    Args:
        after: only ids whose escaped form is greater than this one's.
    """
    conditions: list[str] = []
    if query.created_from is not None:
        conditions.append(f"CreatedTime ge {literal(query.created_from)}")
    if query.created_to is not None:
        conditions.append(f"CreatedTime le {literal(query.created_to)}")
    if query.updated_from is not None:
        conditions.append(f"LastUpdatedTime ge {literal(query.updated_from)}")
    if query.updated_to is not None:
        conditions.append(f"LastUpdatedTime le {literal(query.updated_to)}")
    if query.statuses:
        conditions.append(_any_of("RuntimeStatus", [status.value for status in query.statuses]))
    if query.names:
        conditions.append(_any_of("Name", query.names))
    if query.parent is not None:
        conditions.append(f"ParentInstanceId eq {literal(query.parent)}")
    if query.prefix:
        first = escape_key(query.prefix)
        conditions.append(f"PartitionKey ge {literal(first)}")
        end = _after_prefix(first)
        if end is not None:
            conditions.append(f"PartitionKey lt {literal(end)}")
    if after is not None:
        conditions.append(f"PartitionKey gt {literal(escape_key(after))}")
    return conditions[0] if len(conditions) == 1 else " and ".join(f"({each})" for each in conditions)


def matches(query: InstanceQuery, state: InstanceState) -> bool:
    """Whether a row that the filter has let through is wanted."""
    tags = state.tags or {}
    return state.instance_id.startswith(query.prefix) and all(tags.get(name) == value for name, value in query.tags)


def _any_of(column: str, values: Collection[str]) -> str:
    return " or ".join(f"{column} eq {literal(value)}" for value in sorted(values))


def _after_prefix(prefix: str) -> str | None:
    """The least text above all that start with the prefix, by UTF-16 code units; None: there is none.

    Where the next code unit would be half of a surrogate pair, the bound is higher than it need be; `matches` decides.
    """
    last = ord(prefix[-1])
    if 0xD7FF <= last < 0xE000:
        return f"{prefix[:-1]}\ue000"
    if last == 0xFFFF:
        return _after_prefix(prefix[:-1]) if len(prefix) > 1 else None
    if last == 0x10FFFF:
        return f"{prefix[:-1]}\ue000"
    return f"{prefix[:-1]}{chr(last + 1)}"
