"""Habits of the repository: nothing that belongs to one machine, nothing that ties it to one package index."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.hosting import ROOT

_SELF = Path(__file__).resolve()
_TEXT = {".py", ".toml", ".md", ".txt", ".json", ".yml", ".sql", ".sh", ".cfg", ".ini", ""}

# Written in parts, so that this file does not find itself.
_ABSOLUTE = re.compile(
    r"(?<![\w.])/(?:" + "|".join(["work", "root", "Users"]) + r")/[\w.]+|(?<![\w.])/" + "home" + r"/(?!site\b)\w+/"
)
_INDEXES = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted"),
            ("registry", "npmjs"),
            ("deb", "debian"),
            ("docker", "io"),
            ("ghcr", "io"),
        )
    )
)


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix in _TEXT and path.resolve() != _SELF]


def _found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    assert _found(_ABSOLUTE) == []


def test_no_tracked_file_names_a_package_index() -> None:
    assert _found(_INDEXES) == []


def test_every_locked_requirement_has_a_version_and_a_hash() -> None:
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text(encoding="utf-8")
        entries = re.split(r"\n(?=[A-Za-z])", re.sub(r"(?m)^\s*#.*\n?", "", text).strip())
        assert entries, lock
        for entry in entries:
            assert re.match(r"[a-z0-9-]+==\S+", entry), (lock.name, entry[:80])
            assert "--hash=sha256:" in entry, (lock.name, entry[:80])


def test_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_what_to_do_when_python_is_missing(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("run.txt", "build.txt", "dev.txt"):
        (tmp_path / "requirements" / name).touch()
    (tmp_path / "pyproject.toml").touch()

    done = subprocess.run(
        ["make", "start", "PYTHON=/nowhere/python"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "make PYTHON=" in done.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_a_target_lists_the_targets() -> None:
    done = subprocess.run(["make"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)

    for target in ("start", "test", "check", "bench", "soak", "clean"):
        assert f"make {target}" in done.stdout


@pytest.mark.parametrize(("check", "test"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_ci_fails_if_either_part_fails_and_ends_with_the_closing_line(tmp_path: Path, check: int, test: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    closing = "===== 3 passed, 1 skipped in 0.12s ====="
    (tmp_path / "Makefile").write_text(
        f"check:\n\t@echo checking; exit {check}\ntest:\n\t@echo '{closing}'; exit {test}\n", encoding="utf-8"
    )

    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert (done.returncode == 0) == (check == test == 0), done.stdout
    assert "checking" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == closing
