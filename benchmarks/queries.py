"""python -m benchmarks.queries: a hub with a million instances on PostgreSQL; how long pages and purges take.

    python -m benchmarks.queries                      everything; --instances and --purge say how many
    python -m benchmarks.queries --plans FILE         write the plans of the statements, too

Pages are asked for through the store, as the host asks for them: filter by filter, the first page and those after it,
100 instances each. For the purge see purge.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.fill import BEGAN_AT, DAYS, fill, id_of
from benchmarks.measure import median
from benchmarks.ours import open_store
from benchmarks.places import Places
from benchmarks.postgres import log_plans
from benchmarks.purge import ALONE_SECONDS, measure_purge
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import TaskHubStore
from tests.servers.postgres import PostgresServer

__all__ = ["main"]

LIMIT_MS = 50.0
"""The most that a page may take."""

REPEATS = 7
PAGES = 20


def _cases(count: int) -> dict[str, InstanceQuery]:
    """Every single filter, common and rare and without a match, and status with a created range."""
    day, hour = timedelta(days=1), timedelta(hours=1)
    end = BEGAN_AT + timedelta(days=DAYS)
    middle = BEGAN_AT + timedelta(days=DAYS / 2)

    def status(*names: str) -> frozenset[RuntimeStatus]:
        return frozenset(map(RuntimeStatus, names))

    def created(query: InstanceQuery, begin: timedelta, length: timedelta) -> InstanceQuery:
        return msgspec.structs.replace(query, created_from=BEGAN_AT + begin, created_to=BEGAN_AT + begin + length)

    anything = InstanceQuery()
    cases = {
        "no filter": anything,
        "prefix, 0.4 %": InstanceQuery(prefix="ab"),
        "prefix, one": InstanceQuery(prefix=id_of(count // 2)[:20]),
        "prefix, none": InstanceQuery(prefix="zz"),
        "status Completed, 96 %": InstanceQuery(statuses=status("Completed")),
        "status Failed, 2 %": InstanceQuery(statuses=status("Failed")),
        "status Terminated, 0.5 %": InstanceQuery(statuses=status("Terminated")),
        "status Canceled, none": InstanceQuery(statuses=status("Canceled")),
        "statuses Running and Failed": InstanceQuery(statuses=status("Running", "Failed")),
        "name, 50 %": InstanceQuery(names=frozenset({"common"})),
        "name, 5 %": InstanceQuery(names=frozenset({"name-3"})),
        "name, 0.01 %": InstanceQuery(names=frozenset({"rare"})),
        "name, none": InstanceQuery(names=frozenset({"nobody"})),
        "tag, 0.1 %": InstanceQuery(tags=(("tenant", "tenant-7"),)),
        "tag, none": InstanceQuery(tags=(("tenant", "nobody"),)),
        "parent, 5 children": InstanceQuery(parent=InstanceId(id_of(200))),
        "parent, none": InstanceQuery(parent=InstanceId("nobody")),
        "created, one hour": created(anything, DAYS / 2 * day, hour),
        "created, one day": created(anything, DAYS / 2 * day, day),
        "created, ten days": created(anything, 10 * day, 10 * day),
        "created from the middle": InstanceQuery(created_from=middle),
        "created to the middle": InstanceQuery(created_to=middle),
        "created after the end": InstanceQuery(created_from=end + day),
        "updated, one hour": InstanceQuery(updated_from=middle, updated_to=middle + hour),
        "updated, one day": InstanceQuery(updated_from=middle, updated_to=middle + day),
        "updated, ten days": InstanceQuery(updated_from=middle, updated_to=middle + 10 * day),
        "updated from the middle": InstanceQuery(updated_from=middle),
        "updated to the middle": InstanceQuery(updated_to=middle),
    }
    for name in ("Completed", "Failed", "Running", "Terminated", "Canceled"):
        query = InstanceQuery(statuses=status(name))
        cases |= {
            f"{name}, created in one hour": created(query, DAYS / 2 * day, hour),
            f"{name}, created on one day": created(query, DAYS / 2 * day, day),
            f"{name}, created in ten days": created(query, 10 * day, 10 * day),
            f"{name}, created from the middle": msgspec.structs.replace(query, created_from=middle),
        }
    return cases


async def _time_page(store: TaskHubStore, query: InstanceQuery) -> tuple[float, int, str | None]:
    began = time.perf_counter()
    page = await store.query_instances(query)
    return (time.perf_counter() - began) * 1000, len(page.instances), page.cursor


async def _measure_case(store: TaskHubStore, query: InstanceQuery) -> dict[str, float]:
    """The first page again and again, then the pages after it, and one from the middle of the order of ids."""
    first: list[float] = []
    found = 0
    cursor: str | None = None
    for _ in range(REPEATS):
        milliseconds, found, cursor = await _time_page(store, query)
        first.append(milliseconds)
    later: list[float] = []
    while cursor is not None and len(later) < PAGES:
        milliseconds, _, cursor = await _time_page(store, msgspec.structs.replace(query, cursor=cursor))
        later.append(milliseconds)
    return {
        "found": found,
        "first_ms": median(first),
        "first_max_ms": max(first),
        "pages": len(later),
        "page_ms": median(later) if later else 0.0,
        "page_max_ms": max(later) if later else 0.0,
    }


async def _measure_queries(url: str, count: int, tell: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    async with open_store("postgres", url) as store:
        for name, query in _cases(count).items():
            figures = await _measure_case(store, query)
            worst = max(figures["first_ms"], figures["page_ms"])
            results[name] = {**figures, "reached": worst < LIMIT_MS}
            if tell:
                print(
                    f"{name:34} {figures['found']:>4.0f} found, first page {figures['first_ms']:>8.2f} ms"
                    f" (max {figures['first_max_ms']:.1f}), {figures['pages']:>2.0f} more, each"
                    f" {figures['page_ms']:>8.2f} ms (max {figures['page_max_ms']:.1f})"
                    f"  {'reached' if worst < LIMIT_MS else 'MISSED'}",
                    flush=True,
                )
    return results


async def _plans(server: PostgresServer, url: str, count: int) -> str:
    """Ask for the first page of every case once more; what the server says about its plans."""
    log_plans(server)
    told: list[str] = []
    async with open_store("postgres", url) as store:
        await store.query_instances(InstanceQuery(limit=1))
        for name, query in _cases(count).items():
            before = len(server.printed())
            await store.query_instances(query)
            told.append(f"## {name}\n\n{server.printed()[before:].strip()}\n")
    return "\n".join(told)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, measure, print a table, or with `--json` one document."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queries", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--instances", type=int, default=1_000_000, help="a multiple of 200 (default 1,000,000)")
    parser.add_argument("--purge", type=int, default=100_000, help="instances to purge; 0: none (default 100,000)")
    parser.add_argument("--plans", type=Path, help="write the plans of the statements into this file")
    parser.add_argument("--quick", action="store_true", help="short phases beside the purge: does everything work?")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    options = parser.parse_args(arguments)
    tell = not options.json
    with Places("postgres") as places, places.fresh() as url:
        assert places.server is not None
        began = time.perf_counter()
        asyncio.run(fill(url, options.instances))
        if tell:
            print(f"{options.instances:,} instances in {time.perf_counter() - began:.0f} s", flush=True)
        document: dict[str, Any] = {"queries": asyncio.run(_measure_queries(url, options.instances, tell))}
        if options.plans is not None:
            plans = asyncio.run(_plans(places.server, url, options.instances))
            options.plans.write_text(plans, encoding="utf-8")
        if options.purge:
            document["purge"] = asyncio.run(
                measure_purge(places, url, options.instances, options.purge, 1.0 if options.quick else ALONE_SECONDS)
            )
            if tell:
                print(", ".join(f"{key} {value:,.2f}" for key, value in document["purge"].items()))
    if not tell:
        print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
