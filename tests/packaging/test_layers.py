"""The import contracts of pyproject.toml hold, and each one fails when a violation is planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.hosting import ROOT

CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
]

VIOLATIONS = [
    (
        "durable_host is layered",
        "durable_host/model/planted.py",
        "import durable_host.storage.contract",
    ),
    (
        "durable_host is layered",
        "durable_host/engine/planted.py",
        "import durable_host.http.management",
    ),
    (
        "the host finds providers through entry points only",
        "durable_host/storage/planted.py",
        "import durable_host_providers.memory",
    ),
    (
        "providers do not know each other",
        "providers/durable_host_providers/memory/planted.py",
        "import durable_host_providers.sqlite",
    ),
    (
        "providers see storage, model, environment and errors only",
        "providers/durable_host_providers/sqlite/planted.py",
        "import durable_host.engine.client",
    ),
    (
        "nothing imports testing",
        "durable_host/engine/planted.py",
        "import durable_host.testing.loop",
    ),
]


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "providers")]), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("durable_host", "providers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(checkout: Path) -> None:
    done = _lint(checkout)

    assert done.returncode == 0, done.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert {name for name, _, _ in VIOLATIONS} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "file", "statement"), VIOLATIONS)
def test_contract_notices_a_violation(checkout: Path, contract: str, file: str, statement: str) -> None:
    (checkout / file).write_text(f"{statement}\n", encoding="utf-8")

    done = _lint(checkout)

    assert done.returncode != 0
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), done.stdout
