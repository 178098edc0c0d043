"""The whole Azure Storage provider under simulation: every scenario, and every fault point and row of the crash table.

`DURABLE_HOST_AZURE_SEEDS` says how many seeds for each scenario. Scenarios of idle weeks are left to the model store:
here a host looks into its queues and renews its partitions meanwhile.

python -m tests.simulation.test_azure_storage chain 17     replays one run
"""

from __future__ import annotations

import logging
import os
import sys

import pytest

from durable_host.testing.simulation import Report, run
from durable_host.testing.suite import run_suite
from tests.simulation.azure_storage_hub import AzureStorageHub
from tests.simulation.scenarios import SCENARIOS

SEEDS = int(os.environ.get("DURABLE_HOST_AZURE_SEEDS", "5"))
IDLE = ("timers", "scheduled")


def run_job(job: tuple[str, int]) -> Report:
    """One run; faults by the thousand are nothing to log."""
    scenario, seed = job
    logs = [logging.getLogger(name) for name in ("durable_host", "durable_host_providers")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        command = f"python -m tests.simulation.test_azure_storage {scenario} {seed}"
        return run(SCENARIOS[scenario](), seed, hub=AzureStorageHub, command=command)
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def test_all_is_well_whatever_fails_and_everything_that_can_fail_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [(scenario, seed) for seed in range(SEEDS) for scenario in SCENARIOS if scenario not in IDLE]
    result = run_suite(run_job, jobs)

    with capsys.disabled():
        print(f"\nazureStorage: {result.table(AzureStorageHub.points, AzureStorageHub.rows)}")
    assert not result.failed, "\n".join(
        "\n  ".join([f"{report.command} failed:", *report.violations]) for report in result.failed[:20]
    )
    assert not result.holes(AzureStorageHub.points, AzureStorageHub.rows)


if __name__ == "__main__":
    report = run_job((sys.argv[1], int(sys.argv[2])))
    print(report.digest, report.elapsed, report.violations)
