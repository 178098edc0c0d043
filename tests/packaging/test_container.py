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
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosting import ROOT, HostProcess

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
    assert _compose()["services"]["host"]["user"] == "10001"
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
    assert _compose()["services"]["host"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_base_image_has_a_supported_python_and_versions_are_locked() -> None:
    for value in _values("FROM"):
        version = re.match(r"python:3\.(\d+)-slim\b", value)
        assert version is not None and int(version[1]) >= 11, value
    for value in _values("RUN"):
        if "pip install" in value:
            assert "--require-hashes" in value or "--no-deps" in value, value


@pytest.mark.live
def test_commands_of_the_image_give_a_healthy_host_that_demands_keys(plain_environment: Path, tmp_path: Path) -> None:
    app, data = tmp_path / "app", tmp_path / "data"
    (source, _) = next(shlex.split(value) for value in _values("COPY") if value.endswith(" /app"))
    shutil.copytree(ROOT / source, app, ignore=shutil.ignore_patterns(".durable", "__pycache__"))
    data.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{plain_environment}{os.pathsep}{environment['PATH']}"

    def here(word: str) -> str:
        return word.replace("sqlite:////data/", f"sqlite:///{data}/").replace("/app", str(app))

    command = [here(word) for word in _command()]
    command[0] = str(plain_environment / "durable-host")
    at = command.index("--port")
    del command[at : at + 2]
    listen = command.index("--host") + 1
    assert command[listen] == "0.0.0.0"
    command[listen] = "127.0.0.1"

    with HostProcess(app, command=command, environment=environment) as host:
        check = [str(word) for word in json.loads(_values("HEALTHCHECK")[0].split("CMD", 1)[1])]
        check[-1] = check[-1].replace("127.0.0.1:7071", f"127.0.0.1:{host.port}")
        check[0] = str(plain_environment / "python")
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
