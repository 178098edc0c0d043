"""The Azurite of the tests: it starts, counts, and keeps what it has when it is ended properly."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.servers.azurite import Azurite, LoggedRequest

pytestmark = pytest.mark.live


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_requests_are_told_from_a_mark_on(azurite: Azurite) -> None:
    _status(f"{azurite.urls['queue']}/before?comp=metadata")
    mark = azurite.mark()

    status = _status(f"{azurite.urls['queue']}/after?comp=metadata")

    assert LoggedRequest("GET", "/after?comp=metadata", status) in azurite.requests(mark)
    assert all("/before" not in each.target for each in azurite.requests(mark))


def test_names_are_good_for_queues_tables_and_containers(azurite: Azurite) -> None:
    names = [azurite.new_name() for _ in range(3)]

    assert len(set(names)) == 3
    assert all(name.isalnum() and name.islower() and name[0].isalpha() and len(name) < 30 for name in names)


def test_it_starts_again_at_the_same_addresses(azurite: Azurite, tmp_path: Path) -> None:
    with Azurite(tmp_path, in_memory=False) as server:
        first = dict(server.urls)
        server.stop()
        with pytest.raises(urllib.error.URLError):
            _status(server.urls["blob"])
        server.start()

        assert server.urls == first
        assert _status(f"{server.urls['blob']}?comp=list") in {400, 403, 404}
