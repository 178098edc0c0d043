"""Dockerfile and docker-compose.yml: read, and their commands run without Docker.

The image's commands are run against an environment that holds nothing but the wheel, with the image's folders mapped to
temporary ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from psycopg import sql

from durable_host_providers.azure_storage.credentials import parse_connection_string
from tests.hosting import ROOT, HostProcess
from tests.servers.azurite import find_azurite
from tests.servers.postgres import PostgresServer

Instruction = tuple[str, str]


def _instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def _values(name: str) -> list[str]:
    return [value for instruction, value in _instructions() if instruction == name]


def _compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return compose


def _text(value: str, **settings: str) -> str:
    """What compose makes of `${NAME:-default}`."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: settings.get(match[1], match[2]), value)


def _command() -> list[str]:
    return [str(word) for word in json.loads(_values("CMD")[0])]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for value in _values("COPY"):
        words = shlex.split(value)
        if words[0].startswith("--from="):
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source


def test_image_runs_as_somebody_who_is_not_root() -> None:
    assert _values("USER")[-1] == "durable"
    names = [name for name, _ in _instructions()]
    assert names.index("USER") < len(names) - names[::-1].index("CMD")
    for name in ("host", "first", "second", "on-azurite"):
        service = _compose()["services"][name]
        assert (service["user"], service["read_only"], service["build"]) == ("10001", True, ".")
    assert any("--uid 10001" in value for value in _values("RUN"))


def test_hub_is_on_a_volume_and_keys_are_demanded() -> None:
    command = _command()
    compose = _compose()

    assert command[:3] == ["durable-host", "start", "/app"]
    assert command[command.index("--storage") + 1] == "sqlite:////data/hub.db"
    assert "--enable-auth" in command
    assert _values("VOLUME") == ["/data"]
    assert compose["services"]["host"]["volumes"] == ["hub:/data"]
    assert "hub" in compose["volumes"]


