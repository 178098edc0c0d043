"""Addresses of PostgreSQL: what is taken, what is refused, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable_host.storage.contract import StorageOptions
from durable_host_providers.postgres.settings import Settings, read_settings


def _read(url: str) -> tuple[Settings, list[str]]:
    return read_settings(StorageOptions("Hub", {}, Path(), url))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@one.example:5433/orders", "postgresql://one.example:5433/orders"),
        ("postgres://u:s3cret@one.example/orders", "postgresql://one.example/orders"),
        ("postgresql://u:s3cret@[::1]:5433/orders?sslmode=require", "postgresql://[::1]:5433/orders"),
        ("postgresql://u:s3cret@one:5433,two:5434,three/orders", "postgresql://one:5433,two:5434,three/orders"),
        ("postgresql://one,two/orders?target_session_attrs=read-write", "postgresql://one,two/orders"),
    ],
)
def test_one_or_several_servers_are_shown_without_user_and_password(url: str, shown: str) -> None:
    settings, problems = _read(url)

    assert problems == []
    assert settings.location.startswith(f"{shown}, ")
    assert settings.dsn == url
    assert "s3cret" not in repr(settings) + settings.location


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@one:port/orders",
        "postgresql://u:s3cret@one:5432,two:port/orders",
        "postgresql://u:s3cret@one:99999/orders",
        "postgresql://u:s3cret@[::1/orders",
        "mysql://u:s3cret@one/orders",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    (problem,) = _read(url)[1]

    assert "postgresql://user:password@host:5432/database" in problem
    assert "s3cret" not in problem


def test_the_schema_may_stand_in_the_address_and_does_not_reach_the_driver() -> None:
    settings, problems = _read("postgresql://one,two:1/orders?sslmode=require&schema=wf%20one")

    assert (problems, settings.schema) == ([], "wf one")
    assert settings.dsn == "postgresql://one,two:1/orders?sslmode=require"
