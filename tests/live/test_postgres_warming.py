"""The first calls on a connection do what they are for, and leave nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from durable_host.environment import system_environment
from durable_host.storage.contract import StorageOptions
from durable_host_providers.postgres import provider
from durable_host_providers.postgres.statements import statements
from durable_host_providers.postgres.warming import warm

pytestmark = pytest.mark.live


class Recording:
    """A connection that keeps the answers."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.answers: list[Sequence[Sequence[Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, query: str, *arguments: object, timeout: float | None = None) -> Sequence[Sequence[Any]]:
        self.answers.append(await self._connection.fetch(query, *arguments, timeout=timeout))
        return self.answers[-1]


async def test_the_first_calls_reach_every_part_and_are_undone(postgres_database: str) -> None:
    await provider.open(StorageOptions("Hub", {}, Path(), postgres_database), system_environment()).hub.create()
    connection: Any = await asyncpg.connect(postgres_database)
    try:
        recording = Recording(connection)

        await warm(recording, statements("durable_host"), "first")  # pyright: ignore[reportArgumentType]

        refs, early, first, new, started, last, alone, carried, stepped, completed, committed, *_ = recording.answers
        assert [len(refs), len(early), len(first)] == [2, 1, 1]
        assert len(new) == 1
        assert [row[0] for row in started] == [8]
        assert list(last) == []
        assert len(alone) == 1
        assert len(carried) == 1
        assert list(stepped) == []
        assert [row[0] for row in completed] == [4]
        assert 6 in [row[0] for row in committed]
        for table in ("instances", "history", "messages", "activities"):
            assert await connection.fetchval(f"SELECT count(*) FROM durable_host.{table}") == 0
    finally:
        await connection.close()
