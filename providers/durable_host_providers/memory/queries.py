"""Finding instances: by id order, a page at a time."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import msgspec

from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host_providers.memory.records import InstanceRecord

__all__ = ["InstanceOrder", "find", "without_payloads"]

_CURSOR = "after:"


class InstanceOrder:
    """Instance ids in code point order, sorted when somebody asks.

    Starting an instance must not cost a search, and pages must not cost a sort each: new ids wait at the end until the
    next query, where sorting an almost sorted list is cheap. Ids of purged instances stay until they are the half.
    """

    def __init__(self) -> None:
        self._ids: list[InstanceId] = []
        self._sorted = 0

    def add(self, instance_id: InstanceId) -> None:
        """Take up an id."""
        self._ids.append(instance_id)

    def sorted(self, instances: Mapping[str, InstanceRecord]) -> list[InstanceId]:
        """All ids, perhaps with some of instances that are gone."""
        ids = self._ids
        if self._sorted != len(ids):
            ids.sort()
            # An id that was purged and started again stands here twice.
            ids[:] = dict.fromkeys(ids)
        if len(ids) > 2 * len(instances) + 1_000:
            ids[:] = [each for each in ids if each in instances]
        self._sorted = len(ids)
        return ids


def find(query: InstanceQuery, order: InstanceOrder, instances: Mapping[str, InstanceRecord]) -> InstancePage:
    """One page of what the query asks for.

    Raises:
        ValueError: the cursor is not one of ours, or the limit is not positive.
    """
    if query.limit < 1:
        raise ValueError(f"A page holds at least one instance, not {query.limit}.")
    last = None if query.cursor is None else _read_cursor(query.cursor)
    ids = order.sorted(instances)
    at = bisect_left(ids, query.prefix)
    if last is not None:
        at = max(at, bisect_right(ids, last))
    found: list[InstanceState] = []
    for position in range(at, len(ids)):
        instance_id = ids[position]
        if not instance_id.startswith(query.prefix):
            break
        record = instances.get(instance_id)
        if record is None or record.shown is None or not _matches(query, record.shown):
            continue
        if len(found) == query.limit:
            return InstancePage(tuple(found), _write_cursor(found[-1].instance_id))
        found.append(record.shown if query.with_payloads else without_payloads(record.shown))
    return InstancePage(tuple(found))


def without_payloads(state: InstanceState) -> InstanceState:
    """The projection without what may be large."""
    return msgspec.structs.replace(state, input=None, output=None, custom_status=None, failure=None)


def _matches(query: InstanceQuery, state: InstanceState) -> bool:
    tags = state.tags or {}
    return (
        (not query.statuses or state.status in query.statuses)
        and (not query.names or state.name in query.names)
        and all(tags.get(name) == value for name, value in query.tags)
        and (query.created_from is None or query.created_from <= state.created_at)
        and (query.created_to is None or state.created_at <= query.created_to)
        and (query.updated_from is None or query.updated_from <= state.updated_at)
        and (query.updated_to is None or state.updated_at <= query.updated_to)
        and (query.parent is None or (state.parent is not None and state.parent.instance_id == query.parent))
    )


def _write_cursor(last: InstanceId) -> str:
    return base64.urlsafe_b64encode((_CURSOR + last).encode("utf-8", "surrogatepass")).decode()


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        text = ""
    if not text.startswith(_CURSOR):
        raise ValueError(f"{cursor!r} is no cursor of this hub; pass the one of the previous page, unchanged.")
    return text.removeprefix(_CURSOR)
