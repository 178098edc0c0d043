"""Settings of the PostgreSQL provider, and that no text tells the password."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.storage.contract import StorageOptions
from durable_host_providers.postgres.settings import read_settings

URL = "postgresql://user:s3cret@db.example:5433/orders"


def options(url: str | None = URL, settings: Mapping[str, object] | None = None, **named: str) -> StorageOptions:
    return StorageOptions("Hub", settings or {}, Path(), url, timedelta(seconds=30), setting=named.get)


def test_an_address_is_enough() -> None:
    settings, problems = read_settings(options())

    assert problems == []
    assert (settings.dsn, settings.schema, settings.connections) == (URL, "durable_host", 6)
    assert settings.location == "postgresql://db.example:5433/orders, schema durable_host, hub Hub"
    assert "s3cret" not in repr(settings)


def test_the_schema_may_stand_in_the_address() -> None:
    settings, problems = read_settings(options(f"{URL}?sslmode=require&schema=mine"))

    assert problems == []
    assert (settings.dsn, settings.schema) == (f"{URL}?sslmode=require", "mine")


def test_the_connection_is_named_by_a_setting() -> None:
    settings, problems = read_settings(options("postgres:", {"connectionName": "Db", "schema": "x"}, Db=URL))

    assert problems == []
    assert (settings.dsn, settings.schema) == (URL, "x")


@pytest.mark.parametrize(
    ("url", "settings", "named", "told"),
    [
        (None, {}, {}, "POSTGRES_CONNECTION_STRING"),
        (None, {"connectionName": "Db"}, {}, "'Db'"),
        (None, {"connectionName": 3}, {}, "connectionName is 3"),
        (None, {"connectionName": "Db"}, {"Db": "Server=s3cret;"}, "not a connection string"),
        ("postgresql://u:s3cret@h:port/d", {}, {}, "--storage"),
        ("postgresql://u:s3#cret@h/d", {}, {}, "%23"),
        (URL, {"schema": ""}, {}, "schema is ''"),
        (URL, {"schema": "x" * 64}, {}, "63 bytes"),
        (URL, {"maxConnections": 1}, {}, "maxConnections is 1"),
        (URL, {"pollInterval": "soon"}, {}, "pollInterval is 'soon'"),
        (URL, {"colour": "blue"}, {}, "colour is not a setting"),
    ],
)
def test_mistakes_are_told_without_the_password(
    url: str | None, settings: Mapping[str, object], named: dict[str, str], told: str
) -> None:
    _, problems = read_settings(options(url, settings, **named))

    assert len(problems) == 1
    assert told in problems[0]
    assert "s3" not in problems[0]
