"""InstanceQuery as a statement.

A page is a few rows in the order of ids. Each single filter has an index that gives them in that order (status, name,
parent, tag, prefix) or finds the few that match (times); which one is best depends on how many match, which the
planner knows from its statistics and the values.

The time of the last change is indexed for instances that have ended only (`settled_at`), so that a step touches no
index. A page by that time is made of two: of those that have ended, and of those that have not.
"""

from __future__ import annotations

from collections.abc import Callable

from durable_host.model.instance import InstanceQuery
from durable_host_providers._sql.filters import after_prefix, decode_cursor
from durable_host_providers._sql.rows import to_micros

from .statements import Statements

__all__ = ["page_text"]


def page_text(query: InstanceQuery, sql: Statements, hub: int) -> tuple[str, list[object]]:
    """The statement of a page, one row longer than asked for, and its parameters.

    Raises:
        ValueError: the cursor cannot be read.
    """
    columns = sql["query_columns" if query.with_payloads else "query_columns_without_payloads"]
    parameters: list[object] = [hub]
    conditions = ["instances.hub = $1", "instances.state IS NOT NULL"]

    def add(condition: str, value: object) -> None:
        parameters.append(value)
        conditions.append(condition.format(f"${len(parameters)}"))

    if query.statuses:
        _one_of(add, "instances.status", sorted(each.value for each in query.statuses))
    if query.names:
        _one_of(add, "instances.name", sorted(query.names))
    if query.prefix:
        add("instances.instance_id >= {}", query.prefix)
        end = after_prefix(query.prefix)
        if end is not None:
            add("instances.instance_id < {}", end)
    for name, value in query.tags:
        parameters.append(name.encode())
        add(
            f"EXISTS (SELECT 1 FROM {sql.schema}.tags WHERE tags.ref = instances.ref "
            f"AND tags.name = ${len(parameters)} AND tags.value = {{}})",
            value.encode(),
        )
    if query.created_from is not None:
        add("instances.created_at >= {}", to_micros(query.created_from))
    if query.created_to is not None:
        add("instances.created_at <= {}", to_micros(query.created_to))
    if query.parent is not None:
        add("instances.parent_id = {}", query.parent)
    if query.cursor is not None:
        add("instances.instance_id > {}", decode_cursor(query.cursor))
    ended: list[str] = []
    for instant, comparison in ((query.updated_from, ">="), (query.updated_to, "<=")):
        if instant is not None:
            parameters.append(to_micros(instant))
            ended.append(f"instances.{{}} {comparison} ${len(parameters)}")
    parameters.append(query.limit + 1)
    rest = f"ORDER BY instance_id LIMIT ${len(parameters)}"
    if not ended:
        return f"{columns} WHERE {' AND '.join(conditions)} {rest}", parameters
    settled = [*conditions, *(each.format("settled_at") for each in ended)]
    open_ones = [*conditions, "instances.settled_at IS NULL", *(each.format("updated_at") for each in ended)]
    halves = " UNION ALL ".join(f"({columns} WHERE {' AND '.join(each)} {rest})" for each in (settled, open_ones))
    return f"SELECT * FROM ({halves}) AS instances {rest}", parameters


def _one_of(add: Callable[[str, object], None], column: str, values: list[str]) -> None:
    if len(values) == 1:
        add(f"{column} = {{}}", values[0])
    else:
        add(f"{column} = ANY ({{}}::text[])", values)
