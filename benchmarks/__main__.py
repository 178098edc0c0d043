"""python -m benchmarks: one command for all workloads, ours and the peers' in turn; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.hosted import measure_host
from benchmarks.hosts import measure_hosts
from benchmarks.measure import median
from benchmarks.places import PEER_PYTHON, PEERS, ROOT, Figures, Places, run_ours, run_peer
from benchmarks.workloads import AZURE, KIND_OF_REQUEST, PROVIDERS, REPLAY, WORKLOADS, Workload
from durable_host.storage.registry import provider_names

__all__ = ["main"]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join(WORKLOADS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure durable_host, and peers beside it."
    )
    installed = [provider for provider in PROVIDERS if provider in provider_names()]
    parser.add_argument("--provider", default="sqlite", choices=installed)
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        choices=tuple(PEERS),
        help="run this peer in turn with ours, may be given several times (needs `make bench-peer` once)",
    )
    parser.add_argument("--workload", help=f"comma-separated, of {names}; default: all that the provider has")
    parser.add_argument("--runs", type=int, default=3, help="runs of each workload; medians are reported (default 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: does everything work?")
    parser.add_argument("--no-sync", action="store_true", help="leave out the blocking activities")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parsed = parser.parse_args(arguments)
    available = [name for name, workload in WORKLOADS.items() if parsed.provider in workload.providers]
    parsed.names = [name.strip().upper() for name in parsed.workload.split(",")] if parsed.workload else available
    unknown = sorted(set(parsed.names) - set(available))
    if unknown:
        parser.error(f"unknown workloads {unknown}; known on {parsed.provider}: {', '.join(available)}")
    if parsed.quick:
        parsed.runs = 1
    if parsed.provider == AZURE:
        if parsed.peer:
            parser.error("on Azure Storage the replay of the reference's requests is the peer; leave --peer out")
        parsed.peer, parsed.no_sync = [REPLAY], True
        return parsed
    if "absurd" in parsed.peer and parsed.provider != "postgres":
        parser.error("--peer absurd runs on PostgreSQL only; add --provider postgres, or leave it out")
    if parsed.peer and not PEER_PYTHON.exists():
        parser.error("the peers are not installed; run `make bench-peer` once, or leave --peer out")
    return parsed


def _medians(runs: Sequence[Figures]) -> Figures:
    # A kind of request may be missing where none was made.
    return {key: median([run.get(key, 0.0) for run in runs]) for key in {key: None for run in runs for key in run}}


def _runner(workload: Workload, places: Places, size: int, kind: str) -> Callable[[], Figures]:
    if workload.family == "hosted":
        return lambda: measure_host(places, size)
    if workload.family in {"waiting", "nothing"}:
        return lambda: measure_hosts(places, workload.family, size)
    return lambda: run_ours(places, workload.family, size, kind)


def _measure(workload: Workload, options: argparse.Namespace, places: Places, tell: bool) -> dict[str, object]:
    size = workload.quick if options.quick else workload.size
    result: dict[str, object] = {
        "title": workload.title,
        "size": size,
        "figure": workload.figure,
        "unit": workload.unit,
    }
    for kind in ["async", "sync"] if workload.sync and not options.no_sync else ["async"]:
        result[kind] = _measure_kind(workload, options, places, size, kind)
        if tell:
            print(_line(workload, kind, result[kind]), flush=True)
    return result


def _measure_kind(
    workload: Workload, options: argparse.Namespace, places: Places, size: int, kind: str
) -> dict[str, Any]:
    peers = [peer for peer in options.peer if peer in workload.peers and not (peer == "absurd" and kind == "sync")]
    run = _runner(workload, places, size, kind)
    ours: list[Figures] = []
    theirs: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(options.runs):  # in turn, so that all meet the same weather
        ours.append(run())
        for peer in peers:
            theirs[peer].append(run_peer(places, peer, workload.family, size, kind))
    figure = workload.figure
    entry: dict[str, Any] = {"ours": _medians(ours), "ours_runs": [each[figure] for each in ours]}
    entry["peers"] = {
        peer: {
            "figures": _medians(runs),
            "runs": [each[figure] for each in runs],
            "ratio": entry["ours"][figure] / median([each[figure] for each in runs]),
        }
        for peer, runs in theirs.items()
    }
    if kind == "async":
        entry["goals"] = _goals(workload, entry, options.provider)
    return entry


def _goals(workload: Workload, entry: Mapping[str, Any], provider: str) -> dict[str, bool]:
    """Each goal that applies, as text, and whether it is reached."""
    ours: Figures = entry["ours"]
    sign = ">=" if workload.higher_is_better else "<="
    goals = {
        f"{limit.figure} <= {limit.most}": ours[limit.figure] <= limit.most
        for limit in workload.limits
        if provider in limit.providers
    }
    if (goal := workload.absolute.get(provider)) is not None:
        goals[f"{workload.figure} {sign} {goal}"] = workload.reaches(ours[workload.figure], goal)
    for peer, figures in entry["peers"].items():
        if (goal := workload.ratios.get((provider, peer))) is not None:
            goals[f"ratio to {peer} {sign} {goal}"] = workload.reaches(figures["ratio"], goal)
    return goals


def _line(workload: Workload, kind: str, entry: Any) -> str:
    ours: Figures = entry["ours"]
    text = f"{workload.name:4} {workload.title:47} {kind:5} {ours[workload.figure]:>10,.3f} {workload.unit:12}"
    for peer, figures in entry["peers"].items():
        text += f" {peer} {figures['figures'][workload.figure]:>9,.3f} ratio {figures['ratio']:>6.3f} "
    for goal, reached in entry.get("goals", {}).items():
        text += f"  {goal}: {'reached' if reached else 'MISSED'}"
    hidden = {workload.figure, "seconds"}
    more = [
        f"{key} {value:,.2f}"
        for key, value in ours.items()
        if key not in hidden and not key.startswith(KIND_OF_REQUEST)
    ]
    return f"{text}  {', '.join(more)}".rstrip()


def _machine(options: argparse.Namespace, places: Places) -> dict[str, object]:
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
    if places.server is not None:
        facts["asyncpg"] = version("asyncpg")
        facts["postgres"] = places.server.execute("SHOW server_version")[0][0]
    if options.provider == AZURE:
        package = json.loads((ROOT / "tests" / "servers" / "package.json").read_text(encoding="utf-8"))
        facts["azurite"] = package["dependencies"]["azurite"]
    for peer in options.peer:
        if peer == REPLAY:
            continue
        code = f"from importlib.metadata import version; print(version('{PEERS[peer]}'))"
        done = subprocess.run([str(PEER_PYTHON), "-c", code], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"the peer {peer} is not installed; run `make bench-peer` again, or leave --peer out")
        facts[peer] = done.stdout.strip()
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print a table, or with `--json` one document."""
    options = _arguments(arguments)
    tell = not options.json
    with Places(options.provider) as places:
        machine = _machine(options, places)
        if tell:
            print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
        results = {name: _measure(WORKLOADS[name], options, places, tell) for name in options.names}
    if not tell:
        print(json.dumps({"machine": machine, "workloads": results}, indent=2))


if __name__ == "__main__":
    main()
