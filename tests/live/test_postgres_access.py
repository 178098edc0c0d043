"""Who may do what on PostgreSQL, and what is said when something is not allowed or not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from tests.hosting import ROOT, HostProcess, source_environment
from tests.live.host_app import command_line, make_app
from tests.live.several_hosts import SeveralHosts
from tests.servers.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.live

OWNER, APP = "hub_owner", "hub_app"
_SQL = re.compile(r"^```sql(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documented(title: str) -> str:
    """A block of SQL of the how-to, by its title."""
    text = (ROOT / "docs" / "how-to" / "postgres.md").read_text(encoding="utf-8")
    return dict(_SQL.findall(text))[title]


@pytest.fixture
def roles(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with the two roles of the how-to; its name."""
    for role in (OWNER, APP):
        if not postgres_server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", role):
            postgres_server.create_role(role)
    name = postgres_server.create_database(owner=OWNER)
    yield name
    postgres_server.drop_database(name)


def _run(server: PostgresServer, database: str, user: str, script: str) -> None:
    with psycopg.connect(server.url(database, user=user), autocommit=True) as connection:
        connection.execute(script.encode())


def _prepared(server: PostgresServer, database: str, app: Path) -> None:
    """What the how-to tells the owner to do."""
    made = command_line("hub", "create", app, "--storage", server.url(database, user=OWNER))
    assert made.returncode == 0, made.stderr
    _run(server, database, OWNER, documented("grants.sql"))


def _refused(ended: subprocess.CompletedProcess[str]) -> str:
    """What a command that could not be done said; nobody sees a traceback or the password."""
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, ended
    assert "Traceback" not in said, said
    assert PASSWORD not in said
    assert "secret%20" not in said
    return ended.stderr


def test_a_role_without_rights_to_create_runs_a_hub_that_its_owner_prepared(
    tmp_path: Path, postgres_server: PostgresServer, roles: str
) -> None:
    with SeveralHosts(tmp_path, postgres_server.url(roles, user=APP)) as hosts:
        _prepared(postgres_server, roles, hosts.app)
        first, second = hosts.start(2)

        hosts.instances(first, "chain", 4, steps=3)
        hosts.instances(second, "fan", 2, steps=5)
        hosts.instances(second, "waiter", 1, steps=1)
        assert hosts.raise_event(first, "waiter-0", 0) == 202
        hosts.check(first)
        listed = command_line("instances", "list", hosts.app, "--storage", hosts.storage, "--json")
        purged = command_line("instances", "purge", "chain-0", "--app", hosts.app, "--storage", hosts.storage, "--yes")

        assert (listed.returncode, len(json.loads(listed.stdout)["instances"])) == (0, 7), listed
        assert purged.returncode == 0, purged.stderr
        with (
            psycopg.connect(hosts.storage) as connection,
            pytest.raises(errors.InsufficientPrivilege),
        ):
            connection.execute("CREATE TABLE durable_host.more (a int)")


def test_a_role_without_rights_is_told_who_has_to_prepare_the_hub(
    tmp_path: Path, postgres_server: PostgresServer, roles: str
) -> None:
    app = make_app(tmp_path / "app")

    said = _refused(command_line("start", app, "--port", "0", "--storage", postgres_server.url(roles, user=APP)))

    assert "durable-host hub create" in said, said


def test_a_role_without_grants_is_told_so(tmp_path: Path, postgres_server: PostgresServer, roles: str) -> None:
    app = make_app(tmp_path / "app")
    made = command_line("hub", "create", app, "--storage", postgres_server.url(roles, user=OWNER))
    assert made.returncode == 0, made.stderr

    said = _refused(command_line("start", app, "--port", "0", "--storage", postgres_server.url(roles, user=APP)))

    assert "GRANT" in said or "permission denied" in said, said


def test_tables_newer_than_the_code_are_refused(tmp_path: Path, postgres_server: PostgresServer, roles: str) -> None:
    app = make_app(tmp_path / "app")
    url = postgres_server.url(roles, user=OWNER)
    assert command_line("hub", "create", app, "--storage", url).returncode == 0
    _run(postgres_server, roles, OWNER, "UPDATE durable_host.version SET version = 9000")

    for command in (("start", app, "--port", "0"), ("hub", "info", app), ("hub", "create", app)):
        said = _refused(command_line(*command, "--storage", url))
        assert "9000" in said, said
        assert "newer durable-host" in said, said


def test_a_schema_that_lacks_a_function_is_refused(tmp_path: Path, postgres_server: PostgresServer, roles: str) -> None:
    app = make_app(tmp_path / "app")
    url = postgres_server.url(roles, user=OWNER)
    assert command_line("hub", "create", app, "--storage", url).returncode == 0
    _run(postgres_server, roles, OWNER, "DROP FUNCTION durable_host.disown")

    for command in (("start", app, "--port", "0"), ("hub", "info", app)):
        said = _refused(command_line(*command, "--storage", url))
        assert "lacks 1 of the functions" in said, said
        assert "disown" in said, said


def test_wrong_credentials_are_told_without_the_password(
    tmp_path: Path, postgres_server: PostgresServer, roles: str
) -> None:
    app = make_app(tmp_path / "app")
    url = postgres_server.url(roles, user=OWNER, password="not the one")

    said = _refused(command_line("start", app, "--port", "0", "--storage", url))

    assert OWNER in said, said
    assert "password" in said, said
    assert "not the one" not in said
    assert "not%20the%20one" not in said


