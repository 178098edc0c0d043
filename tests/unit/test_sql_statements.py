"""Named statements: read from files, expanded for many rows and values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_host_providers._sql.statements import Rows, Values, parse_statements
from durable_host_providers.sqlite.transaction import SQL

FILE = """
-- name: one
-- The first.
SELECT 1
-- a remark

-- name: two
-- The second.
SELECT 2;
"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:")
    yield found
    found.close()


def test_statements_are_found_by_name_without_their_comments() -> None:
    assert parse_statements(FILE) == {"one": "SELECT 1", "two": "SELECT 2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- name: a\n-- What for.\nSELECT 1\n-- name: a\n-- Again.\nSELECT 2", "'a' is defined twice"),
        ("-- name: a\nSELECT 1", "'a' does not say what it is for"),
        ("-- name: a\n-- What for.\n", "'a' is empty"),
    ],
)
def test_a_careless_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_statements(text)


@given(st.lists(st.tuples(st.integers(0, 99), st.text(max_size=3)), max_size=400))
def test_rows_of_any_number_are_all_written_in_order(rows: list[tuple[int, str]]) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (fixed, a, b)")
        statement = Rows("INSERT INTO t SELECT ?1, column1, column2 FROM (VALUES (?, ?) ...)")

        statement.do(connection.execute, rows, 7)

        assert connection.execute("SELECT * FROM t ORDER BY rowid").fetchall() == [(7, *row) for row in rows]
    connection.close()


@given(st.sets(st.integers(0, 2_000), max_size=700))
def test_values_of_any_number_are_all_found(wanted: set[int]) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(0, 2_000, 2)))
        statement = Values("SELECT a FROM t WHERE a >= ?1 AND a IN (? ...)")

        found = {row[0] for cursor in statement.run(connection.execute, list(wanted), 10) for row in cursor}

        assert found == {number for number in wanted if 10 <= number < 2_000 and number % 2 == 0}
    connection.close()


def test_few_texts_serve_all_numbers_of_rows() -> None:
    texts: set[str] = set()
    statement = Rows("INSERT INTO t VALUES (?) ...")

    for count in range(500):
        statement.do(lambda text, _: texts.add(text), [(1,)] * count)

    assert len(texts) <= 8


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Rows, "SELECT ?"),
        (Values, "SELECT ?"),
        (Rows, "INSERT INTO t VALUES (?) ... RETURNING ?1"),
        (Values, "SELECT 1 WHERE 1 IN (? ...) AND ?1"),
    ],
)
def test_a_text_that_cannot_be_expanded_is_refused(kind: type[Rows] | type[Values], text: str) -> None:
    with pytest.raises(ValueError):
        kind(text)


def test_every_statement_of_sqlite_compiles(connection: sqlite3.Connection) -> None:
    from durable_host_providers.sqlite.hub_file import MIGRATIONS

    for migration in MIGRATIONS:
        for statement in migration.statements:
            connection.execute(statement)

    for name, text in SQL.items():
        for kind in (Rows, Values):
            try:
                kind(text).do(lambda text, values: connection.execute(f"EXPLAIN {text}", [None] * 99), [(None,) * 0])
            except ValueError:
                continue
            except sqlite3.ProgrammingError:  # the number of parameters, once it has compiled
                break
        else:
            try:
                connection.execute(f"EXPLAIN {text}")
            except sqlite3.ProgrammingError:
                continue
            except sqlite3.OperationalError as error:
                raise AssertionError(f"{name}: {error}") from error
