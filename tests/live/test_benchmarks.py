"""The benchmark command works; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hosting import ROOT, source_environment

pytestmark = pytest.mark.live


@pytest.mark.parametrize("provider", ["memory", "sqlite"])
def test_every_workload_runs_and_its_results_are_read_back(provider: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--provider", provider, "--quick", "--no-sync", "--json"],
        cwd=ROOT,
        env=source_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )

    document = json.loads(done.stdout)
    assert document["machine"]["provider"] == provider
    workloads = document["workloads"]
    assert set(workloads) == {"W1", "W2", "W3", "W3L", "W4", "W5", "W6", "W6L", "W6S", "W7"}
    for name, workload in workloads.items():
        assert all(value > 0 for key, value in workload["async"]["ours"].items() if key != "idle_cpu_percent"), name
