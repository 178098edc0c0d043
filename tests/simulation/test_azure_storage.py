"""The whole Azure Storage provider under simulation: every scenario, and every fault point and row of the crash table.

`DURABLE_HOST_AZURE_SEEDS` says how many seeds for each scenario. How hosts share partitions is drawn from the seed; in
the scenarios of idle weeks it is the table, with leases that are long once the trouble is over.

python -m tests.simulation.test_azure_storage chain 17     replays one run
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from durable_host.testing.simulation import Report, run
from durable_host.testing.suite import run_suite
from tests.simulation.azure_storage_hub import AzureStorageHub, PatientHub
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
        hub = PatientHub if scenario in IDLE else AzureStorageHub
        return run(SCENARIOS[scenario](), seed, hub=hub, command=command)
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def test_all_is_well_whatever_fails_and_everything_that_can_fail_has_failed(tell: Callable[[str], None]) -> None:
    jobs = [(scenario, seed) for seed in range(SEEDS) for scenario in SCENARIOS]
    result = run_suite(run_job, jobs)

    tell(f"azureStorage: {result.table(AzureStorageHub.points, AzureStorageHub.rows)}")
    assert not result.failed, "\n".join(
        "\n  ".join([f"{report.command} failed:", *report.violations]) for report in result.failed[:20]
    )
    assert not result.holes(AzureStorageHub.points, AzureStorageHub.rows)


if __name__ == "__main__":
    report = run_job((sys.argv[1], int(sys.argv[2])))
    print(report.digest, report.elapsed, report.violations)
