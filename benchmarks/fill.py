"""Fill a hub on PostgreSQL with a million instances in minutes, true to the schema.

What the tables hold is not made up here. A worker runs a few instances through the engine: one that completes, one that
fails, one that is terminated, one that waits for an event, and a child. Their rows, as the provider wrote them, are
then copied inside the server under other ids, names, tags, parents and times. Columns that this file does not know are
copied as they are, and those that it knows must exist: where the schema changes, this fails instead of filling a hub
that is none.

Ids are digests, so they say nothing about anything else; times are spread evenly over 30 days, oldest first.

| share | status | |
|---|---|---|
| 96 % | Completed | |
| 2 % | Failed | |
| 1 % | Running | waits for an event |
| 0.5 % | Terminated | all of them on the first day: status and time belong together |
| 0.5 % | Completed | children of 1,000 parents |

Half of the names are `common`, the others one of ten; in ten thousand one is `rare`. A tag names one of 1,000 tenants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from benchmarks.ours import open_store
from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.model.instance import InstanceState
from durable_host.worker import TaskHubWorker

__all__ = ["BEGAN_AT", "DAYS", "fill", "id_of"]

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 30
_SCHEMA = "durable_host"
_NAME = "template_name"
_TENANT = "template_tenant"
_PARENT = "template-parent"
_CHUNK = 100_000


def id_of(number: int) -> str:
    """The id of instance `number`, as the server computes it, too."""
    return md5(f"instance-{number}".encode(), usedforsecurity=False).hexdigest()


async def _say(value: str) -> str:
    return f"Hello {value}!"


async def _completes(context: DurableOrchestrationContext) -> Any:
    return await context.call_activity(_say, "Tokyo")


async def _fails(context: DurableOrchestrationContext) -> Any:
    raise ValueError("the template fails")


async def _waits(context: DurableOrchestrationContext) -> Any:
    return await context.wait_for_external_event("never")


async def _has_child(context: DurableOrchestrationContext) -> Any:
    return await context.call_sub_orchestrator(_NAME, "completes", instance_id="template-child")


async def _template(context: DurableOrchestrationContext) -> Any:
    """One name for all of them, so that it can be replaced."""
    kinds = {"completes": _completes, "fails": _fails, "waits": _waits}
    return await kinds[context.get_input(str)](context)


async def _make_templates(url: str) -> list[InstanceState]:
    """Run the templates through the engine; returns their projections."""
    worker = TaskHubWorker(open_store("postgres", url))
    worker.orchestrator(_template, name=_NAME)
    worker.orchestrator(_has_child, name="template_parent")
    worker.activity(_say)
    tags = {"tenant": _TENANT}
    async with worker:
        client = worker.client
        for kind in ("completes", "fails"):
            await client.start(_NAME, kind, instance_id=f"template-{kind}", tags=tags)
            await client.wait_for_completion(f"template-{kind}")
        for kind in ("terminated", "waits"):
            await client.start(_NAME, "waits", instance_id=f"template-{kind}", tags=tags)
            await client.wait_for_start(f"template-{kind}")
        await client.terminate("template-terminated", "not needed any more")
        await client.wait_for_completion("template-terminated")
        await client.start("template_parent", instance_id=_PARENT)
        await client.wait_for_completion(_PARENT)
    async with open_store("postgres", url) as store:
        return [state async for state in TaskHubClient(store).instances() if state.name == _NAME]


# Number n: which template, and under what it is copied.
_CLONES = """
CREATE TEMPORARY TABLE clones AS
SELECT n,
    CASE WHEN n %% 200 < 192 THEN 'template-completes' WHEN n %% 200 < 196 THEN 'template-fails'
        WHEN n %% 200 < 198 THEN 'template-waits' WHEN n %% 200 = 198 THEN 'template-terminated'
        ELSE 'template-child' END AS template,
    %(last)s + n AS ref,
    md5('instance-' || n) AS instance_id,
    lpad(to_hex(n), 32, '0') AS execution_id,
    md5('start-' || n) AS start_id,
    CASE WHEN n %% 10000 = 4321 THEN 'rare' WHEN (hashint4(n) & 1) = 0 THEN 'common'
        ELSE 'name-' || (hashint4(n) >> 1 & 1048575) %% 10 END AS name,
    'tenant-' || (hashint4(n + 1) & 1048575) %% 1000 AS tenant,
    md5('instance-' || n / 200 %% 1000 * 200) AS parent,
    %(began)s + CASE WHEN n %% 200 = 198 THEN n * (%(span)s / %(days)s / %(count)s) ELSE n * (%(span)s / %(count)s) END
        AS created
