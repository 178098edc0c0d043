"""The suites: all scenarios on one hub, many seeds. What CI runs in small, `make soak` in large.

python -m tests.simulation.suites --hub azure --scenario chain --seed 17 --trace     replays one run
python -m tests.simulation.suites --seeds 2000                                       all hubs and scenarios
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
from collections.abc import Iterable

from durable_host.testing.faults import WORKER_POINTS
from durable_host.testing.simulation import Report, run
from durable_host.testing.suite import run_suite
from durable_host.testing.tape import Tape
from tests.simulation.hubs import HUBS
from tests.simulation.scenarios import SCENARIOS

__all__ = ["hub_points", "jobs", "run_job", "run_seed"]


def run_seed(hub: str, scenario: str, seed: int) -> Report:
    """One run; faults by the thousand are nothing to log."""
    command = f"python -m tests.simulation.suites --hub {hub} --scenario {scenario} --seed {seed}"
    log = logging.getLogger("durable_host")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return run(SCENARIOS[scenario](), seed, hub=HUBS[hub], command=command)
    finally:
        log.setLevel(level)


def run_job(hub: str, job: tuple[str, int]) -> Report:
    """One run, as the suite hands it out."""
    return run_seed(hub, *job)


def jobs(seeds: Iterable[int], scenarios: Iterable[str] = tuple(SCENARIOS)) -> list[tuple[str, int]]:
    """All scenarios with all seeds, mixed, so that processes finish together."""
    return [(scenario, seed) for seed in seeds for scenario in scenarios]


def hub_points(name: str) -> tuple[list[str], list[str]]:
    """The fault points and the rows of the crash table that a hub must show."""
    hub = HUBS[name]
    points = [*hub.points, *(WORKER_POINTS if hub.call_rates else ())]
    return points, list(hub.rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.suites")
    parser.add_argument("--hub", choices=sorted(HUBS), action="append")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=200, help="how many for each scenario")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--trace", action="store_true", help="print every step (with --seed)")
    parser.add_argument("--log", action="store_true", help="show what the engine logs (with --seed)")
    options = parser.parse_args(arguments)
    hubs: list[str] = options.hub or list(HUBS)
    scenarios: list[str] = options.scenario or list(SCENARIOS)
    if options.seed is not None:
        return _replay(hubs, scenarios, options.seed, trace=options.trace, log=options.log)
    failed = False
    for hub in hubs:
        began = time.perf_counter()
        seeds = range(options.first, options.first + options.seeds)
        result = run_suite(
            functools.partial(run_job, hub), jobs(seeds, scenarios), processes=options.processes, on_failure=_tell
        )
        points, rows = hub_points(hub)
        print(f"\n== {hub}: {time.perf_counter() - began:.0f} s")
        print(result.table(points, rows))
        holes = result.holes(points, rows) if options.scenario is None else []
        if holes:
            print(f"never shown: {', '.join(holes)}")
        failed = failed or bool(result.failed or holes)
    return 1 if failed else 0


def _replay(hubs: list[str], scenarios: list[str], seed: int, *, trace: bool, log: bool) -> int:
    failed = False
    if trace:
        Tape.printer = staticmethod(print)
    for hub in hubs:
        for scenario in scenarios:
            if log:
                logging.basicConfig(level=logging.DEBUG, format="      %(levelname)s %(name)s %(message)s")
                report = run(SCENARIOS[scenario](), seed, hub=HUBS[hub])
            else:
                report = run_seed(hub, scenario, seed)
            print(f"{scenario} on {hub}, seed {seed}: {report.digest} {report.elapsed:.0f} s, {report.kills} kills")
            for violation in report.violations:
                print(f"  {violation}")
            failed = failed or bool(report.violations)
    return 1 if failed else 0


def _tell(report: Report) -> None:
    print(f"{report.command}\n  " + "\n  ".join(report.violations), flush=True)


if __name__ == "__main__":
    sys.exit(main())
