"""python -m tests.chaos: hosts and a database under blows, with thousands of instances at work; then the verdict.

    make chaos                                                     ten minutes on PostgreSQL
    make chaos SECONDS=60 ARGS="--storage sqlite --seed 7"

The seed decides what is started and what strikes when; the rest is up to the machine, so a failing run need not fail
again. Its folder is kept: logs of the hosts, journals of their commits, the log of all runs of activities.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from durable_host.environment import system_environment
from tests.chaos.run import Options, Report, run

__all__ = ["main"]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--storage", default="postgres", metavar="sqlite|postgres|URL", help="default postgres")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long strikes fall (default 600)")
    parser.add_argument("--seed", type=int, help="default: a new one")
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--whole", type=int, default=1, help="hosts that are `durable-host start` (default 1)")
    parser.add_argument("--rate", type=float, default=10.0, help="instances started in a second (default 10)")
    parser.add_argument("--open", type=int, default=300, help="most instances waited for at once (default 300)")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds (default 5)")
    parser.add_argument("--factor", type=float, default=1.0, help="more or fewer strikes (default 1)")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds of calm to bring all to an end")
    parser.add_argument("--apart", action="store_true", help="the client's process is no worker")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder, whatever comes of it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once, tell the counts; 1 when something is not as it must be."""
    given = _arguments(arguments)
    seed: int = given.seed if given.seed is not None else int(system_environment().ids.uniform() * 1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="durable-host-chaos-"))
    options = Options(
        storage=given.storage,
        seconds=given.seconds,
        seed=seed,
        folder=folder / "run",
        hosts=given.hosts,
        whole=given.whole,
        rate=given.rate,
        open=given.open,
        lease=given.lease,
        factor=given.factor,
        patience=given.patience,
        works=not given.apart,
    )
    _say(f"seed {seed}: {options.hosts} hosts on {options.storage.partition(':')[0]} for {options.seconds:.0f} s")
    keep = True
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs beside it with Ctrl-C ignored
    try:
        report = asyncio.run(run(options, _say))
        _tell(report)
        if report.problems:
            kind = options.storage.partition(":")[0]
            _say(f'The same again: make chaos SECONDS={options.seconds:g} ARGS="--storage {kind} --seed {seed}"')
        keep = bool(report.problems) or given.keep
    except KeyboardInterrupt:
        keep = given.keep
        return 130
    finally:
        if keep:
            _say(f"everything is in {folder}")
        else:
            shutil.rmtree(folder)
    return 1 if report.problems else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(report: Report) -> None:
    _table("instances that the client started, by kind", report.kinds)
    _table("what happened", report.counts)
    for name, value in report.figures.items():
        _say(f"{name}: {value}")
    for problem in report.problems:
        _say(f"PROBLEM: {problem}")
    _say(f"seed {report.seed}: {f'{len(report.problems)} problems' if report.problems else 'all is well'}")


def _table(title: str, counts: Mapping[str, int]) -> None:
    _say(f"\n{title}:")
    for name, count in sorted(counts.items()):
        _say(f"  {name:60} {count:>10,}")


if __name__ == "__main__":
    sys.exit(main())
