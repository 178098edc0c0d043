"""Every scenario on every hub with many seeds, and what the net has caught.

`DURABLE_HOST_SEEDS` says how many seeds for each scenario (200); `make soak` sets it to thousands.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import pytest

from durable_host.testing.suite import run_suite
from tests.simulation.hubs import HUBS
from tests.simulation.suites import hub_points, jobs, run_job

SEEDS = int(os.environ.get("DURABLE_HOST_SEEDS", "200"))


@pytest.mark.parametrize("hub", sorted(HUBS))
def test_all_is_well_whatever_fails_and_everything_that_can_fail_has_failed(
    hub: str, tell: Callable[[str], None]
) -> None:
    result = run_suite(functools.partial(run_job, hub), jobs(range(SEEDS)))

    points, rows = hub_points(hub)
    tell(f"{hub}: {result.table(points, rows)}")
    assert not result.failed, "\n".join(
        "\n  ".join([f"{report.command} failed:", *report.violations]) for report in result.failed[:20]
    )
    assert not result.holes(points, rows)
