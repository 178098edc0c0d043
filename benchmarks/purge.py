"""Purge the oldest of many instances while a worker runs chains: how fast, and what it does to them.

python -m benchmarks.purge URL SECONDS    the purging process: what was created in the first SECONDS of the hub's time
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta

from benchmarks.fill import BEGAN_AT, DAYS
from benchmarks.hosts import drive_for, running_worker
from benchmarks.ours import open_store
from benchmarks.places import ROOT, Figures, Places
from durable_host.engine.client import TaskHubClient
from durable_host.model.instance import InstanceQuery

__all__ = ["ALONE_SECONDS", "main", "measure_purge"]

_WARM_SECONDS = 2.0
ALONE_SECONDS = 8.0


async def _purge(url: str, seconds: float) -> Figures:
    query = InstanceQuery(created_to=BEGAN_AT + timedelta(seconds=seconds))
    async with open_store("postgres", url) as store:
        began = time.perf_counter()
        removed = await TaskHubClient(store).purge_by(query)
        return {"removed": removed, "seconds": time.perf_counter() - began}


async def measure_purge(
    places: Places, url: str, count: int, purged: int, alone_seconds: float = ALONE_SECONDS
) -> Figures:
    """Chains per second of one worker before, during and after a purge, which another process does.

    Args:
        count: instances in the hub, as `fill` made them.
        purged: how many of them to remove; those that have not ended stay.
        alone_seconds: how long to measure before and after.
    """
    seconds = timedelta(days=DAYS).total_seconds() * purged / count
    with running_worker(places, "nothing", url):
        await drive_for(url, "warm", min(alone_seconds, _WARM_SECONDS))
        before = await drive_for(url, "before", alone_seconds)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.purge", url, str(seconds)),
            cwd=ROOT,
            env=places.environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        purge = asyncio.ensure_future(process.communicate())
        during = await drive_for(url, "during", purge)
        output, _ = await purge
        if process.returncode != 0:
            raise SystemExit(f"the purge ended with {process.returncode}")
        after = await drive_for(url, "after", alone_seconds)
    figures: Figures = json.loads(output)
    return {
        **figures,
        "purged_per_second": figures["removed"] / figures["seconds"],
        "chains_before": before,
        "chains_during": during,
        "chains_after": after,
        "during_to_alone": during * 2 / (before + after),
    }


def main(arguments: list[str]) -> None:
    """Be the purging process."""
    url, seconds = arguments
    print(json.dumps(asyncio.run(_purge(url, float(seconds)))))


if __name__ == "__main__":
    main(sys.argv[1:])
