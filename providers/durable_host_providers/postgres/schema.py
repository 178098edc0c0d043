"""The schema and the hubs in it: made, recognised, migrated, removed.

Everything is made in one transaction under an advisory lock, so that hosts that start together take turns. A schema
that is up to date is only read: then a user without the right to create anything will do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from durable_host.environment import Environment
from durable_host.errors import StoreMismatchError, StoreUnavailableError
from durable_host_providers._sql.migrate import Migration, load_migrations, pending
from durable_host_providers._sql.rows import to_micros

from .connection import Connection, connect, translate
from .pooler import check_session
from .settings import Settings
from .statements import called_functions, quoted
from .templates import templates

__all__ = ["PRESENCE", "Hub", "create_hub", "delete_hub", "find_hub"]

logger = logging.getLogger(__name__)

MIGRATIONS = load_migrations("durable_host_providers.postgres.migrations")
PRESENCE = 0x44555248
"""First key of the advisory lock that every open store shares; the second one is the hub's number."""

_MIGRATING = 0x445552484F53544D
_OLDEST_SERVER = 130_000
_MINUTES = 600.0


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub that was found: its number in the schema, and what tells it from another one of the same name."""

    number: int
    identity: str


async def create_hub(settings: Settings, environment: Environment) -> None:
    """Make schema and hub, or bring them up to date.

    Raises:
        StoreMismatchError: what is there is something else, newer than this code, or not ours to change.
    """
    connection = await connect(settings)
    try:
        await _check_server(connection, settings)
        version = await _version(connection, settings)
        if (
            not pending(MIGRATIONS, version, _schema(settings))
            and await _hub(connection, settings) is not None
            and await _has_templates(connection, settings)
        ):
            return
        # Ends with the connection. Not inside the transaction: one that began before another host had finished may go
        # on to believe that there is no such schema, since the server remembers names that it did not find.
        await connection.fetch("SELECT pg_advisory_lock($1)", _MIGRATING, timeout=_MINUTES)
        async with connection.transaction():
            # Another host may have been faster.
            version = await _version(connection, settings)
            await _migrate(connection, settings, pending(MIGRATIONS, version, _schema(settings)))
            schema = quoted(settings.schema)
            await connection.fetch(
                f"INSERT INTO {schema}.templates (name, text) SELECT * FROM unnest($1::text[], $2::text[]) "
                "ON CONFLICT (name) DO UPDATE SET text = excluded.text",
                list(templates()),
                list(templates().values()),
            )
            await connection.fetch(
                f"INSERT INTO {schema}.hubs (key, name, identity, created_at) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT (key) DO NOTHING",
                *(settings.hub.casefold(), settings.hub, environment.ids.new_id()),
                to_micros(environment.clock.now()),
            )
    except asyncpg.DuplicateObjectError as error:
        raise _foreign(settings) from error
    except Exception as error:
        raise translate(error, settings) from error
    finally:
        await _close(connection)


async def find_hub(connection: Connection, settings: Settings) -> Hub:
    """The hub that `create_hub` has made.

    Raises:
        StoreMismatchError: there is none, or its tables are of another version than this code.
    """
    await check_session(connection, settings)
    version = await _version(connection, settings)
    if version == 0:
        raise StoreMismatchError(f"{settings.location}: there is no task hub yet; run `durable-host hub create`.")
    if pending(MIGRATIONS, version, _schema(settings)):
        raise StoreMismatchError(
            f"{_schema(settings)} has tables of version {version}, made by an older durable-host; run `durable-host "
            "hub create` as the owner of the schema to bring them up to date."
        )
    missing = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regprocedure(name) IS NULL",
        called_functions(settings.schema),
    )
    if missing:
        raise StoreMismatchError(
            f"{_schema(settings)} says that its tables have version {version}, but lacks {len(missing)} of the "
            f"functions of this durable-host, such as {missing[0][0].split('(')[0]}: it was made by a version that was "
            "never released, or somebody has changed it. Install what made it, or name another schema "
            "(storageProvider.schema) and let `durable-host hub create` make it."
        )
    hub = await _hub(connection, settings)
    if hub is None:
        raise StoreMismatchError(f"{settings.location}: there is no task hub yet; run `durable-host hub create`.")
    return hub


async def delete_hub(settings: Settings) -> None:
    """Remove the hub and all that is in it; the schema and other hubs stay.

    Raises:
        StoreUnavailableError: a host is working on it.
    """
    connection = await connect(settings)
    try:
        if await _version(connection, settings) == 0:
            return
        hub = await _hub(connection, settings)
        if hub is None:
            return
        async with connection.transaction():
            free = await connection.fetch("SELECT pg_try_advisory_xact_lock($1, $2)", PRESENCE, hub.number)
            if not free[0][0]:
                raise StoreUnavailableError(f"{settings.location} is in use by a host; stop it first.")
            schema = quoted(settings.schema)
            for table in ("history", "tags"):
                await connection.fetch(
                    f"DELETE FROM {schema}.{table} t USING {schema}.instances i WHERE i.hub = $1 AND t.ref = i.ref",
                    hub.number,
                    timeout=_MINUTES,
                )
            for table in ("messages", "activities", "instances", "host_leases", "host_documents", "hubs"):
                await connection.fetch(f"DELETE FROM {schema}.{table} WHERE hub = $1", hub.number, timeout=_MINUTES)
    except Exception as error:
        raise translate(error, settings) from error
    finally:
        await _close(connection)


async def _check_server(connection: Connection, settings: Settings) -> None:
    await check_session(connection, settings)
    ((number, encoding),) = await connection.fetch(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')"
    )
    if number < _OLDEST_SERVER:
        raise StoreMismatchError(
            f"{settings.location}: the server is PostgreSQL {number // 10_000}; durable-host needs 13 or newer."
        )
    if encoding != "UTF8":
        raise StoreMismatchError(
            f"{settings.location}: the database has the encoding {encoding}; use one that was created with "
            "ENCODING 'UTF8'."
        )


async def _version(connection: Connection, settings: Settings) -> int:
    """The version of the tables; 0: there are none."""
    table = f"{quoted(settings.schema)}.version"
    ((there,),) = await connection.fetch("SELECT to_regclass($1)::text", table)
    if there is None:
        return 0
    try:
        found = await connection.fetch(f"SELECT version FROM {table}")
    except asyncpg.UndefinedColumnError as error:
        raise _foreign(settings) from error
    if len(found) != 1 or not isinstance(found[0][0], int):
        raise _foreign(settings)
    return found[0][0]


async def _has_templates(connection: Connection, settings: Settings) -> bool:
    found = await connection.fetch(f"SELECT name, text FROM {quoted(settings.schema)}.templates")
    return {row[0]: row[1] for row in found} == templates()


async def _hub(connection: Connection, settings: Settings) -> Hub | None:
    found: Sequence[Any] = await connection.fetch(
        f"SELECT hub, identity FROM {quoted(settings.schema)}.hubs WHERE key = $1", settings.hub.casefold()
    )
    return Hub(found[0][0], found[0][1]) if found else None


async def _migrate(connection: Connection, settings: Settings, steps: Sequence[Migration]) -> None:
    schema = quoted(settings.schema)
    if steps and steps[0].version == 1:
        there = await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1", settings.schema)
        if not there:
            await connection.execute(f"CREATE SCHEMA {schema}")
    for step in steps:
        await connection.execute(step.script.replace("durable_host.", f"{schema}."), timeout=_MINUTES)
        if step.version == 1:
            await connection.fetch(f"INSERT INTO {schema}.version (version) VALUES ($1)", step.version)
        else:
            await connection.fetch(f"UPDATE {schema}.version SET version = $1", step.version)
    if steps:
        logger.info(
            "%s was brought to version %d",
            _schema(settings),
            steps[-1].version,
            extra={"event": "schema_migrated", "version": steps[-1].version},
        )


def _schema(settings: Settings) -> str:
    return f"The schema {settings.schema!r}"


def _foreign(settings: Settings) -> StoreMismatchError:
    return StoreMismatchError(
        f"{_schema(settings)} of {settings.location} holds tables of another program; set "
        "extensions.durableTask.storageProvider.schema to a name of its own."
    )


async def _close(connection: Connection) -> None:
    with suppress(Exception):
        await connection.close(timeout=2)
        return
    connection.terminate()
