"""A store that fails under a running host: what callers and probes are told, and that it recovers by itself."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.hosting import HostProcess
from tests.live.host_app import make_app, wait_until

pytestmark = pytest.mark.live

WEBHOOK = "/runtime/webhooks/durabletask"
HOST_JSON = """{
    "version": "2.0",
    "extensions": {"durableTask": {
        "hubName": "Hub", "storageProvider": {"type": "sqlite", "busyTimeout": "00:00:00.2"}
    }}
}"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return make_app(tmp_path / "app", host_json=HOST_JSON)


def _start(host: HostProcess, instance_id: str, value: object = None) -> tuple[int, Any]:
    answer = host.request("POST", f"{WEBHOOK}/orchestrators/waiter/{instance_id}", value)
    return answer.status, answer.json()


def _ready(host: HostProcess) -> tuple[int, str]:
    answer = host.request("GET", "/health/ready")
    return answer.status, answer.json().get("reason", "")


def _limit(host: HostProcess, size: int) -> None:
    assert host.process is not None
    resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux only")
def test_a_full_disk_is_told_and_forgotten_once_there_is_room(app: Path) -> None:
    with HostProcess(app) as host:
        _limit(host, 400_000)
        kept: list[str] = []
        status, answer = _start(host, "i0", "x" * 60_000)
        while status == 202:
            kept.append(f"i{len(kept)}")
            status, answer = _start(host, f"i{len(kept)}", "x" * 60_000)
        assert (status, len(kept) < 100) == (500, True)
        assert "Check the disk, its free space" in answer["ExceptionMessage"]
        wait_until(lambda: _ready(host)[0] == 503, "the probe fails")
        assert "Check the disk, its free space" in _ready(host)[1]
        assert host.request("GET", "/health/live").status == 200

        _limit(host, resource.RLIM_INFINITY)
        wait_until(lambda: _ready(host)[0] == 200, "it recovers", within=12)
        assert _start(host, "after")[0] == 202
        for instance_id in (*kept, "after"):
            assert host.request("POST", f"{WEBHOOK}/instances/{instance_id}/raiseEvent/go", 7).status == 202
            assert host.complete(f"{WEBHOOK}/instances/{instance_id}")["output"] == 7
        assert "Traceback" not in host.printed()


def test_a_locked_file_is_told_and_forgotten_once_it_is_free(app: Path) -> None:
    with HostProcess(app) as host:
        other = sqlite3.connect(app / ".durable" / "Hub.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            status, answer = _start(host, "a")
            assert (status, "is locked: another process" in answer["ExceptionMessage"]) == (500, True)
            wait_until(lambda: _ready(host)[0] == 503, "the probe fails")
            other.execute("ROLLBACK")
        finally:
            other.close()
        wait_until(lambda: _ready(host)[0] == 200, "it recovers", within=12)
        assert _start(host, "b")[0] == 202


def test_a_file_that_is_gone_is_told_until_it_is_back(app: Path) -> None:
    folder = app / ".durable"
    with HostProcess(app) as host:
        assert _start(host, "a")[0] == 202
        for name in ("Hub.db", "Hub.db-wal", "Hub.db-shm"):
            (folder / name).rename(app / name)
        status, answer = _start(host, "b")
        assert (status, "was deleted or moved while in use" in answer["ExceptionMessage"]) == (500, True)
        status, reason = _ready(host)
        assert (status, "was deleted or moved while in use" in reason) == (503, True)
        assert not (folder / "Hub.db").exists(), "it makes no new one in its place"

        for name in ("Hub.db-shm", "Hub.db-wal", "Hub.db"):
            (app / name).rename(folder / name)
        wait_until(lambda: _ready(host)[0] == 200, "it recovers", within=12)
        assert host.request("POST", f"{WEBHOOK}/instances/a/raiseEvent/go", 7).status == 202
        assert host.complete(f"{WEBHOOK}/instances/a")["output"] == 7


def test_a_host_whose_store_fails_can_be_stopped(app: Path) -> None:
    with HostProcess(app) as host:
        _start(host, "a")
        assert host.process is not None
        process = host.process
        (app / ".durable" / "Hub.db").unlink()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
        assert "Traceback" not in host.printed()