FROM (SELECT generate_series(%(low)s::integer, %(high)s::integer) AS n) numbers
"""
_RFC3339 = "to_char(to_timestamp({} / 1000000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

# Columns that differ from clone to clone.
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "instances": {
        "ref": "c.ref",
        "instance_id": "c.instance_id",
        "execution_id": "c.execution_id",
        "start_id": "CASE WHEN t.start_id IS NOT NULL THEN c.start_id END",
        "name": "c.name",
        "parent_id": "CASE WHEN t.parent_id IS NOT NULL THEN c.parent END",
        "created_at": "c.created",
        "updated_at": "c.updated",
        "settled_at": "CASE WHEN t.settled_at IS NOT NULL THEN c.updated END",
        "state": "",
    },
    "history": {"ref": "c.ref", "events": ""},
    "tags": {"ref": "c.ref", "value": ""},
}
_BETWEEN_MICROS = 1_000_000
"""From the creation of a clone to its last change."""


def _texts(state: InstanceState) -> list[tuple[str, str]]:
    """What stands in the stored texts of a template, and the expression that replaces it."""
    stored = json.loads(msgspec.json.encode(state))
    pairs = [
        (f'"{member}":"{stored[member]}"', f"'\"{member}\":\"' || {_RFC3339.format(column)} || '\"'")
        for member, column in (("created_at", "c.created"), ("updated_at", "c.updated"), ("completed_at", "c.updated"))
        if member in stored
    ]
    pairs += [
        (state.instance_id, "c.instance_id"),
        (state.execution_id, "c.execution_id"),
        (_NAME, "c.name"),
        (_TENANT, "c.tenant"),
        (_PARENT, "c.parent"),
    ]
    return pairs


def _copy(table: str, columns: Mapping[str, str], ref: int, state: InstanceState) -> sql.Composed:
    """The statement that copies the rows of one template for all of its clones.

    Args:
        columns: the table's, with their types.
        ref: of the template's rows.
    """
    known = _KNOWN[table]
    missing = sorted(set(known) - set(columns))
    if missing:
        raise SystemExit(f"benchmarks/fill.py is out of date: {table} has no column {', '.join(missing)}")
    values: list[sql.Composable] = []
    for column, kind in columns.items():
        expression = known.get(column)
        if expression == "":
            text: sql.Composable = sql.SQL("convert_from(t.{}, 'UTF8')" if kind == "bytea" else "t.{}").format(
                sql.Identifier(column)
            )
            for old, new in _texts(state):
                text = sql.SQL("replace({}, {}, {})").format(text, sql.Literal(old), _trusted(new))
            values.append(sql.SQL("convert_to({}, 'UTF8')").format(text) if kind == "bytea" else text)
        elif expression is not None:
            values.append(_trusted(expression))
        else:
            values.append(sql.SQL("t.{}").format(sql.Identifier(column)))
    return sql.SQL(
        "INSERT INTO {schema}.{table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} "
        "FROM (SELECT *, created + {between} AS updated FROM clones WHERE template = {template}) c "
        "CROSS JOIN (SELECT * FROM {schema}.{table} WHERE ref = {ref}) t ORDER BY c.n"
    ).format(
        schema=sql.Identifier(_SCHEMA),
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
        between=sql.Literal(_BETWEEN_MICROS),
        template=sql.Literal(state.instance_id),
        ref=sql.Literal(ref),
    )


def _trusted(expression: Any) -> sql.SQL:
    return sql.SQL(expression)  # put together from the constants of this file


def _columns(connection: Any, table: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (_SCHEMA, table),
    )
    return dict(rows.fetchall())


async def fill(url: str, count: int) -> None:
    """Create the hub and put `count` instances into it, beside the templates.

    Args:
        url: of an empty database.
        count: a multiple of 200.
    """
    templates = await _make_templates(url)
    with psycopg.connect(url, autocommit=True) as connection:
        refs: dict[str, int] = dict(connection.execute(f"SELECT instance_id, ref FROM {_SCHEMA}.instances").fetchall())
        statements = [
            _copy(table, _columns(connection, table), refs[state.instance_id], state)
            for table in _KNOWN
            for state in templates
        ]
        for low in range(0, count, _CHUNK):
            high = min(low + _CHUNK, count) - 1
            numbers = {
                "last": max(refs.values()) + 1,
                "low": low,
                "high": high,
                "count": count,
                "days": DAYS,
                "began": int(BEGAN_AT.timestamp()) * 1_000_000,
                "span": DAYS * 86_400_000_000,
            }
            with connection.transaction():
                psycopg.ClientCursor(connection).execute(_CLONES, numbers)  # no parameters in such a statement
                for statement in statements:
                    connection.execute(statement)
                connection.execute("DROP TABLE clones")
        connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{_SCHEMA}.instances', 'ref'), max(ref)) FROM {_SCHEMA}.instances"
        )
        connection.execute("VACUUM ANALYZE")  # autovacuum would have done it by now
        connection.execute("CHECKPOINT")