def test_a_database_that_is_not_there_is_told(tmp_path: Path, postgres_server: PostgresServer, roles: str) -> None:
    app = make_app(tmp_path / "app")

    said = _refused(command_line("start", app, "--port", "0", "--storage", postgres_server.url("nowhere", user=OWNER)))

    assert "nowhere" in said, said


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")

    refused = _refused(command_line("start", app, "--port", "0", "--storage", "postgresql://u:s3cret@127.0.0.1:1/db"))
    unknown = _refused(command_line("start", app, "--port", "0", "--storage", "postgresql://u:s3cret@no.invalid/db"))

    assert "127.0.0.1:1" in refused, refused
    assert "no.invalid" in unknown, unknown
    assert "s3cret" not in refused + unknown


@pytest.mark.parametrize(
    "url",
    ["postgresql://", "postgresql://u:s3cret@127.0.0.1:port/db", "postgresql://u:s3cret@127.0.0.1/db?sslmode=maybe"],
)
def test_an_address_that_makes_no_sense_is_told_without_the_password(tmp_path: Path, url: str) -> None:
    app = make_app(tmp_path / "app")

    said = _refused(command_line("start", app, "--port", "0", "--storage", url))

    assert "s3cret" not in said, said


def test_the_connection_is_named_in_host_json_and_kept_in_a_setting(tmp_path: Path, postgres_database: str) -> None:
    app = make_app(
        tmp_path / "app",
        host_json="""{"version": "2.0", "extensions": {"durableTask": {
            "hubName": "Orders", "storageProvider": {"type": "Postgres", "connectionName": "HubDatabase"}
        }}}""",
    )

    missing = _refused(command_line("start", app, "--port", "0"))
    with HostProcess(app, environment=source_environment(HubDatabase=postgres_database)) as host:
        host.request("POST", "/api/start/waiter/a")
        host.request("POST", "/runtime/webhooks/durabletask/instances/a/raiseEvent/go", "hello")
        assert host.complete("/runtime/webhooks/durabletask/instances/a")["output"] == "hello"
        printed = host.printed()
    info = command_line("hub", "info", app, HubDatabase=postgres_database)

    assert "HubDatabase" in missing, missing
    assert "connectionName" in missing, missing
    assert re.search(r"Task hub Orders: postgres at postgresql:.*\(host\.json says so\)", printed), printed
    assert PASSWORD not in printed
    assert info.returncode == 0, info.stderr


def test_hubs_of_one_database_do_not_see_each_other(tmp_path: Path, postgres_database: str) -> None:
    first, second = (make_app(tmp_path / name) for name in ("first", "second"))
    other_hub = source_environment(AzureFunctionsJobHost__extensions__durableTask__hubName="Other")

    with (
        HostProcess(first, "--storage", postgres_database) as one,
        HostProcess(second, "--storage", postgres_database, environment=other_hub) as two,
    ):
        for host, word in ((one, "one"), (two, "two")):
            host.request("POST", "/api/start/waiter/same")
            host.request("POST", "/runtime/webhooks/durabletask/instances/same/raiseEvent/go", word)
        for host, word in ((one, "one"), (two, "two")):
            assert host.complete("/runtime/webhooks/durabletask/instances/same")["output"] == word


def test_deleting_a_hub_leaves_the_others(tmp_path: Path, postgres_database: str) -> None:
    app = make_app(tmp_path / "app")
    for hub in ("One", "Two"):
        assert command_line("hub", "create", app, "--storage", postgres_database, "--hub", hub).returncode == 0

    gone = command_line("hub", "delete", app, "--storage", postgres_database, "--hub", "One", "--yes")

    assert gone.returncode == 0, gone.stderr
    assert command_line("hub", "info", app, "--storage", postgres_database, "--hub", "Two").returncode == 0
    _refused(command_line("hub", "info", app, "--storage", postgres_database, "--hub", "One"))


def test_hosts_that_start_together_on_an_empty_database_take_turns(tmp_path: Path, postgres_database: str) -> None:
    app = make_app(tmp_path / "app")
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "durable_host", "hub", "create", str(app), "--storage", postgres_database],
            env=source_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(5)
    ]

    ended = [(each.communicate(timeout=60)[0], each.returncode) for each in together]

    assert [code for _, code in ended] == [0] * 5, ended
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("SELECT count(*) FROM durable_host.version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM durable_host.hubs").fetchone() == (1,)


def test_tables_older_than_the_code_are_for_their_owner_to_update(
    tmp_path: Path, postgres_server: PostgresServer, roles: str
) -> None:
    app = make_app(tmp_path / "app")
    _prepared(postgres_server, roles, app)
    _run(postgres_server, roles, OWNER, "UPDATE durable_host.version SET version = version - 1")
    url = postgres_server.url(roles, user=APP)

    started = _refused(command_line("start", app, "--port", "0", "--storage", url))
    asked = _refused(command_line("instances", "list", app, "--storage", url))

    assert "durable-host hub create" in started, started
    assert "durable-host hub create" in asked, asked


def test_a_hub_is_not_deleted_under_a_running_host(tmp_path: Path, postgres_database: str) -> None:
    app = make_app(tmp_path / "app")

    with HostProcess(app, "--storage", postgres_database) as host:
        host.request("POST", "/api/start/waiter/a")
        said = _refused(command_line("hub", "delete", app, "--storage", postgres_database, "--yes"))
        host.request("POST", "/runtime/webhooks/durabletask/instances/a/raiseEvent/go", 7)
        assert host.complete("/runtime/webhooks/durabletask/instances/a")["output"] == 7

    assert "in use by a host" in said, said
    assert command_line("hub", "delete", app, "--storage", postgres_database, "--yes").returncode == 0


def test_a_database_that_cannot_hold_every_character_is_refused(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    app = make_app(tmp_path / "app")
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")

    said = _refused(command_line("start", app, "--port", "0", "--storage", postgres_server.url("latin")))
    postgres_server.drop_database("latin")

    assert "LATIN1" in said, said
    assert "UTF8" in said, said
