"""The benchmark commands work; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.hosting import ROOT, source_environment
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live

_EVERYWHERE = {"W1", "W2", "W3", "W3L", "W4", "W5", "W6", "W6L", "W6S", "W7"}


def _measure(module: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--json"],
        cwd=ROOT,
        env=source_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _assert_measured(document: dict[str, Any], provider: str, names: set[str]) -> None:
    assert document["machine"]["provider"] == provider
    workloads = document["workloads"]
    assert set(workloads) == names
    for name, workload in workloads.items():
        assert all(value > 0 for key, value in workload["async"]["ours"].items() if key != "idle_cpu_percent"), name


@pytest.mark.parametrize("provider", ["memory", "sqlite"])
def test_every_workload_runs_and_its_results_are_read_back(provider: str) -> None:
    document = _measure("benchmarks", "--provider", provider, "--quick", "--no-sync")

    _assert_measured(document, provider, _EVERYWHERE)


@pytest.mark.usefixtures("postgres_server")
def test_every_workload_runs_on_postgres_and_two_hosts_share_a_hub() -> None:
    document = _measure("benchmarks", "--provider", "postgres", "--quick", "--no-sync")

    _assert_measured(document, "postgres", _EVERYWHERE | {"W8", "W9"})


def test_a_filled_hub_answers_every_query_and_is_purged_while_work_runs(postgres_server: PostgresServer) -> None:
    document = _measure("benchmarks.queries", "--instances", "4000", "--purge", "1000", "--quick")

    found = {name: figures["found"] for name, figures in document["queries"].items()}
    assert found["status Failed, 2 %"] == 81  # and the template
    assert found["name, 0.01 %"] == 0  # number 4321 is not among so few
    assert found["parent, 5 children"] == 1
    assert found["Terminated, created from the middle"] == 1  # the template, which is of today
    assert document["purge"]["removed"] > 900
