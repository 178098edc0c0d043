"""Where a SQLite hub is, and which settings are refused."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import StorageOptions
from durable_host_providers.sqlite import provider
from durable_host_providers.sqlite.settings import read_settings


def options(folder: Path, settings: dict[str, object] | None = None, url: str | None = None) -> StorageOptions:
    return StorageOptions("MyHub", settings or {}, folder, url)


@pytest.mark.parametrize(
    ("settings", "url", "path", "location"),
    [
        ({}, None, "{folder}/.durable/MyHub.db", ".durable/MyHub.db"),
        ({}, "sqlite", "{folder}/.durable/MyHub.db", ".durable/MyHub.db"),
        ({"path": "data/x.db"}, None, "{folder}/data/x.db", "data/x.db"),
        ({"Path": "/srv/x.db"}, None, "/srv/x.db", "/srv/x.db"),
        ({"path": ":memory:"}, None, None, ":memory:"),
        ({"path": "data/x.db"}, "sqlite:///y.db", "{folder}/y.db", "y.db"),
        ({}, "sqlite:////srv/my%20hub.db", "/srv/my hub.db", "/srv/my hub.db"),
        ({}, "sqlite://:memory:", None, ":memory:"),
        ({}, "sqlite:///:memory:", None, ":memory:"),
    ],
)
def test_the_file_is_where_the_settings_say(
    tmp_path: Path, settings: dict[str, object], url: str | None, path: str | None, location: str
) -> None:
    found, problems = read_settings(options(tmp_path, settings, url))

    assert problems == []
    assert (found.path, found.location) == (None if path is None else Path(path.format(folder=tmp_path)), location)


@pytest.mark.parametrize(
    ("settings", "url", "problem"),
    [
        (
            {"synchronous": "sometimes"},
            None,
            "storageProvider.synchronous is 'sometimes'; it must be one of: extra, full",
        ),
        ({"busyTimeout": "soon"}, None, "storageProvider.busyTimeout is 'soon'; it must be a time span"),
        ({"busyTimeout": -1}, None, "storageProvider.busyTimeout is -1"),
        ({"busyTimeout": True}, None, "storageProvider.busyTimeout is True"),
        ({"path": 5}, None, "storageProvider.path is 5; it must be a file name"),
        ({"path": "."}, None, "is '.', which is a folder"),
        ({"file": "x.db"}, None, "storageProvider.file is not a setting of sqlite; its settings are: busyTimeout"),
        ({}, "sqlite://host/x.db", "--storage is 'sqlite://host/x.db'; it must be sqlite:///file.db"),
        ({}, "sqlite://", "--storage is 'sqlite://'"),
        ({}, "sqlite:///x.db?mode=ro", "--storage is 'sqlite:///x.db?mode=ro'"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(
    tmp_path: Path, settings: dict[str, object], url: str | None, problem: str
) -> None:
    (found,) = provider.problems(options(tmp_path, settings, url))

    assert problem in found
    with pytest.raises(ConfigurationError):
        provider.open(options(tmp_path, settings, url), system_environment())


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    assert len(provider.problems(options(tmp_path, {"synchronous": 1, "pollInterval": "x", "other": 1}))) == 3


def test_time_spans_are_read_like_those_of_host_json(tmp_path: Path) -> None:
    found, _ = read_settings(options(tmp_path, {"busyTimeout": "00:01:02.5", "pollInterval": 0.2}))

    assert (found.busy, found.poll) == (timedelta(seconds=62.5), timedelta(seconds=0.2))


async def test_the_default_folder_keeps_itself_out_of_version_control(tmp_path: Path) -> None:
    opened = provider.open(options(tmp_path), system_environment())
    await opened.hub.create()

    assert "*" in (tmp_path / ".durable" / ".gitignore").read_text().splitlines()


async def test_a_hub_in_memory_lives_as_long_as_its_store(tmp_path: Path) -> None:
    opened = provider.open(options(tmp_path, url="sqlite://:memory:"), system_environment())
    await opened.hub.create()
    async with opened.hub as store:
        await store.check()
        await opened.host_state.write("keys/host", b"secret", expected=None)
        assert (await opened.host_state.read("keys/host")) is not None
        assert not store.traits.durable
    async with opened.hub:
        assert await opened.host_state.read("keys/host") is None
    assert not os.listdir(tmp_path)
