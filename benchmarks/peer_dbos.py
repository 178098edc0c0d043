"""A peer's side: DBOS, on PostgreSQL or on an SQLite file in WAL mode. Run by the interpreter of the peers' own venv.

    python peer_dbos.py run FAMILY SIZE KIND URL      prints one JSON object with the figures
    python peer_dbos.py check FAMILY SIZE KIND URL    a new process: reads every result back and compares it

KIND is `async` or `sync`, URL that of a database or `sqlite:///FILE`. Settings are DBOS's defaults except SQLite's WAL,
which it does not switch on by itself; SQLite's default `synchronous=FULL` is what ours uses, too. Of two ways to do the
same the faster one was taken.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from dbos import DBOS, DBOSClient, SetWorkflowID
from measure import cpu_seconds, median, percentile, rss_mib
from workloads import SERVER_PID

__all__ = ["main"]

CHAIN = 5
SETTLE_SECONDS = 2.0
IDLE_SECONDS = 5.0
SQLITE = "sqlite:///"


@DBOS.step()
async def async_step(value: int) -> int:
    return value + 1


@DBOS.step()
def sync_step(value: int) -> int:
    return value + 1


@DBOS.workflow()
async def async_chain(length: int) -> int:
    value = 0
    for _ in range(length):
        value = await async_step(value)
    return value


@DBOS.workflow()
def sync_chain(length: int) -> int:
    value = 0
    for _ in range(length):
        value = sync_step(value)
    return value


@DBOS.workflow()
async def async_fan(width: int) -> int:
    return sum(await asyncio.gather(*(async_step(number) for number in range(width))))


@DBOS.workflow()
async def sync_fan(width: int) -> int:
    return sum(await asyncio.gather(*(asyncio.to_thread(sync_step, number) for number in range(width))))


def _settings(url: str) -> Any:
    return {
        "name": "benchmark",
        "system_database_url": url,
        "log_level": "ERROR",
        "run_admin_server": False,
    }


async def _start_one(workflow: Any, instance: str, argument: int) -> Any:
    with SetWorkflowID(instance):
        if inspect.iscoroutinefunction(workflow):
            return await DBOS.start_workflow_async(workflow, argument)
        return await asyncio.to_thread(DBOS.start_workflow, workflow, argument)


async def _at_once(kind: str, size: int) -> dict[str, float]:
    workflow = async_chain if kind == "async" else sync_chain
    began = time.perf_counter()
    handles = [await _start_one(workflow, f"w1-{number}", CHAIN) for number in range(size)]
    if kind == "async":
        results = list(await asyncio.gather(*(handle.get_result() for handle in handles)))
    else:
        results = await asyncio.to_thread(lambda: [handle.get_result() for handle in handles])
    seconds = time.perf_counter() - began
    assert results == [CHAIN] * size
    return {"seconds": seconds, "per_second": size / seconds, "rss_mib": rss_mib()}


async def _one_at_a_time(kind: str, size: int) -> dict[str, float]:
    workflow = async_chain if kind == "async" else sync_chain
    latencies: list[float] = []
    for number in range(size):
        began = time.perf_counter()
        if kind == "async":
            handle = await _start_one(workflow, f"w2-{number}", CHAIN)
            result = await handle.get_result()
        else:
            with SetWorkflowID(f"w2-{number}"):
                result = DBOS.start_workflow(sync_chain, CHAIN).get_result()
        assert result == CHAIN
        latencies.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": median(latencies), "p99_ms": percentile(latencies, 0.99)}


async def _single(workflow: Any, instance: str, size: int, expected: int) -> float:
    began = time.perf_counter()
    handle = await _start_one(workflow, instance, size)
    result = handle.get_result()
    if asyncio.iscoroutine(result):
        result = await result
    assert result == expected, (result, expected)
    return time.perf_counter() - began


async def _run(family: str, size: int, kind: str) -> dict[str, float]:
    if family in {"W1", "W5"}:
        figures = await _at_once(kind, size)
        if family == "W5":
            server = int(pid) if (pid := os.environ.get(SERVER_PID)) else None
            await asyncio.sleep(SETTLE_SECONDS)
            before = cpu_seconds(server)
            await asyncio.sleep(IDLE_SECONDS)
            figures["idle_cpu_percent"] = (cpu_seconds(server) - before) / IDLE_SECONDS * 100
        return figures
    if family == "W2":
        return await _one_at_a_time(kind, size)
    if family == "W3":
        fan = async_fan if kind == "async" else sync_fan
        return {"seconds": await _single(fan, "w3", size, size * (size + 1) // 2)}
    if family == "W6":
        seconds = await _single(async_chain if kind == "async" else sync_chain, "w6", size, size)
        return {"seconds": seconds, "step_ms": seconds / size * 1000}
    raise SystemExit(f"the peer has no workload {family!r}")


def _starts(url: str, size: int) -> dict[str, float]:
    client = DBOSClient(system_database_url=url)
    began = time.perf_counter()
    for number in range(size):
        client.enqueue(
            {"workflow_name": async_chain.__qualname__, "queue_name": "starts", "workflow_id": f"w4-{number}"}, CHAIN
        )
    seconds = time.perf_counter() - began
    client.destroy()
    return {"seconds": seconds, "per_second": size / seconds}


def _check(family: str, size: int, url: str) -> None:
    expected: dict[str, int | None] = {
        "W1": CHAIN,
        "W2": CHAIN,
        "W3": size * (size + 1) // 2,
        "W4": None,
        "W5": CHAIN,
        "W6": size,
    }
    single = family in {"W3", "W6"}
    prefix = {"W5": "w1"}.get(family, family.lower())
    names = [prefix] if single else [f"{prefix}-{number}" for number in range(size)]
    client = DBOSClient(system_database_url=url)
    found = {status.workflow_id: status for status in client.list_workflows()}
    for name in names:
        status = found[name]
        wanted = "ENQUEUED" if family == "W4" else "SUCCESS"
        assert (status.status, status.output) == (wanted, expected[family]), (name, status)
    client.destroy()


def _prepare(url: str) -> None:
    if not url.startswith(SQLITE):
        return
    connection = sqlite3.connect(url.removeprefix(SQLITE))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def main(arguments: list[str]) -> None:
    """Run one half of one workload."""
    action, family, size_text, kind, url = arguments
    size = int(size_text)
    if action == "check":
        _check(family, size, url)
        print(json.dumps({"checked": True}))
        return
    _prepare(url)
    if action != "run":
        raise SystemExit(f"unknown action {action!r}")
    DBOS(config=_settings(url))
    DBOS.launch()
    if family == "W4":
        DBOS.destroy()
        figures = _starts(url, size)
    else:
        figures = asyncio.run(_run(family, size, kind))
        DBOS.destroy()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
