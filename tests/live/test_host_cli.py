"""The command line's verbs on a hub, while a host runs and while none does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.environment import Environment
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import StorageOptions
from durable_host_providers.sqlite import provider as sqlite
from tests.hosting import HostProcess, source_environment
from tests.live.host_app import command_line, make_app, wait_until

pytestmark = pytest.mark.live


class HoldsNothing:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("cli") / "app")


@pytest.fixture(scope="module")
def host(app: Path) -> Iterator[HostProcess]:
    with HostProcess(app) as running:
        yield running


def _ask(*arguments: str | Path) -> Any:
    ended = command_line(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def _status(app: Path, instance_id: str) -> str:
    found: str = _ask("instances", "show", instance_id, app)["runtimeStatus"]
    return found


def test_an_instance_is_controlled_from_the_command_line(host: HostProcess, app: Path) -> None:
    host.request("POST", "/api/start/waiter/c1", {"some": "input"})
    wait_until(lambda: _status(app, "c1") == "Running", "it runs")

    assert command_line("instances", "suspend", "c1", app, "--reason", "lunch").returncode == 0
    wait_until(lambda: _status(app, "c1") == "Suspended", "it is suspended")
    assert command_line("instances", "resume", "c1", app).returncode == 0
    wait_until(lambda: _status(app, "c1") == "Running", "it runs again")
    told = command_line("instances", "raise", "c1", "go", app, "--data", "[1, 2]")
    assert told.stdout == "Raised event 'go' to instance 'c1'.\n"
    wait_until(lambda: _status(app, "c1") == "Completed", "it ends")

    shown = _ask("instances", "show", "c1", app)
    assert (shown["name"], shown["input"], shown["output"]) == ("waiter", {"some": "input"}, [1, 2])
    history = _ask("instances", "history", "c1", app)
    kinds = [event["type"] for event in history]
    assert kinds.index("ExecutionSuspended") < kinds.index("ExecutionResumed") < kinds.index("EventRaised")
    assert history[kinds.index("EventRaised")]["input"] == "[1, 2]"
    assert msgspec.json.decode(msgspec.json.encode(history), type=list[HistoryEvent])  # to be replayed in tests
    assert "EventRaised" in command_line("instances", "history", "c1", app).stdout
    assert "output  " in command_line("instances", "show", "c1", app).stdout


def test_failed_instances_are_rewound_and_restarted(host: HostProcess, app: Path) -> None:
    host.request("POST", "/api/start/broken/f1")
    wait_until(lambda: _status(app, "f1") == "Failed", "it fails")
    shown = command_line("instances", "show", "f1", app).stdout
    assert "ValueError: on purpose" in shown
    assert "\ufffd" not in shown

    made = _ask("instances", "restart", "f1", app)["instanceId"]
    wait_until(lambda: _status(app, made) == "Failed", "the new one fails, too")
    assert _ask("instances", "show", made, app)["restartedFrom"] == "f1"
    assert command_line("instances", "rewind", "f1", app).returncode == 0


def test_termination_has_a_reason(host: HostProcess, app: Path) -> None:
    host.request("POST", "/api/start/waiter/t1")
    wait_until(lambda: _status(app, "t1") == "Running", "it runs")

    assert command_line("instances", "terminate", "t1", app, "--reason", "enough").returncode == 0

    wait_until(lambda: _status(app, "t1") == "Terminated", "it is terminated")
    assert _ask("instances", "show", "t1", app)["output"] == "enough"
    again = command_line("instances", "terminate", "t1", app)
    assert (again.returncode, again.stdout) == (1, "")
    assert "Cannot terminate instance 't1': it has ended with status Terminated." in again.stderr


def test_lists_are_filtered_and_paged(host: HostProcess, app: Path) -> None:
    for number in range(5):
        host.request("POST", f"/api/start/waiter/page-{number}")
    wait_until(lambda: len(_ask("instances", "list", app, "--prefix", "page-")["instances"]) == 5, "all are there")

    first = _ask("instances", "list", app, "--prefix", "page-", "--limit", "2")
    second = _ask("instances", "list", app, "--prefix", "page-", "--limit", "2", "--cursor", first["cursor"])
    everything = _ask("instances", "list", app, "--prefix", "page-", "--limit", "2", "--all")

    def ids(answer: Any) -> list[str]:
        return [each["instanceId"] for each in answer["instances"]]

    assert ids(first) + ids(second) == ["page-0", "page-1", "page-2", "page-3"]
    assert len(ids(everything)) == 5
    assert everything["cursor"] is None
    assert ids(_ask("instances", "list", app, "--status", "completed", "--prefix", "page-")) == []
    assert len(ids(_ask("instances", "list", app, "--created-from", "1h", "--name", "waiter", "--prefix", "page"))) == 5
    assert ids(_ask("instances", "list", app, "--created-to", "1h")) == []
    wrong = command_line("instances", "list", app, "--cursor", "nonsense")
    assert wrong.returncode == 1
    assert "--cursor is 'nonsense', which is not from an earlier list." in wrong.stderr


def test_what_is_not_there_is_said_in_one_line(host: HostProcess, app: Path) -> None:
    for verb in (["show"], ["history"], ["terminate"], ["suspend"], ["resume"], ["rewind"], ["restart"]):
        ended = command_line("instances", *verb, "nobody", app)
        assert (ended.returncode, ended.stderr) == (1, "No instance with id 'nobody' was found.\n")
    ended = command_line("instances", "raise", "nobody", "go", app)
    assert (ended.returncode, ended.stderr) == (1, "No instance with id 'nobody' was found.\n")
    ended = command_line("instances", "raise", "nobody", "go", app, "--data", "unquoted")
    assert "--data is not JSON" in ended.stderr


def test_purge_asks_first_and_spares_what_runs(host: HostProcess, app: Path) -> None:
    host.request("POST", "/api/start/waiter/purge-running")
    host.request("POST", "/api/start/broken/purge-failed")
    wait_until(lambda: _status(app, "purge-failed") == "Failed", "it fails")

    assert "Say what to purge" in command_line("instances", "purge", "--app", app).stderr
    unasked = command_line("instances", "purge", "--prefix", "purge-", "--app", app)
    assert unasked.returncode == 1
    assert "Add --yes to do it without being asked." in unasked.stderr
    assert _ask("instances", "purge", "--prefix", "purge-", "--yes", "--app", app) == {"instancesDeleted": 1}
    refused = command_line("instances", "purge", "purge-running", "--app", app)
    assert "has not ended" in refused.stderr
    assert _ask("instances", "purge", "purge-running", "--force", "--app", app) == {"instancesDeleted": 1}


def test_hub_info_counts(host: HostProcess, app: Path) -> None:
    host.request("POST", "/api/start/waiter/info-1")
    wait_until(lambda: _status(app, "info-1") == "Running", "it runs")

    told = _ask("hub", "info", app)

    assert (told["hub"], told["provider"], told["location"]) == ("TestHubName", "sqlite", ".durable/TestHubName.db")
    assert told["instances"]["Running"] >= 1
    assert "instances Running" in command_line("hub", "info", app).stdout


def test_keys_open_a_host_that_demands_them(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--enable-auth") as host:
        assert host.request("GET", "/api/version").status == 401
        keys = {(each["scope"], each["name"]): each["value"] for each in _ask("keys", "list", app)["keys"]}
        opened = host.request("GET", f"/api/version?code={keys['host', 'default']}")
        assert opened.status == 200
        assert host.request("GET", "/admin/host/status").status == 401
        master = {"x-functions-key": keys["master", "_master"]}
        assert host.request("GET", "/admin/host/status", headers=master).json()["state"] == "Running"
        made = command_line("keys", "create", "mine", app, "--function", "version").stdout.strip()
        assert host.request("GET", "/api/version", headers={"x-functions-key": made}).status == 200
        started = host.request("POST", f"/api/start/waiter/k1?code={keys['host', 'default']}").json()
        assert host.request("GET", started["statusQueryGetUri"]).status == 202
        assert command_line("keys", "delete", "mine", app, "--function", "version").returncode == 0
        assert command_line("keys", "delete", "mine", app, "--function", "version").returncode == 1
        assert "Callers need keys" in host.printed()


def test_the_hub_is_made_looked_at_and_deleted_without_a_host(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    missing = command_line("instances", "list", app)
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1
    assert (
        command_line("hub", "create", app).stdout == "The task hub 'TestHubName' is ready at .durable/TestHubName.db.\n"
    )
    assert command_line("instances", "list", app).stderr == "The hub 'TestHubName' holds no instances.\n"
    unasked = command_line("hub", "delete", app)
    assert unasked.returncode == 1
    assert "Add --yes" in unasked.stderr
    assert (app / ".durable" / "TestHubName.db").exists()
    assert _ask("hub", "delete", app, "--yes") == {"hub": "TestHubName", "deleted": True}
    assert not (app / ".durable" / "TestHubName.db").exists()


async def test_quarantined_instances_are_shown_and_released(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    opened = sqlite.open(StorageOptions(hub="TestHubName", settings={}, folder=app), Environment())
    await opened.hub.create()
    async with opened.hub as store:
        await TaskHubClient(store).start("waiter", instance_id="q1")
        await TaskHubClient(store).start("waiter", instance_id="q2")
        locked = await store.lock_orchestrations(2, wait=timedelta(seconds=5), cache=HoldsNothing())
        (lease,) = [each.lease for each in locked if each.instance_id == "q1"]
        await store.quarantine(lease, "it keeps failing in our code")

    assert _ask("instances", "show", "q1", app)["quarantined"] == "it keeps failing in our code"
    assert _ask("hub", "info", app)["quarantined"] == 1
    refused = command_line("instances", "release", "q2", "--app", app)
    assert (refused.returncode, refused.stderr) == (1, "Instance 'q2' is not quarantined; its status is Pending.\n")
    assert _ask("instances", "release", "q1", "--app", app) == {"instancesReleased": 1}
    with HostProcess(app):
        wait_until(lambda: _status(app, "q1") == "Running", "it runs again")


async def test_what_no_host_knows_is_listed(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    opened = sqlite.open(StorageOptions(hub="TestHubName", settings={}, folder=app), Environment())
    await opened.hub.create()
    async with opened.hub as store:
        await TaskHubClient(store).start("of_another_version", instance_id="u1")

    with HostProcess(app):
        wait_until(lambda: bool(_ask("hub", "info", app)["handedBack"]), "it came back twice")
        (item,) = _ask("hub", "info", app)["handedBack"]
        assert (item["kind"], item["instanceId"], item["name"]) == ("orchestration", "u1", "of_another_version")
        assert "of_another_version" in command_line("hub", "info", app).stdout
        assert _status(app, "u1") == "Pending"


def test_another_hub_of_the_store_can_be_used_and_looked_at(host: HostProcess, app: Path) -> None:
    webhook = "/runtime/webhooks/durabletask"
    started = host.request("POST", f"{webhook}/orchestrators/waiter/elsewhere?taskHub=OtherHub")

    assert started.status == 202
    assert "taskHub=OtherHub" in started.headers["Location"]
    assert _ask("instances", "show", "elsewhere", app, "--hub", "OtherHub")["runtimeStatus"] == "Pending"
    assert command_line("instances", "show", "elsewhere", app).returncode == 1
    assert host.request("GET", f"{webhook}/instances?taskHub=NoSuchHub").json() == []
    assert host.request("POST", f"{webhook}/orchestrators/waiter?taskHub=../x").status >= 400
    assert "Task hub name '../x'" in command_line("hub", "info", app, "--hub", "../x").stderr


def test_a_hub_in_memory_cannot_be_looked_at(tmp_path: Path) -> None:
    ended = command_line("instances", "list", make_app(tmp_path / "app"), "--storage", "memory")

    assert ended.returncode == 1
    assert "keeps the hub inside the running host" in ended.stderr


def test_a_closed_pipe_is_no_error(host: HostProcess, app: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "durable_host", "instances", "list", str(app), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=source_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()

    assert told == ""
