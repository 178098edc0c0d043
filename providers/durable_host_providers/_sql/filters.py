"""InstanceQuery as a WHERE clause with parameters, and the cursor between its pages.

Paging is by key: a page begins after the last id of the one before, so that it is stable whatever is inserted or
removed meanwhile. The clause speaks of a table `instances` and a table `tags`, see a store's schema.
"""

from __future__ import annotations

import base64

from durable_host.model.instance import InstanceQuery
from durable_host.model.status import TERMINAL

from .rows import to_micros

__all__ = ["after_prefix", "decode_cursor", "encode_cursor", "where"]

_LAST = "\U0010ffff"


def encode_cursor(last_id: str) -> str:
    """The opaque text that leads to what follows this id."""
    return base64.urlsafe_b64encode(b"1" + last_id.encode("utf-8")).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The id after which a page begins.

    Raises:
        ValueError: the text is not one that `encode_cursor` made.
    """
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if data[:1] == b"1":
            return data[1:].decode("utf-8")
    except ValueError:  # base64's own and those of the text are of this kind
        pass
    raise ValueError(f"The cursor {cursor!r} is not one that this store has given; begin with the first page.")


def after_prefix(prefix: str) -> str | None:
    """The first text, by code points, that is greater than every text with this prefix; None: there is none."""
    stem = prefix.rstrip(_LAST)
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)  # surrogates are no characters


def where(query: InstanceQuery) -> tuple[str, list[object]]:
    """The conditions of a query, joined by AND, with question marks, and their parameters."""
    conditions = ["instances.state IS NOT NULL"]
    parameters: list[object] = []

    def add(condition: str, *values: object) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if query.statuses:
        # Few instances are open: their index finds them. Ended ones are found along the ids: the plus sign keeps the
        # database from collecting and sorting most of the table for each page.
        column = "+instances.status" if query.statuses & TERMINAL else "instances.status"
        add(f"{column} IN ({_marks(len(query.statuses))})", *sorted(each.value for each in query.statuses))
    if query.names:
        add(f"instances.name IN ({_marks(len(query.names))})", *sorted(query.names))
    if query.prefix:
        add("instances.instance_id >= ?", query.prefix)
        end = after_prefix(query.prefix)
        if end is not None:
            add("instances.instance_id < ?", end)
    for name, value in query.tags:
        add(
            "EXISTS (SELECT 1 FROM tags WHERE tags.ref = instances.ref AND tags.name = ? AND tags.value = ?)",
            name,
            value,
        )
    if query.created_from is not None:
        add("instances.created_at >= ?", to_micros(query.created_from))
    if query.created_to is not None:
        add("instances.created_at <= ?", to_micros(query.created_to))
    if query.updated_from is not None:
        add("instances.updated_at >= ?", to_micros(query.updated_from))
    if query.updated_to is not None:
        add("instances.updated_at <= ?", to_micros(query.updated_to))
    if query.parent is not None:
        add("instances.parent_id = ?", query.parent)
    if query.cursor is not None:
        add("instances.instance_id > ?", decode_cursor(query.cursor))
    return " AND ".join(conditions), parameters


def _marks(count: int) -> str:
    return ", ".join("?" * count)
