"""A peer's side: Absurd on PostgreSQL. Run by the interpreter of the peers' own venv.

    python peer_absurd.py run FAMILY SIZE KIND URL      prints one JSON object with the figures
    python peer_absurd.py check FAMILY SIZE KIND URL    a new process: reads every result back and compares it

The schema is the one that `absurdctl` of the same version carries, the queue has its default storage. Of several ways
to do the same the fastest was taken, for each workload by itself:

- W1: four worker processes with one connection and one task at a time each. Its async worker and its threads share one
  connection and are slower; more processes are slower on two cores. Starts come from eight connections.
- W2: client and worker in one thread, so that nobody polls: start, claim and run, fetch the result.
- W3, W6: one task; its steps are asked for at once, or one after the other.
- W4: as many connections as are fastest, one thread each.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd
from measure import median, percentile

__all__ = ["main"]

CHAIN = 5
WORKERS = 4
STARTERS = 8
STARTERS_ALONE = 8
POLL_SECONDS = 0.01


def sync_chain(params: Any, context: Any) -> int:
    value = 0
    for _ in range(params["length"]):
        value = context.step("step", lambda value=value: value + 1)
    return value


async def async_fan(params: Any, context: Any) -> int:
    async def plus_one(value: int) -> int:
        return value + 1

    steps = (context.step("step", lambda number=number: plus_one(number)) for number in range(params["width"]))
    return sum(await asyncio.gather(*steps))


def _client(url: str) -> Absurd:
    client = Absurd(url)
    client.register_task("chain")(sync_chain)
    return client


def _work(url: str, ready: Any, stop: Any) -> None:
    client = _client(url)
    threading.Thread(target=lambda: (stop.wait(), client.stop_worker()), daemon=True).start()
    ready.release()
    client.start_worker(concurrency=1, poll_interval=POLL_SECONDS)


def _spawn(url: str, starters: int, size: int) -> dict[int, str]:
    """Start `size` chains over several connections; returns their ids by number."""
    found: dict[int, str] = {}

    def starter(client: Absurd, numbers: Sequence[int]) -> None:
        for number in numbers:
            key = f"chain-{number}"
            found[number] = str(client.spawn("chain", {"length": CHAIN}, idempotency_key=key)["task_id"])
        client.close()

    threads = [
        threading.Thread(target=starter, args=(_client(url), range(first, size, starters))) for first in range(starters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _at_once(url: str, size: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Semaphore(0), context.Event()
    workers = [context.Process(target=_work, args=(url, ready, stop)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    began = time.perf_counter()
    _spawn(url, STARTERS, size)
    with psycopg.connect(url, autocommit=True) as connection:
        # One question for all of them costs it less than its own wait for each result.
        while _completed(connection) < size:
            time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    stop.set()
    for worker in workers:
        worker.join()
    return {"seconds": seconds, "per_second": size / seconds}


def _completed(connection: Any) -> int:
    return connection.execute("SELECT count(*) FROM absurd.t_default WHERE state = 'completed'").fetchone()[0]


def _timed(client: Absurd, length: int) -> float:
    began = time.perf_counter()
    task = client.spawn("chain", {"length": length})
    client.work_batch()
    result = client.fetch_task_result(task["task_id"])
    seconds = time.perf_counter() - began
    assert result is not None and result.result == length, result
    return seconds


def _one_at_a_time(url: str, size: int) -> dict[str, float]:
    client = _client(url)
    latencies = [_timed(client, CHAIN) * 1000 for _ in range(size)]
    client.close()
    return {"p50_ms": median(latencies), "p99_ms": percentile(latencies, 0.99)}


async def _fan(url: str, size: int) -> dict[str, float]:
    client = AsyncAbsurd(url)
    client.register_task("fan")(async_fan)
    began = time.perf_counter()
    task = await client.spawn("fan", {"width": size})
    await client.work_batch()
    result = await client.fetch_task_result(task["task_id"])
    seconds = time.perf_counter() - began
    assert result is not None and result.result == size * (size + 1) // 2, result
    await client.close()
    return {"seconds": seconds}


def _sequence(url: str, size: int) -> dict[str, float]:
    client = _client(url)
    seconds = _timed(client, size)
    client.close()
    return {"seconds": seconds, "step_ms": seconds / size * 1000}


def _starts(url: str, size: int) -> dict[str, float]:
    began = time.perf_counter()
    _spawn(url, STARTERS_ALONE, size)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "per_second": size / seconds}


RUNS: dict[str, Callable[[str, int], dict[str, float]]] = {
    "W1": _at_once,
    "W2": _one_at_a_time,
    "W3": lambda url, size: asyncio.run(_fan(url, size)),
    "W4": _starts,
    "W6": _sequence,
}


def _prepare(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
        connection.execute("SELECT absurd.create_queue('default')")


def _check(url: str, family: str, size: int) -> None:
    number = 1 if family in {"W3", "W6"} else size
    expected = {"W3": size * (size + 1) // 2, "W4": None, "W6": size}.get(family, CHAIN)
    state = "pending" if family == "W4" else "completed"
    client = Absurd(url)
    with psycopg.connect(url, autocommit=True) as connection:
        tasks = [str(row[0]) for row in connection.execute("SELECT task_id FROM absurd.t_default")]
    assert len(tasks) == number, (len(tasks), number)
    for task in tasks:
        found = client.fetch_task_result(task)
        assert found is not None and (found.state, found.result) == (state, expected), found
    client.close()


def main(arguments: list[str]) -> None:
    """Run one half of one workload."""
    action, family, size, kind, url = arguments
    if family not in RUNS or kind != "async":
        raise SystemExit(f"this peer has no workload {family!r} with {kind} activities")
    if action == "check":
        _check(url, family, int(size))
        print(json.dumps({"checked": True}))
        return
    if action != "run":
        raise SystemExit(f"unknown action {action!r}")
    _prepare(url)
    print(json.dumps(RUNS[family](url, int(size))))


if __name__ == "__main__":
    main(sys.argv[1:])
