"""Many runs at once: all seeds of all scenarios on one hub, on several processes, and what they showed together.

A suite is only worth its figures: which faults struck, and which rows of the crash table were seen. A fault point that
was never struck, or a row that was never shown, is a hole in the net, so `SuiteResult.holes` names them and a suite
with holes fails.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from durable_host.testing.faults import FaultKind
from durable_host.testing.simulation import Report

__all__ = ["SuiteResult", "run_suite"]

Job = tuple[str, int]
"""A scenario's name and a seed."""


@dataclass(slots=True)
class SuiteResult:
    """What all runs of a suite showed."""

    runs: int = 0
    failed: list[Report] = field(default_factory=list[Report])
    passes: Counter[str] = field(default_factory=Counter[str])
    hits: Counter[tuple[str, FaultKind]] = field(default_factory=Counter[tuple[str, FaultKind]])
    rows: Counter[str] = field(default_factory=Counter[str])
    scenarios: Counter[str] = field(default_factory=Counter[str])
    elapsed: float = 0.0
    kills: int = 0
    commits: int = 0
    orphans: int = 0

    def add(self, report: Report) -> None:
        """Count a run in."""
        self.runs += 1
        self.scenarios[report.scenario] += 1
        if report.violations:
            self.failed.append(report)
        self.passes += report.passes
        self.hits += report.hits
        self.rows += report.rows
        self.elapsed += report.elapsed
        self.kills += report.kills
        self.commits += report.commits
        self.orphans += report.orphans

    def holes(
        self, points: Iterable[str], rows: Iterable[str], kinds: Collection[FaultKind] = tuple(FaultKind)
    ) -> list[str]:
        """What no run has shown: fault points, each by errors and crashes, and rows of the crash table."""
        missing = [f"{point} {kind.value}" for point in points for kind in kinds if not self.hits[point, kind]]
        return missing + [row for row in rows if not self.rows[row]]

    def table(self, points: Iterable[str], rows: Iterable[str]) -> str:
        """The figures, for people."""
        lines = [
            f"{self.runs} runs of {len(self.scenarios)} scenarios, {len(self.failed)} failed; {self.commits} commits, "
            f"{self.kills} workers killed, {self.elapsed / 86_400:.0f} virtual days, {self.orphans} orphaned calls",
            "crash table:",
            *(f"  {self.rows[row]:>8}  {row}" for row in rows),
            "fault points (errors, crashes, passes):",
        ]
        for point in points:
            errors, crashes = self.hits[point, FaultKind.ERROR], self.hits[point, FaultKind.CRASH]
            lines.append(f"  {errors:>8} {crashes:>8} {self.passes[point]:>10}  {point}")
        return "\n".join(lines)


def run_suite(
    run_one: Callable[[Job], Report],
    jobs: Sequence[Job],
    *,
    processes: int | None = None,
    on_failure: Callable[[Report], None] | None = None,
) -> SuiteResult:
    """Run all jobs and add up what they showed.

    Args:
        run_one: a function that other processes can import.
        processes: None: one per core; 1: this one.
        on_failure: hears of each failed run at once.
    """
    result = SuiteResult()
    count = processes or multiprocessing.cpu_count()
    if count == 1 or len(jobs) == 1:
        for job in jobs:
            _take(result, run_one(job), on_failure)
        return result
    # Fresh interpreters: forking a process that has threads is asking for trouble.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        for report in pool.map(run_one, jobs, chunksize=max(1, min(25, len(jobs) // (4 * count)))):
            _take(result, report, on_failure)
    return result


def _take(result: SuiteResult, report: Report, on_failure: Callable[[Report], None] | None) -> None:
    result.add(report)
    if report.violations and on_failure is not None:
        on_failure(report)
