"""README.md does what it says: its code and its commands are taken from the file itself and run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hosting import ROOT, HostProcess, source_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = {title or content.strip(): content for _, title, content in _FENCE.findall(README)}
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


def _documents() -> list[Path]:
    return [
        path
        for pattern in ("*.md", "docs/**/*.md", "samples/*/README.md", "benchmarks/*.md")
        for path in ROOT.glob(pattern)
    ]


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = _LINK.findall(document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_introduction_is_five_lines() -> None:
    title, introduction, *_ = README.split("\n\n")

    assert title == "# durable_host"
    assert len(introduction.splitlines()) == 5


def test_first_app_is_under_twenty_lines_of_python() -> None:
    code = BLOCKS["my_app/function_app.py"]

    assert len([line for line in code.splitlines() if line.strip()]) < 20
    ast.parse(code)


def test_the_two_commands_are_those_of_the_makefile_and_the_sample() -> None:
    assert "make start" in BLOCKS
    (request,) = [command for command in BLOCKS if command.startswith("curl")]
    assert "http://localhost:7071/api/orchestrators/hello_cities" in request


@pytest.mark.live
def test_first_app_and_its_commands_work(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        if os.environ.get("CI"):
            pytest.fail("curl is not installed")
        pytest.skip("curl is not installed: NOT TESTED that the commands of README.md work")
    app = tmp_path / "my_app"
    app.mkdir()
    (app / "function_app.py").write_text(BLOCKS["my_app/function_app.py"], encoding="utf-8")
    (app / "host.json").write_text(BLOCKS["host.json"], encoding="utf-8")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "durable-host").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m durable_host "$@"\n', encoding="utf-8")
    (tools / "durable-host").chmod(0o755)
    environment = source_environment(PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    start = BLOCKS["host"].split()

    with HostProcess(app, command=[str(tools / start[0]), start[1], str(app)], environment=environment) as host:
        assert start == ["durable-host", "start", "my_app"]
        links: dict[str, str] = {}
        for command in BLOCKS["requests"].strip().splitlines():
            text = command.replace("http://localhost:7071", host.address)
            done = subprocess.run(
                ["sh", "-c", text],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
                check=True,
            )
            if command.startswith("curl"):
                links = json.loads(done.stdout)
                status = host.complete(links["statusQueryGetUri"])
                assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
            else:
                assert links["id"] in done.stdout
                assert "Completed" in done.stdout


@pytest.mark.live
def test_make_start_on_a_fresh_clone_serves_and_loses_nothing(tmp_path: Path) -> None:
    if shutil.which("make") is None or shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs make, git and a git checkout")
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "MAKEFLAGS", "VIRTUAL_ENV"}
    }
    installed = subprocess.run(
        ["make", ".venv/.installed-run"],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    if installed.returncode != 0:
        if os.environ.get("CI") or "No matching distribution" not in installed.stdout:
            pytest.fail(f"make could not install:\n{installed.stdout}")
        pytest.skip("no package index can be reached: NOT TESTED that make start works on a fresh clone")

    first = _make_start(clone, environment)
    started = first.request("POST", "/api/orchestrators/hello_cities").json()
    first.kill()
    began = time.monotonic()
    second = _make_start(clone, environment)
    try:
        assert time.monotonic() - began < 30
        path = started["statusQueryGetUri"].removeprefix(first.address)
        assert second.complete(path)["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    finally:
        second.stop()


def _make_start(clone: Path, environment: dict[str, str]) -> HostProcess:
    host = HostProcess(clone, command=["sh", "-c", 'exec make start ARGS="$*"', "start"], environment=environment)
    host.start()
    return host
