"""Chaos in small: the run of `make chaos`, a minute long; and that it leaves nothing behind when it is ended early."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosting import ROOT, source_environment

pytestmark = pytest.mark.live


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.chaos", *arguments]


def _counts(printed: str) -> dict[str, int]:
    return {name: int(count.replace(",", "")) for name, count in re.findall(r"^  (\S.*?) +([\d,]+)$", printed, re.M)}


def _run(tell: Callable[[str], None], *arguments: str) -> dict[str, int]:
    done = subprocess.run(
        _command(*arguments),
        cwd=ROOT,
        env=source_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    tell(done.stdout)
    return _counts(done.stdout)


def test_hosts_on_one_file_that_are_killed_and_paused_do_everything_once(tell: Callable[[str], None]) -> None:
    counts = _run(tell, "--storage", "sqlite", "--seconds", "20", "--seed", "1")

    assert min(counts[name] for name in ("kills", "pauses", "stops", "locks")) >= 1
    assert counts["results used"] > 100


@pytest.mark.usefixtures("postgres_server")  # says what to do where there is none; the run starts one of its own
def test_hosts_on_a_server_that_falls_and_returns_do_everything_once(tell: Callable[[str], None]) -> None:
    counts = _run(tell, "--storage", "postgres", "--seconds", "60", "--seed", "1")

    assert min(counts[name] for name in ("kills", "pauses", "stops", "connections cut")) >= 1
    assert (counts["crashes"], counts["outages"], counts["freezes"]) == (1, 1, 1)
    assert counts["restarts"] == 4
    assert counts["results used"] > 500


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_that_is_interrupted_leaves_no_process_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        _command("--storage", "sqlite", "--seconds", "600"),
        cwd=ROOT,
        env=source_environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "chaos begins" in line:
                break
        hosts = _children(process.pid)
        assert len(hosts) == 3

        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 130
    end = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in hosts) and time.monotonic() < end:
        time.sleep(0.05)
    assert [pid for pid in hosts if Path(f"/proc/{pid}").exists()] == []
    assert os.listdir(tmp_path) == []
