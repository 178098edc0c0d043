"""The whole host: time from the command to readiness, and W7, HTTP start to completion, on a copy of samples/hello."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.measure import median, percentile, rss_mib

__all__ = ["measure_host"]

_SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "hello"
_EXPECTED = ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
_READY_SECONDS = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _host(
    folder: Path, provider: str, session: aiohttp.ClientSession
) -> AsyncGenerator[tuple[str, float, int], None]:
    """A running host: its address, seconds from the command to ready, and process id."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "durable_host", "start", str(folder), "--port", str(port), "--storage", provider),
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


async def _measure(folder: Path, provider: str, size: int) -> dict[str, float]:
    latencies: list[float] = []
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        _host(folder, provider, session) as (address, ready, pid),
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
        }


def measure_host(scratch: Path, provider: str, size: int) -> dict[str, float]:
    """Figures of one host process over a fresh copy of the sample.

    Args:
        scratch: an empty folder.
        size: requests one after another, and then again that many at once.
    """
    folder = scratch / "hello"
    shutil.copytree(_SAMPLE, folder, ignore=shutil.ignore_patterns(".durable", "__pycache__"))
    return asyncio.run(_measure(folder, provider, size))
