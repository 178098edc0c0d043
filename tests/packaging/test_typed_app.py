"""Type checkers of users see what the package promises: calls by function are typed, with mypy and with pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosting import ROOT

SAMPLE = Path(__file__).parent / "data" / "typed_app.txt"


def _run(*command: str, cwd: Path) -> str:
    bin = Path(sys.executable).parent
    done = subprocess.run(
        [bin / command[0], *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout


def _mypy(app: Path) -> set[int]:
    cache = ROOT / ".mypy_cache" / "typed_app"
    output = _run("mypy", "--strict", "--no-incremental", f"--cache-dir={cache}", app.name, cwd=app.parent)
    return {int(line) for line in re.findall(r"^app\.py:(\d+): error:", output, re.MULTILINE)}


def _pyright(app: Path) -> set[int]:
    (app.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    output = _run("pyright", "--outputjson", "--pythonpath", sys.executable, app.name, cwd=app.parent)
    return {
        each["range"]["start"]["line"] + 1
        for each in json.loads(output)["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.mark.parametrize("check", [_mypy, _pyright], ids=["mypy", "pyright"])
def test_the_errors_found_are_those_that_are_there(check: object, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    source = SAMPLE.read_text(encoding="utf-8")
    app.write_text(source, encoding="utf-8")
    expected = {number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# error")}

    assert callable(check)
    assert check(app) == expected
    assert len(expected) == 6
