from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durable_host.cli import main
from durable_host.cli.console import clean, shortened, since
from durable_host.cli.parser import build_parser
from durable_host.cli.views import instance_lines
from durable_host.model.failure import Failure
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import InstanceState
from durable_host.model.status import RuntimeStatus


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["start", "--port", "x"],
        ["start", "--port", "65536"],
        ["start", "--user-log-level", "loud"],
        ["instances"],
        ["instances", "show"],
        ["instances", "list", "--status", "Bogus"],
        ["instances", "list", "--tag", "novalue"],
        ["instances", "list", "--created-from", "yesterday"],
        ["instances", "list", "--limit", "0"],
        ["keys", "list", "--system", "--function", "f"],
    ],
)
def test_what_cannot_be_parsed_ends_with_3(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 3
    assert "usage: durable-host" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["start", "--help"], ["instances", "purge", "--help"]])
def test_help_ends_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 0
    assert "usage: durable-host" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from durable_host import __version__

    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"durable-host {__version__}\n"


def test_filters_are_typed_and_leave_the_folder_alone() -> None:
    line = "--status completed,Failed --name a,b --tag k=v=w my_app --created-from 2026-01-31 --updated-to 3d"
    parsed = build_parser().parse_args(["instances", "list", *line.split(), "--created-to", "2026-01-31T12:00+02:00"])

    assert parsed.status == [RuntimeStatus.COMPLETED, RuntimeStatus.FAILED]
    assert parsed.name == ["a", "b"]
    assert parsed.tag == [("k", "v=w")]
    assert parsed.app_dir == "my_app"
    assert parsed.created_from == datetime(2026, 1, 31, tzinfo=UTC)
    assert parsed.created_to == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert parsed.updated_to == timedelta(days=3)


def test_azures_spelling_of_switches_is_taken() -> None:
    parsed = build_parser().parse_args(["start", "--enableAuth", "--address", "0.0.0.0", "-p", "0"])

    assert (parsed.enable_auth, parsed.host, parsed.port) == (True, "0.0.0.0", 0)


def test_init_writes_an_app_that_can_be_indexed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["init", "my-app"]) == 0
    written = json.loads((tmp_path / "my-app" / "host.json").read_text())
    assert written["extensions"]["durableTask"] == {"hubName": "MyApp", "storageProvider": {"type": "sqlite"}}
    capsys.readouterr()

    path = sys.path[:]
    try:
        assert main(["functions", "my-app", "--json"]) == 0
    finally:
        sys.path[:] = path

    shown = json.loads(capsys.readouterr().out)["functions"]
    assert [each["name"] for each in shown] == ["hello_cities", "say_hello", "start"]
    assert shown[2]["route"] == "/api/orchestrators/{name}"


def test_init_keeps_what_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("mine")

    assert main(["init"]) == 1
    assert "is not empty (host.json)" in capsys.readouterr().err
    assert main(["init", "--force"]) == 0
    assert "host.json already exists. Skipped!" in capsys.readouterr().out
    assert (tmp_path / "host.json").read_text() == "mine"


def test_a_missing_folder_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["functions", "nowhere"]) == 1
    assert capsys.readouterr().err == "The app folder 'nowhere' does not exist or is no folder.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["keys", "create", ""], "The key's name is empty"),
        (["keys", "create", "mine", "--value", " "], "--value is empty"),
        (["hub", "info", "--hub", "../x"], "--hub is '../x'"),
        (["hub", "info", "--storage", "bogus"], "--storage is 'bogus'; known providers: "),
    ],
)
def test_a_value_that_cannot_be_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 1

    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("slashes", ["/", "//", "///"])
def test_a_storage_url_may_have_more_slashes_than_it_needs(
    slashes: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["hub", "create", "--storage", f"sqlite:///{slashes}{str(tmp_path).lstrip('/')}//my hub%.db"]) == 0

    assert (tmp_path / "my hub%.db").is_file()
    assert capsys.readouterr().err == ""


def test_a_bad_host_json_is_told_with_what_may_be_the_cause(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / ".git").mkdir()
    durable = {"hubName": "%HUB_OF_LOCAL_SETTINGS%"}
    (tmp_path / "host.json").write_text(json.dumps({"version": "2.0", "extensions": {"durableTask": durable}}))
    (tmp_path / "app" / "local.settings.json").write_text('{"Values": {"HUB_OF_LOCAL_SETTINGS": "Mine"')

    assert main(["hub", "info", "app"]) == 1

    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("host.json: extensions.durableTask.hubName is '%HUB_OF_LOCAL_SETTINGS%'")
    assert "app/local.settings.json'. Ensure it is a valid JSON file." in told[1]
    assert told[2] == f"The app folder has no host.json of its own; {tmp_path / 'host.json'} holds."


def test_errors_are_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": "1.0", "functionTimeout": "x"}')

    assert main(["functions", "--json"]) == 1

    told = json.loads(capsys.readouterr().err)
    assert len(told["problems"]) == 2
    assert told["error"].startswith("host.json: '1.0' is an invalid value")


def test_a_text_of_several_lines_stays_readable_and_imitates_nothing() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    state = InstanceState(
        instance_id=InstanceId("a"),
        execution_id=ExecutionId("e"),
        name="f",
        status=RuntimeStatus.FAILED,
        created_at=now,
        updated_at=now,
        output="bad\nstatus  Completed\x1b[31m",
        failure=Failure(type="ValueError", message="one\ntwo", stack="Traceback:\n  line"),
    )

    lines = "\n".join(instance_lines(state)).splitlines()
    assert lines[-7:] == [
        "output     bad",
        "           status  Completed�[31m",
        "",
        "failed with ValueError: one",
        "    two",
        "    Traceback:",
        "      line",
    ]
    assert [line for line in lines if line.startswith("status")] == ["status     Failed"]


def test_texts_for_people_are_short_and_harmless() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)

    assert since(now - timedelta(minutes=3, seconds=5), now) == "3 min"
    assert since(now + timedelta(seconds=5), now) == "0 s"
    assert shortened("a\n b" + "c" * 100, 10) == "a bcccccc…"
    assert clean("\x1b[31mred") == "�[31mred"
