"""Probes: what they prove, and what they cost a store in trouble."""

from __future__ import annotations

import asyncio
import json

import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.http.health import Health
from durable_host.http.messages import NOT_FOUND, Request

READY = Request("GET", "/health/ready")


async def _fine() -> None:
    return


async def _broken() -> None:
    raise StoreUnavailableError("The disk is full; free some space.")


async def test_live_never_asks_the_store() -> None:
    answer = await Health(_broken).handle(Request("GET", "/Health/Live/"))

    assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive"})
    assert answer.header("cache-control") == "no-store"


async def test_ready_when_the_store_answers() -> None:
    answer = await Health(_fine).handle(READY)

    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ready", "checks": {"store": "ok"}})


async def test_not_ready_with_the_reason_of_the_store_and_ready_again_when_it_is_gone() -> None:
    trouble = True

    async def check() -> None:
        if trouble:
            await _broken()

    health = Health(check)
    answer = await health.handle(READY)
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "status": "unready",
        "reason": "The disk is full; free some space.",
        "checks": {"store": "failed"},
    }

    trouble = False
    assert (await health.handle(READY)).status == 200


async def test_not_ready_while_the_host_says_so_whatever_the_store() -> None:
    answer = await Health(_fine, lambda: "The host is stopping.").handle(READY)

    assert answer.status == 503
    assert json.loads(answer.body)["reason"] == "The host is stopping."


@pytest.mark.simulated
async def test_a_store_that_hangs_is_not_ready() -> None:
    answer = await Health(asyncio.Event().wait).handle(READY)  # type: ignore[arg-type] # the result is ignored

    assert answer.status == 503
    assert "5 seconds" in json.loads(answer.body)["reason"]


@pytest.mark.simulated
async def test_probes_that_come_together_share_one_check() -> None:
    calls = 0
    release = asyncio.Event()

    async def check() -> None:
        nonlocal calls
        calls += 1
        await release.wait()

    health = Health(check)
    async with asyncio.TaskGroup() as group:
        probes = [group.create_task(health.handle(READY)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert calls == 1
        release.set()

    assert [probe.result().status for probe in probes] == [200] * 5


@pytest.mark.simulated
async def test_a_probe_that_is_cut_off_leaves_the_check_to_the_next() -> None:
    calls = 0

    async def check() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)

    health = Health(check)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(health.handle(READY))
        await asyncio.sleep(0.1)
        second = group.create_task(health.handle(READY))
        await asyncio.sleep(0.1)
        first.cancel()

    assert second.result().status == 200
    assert calls == 2


@pytest.mark.parametrize("request_", [Request("POST", "/health/live"), Request("GET", "/health/other")])
async def test_anything_else_is_not_a_probe(request_: Request) -> None:
    assert await Health(_fine).handle(request_) is NOT_FOUND
