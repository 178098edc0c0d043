"""Stopping: drain within the grace period, give the rest back, and leave at once when told twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.hosting import HostProcess
from tests.live.host_app import command_line, make_app, wait_until

pytestmark = pytest.mark.live


def test_what_is_held_is_finished_before_the_end(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        host.request("POST", "/api/start/sleeper/a", 1.5)
        wait_until(lambda: "slow begins" in host.printed(), "the activity runs")
        code = host.stop()

    assert code == 0
    with HostProcess(app) as host:
        wait_until(lambda: '"slept"' in command_line("instances", "show", "a", app).stdout, "the instance ends")
        assert "slow begins" not in host.printed()  # its result was kept


def test_a_drained_host_is_resumed(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    def drained(state: str) -> bool:
        return bool(host.request("GET", "/admin/host/drain/status").json()["state"] == state)

    with HostProcess(app) as host:
        assert host.request("POST", "/admin/host/resume").status == 409
        assert host.request("POST", "/admin/host/drain").status == 202
        wait_until(lambda: drained("Completed"), "it drains")
        answer = host.request("POST", "/api/start/sleeper/a", 0)
        time.sleep(0.3)
        assert host.request("GET", answer.json()["statusQueryGetUri"]).json()["runtimeStatus"] == "Pending"

        resumed = host.request("POST", "/admin/host/resume")
        assert (resumed.status, resumed.json()) == (200, {"state": "Running"})
        assert host.complete(answer.json()["statusQueryGetUri"])["output"] == "slept"
        assert drained("Disabled")
        assert host.request("POST", "/admin/host/resume").status == 409


def test_what_does_not_end_in_time_goes_back_and_runs_again(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        host.request("POST", "/api/start/sleeper/a", 25)
        wait_until(lambda: "slow begins" in host.printed(), "the activity runs")
        begun = time.monotonic()
        code = host.stop()
        took = time.monotonic() - begun

    assert code == 0
    assert 9 < took < 20
    text = (app / "function_app.py").read_text().replace("time.sleep(seconds)", "pass")
    (app / "function_app.py").write_text(text)
    with HostProcess(app) as host:
        wait_until(lambda: '"slept"' in command_line("instances", "show", "a", app).stdout, "the instance goes on")


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        assert host.process is not None
        process = host.process
        host.request("POST", "/api/start/sleeper/a", 30)
        wait_until(lambda: "slow begins" in host.printed(), "the activity runs")
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: "Press Ctrl-C again to exit at once." in host.printed(), "the first signal is heard")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(3) == 130


def test_two_signals_end_a_host_whose_loop_is_blocked(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        assert host.process is not None
        process = host.process
        host.request("POST", "/api/start/spinning/a")
        wait_until(lambda: "spinning" in host.printed(), "the watchdog names the function")
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(3) == 130


def test_instances_survive_a_kill(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        host.request("POST", "/api/start/waiter/a")
        wait_until(lambda: "Running" in command_line("instances", "show", "a", app).stdout, "it waits")
        host.kill()
    assert command_line("instances", "raise", "a", "go", app, "--data", '"later"').returncode == 0

    with HostProcess(app):
        wait_until(lambda: '"later"' in command_line("instances", "show", "a", app).stdout, "it goes on")


def test_the_port_is_free_again_at_once(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        host.request("GET", "/api/version")
        host.stop()
        host.start()
        assert host.request("GET", "/api/version").body == b"one"


def test_a_function_that_overruns_its_time_ends_the_host(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", host_json='{"version": "2.0", "functionTimeout": "00:00:01"}')

    with HostProcess(app) as host:
        assert host.process is not None
        process = host.process
        host.request("POST", "/api/start/sleeper/a", 60)
        assert process.wait(25) == 1
        assert "did not end after its time limit" in host.printed()
