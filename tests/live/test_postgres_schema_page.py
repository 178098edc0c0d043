"""docs/reference/postgres-schema.md names what is there, and nothing else."""

from __future__ import annotations

import re

import psycopg
import pytest

from durable_host.environment import system_environment
from durable_host.storage.contract import StorageOptions
from durable_host_providers.postgres import provider
from tests.hosting import ROOT

pytestmark = pytest.mark.live

_PAGE = (ROOT / "docs" / "reference" / "postgres-schema.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| ((?:`[^`]+`(?:, )?)+) \|", re.MULTILINE)
_SECTION = re.compile(r"^#{2,3} (.+)\n((?:(?!#{2,3} ).*\n?)*)", re.MULTILINE)


def _named() -> dict[str, set[str]]:
    """What the first column of each section's table names."""
    return {
        title: {name for row in _ROW.findall(text) for name in re.findall(r"`(\w+)", row)}
        for title, text in _SECTION.findall(_PAGE)
    }


async def _made(url: str) -> None:
    await provider.open(StorageOptions("Orders", {}, ROOT, url), system_environment()).hub.create()


def _found(connection: psycopg.Connection, query: str) -> list[tuple[str, ...]]:
    return connection.execute(query.encode()).fetchall()


async def test_the_page_names_every_table_column_index_and_function(postgres_database: str) -> None:
    await _made(postgres_database)
    with psycopg.connect(postgres_database) as connection:
        columns = _found(
            connection,
            "SELECT table_name, column_name FROM information_schema.columns c JOIN information_schema.tables t "
            "USING (table_schema, table_name) WHERE table_schema = 'durable_host' AND table_type = 'BASE TABLE'",
        )
        indexes = _found(connection, "SELECT indexname FROM pg_indexes WHERE schemaname = 'durable_host'")
        functions = _found(connection, "SELECT proname FROM pg_proc WHERE pronamespace = 'durable_host'::regnamespace")

    named = _named()
    assert named.pop("Tables") == {table for table, _ in columns}
    assert named.pop("Indexes") == {name for (name,) in indexes}
    assert named.pop("Functions") == {name for (name,) in functions}
    described = {(table, name) for title, names in named.items() for table in title.split(", ") for name in names}
    assert {each for each in columns if each != ("version", "version")} <= described
    assert {name for _, name in described} <= {name for _, name in columns}


async def test_the_report_of_the_page_runs(postgres_database: str) -> None:
    await _made(postgres_database)
    (report,) = re.findall(r'^```sql title="report.sql"\n(.*?)^```$', _PAGE, re.MULTILINE | re.DOTALL)
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(b"SELECT durable_host.start_instance('Orders', 'ship', '1', 'a')")

        by_status, outputs = (connection.execute(each.encode()).fetchall() for each in report.split(";\n")[:2])

    assert [row[:3] for row in by_status] == [("ship", "Pending", 1)]
    assert outputs == []
