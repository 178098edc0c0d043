"""python -m benchmarks: one command for all workloads, ours and the peer's in turn; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.hosted import measure_host
from benchmarks.measure import median
from benchmarks.workloads import HOST_LIMITS, WORKLOADS, Workload

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_PEER_PYTHON = _ROOT / ".venv-peer" / "bin" / "python"
_TIMEOUT_SECONDS = 400
_HOST = "W7"
_HOST_TITLE = "HTTP start to completion, samples/hello"

Figures = dict[str, float]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join([*WORKLOADS, _HOST])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure durable_host, and a peer beside it."
    )
    parser.add_argument("--provider", default="sqlite", choices=("sqlite", "memory"))
    parser.add_argument(
        "--peer", choices=("dbos",), help="run this peer in turn with ours (needs `make bench-peer` once)"
    )
    parser.add_argument("--workload", help=f"comma-separated, of {names}; default: all")
    parser.add_argument("--runs", type=int, default=3, help="runs of each workload; medians are reported (default 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: does everything work?")
    parser.add_argument("--no-sync", action="store_true", help="leave out the blocking activities")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parsed = parser.parse_args(arguments)
    parsed.names = (
        [name.strip().upper() for name in parsed.workload.split(",")] if parsed.workload else [*WORKLOADS, _HOST]
    )
    unknown = sorted(set(parsed.names) - set(WORKLOADS) - {_HOST})
    if unknown:
        parser.error(f"unknown workloads {unknown}; known: {names}")
    if parsed.quick:
        parsed.runs = 1
    if parsed.peer and not _PEER_PYTHON.exists():
        parser.error("the peer is not installed; run `make bench-peer` once, or leave --peer out")
    return parsed


def _process(command: Sequence[str]) -> Figures:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "providers")])}
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _ours(family: str, size: int, kind: str, provider: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        tail = [family, str(size), kind, provider, str(Path(folder) / "hub.db")]
        figures = _process([sys.executable, "-m", "benchmarks.ours", "run", *tail])
        if provider != "memory":
            _process([sys.executable, "-m", "benchmarks.ours", "check", *tail])
    return figures


def _peer(family: str, size: int, kind: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        tail = [family, str(size), kind, str(Path(folder) / "peer.db")]
        script = str(_ROOT / "benchmarks" / "peer_dbos.py")
        figures = _process([str(_PEER_PYTHON), script, "run", *tail])
        _process([str(_PEER_PYTHON), script, "check", *tail])
    return figures


def _medians(runs: Sequence[Figures]) -> Figures:
    return {key: median([run[key] for run in runs]) for key in runs[0]}


def _measure(workload: Workload, options: argparse.Namespace, tell: bool) -> dict[str, object]:
    size = workload.quick if options.quick else workload.size
    result: dict[str, object] = {
        "title": workload.title,
        "size": size,
        "figure": workload.figure,
        "unit": workload.unit,
    }
    kinds = ["async", "sync"] if workload.sync and not options.no_sync else ["async"]
    for kind in kinds:
        ours: list[Figures] = []
        peers: list[Figures] = []
        for _ in range(options.runs):  # in turn, so that both meet the same weather
            ours.append(_ours(workload.family, size, kind, options.provider))
            if options.peer:
                peers.append(_peer(workload.family, size, kind))
        entry: dict[str, Any] = {"ours": _medians(ours), "ours_runs": [run[workload.figure] for run in ours]}
        if peers:
            ratio = median([run[workload.figure] for run in ours]) / median([run[workload.figure] for run in peers])
            entry |= {
                "peer": _medians(peers),
                "peer_runs": [run[workload.figure] for run in peers],
                "ratio": ratio,
            }
        if kind == "async":
            entry["goals"] = _goals(workload, entry, options.provider)
        result[kind] = entry
        if tell:
            print(_line(workload, kind, entry), flush=True)
    return result


def _goals(workload: Workload, entry: Mapping[str, Any], provider: str) -> dict[str, bool]:
    """Each goal that applies, as text, and whether it is reached."""
    ours: Figures = entry["ours"]
    goals = {f"{figure} <= {most}": ours[figure] <= most for figure, most in workload.always}
    sign = ">=" if workload.higher_is_better else "<="
    if provider == "memory" and workload.memory is not None:
        goals[f"{workload.figure} {sign} {workload.memory}"] = workload.reaches(ours[workload.figure], workload.memory)
    if provider == "sqlite" and workload.goal is not None and "ratio" in entry:
        goals[f"ratio {sign} {workload.goal}"] = workload.reaches(entry["ratio"], workload.goal)
    return goals


def _line(workload: Workload, kind: str, entry: Mapping[str, Any]) -> str:
    ours: Figures = entry["ours"]
    text = f"{workload.name:4} {workload.title:47} {kind:5} {ours[workload.figure]:>10,.3f} {workload.unit:12}"
    peer = entry.get("peer")
    if isinstance(peer, dict):
        text += f" peer {peer[workload.figure]:>10,.3f}  ratio {entry['ratio']:>7.3f}"
    for goal, reached in entry.get("goals", {}).items():
        text += f"  {goal}: {'reached' if reached else 'MISSED'}"
    more = [f"{key} {value:,.2f}" for key, value in ours.items() if key not in {workload.figure, "seconds"}]
    return f"{text}  {', '.join(more)}".rstrip()


def _measure_host(options: argparse.Namespace, tell: bool) -> dict[str, object]:
    size = 20 if options.quick else 200
    runs: list[Figures] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure_host(Path(folder), options.provider, size))
    figures = _medians(runs)
    goals = {f"{figure} <= {most}": figures[figure] <= most for figure, most in HOST_LIMITS}
    if tell:
        print(
            f"{_HOST:4} {_HOST_TITLE}; "
            + ", ".join(f"{key} {value:,.3f}" for key, value in figures.items())
            + "".join(f"  {goal}: {'reached' if reached else 'MISSED'}" for goal, reached in goals.items())
        )
    return {"title": _HOST_TITLE, "size": size, "async": {"ours": figures, "goals": goals}}


def _machine(options: argparse.Namespace) -> dict[str, object]:
    facts: dict[str, object] = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "durable_host": version("durable-host"),
        "aiohttp": version("aiohttp"),
        "msgspec": version("msgspec"),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "provider": options.provider,
        "runs": options.runs,
    }
    if options.peer:
        code = "from importlib.metadata import version; print(version('dbos'))"
        facts["dbos"] = subprocess.run(
            [str(_PEER_PYTHON), "-c", code], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print a table, or with `--json` one document."""
    options = _arguments(arguments)
    tell = not options.json
    machine = _machine(options)
    if tell:
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results: dict[str, object] = {}
    for name in options.names:
        results[name] = _measure_host(options, tell) if name == _HOST else _measure(WORKLOADS[name], options, tell)
    if not tell:
        print(json.dumps({"machine": machine, "workloads": results}, indent=2))


if __name__ == "__main__":
    main()
