"""`start --reload`: a new version takes over, a bad one never does, the port stays open and instances go on."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.hosting import HostProcess
from tests.live.host_app import command_line, make_app, wait_until

pytestmark = pytest.mark.live


def _replace(app: Path, old: str, new: str) -> None:
    path = app / "function_app.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _version(host: HostProcess) -> str:
    return host.request("GET", "/api/version").body.decode()


def test_a_saved_change_takes_over_and_instances_go_on(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--reload") as host:
        host.request("POST", "/api/start/waiter/a")
        _replace(app, '"one"', '"two"')
        # Every request in between is answered: the listening socket stays open.
        wait_until(lambda: _version(host) == "two", "the new version answers")
        host.request("POST", "/runtime/webhooks/durabletask/instances/a/raiseEvent/go", "hello")
        status = host.complete("/runtime/webhooks/durabletask/instances/a")
        assert status["output"] == "hello"
        assert "File change of type 'Changed' detected for 'function_app.py'" in host.printed()
        assert host.stop() == 0


def test_a_version_that_cannot_be_loaded_never_takes_over(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--reload") as host:
        _replace(app, 'VERSION = "one"', 'VERSION = "two" (')
        wait_until(lambda: "the previous version goes on" in host.printed(), "the mistake is reported")
        assert "SyntaxError" in host.printed()
        assert _version(host) == "one"

        (app / "host.json").write_text("{")
        wait_until(lambda: "Unable to parse host configuration file" in host.printed(), "the mistake is reported")
        assert _version(host) == "one"

        (app / "host.json").write_text('{"version": "2.0"}')
        _replace(app, 'VERSION = "two" (', 'VERSION = "three"')
        wait_until(lambda: _version(host) == "three", "the repaired version answers")


def test_a_new_module_of_the_app_counts_too(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--reload") as host:
        (app / "parts").mkdir()
        (app / "parts" / "number.py").write_text('VERSION = "from a module"\n')
        _replace(app, 'VERSION = "one"', "from parts.number import VERSION")
        wait_until(lambda: _version(host) == "from a module", "the module is imported")
        (app / "parts" / "number.py").write_text('VERSION = "changed"\n')
        wait_until(lambda: _version(host) == "changed", "the module is imported again")


def test_the_first_version_has_to_be_good(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", "import nothing_of_this_name\n")

    ended = command_line("start", app, "--reload", "--port", "0")

    assert ended.returncode == 1
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in ended.stderr


def test_a_host_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--reload") as host:
        assert host.process is not None
        process = host.process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not _answers(host), "the port is closed")


_PID_ROUTE = """

@app.route(route="pid", methods=["GET"])
def pid(req: df.HttpRequest) -> df.HttpResponse:
    import os

    return df.HttpResponse(str(os.getpid()))
"""


def test_a_host_that_dies_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    with (app / "function_app.py").open("a") as code:
        code.write(_PID_ROUTE)

    with HostProcess(app, "--reload") as host:
        for death in range(1, 4):
            os.kill(_pid(host), signal.SIGKILL)
            if death < 3:
                wait_until(partial(_revivals, host, death), "it is missed")
                assert _version(host) == "one"
        assert host.process is not None
        assert host.process.wait(timeout=30) == 1
        assert "3 times within 30 minutes" in host.printed()


def _revivals(host: HostProcess, count: int) -> bool:
    return host.printed().count("it is started again") == count


def _pid(host: HostProcess) -> int:
    """The process that runs the app."""
    return int(host.request("GET", "/api/pid").body)


def _answers(host: HostProcess) -> bool:
    try:
        return host.request("GET", "/health/live", timeout=2).status == 200
    except OSError:
        return False
