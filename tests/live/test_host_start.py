"""Starting: what is printed, what is refused, and that nobody sees a traceback of ours."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosting import HostProcess, free_port, source_environment
from tests.live.host_app import command_line, make_app, wait_until

pytestmark = pytest.mark.live


def test_start_prints_hub_functions_and_addresses(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app) as host:
        printed = host.printed()

    assert (
        "Task hub TestHubName: sqlite at .durable/TestHubName.db "
        "(host.json names none and AzureWebJobsStorage is not set)." in printed
    )
    assert f"\n\tversion: [GET] http://localhost:{host.port}/api/version\n\n" in printed
    assert "\n\twaiter: orchestrationTrigger\n\n" in printed
    assert "For detailed output, run durable-host with the --verbose flag." in printed
    assert re.search(r"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] Worker process started", printed, re.MULTILINE)
    assert "\x1b" not in printed
    assert (app / ".durable" / "TestHubName.db").exists()


def test_the_choice_of_storage_can_be_overridden_and_is_printed(tmp_path: Path) -> None:
    app = make_app(
        tmp_path / "app", host_json='{"version": "2.0", "extensions": {"durableTask": {"hubName": "MyHub"}}}'
    )

    with HostProcess(app, "--storage", "memory") as host:
        assert "Task hub MyHub: memory (--storage says so)." in host.printed()
    with HostProcess(app, "--storage", f"sqlite:///{tmp_path}/x.db") as host:
        assert f"sqlite at {tmp_path}/x.db (--storage says so)." in host.printed()

    assert not (app / ".durable").exists()
    assert (tmp_path / "x.db").exists()


def test_all_problems_of_host_json_are_told_and_start_ends_with_1(tmp_path: Path) -> None:
    app = make_app(
        tmp_path / "app",
        host_json="""{ // comments are fine
            "version": "2.0",
            "functionTimeout": "soon",
            "extensions": {"durableTask": {"hubName": "a-b", "storageProvider": {"type": "postgrse"}}},
        }""",
    )

    ended = command_line("start", app)

    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("host.json: functionTimeout is 'soon'")
    assert lines[1].startswith("host.json: extensions.durableTask.hubName is 'a-b'")
    assert lines[2].startswith(
        "host.json: extensions.durableTask.storageProvider.type is 'postgrse'; known providers: "
    )
    assert lines[2].endswith("memory, postgres, sqlite. Install an extra or fix the name.")


@pytest.mark.parametrize("kind", ["mssql", "Netherite"])
def test_providers_that_will_not_come_are_refused_with_the_alternatives(tmp_path: Path, kind: str) -> None:
    app = make_app(
        tmp_path / "app",
        host_json=json.dumps({"version": "2.0", "extensions": {"durableTask": {"storageProvider": {"type": kind}}}}),
    )

    ended = command_line("start", app)

    assert ended.returncode == 1
    assert "is not supported. Use one of: " in ended.stderr
    assert "memory, postgres, sqlite." in ended.stderr


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for more in ([], ["--reload"]):
            ended = command_line("start", app, "--port", str(port), *more)
            assert ended.returncode == 1
            assert ended.stderr == (
                f"Port {port} is unavailable. Close the process using that port, or specify another port using "
                "--port [-p].\n"
            )


def test_a_bad_address_is_said_in_one_line(tmp_path: Path) -> None:
    ended = command_line("start", make_app(tmp_path / "app"), "--host", "example.org")

    assert ended.returncode == 1
    assert (
        ended.stderr
        == "Invalid --host value 'example.org'. Expected an IP address, for example 127.0.0.1 or 0.0.0.0.\n"
    )


def test_an_import_error_is_the_users_traceback_and_nothing_else(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", "import durable_host as df\n\n\ndef f():\n    return 1 / 0\n\n\nf()\n")

    ended = command_line("start", app, "--port", str(free_port()))

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert [line for line in ended.stderr.splitlines() if "~" not in line and "^" not in line] == [
        "Traceback (most recent call last):",
        f'  File "{app}/function_app.py", line 8, in <module>',
        "    f()",
        f'  File "{app}/function_app.py", line 5, in f',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
    ]


def test_ctrl_c_while_the_app_is_imported_ends_at_once(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", "import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "durable_host", "start", str(app), "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=source_environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"

    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)

    assert process.returncode == 130
    assert told == ""


def test_settings_reach_the_app_and_host_json(tmp_path: Path) -> None:
    app = make_app(
        tmp_path / "app",
        "import os\nimport durable_host as df\napp = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)\n"
        "@app.route(route='x')\ndef x(req: df.HttpRequest) -> str:\n    return os.environ['GREETING']\n",
    )
    (app / "local.settings.json").write_text(
        json.dumps(
            {
                "Values": {
                    "GREETING": "from the file",
                    "AzureFunctionsJobHost__extensions__http__routePrefix": "v2",
                    "AzureFunctionsJobHost__extensions__durableTask__hubName": "%WHICH%Hub",
                    "WHICH": "Other",
                }
            }
        )
    )

    with HostProcess(app) as host:
        answer = host.request("GET", "/v2/x")
        assert "Task hub OtherHub" in host.printed()

    assert answer.body == b"from the file"


def test_the_host_json_of_a_parent_folder_counts(tmp_path: Path) -> None:
    app = make_app(tmp_path / "repo" / "app")
    (app / "host.json").unlink()
    (tmp_path / "repo" / "host.json").write_text(
        '{"version": "2.0", "extensions": {"durableTask": {"hubName": "Above"}}}'
    )

    with HostProcess(app) as host:
        assert "Task hub Above: sqlite at .durable/Above.db" in host.printed()

    assert not (app / "host.json").exists()
    assert (app / ".durable" / "Above.db").exists()


def test_warnings_about_settings_are_logged_once(tmp_path: Path) -> None:
    app = make_app(
        tmp_path / "app",
        host_json=json.dumps(
            {
                "version": "2.0",
                "extensionBundle": {"id": "x", "version": "[4.*, 5.0.0)"},
                "functionTimout": "00:05:00",
                "extensions": {
                    "queues": {"batchSize": 1},
                    "durableTask": {"storageProvider": {"type": "SQLite", "partitionCount": 4}},
                },
            }
        ),
    )

    with HostProcess(app) as host:
        printed = host.printed()

    assert printed.count("Did you mean 'functionTimeout'?") == 1
    assert printed.count("extensions.queues is not supported yet and has no effect.") == 1
    assert printed.count("storageProvider.partitionCount: settings of Azure Storage, without effect on sqlite.") == 1
    assert "extensionBundle" not in printed


def test_log_levels_of_host_json_hold(tmp_path: Path) -> None:
    app = make_app(
        tmp_path / "app", host_json='{"version": "2.0", "logging": {"logLevel": {"Function.version": "Error"}}}'
    )

    with HostProcess(app) as host:
        host.request("GET", "/api/version")
        host.request("POST", "/api/start/waiter/a")
        wait_until(lambda: "Executed 'Functions.start'" in host.printed(), "the other function is logged")
        assert "Functions.version" not in host.printed()


def test_verbose_shows_what_was_read(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", host_json='{"version": "2.0", "mySecret": "hush", "telemetryMode": "None"}')

    with HostProcess(app, "--verbose") as host:
        printed = host.printed()

    assert f"Reading host configuration file '{app}/host.json'" in printed
    assert '"version": "2.0"' in printed
    assert "hush" not in printed
    assert "with the --verbose flag" not in printed


def test_only_some_functions_can_be_loaded(tmp_path: Path) -> None:
    with HostProcess(make_app(tmp_path / "app"), "--functions", "version", "WAITER") as host:
        assert [each["name"] for each in host.request("GET", "/admin/functions").json()] == ["version", "waiter"]
        assert host.request("POST", "/api/start/waiter/a").status == 404


def test_two_apps_cannot_share_a_hub(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"

    with HostProcess(make_app(tmp_path / "one"), "--storage", storage):
        other = command_line("start", make_app(tmp_path / "two"), "--storage", storage, "--port", str(free_port()))

    assert other.returncode == 1
    assert f"is in use by another app ({tmp_path}/one); this is {tmp_path}/two." in other.stderr


def test_json_logs_hold_nothing_but_json(tmp_path: Path) -> None:
    with HostProcess(make_app(tmp_path / "app"), "--json") as host:
        host.request("GET", "/api/version")
        wait_until(lambda: "Executed" in host.printed(), "the line about the end")
    lines = [json.loads(line) for line in host.printed().splitlines()]

    (started,) = [line for line in lines if line.get("event") == "started"]
    assert started["address"] == f"http://localhost:{host.port}"
    assert started["functions"] == ["broken", "sleeper", "slow", "spinning", "start", "version", "waiter"]
    assert any(line["category"] == "Function.version" for line in lines)
