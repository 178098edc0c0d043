"""The statements of this provider, for a schema of any name."""

from __future__ import annotations

from functools import lru_cache

from durable_host_providers._sql.statements import load_statements

__all__ = ["Statements", "called_functions", "quoted", "statements"]

_PACKAGE = "durable_host_providers.postgres"
_QUERIES = load_statements(_PACKAGE, "queries.sql")
_SCHEMA = "durable_host."

_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "commit": (
        *("integer", "bigint", "bigint"),
        *("bigint[]", "bigint[]", "integer[]", "integer[]", "text[]", "boolean[]", "integer[]"),
        *("integer[]", "integer[]", "bigint[]", "bigint[]", "boolean[]", "text[]", "text[]", "text[]", "text[]"),
        *("bytea[]", "bytea[]", "bytea[]", "bytea[]", "boolean[]", "bytea[]"),
        *("bigint[]", "text[]"),
        *("bigint[]", "bigint[]", "integer[]", "bytea[]"),
        *("bigint[]", "integer[]", "bytea[]"),
        *("bigint[]", "bigint[]", "text[]", "bigint[]", "text[]"),
        *("text[]", "bigint[]", "text[]", "bytea[]", "integer"),
        *("text[]", "text[]", "text[]", "bigint[]", "bytea[]"),
        *("bigint[]", "bigint[]", "bytea[]", "bytea[]"),
        *("bigint[]", "bigint[]", "integer"),
    ),
    "step": (
        *("integer", "bigint", "bigint"),
        *("bigint[]", "bigint[]", "integer[]", "integer[]", "text[]", "text[]"),
        *("integer[]", "integer[]", "bigint[]", "bytea[]", "bytea[]", "text[]", "text[]", "bytea[]"),
        *("bigint[]", "text[]"),
        *("text[]", "bigint[]", "text[]", "bytea[]", "integer"),
    ),
    "last_step": (
        *("integer", "bigint", "bigint"),
        *("bigint", "bigint", "integer", "integer", "text", "text"),
        *("integer", "integer", "bigint", "boolean", "text", "bytea"),
        *("bytea", "bytea", "bytea", "bytea", "text", "text", "text"),
    ),
    "complete": (
        *("integer", "bigint", "bigint", "text[]", "bigint[]", "bigint[]"),
        *("text[]", "text[]", "text[]", "bigint[]", "bytea[]", "integer"),
    ),
    "send": (
        *("integer", "bigint", "bigint"),
        *("text[]", "text[]", "text[]", "bigint[]", "bytea[]", "integer"),
    ),
    "start": (
        *("integer", "bigint", "bigint", "integer"),
        *("text[]", "text[]", "text[]", "bigint[]", "bytea[]", "text[]", "text[]", "text[]", "text[]", "bigint[]"),
        *("bytea[]", "bytea[]", "text[]"),
        *("text[]", "bytea[]", "bytea[]"),
    ),
    "fetch_instances": ("integer", "integer", "bigint", "bigint", "bigint[]", "bigint[]", "bigint[]"),
    "fetch_activities": ("integer", "integer", "bigint", "bigint"),
    "renew": ("integer", "bigint", "bigint[]", "bigint[]", "text[]", "bigint[]", "bigint[]"),
    "abandon": ("integer", "bigint", "bigint[]", "bigint[]", "boolean[]", "text[]", "bigint[]", "bigint[]"),
    "quarantine": ("integer", "bigint", "bigint", "text"),
    "release_quarantined": ("integer", "text[]"),
    "disown": ("integer", "bigint", "bigint", "bigint[]"),
    "purge": ("integer", "text[]", "boolean"),
}
"""The functions of the schema that are called, with the types of their arguments."""

_CALLERS: dict[str, tuple[str, ...]] = {
    "send_with": _FUNCTIONS["send"][3:-1],
    "start_with": _FUNCTIONS["start"][4:],
}
"""The same for calls in a caller's transaction, behind the hub."""


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def called_functions(schema: str) -> list[str]:
    """The functions that statements call, with the types of their arguments, as the server's catalogue spells them."""
    return [f"{quoted(schema)}.{name}({', '.join(types)})" for name, types in _FUNCTIONS.items()]


class Statements:
    """Named statements and calls of functions, in one schema; `schema` is its name in SQL."""

    def __init__(self, schema: str) -> None:
        self.schema = quoted(schema)
        self._named = {name: text.replace(_SCHEMA, f"{quoted(schema)}.") for name, text in _QUERIES.items()}
        for name, types in _FUNCTIONS.items():
            arguments = ", ".join(f"${at}::{kind}" for at, kind in enumerate(types, 1))
            self._named[name] = f"SELECT * FROM {quoted(schema)}.{name}({arguments})"
        for name, types in _CALLERS.items():
            arguments = ", ".join(f"${at}::{kind}" for at, kind in enumerate(types, 2))
            self._named[name] = (
                f"SELECT f.value FROM (SELECT hub FROM {quoted(schema)}.hubs WHERE identity = $1::text) AS h "
                f"CROSS JOIN LATERAL {quoted(schema)}.{name}(h.hub, {arguments}) AS f (value)"
            )

    def __getitem__(self, name: str) -> str:
        return self._named[name]


@lru_cache(maxsize=64)
def statements(schema: str) -> Statements:
    """The statements for a schema."""
    return Statements(schema)
