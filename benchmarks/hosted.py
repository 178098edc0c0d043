"""W7, the whole host on a copy of samples/hello: time to readiness, HTTP start to completion, processor when idle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.measure import family_cpu_seconds, median, percentile, rss_mib
from benchmarks.ours import IDLE_SECONDS, SETTLE_SECONDS
from benchmarks.places import ROOT, Figures, Places

__all__ = ["measure_host"]

_SAMPLE = ROOT / "samples" / "hello"
_EXPECTED = ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
_READY_SECONDS = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _host(
    folder: Path, storage: str, session: aiohttp.ClientSession
) -> AsyncGenerator[tuple[str, float, int], None]:
    """A running host: its address, seconds from the command to ready, and process id."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "durable_host", "start", str(folder), "--port", str(port), "--storage", storage),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{address}/health/ready") as answer:
                    if answer.status == 200:
                        break
            if process.returncode is not None or time.perf_counter() - began > _READY_SECONDS:
                raise SystemExit("the host did not become ready")
            await asyncio.sleep(0.005)
        yield address, time.perf_counter() - began, process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _complete(session: aiohttp.ClientSession, address: str, pause: float = 0.001) -> None:
    async with session.post(f"{address}/api/orchestrators/hello_cities") as answer:
        assert answer.status == 202, answer.status
        links: dict[str, Any] = await answer.json()
    while True:
        async with session.get(links["statusQueryGetUri"]) as answer:
            status: dict[str, Any] = await answer.json()
            if answer.status == 200:
                assert status["output"] == _EXPECTED, status
                return
        await asyncio.sleep(pause)


async def _idle_cpu_percent(pids: list[int]) -> float:
    await asyncio.sleep(SETTLE_SECONDS)
    before = sum(family_cpu_seconds(pid) for pid in pids)
    await asyncio.sleep(IDLE_SECONDS)
    return (sum(family_cpu_seconds(pid) for pid in pids) - before) / IDLE_SECONDS * 100


async def _measure(folder: Path, storage: str, size: int, server: int | None) -> Figures:
    latencies: list[float] = []
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        _host(folder, storage, session) as (address, ready, pid),
    ):
        await _complete(session, address)
        for _ in range(size):
            began = time.perf_counter()
            await _complete(session, address)
            latencies.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        await asyncio.gather(*(_complete(session, address, 0.05) for _ in range(size)))
        seconds = time.perf_counter() - began
        return {
            "ready_seconds": ready,
            "p50_ms": median(latencies),
            "p99_ms": percentile(latencies, 0.99),
            "per_second": size / seconds,
            "rss_mib": rss_mib(pid),
            "idle_cpu_percent": await _idle_cpu_percent([pid] if server is None else [pid, server]),
        }


def measure_host(places: Places, size: int) -> Figures:
    """Figures of one host process over a fresh copy of the sample, on a fresh place.

    Args:
        size: requests one after another, and then again that many at once.
    """
    with tempfile.TemporaryDirectory() as scratch, places.fresh() as url:
        folder = Path(scratch) / "hello"
        shutil.copytree(_SAMPLE, folder, ignore=shutil.ignore_patterns(".durable", "__pycache__"))
        server = None if places.server is None else places.server.pid
        storage = url if places.provider == "postgres" else places.provider
        return asyncio.run(_measure(folder, storage, size, server))
