"""The replay of the reference's requests makes as many as the specification counts, empty looks into queues aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.azure_replay import replayed
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("family", "size", "least"),
    [
        ("W1", 4, 3 + 7 + 5 * 3 + 4 * 6 + 5),  # a start, five activities, six episodes
        ("W2", 3, 3 + 7 + 5 * 3 + 4 * 6 + 5),
        ("W3", 120, 5),  # an activity's put, get, put and delete, and its answer's delete
        ("W4", 20, 3),
        ("W6", 20, 9),
    ],
)
async def test_it_makes_as_many_requests_as_the_reference(
    azurite: Azurite, tmp_path: Path, family: str, size: int, least: float
) -> None:
    with Azurite(tmp_path) as server:
        figures = await replayed(family, size, server.connection_string)

    assert figures["requests"] >= least
    assert figures["requests"] == least or family != "W4"