def test_ports_agree_and_compose_publishes_to_this_machine_only() -> None:
    command = _command()
    port = command[command.index("--port") + 1]

    assert _values("EXPOSE") == [port]
    assert f":{port}/health/ready" in _values("HEALTHCHECK")[0]
    services = _compose()["services"]
    assert services["host"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    published = [each for service in services.values() for each in service.get("ports", ())]
    assert len(set(published)) == 4
    for each in published:
        assert re.fullmatch(rf"127\.0\.0\.1:\d+:{port}", each), each


def test_compose_starts_one_host_on_sqlite_unless_it_is_asked_for_another_store() -> None:
    services = _compose()["services"]

    assert [name for name, service in services.items() if "profiles" not in service] == ["host"]
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert [name for name, names in profiles.items() if names == ["postgres"]] == ["first", "second", "postgres"]
    assert [name for name, names in profiles.items() if names == ["azure"]] == ["on-azurite", "azurite"]
    assert len(profiles) == 5
    assert services["first"]["command"] == services["second"]["command"]
    assert services["first"]["environment"] == services["second"]["environment"]
    assert services["first"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_hosts_know_where_compose_keeps_the_database() -> None:
    services = _compose()["services"]
    database = services["postgres"]["environment"]
    address = urlsplit(_text(services["first"]["environment"]["POSTGRES_CONNECTION_STRING"]))

    assert (address.scheme, address.hostname, address.port) == ("postgresql", "postgres", 5432)
    assert address.username == database["POSTGRES_USER"]
    assert address.password == _text(database["POSTGRES_PASSWORD"])
    assert address.path == f"/{database['POSTGRES_DB']}"
    assert "ports" not in services["postgres"], "reachable by the hosts only"
    assert services["postgres"]["volumes"] == ["database:/var/lib/postgresql/data"]
    assert "database" in _compose()["volumes"]


def test_host_knows_where_compose_keeps_the_account() -> None:
    services = _compose()["services"]
    connection = parse_connection_string(_text(services["on-azurite"]["environment"]["AzureWebJobsStorage"]))

    assert connection.urls["queue"] == "http://azurite:10001/devstoreaccount1"
    assert services["on-azurite"]["depends_on"] == {"azurite": {"condition": "service_healthy"}}
    assert "ports" not in services["azurite"], "reachable by the hosts only"
    assert services["azurite"]["volumes"] == ["account:/data"]
    assert "account" in _compose()["volumes"]


def test_azurite_of_compose_is_the_one_of_the_tests() -> None:
    build = _compose()["services"]["azurite"]["build"]
    folder = ROOT / build["context"]

    copied = re.findall(r"^COPY (.+) \./$", build["dockerfile_inline"], re.MULTILINE)
    assert copied == ["package.json package-lock.json"]
    assert all((folder / name).is_file() for name in copied[0].split())
    assert "npm ci" in build["dockerfile_inline"], "what is locked, and nothing else"
    assert "USER node" in build["dockerfile_inline"]


def test_base_image_has_a_supported_python_and_versions_are_locked() -> None:
    for value in _values("FROM"):
        version = re.match(r"python:3\.(\d+)-slim\b", value)
        assert version is not None and int(version[1]) >= 11, value
    for value in _values("RUN"):
        if "pip install" in value:
            assert "--require-hashes" in value or "--no-deps" in value, value


def _app(folder: Path) -> Path:
    """The image's /app."""
    (source, _) = next(shlex.split(value) for value in _values("COPY") if value.endswith(" /app"))
    shutil.copytree(ROOT / source, folder / "app", ignore=shutil.ignore_patterns(".durable", "__pycache__"))
    return folder / "app"


def _environment(programs: Path, **settings: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**inherited, "PATH": f"{programs}{os.pathsep}{inherited['PATH']}", **settings}


def _on_loopback(command: list[str], programs: Path) -> list[str]:
    """The command with the environment's program, on this machine only; the port is the test's."""
    command = [str(programs / command[0]), *command[1:]]
    at = command.index("--port")
    del command[at : at + 2]
    listen = command.index("--host") + 1
    assert command[listen] == "0.0.0.0"
    command[listen] = "127.0.0.1"
    return command


def _health_check(host: HostProcess, programs: Path) -> list[str]:
    check = [str(word) for word in json.loads(_values("HEALTHCHECK")[0].split("CMD", 1)[1])]
    check[-1] = check[-1].replace("127.0.0.1:7071", f"127.0.0.1:{host.port}")
    return [str(programs / "python"), *check[1:]]


def test_image_has_the_drivers_of_every_provider() -> None:
    locked = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")

    assert any("-r /tmp/run.txt" in value for value in _values("RUN"))
    for driver in ("asyncpg", "azure-data-tables", "azure-identity", "azure-storage-blob", "azure-storage-queue"):
        assert re.search(rf"^{driver}==", locked, re.MULTILINE), driver


@pytest.mark.live
def test_commands_of_the_image_give_a_healthy_host_that_demands_keys(plain_environment: Path, tmp_path: Path) -> None:
    app, data = _app(tmp_path), tmp_path / "data"
    data.mkdir()
    environment = _environment(plain_environment)

    def here(word: str) -> str:
        return word.replace("sqlite:////data/", f"sqlite:///{data}/").replace("/app", str(app))

    command = _on_loopback([here(word) for word in _command()], plain_environment)

    with HostProcess(app, command=command, environment=environment) as host:
        check = _health_check(host, plain_environment)
        assert subprocess.run(check, env=environment, timeout=30, check=False).returncode == 0

        refused = host.request("GET", "/runtime/webhooks/durabletask/instances")
        keys = subprocess.run(
            [*command[:1], "keys", "list", str(app), "--storage", here("sqlite:////data/hub.db"), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        assert refused.status == 401, (refused, host.printed())
        started = host.request("POST", "/api/orchestrators/hello_cities")
        assert started.status == 202, (started, host.printed())
        status = host.complete(started.json()["statusQueryGetUri"])

    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    assert json.loads(keys.stdout)
    assert (data / "hub.db").exists()
    check_after = subprocess.run(check, env=environment, stderr=subprocess.DEVNULL, timeout=30, check=False)
    assert check_after.returncode != 0, "the health check must fail when nobody answers"


@pytest.mark.live
def test_commands_of_compose_give_two_hosts_on_one_hub(
    postgres_environment: Path, tmp_path: Path, own_postgres_server: PostgresServer
) -> None:
    services = _compose()["services"]
    server = own_postgres_server
    database = {key: _text(value) for key, value in services["postgres"]["environment"].items()}
    with psycopg.connect(server.url(), autocommit=True) as connection:
        # What the image of PostgreSQL does at its first start.
        role, name = sql.Identifier(database["POSTGRES_USER"]), sql.Identifier(database["POSTGRES_DB"])
        password = sql.Literal(database["POSTGRES_PASSWORD"])
        connection.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(role, password))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, role))
    app = _app(tmp_path)

    command: list[str] = services["first"]["command"]
    address = _text(services["first"]["environment"]["POSTGRES_CONNECTION_STRING"])
    here = address.replace("@postgres:5432/", f"@127.0.0.1:{server.port}/")
    environment = _environment(postgres_environment, POSTGRES_CONNECTION_STRING=here)

    def host() -> HostProcess:
        words = _on_loopback([word.replace("/app", str(app)) for word in command], postgres_environment)
        return HostProcess(app, command=words, environment=environment)

    with host() as first, host() as second:
        for each in (first, second):
            check = _health_check(each, postgres_environment)
            assert subprocess.run(check, env=environment, timeout=30, check=False).returncode == 0
            refused = each.request("GET", "/runtime/webhooks/durabletask/instances")
            assert refused.status == 401, (refused, each.printed())
        keys = subprocess.run(
            [str(postgres_environment / "durable-host"), "keys", "list", str(app), "--storage", "postgres", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        started = first.request("POST", "/api/orchestrators/hello_cities")
        assert started.status == 202, (started, first.printed())
        status = second.complete(started.json()["statusQueryGetUri"].replace(first.address, second.address))

    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    assert json.loads(keys.stdout)


@contextmanager
def _azurite_of_compose(data: Path, host: str) -> Generator[None]:
    """Azurite as compose starts it, on an address of this machine."""
    service = _compose()["services"]["azurite"]
    program = find_azurite()
    if program is None:
        text = "Azurite is not installed; run `make servers`: NOT TESTED that compose starts a host on it"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    command = [*program, *service["command"][1:]]
    command = [{"/data": str(data), "0.0.0.0": host}.get(word, word) for word in command]
    check = [program[0], *service["healthcheck"]["test"][2:]]
    check = [word.replace("127.0.0.1", host) for word in check]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while subprocess.run(check, timeout=30, check=False).returncode != 0:
                assert process.poll() is None
                assert time.monotonic() < end, "it does not become healthy"
            yield
        finally:
            process.terminate()


@pytest.mark.live
@pytest.mark.skipif(sys.platform != "linux", reason="needs a loopback address of its own")
def test_commands_of_compose_give_a_host_on_azurite(azure_environment: Path, tmp_path: Path) -> None:
    # With its usual ports, which somebody may use on 127.0.0.1.
    loopback = f"127.0.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 2}"
    service = _compose()["services"]["on-azurite"]
    address = _text(service["environment"]["AzureWebJobsStorage"]).replace("//azurite", f"//{loopback}")
    environment = _environment(azure_environment, AzureWebJobsStorage=address)
    app, data = _app(tmp_path), tmp_path / "data"
    data.mkdir()
    words = [str(word).replace("/app", str(app)) for word in service["command"]]

    with _azurite_of_compose(data, loopback):
        command = _on_loopback(words, azure_environment)
        with HostProcess(app, command=command, environment=environment) as host:
            check = _health_check(host, azure_environment)
            assert subprocess.run(check, env=environment, timeout=30, check=False).returncode == 0
            refused = host.request("GET", "/runtime/webhooks/durabletask/instances")
            assert refused.status == 401, (refused, host.printed())
            keys = subprocess.run(
                [*command[:1], "keys", "list", str(app), "--storage", "azureStorage", "--json"],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
                check=True,
            )
            started = host.request("POST", "/api/orchestrators/hello_cities")
            assert started.status == 202, (started, host.printed())
            status = host.complete(started.json()["statusQueryGetUri"])

    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    assert json.loads(keys.stdout)
    assert any(data.iterdir()), "what is stored is on the volume"


@pytest.mark.live
def test_without_the_extra_azure_storage_says_what_to_install(plain_environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(plain_environment / "durable-host"), "start", str(_app(tmp_path)), "--storage", "azureStorage"],
        env=_environment(plain_environment, AzureWebJobsStorage="UseDevelopmentStorage=true"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "install durable-host[azure]" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("storage", ["postgres", "postgresql://user:s3cret@127.0.0.1:1/db"])
def test_without_the_extra_the_missing_driver_is_named(plain_environment: Path, tmp_path: Path, storage: str) -> None:
    done = subprocess.run(
        [str(plain_environment / "durable-host"), "start", str(_app(tmp_path)), "--storage", storage],
        env=_environment(plain_environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "install durable-host[postgres]" in done.stdout
    assert "s3cret" not in done.stdout
    assert "Traceback" not in done.stdout
