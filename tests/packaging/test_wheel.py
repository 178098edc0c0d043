"""What is shipped: the wheel, the editable install, entry points, and a host from a plain install."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.hosting import ROOT, HostProcess

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ((ROOT, "durable_host"), (ROOT / "providers", "durable_host_providers"))


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_our_two_packages_and_no_providers_folder(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in _names(wheel)}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"durable_host", "durable_host_providers"}


def test_wheel_holds_every_module_sql_file_and_type_marker(wheel: Path) -> None:
    expected = {
        str(path.relative_to(base))
        for base, package in SOURCES
        for path in (base / package).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and (path.suffix in {".py", ".sql"} or path.name == "py.typed")
    }

    assert expected - _names(wheel) == set()
    assert {name for name in expected if name.endswith(".sql")}
    assert {"durable_host/py.typed", "durable_host_providers/py.typed"} <= expected


def test_wheel_carries_licence_and_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()

    assert f"{info}/licenses/LICENSE" in _names(wheel)
    assert "durable-host = durable_host.cli:main" in entry_points
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_only_aiohttp_and_msgspec_are_needed_at_run_time() -> None:
    names = {requirement.split(">")[0] for requirement in PROJECT["dependencies"]}

    assert names == {"aiohttp", "msgspec"}


def test_editable_install_is_a_static_pth(editable_wheel: Path) -> None:
    names = {name for name in _names(editable_wheel) if ".dist-info/" not in name}

    (pth,) = names
    assert pth.endswith(".pth")
    with zipfile.ZipFile(editable_wheel) as archive:
        lines = archive.read(pth).decode().split()
    assert sorted(lines) == sorted([str(ROOT), str(ROOT / "providers")])


@pytest.mark.parametrize(
    ("group", "name", "target"),
    [
        (group, name, target)
        for group, entries in {"scripts": PROJECT["scripts"], **PROJECT["entry-points"]}.items()
        for name, target in entries.items()
    ],
)
def test_entry_point_resolves(group: str, name: str, target: str) -> None:
    module_name, _, attribute = target.partition(":")

    module = importlib.import_module(module_name)

    assert not attribute or getattr(module, attribute) is not None, (group, name)


def test_version_is_told_by_the_package() -> None:
    package = importlib.import_module("durable_host")

    assert package.__version__ == PROJECT["version"]


@pytest.mark.live
def test_plain_install_brings_nothing_beyond_aiohttp_and_msgspec(plain_environment: Path) -> None:
    listed = subprocess.run(
        [plain_environment / "python", "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names = {each["name"].lower() for each in json.loads(listed)}

    http = {"aiohttp", "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "idna", "multidict", "propcache", "yarl"}
    assert (
        names - http - {"msgspec", "durable-host", "pip", "setuptools", "typing-extensions", "typing_extensions"}
        == set()
    )


@pytest.mark.live
def test_plain_install_gives_a_working_host_on_sqlite(plain_environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = plain_environment / "durable-host"
    subprocess.run([command, "init"], cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=60, check=True)

    with HostProcess(folder, command=[str(command), "start"], environment=environment) as host:
        started = host.request("POST", "/api/orchestrators/hello_cities")
        assert started.status == 202, (started, host.printed())
        status = host.complete(started.json()["statusQueryGetUri"])

    assert status["runtimeStatus"] == "Completed"
    assert list(folder.glob(".durable/*.db")), "the hub is an SQLite file in the app folder"
