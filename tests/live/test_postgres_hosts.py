"""Several hosts on one hub on PostgreSQL: work spreads, and a host that dies or stands still harms nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.storage.registry import open_hub
from tests.live.host_app import wait_until
from tests.live.several_hosts import LEASE_SECONDS, SeveralHosts, begun, is_ready, paused, processes
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.live

_MOMENTS = 10.0
"""What a busy machine may take beside the lease."""


@pytest.fixture
def hosts(tmp_path: Path, postgres_database: str) -> Iterator[SeveralHosts]:
    with SeveralHosts(tmp_path, postgres_database) as several:
        yield several


@pytest.mark.parametrize("count", [2, 3])
def test_work_that_one_host_accepts_spreads_over_all(hosts: SeveralHosts, count: int) -> None:
    running = hosts.start(count)

    hosts.instances(running[0], "fan", 20, steps=6, seconds=0.05)
    used = hosts.check(running[-1])

    assert set(used) == set(processes(running))
    assert min(used.values()) >= 20 * 6 / count / 4, used


def test_a_host_that_comes_later_takes_its_share(hosts: SeveralHosts) -> None:
    (first,) = hosts.start()
    hosts.instances(first, "fan", 30, steps=8, seconds=0.1)

    (second,) = hosts.start()
    used = hosts.check(second, within=60)

    assert used[processes([second])[0]] >= 10, used


def test_an_event_reaches_an_instance_that_another_host_started(hosts: SeveralHosts) -> None:
    first, second = hosts.start(2)
    names = hosts.instances(first, "waiter", 20, steps=1)
    for name in names:
        wait_until(lambda name=name: hosts.status(second, name)["runtimeStatus"] == "Running", f"{name} waits")

    begin = time.monotonic()
    for name in names:
        assert hosts.raise_event(second, name, 0) == 202
    hosts.check(first)

    assert time.monotonic() - begin < 5, "other hosts are woken, they do not poll for each event"


async def test_who_waits_in_another_process_hears_of_the_end(hosts: SeveralHosts) -> None:
    (host,) = hosts.start()
    async with open_hub(hosts.storage, "Hub") as store:
        client = TaskHubClient(store)
        late: list[float] = []
        for number in range(5):
            assert await asyncio.to_thread(hosts.instance, host, "chain", f"i{number}", steps=3, seconds=0.3) == 202
            state = await client.wait_for_completion(f"i{number}", timeout=timedelta(seconds=20))
            late.append((datetime.now(UTC) - state.updated_at).total_seconds())
    hosts.check(host)

    # Without word from the host a waiting store looks every two seconds or less often.
    assert sorted(late)[2] < 1, late


def test_a_killed_hosts_work_is_taken_over_when_its_leases_end(hosts: SeveralHosts) -> None:
    first, second = hosts.start(2)
    hosts.instances(first, "chain", 12, steps=3, seconds=0.5)
    begun(hosts, first, 2)
    begun(hosts, second, 2)

    (killed,) = processes([first])
    first.kill()
    end = time.monotonic() + LEASE_SECONDS + _MOMENTS
    used = hosts.check(second, within=LEASE_SECONDS + _MOMENTS)

    assert time.monotonic() < end
    lost = [run for run in hosts.runs() if int(run.split()[1]) == killed]
    assert len(lost) > used[killed], "the kill struck while an activity ran"


def test_a_host_that_stops_gives_its_work_back_at_once(hosts: SeveralHosts) -> None:
    first, second = hosts.start(2)
    hosts.instances(first, "chain", 12, steps=4, seconds=0.2)
    begun(hosts, first, 2)

    assert first.stop() == 0
    begin = time.monotonic()
    hosts.check(second)

    # 48 runs of 0.2 s in four slots take 2.4 s; waiting for a lease would come on top.
    assert time.monotonic() - begin < 2.4 + LEASE_SECONDS


def test_a_host_that_stood_still_for_longer_than_its_leases_harms_nothing(hosts: SeveralHosts) -> None:
    first, second = hosts.start(2)
    hosts.instances(first, "chain", 8, steps=4, seconds=0.3)
    hosts.instances(first, "fan", 4, steps=6, seconds=0.3)
    begun(hosts, first, 2)

    with paused(first):
        time.sleep(LEASE_SECONDS + 2)
        hosts.check(second, within=60)
    used = hosts.check(first)
    time.sleep(2)

    assert hosts.check(second) == used, "what came late changed nothing"
    wait_until(lambda: is_ready(first), "the host goes on")
    second.kill()
    hosts.instances(first, "chain", 4, steps=2, prefix="after")
    hosts.check(first, within=LEASE_SECONDS + _MOMENTS)


def test_a_host_costs_eight_connections_as_the_how_to_says(
    hosts: SeveralHosts, postgres_server: PostgresServer
) -> None:
    (host,) = hosts.start()
    hosts.instances(host, "fan", 10, steps=10, seconds=0.1)
    most = 0
    while hosts.status(host, "fan-9")["runtimeStatus"] != "Completed":
        ((count,),) = postgres_server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'durable-host%%' AND datname = %s",
            hosts.storage.rpartition("/")[2],
        )
        most = max(most, count)
    hosts.check(host)

    assert 2 <= most <= 8


def test_all_hosts_die_and_one_goes_on(hosts: SeveralHosts) -> None:
    running = hosts.start(3)
    hosts.instances(running[0], "chain", 10, steps=3, seconds=0.2)
    hosts.instances(running[1], "fan", 4, steps=5, seconds=0.2)
    hosts.instances(running[2], "waiter", 3, steps=1)
    begun(hosts, running[0])

    for host in running:
        host.kill()
    (again,) = hosts.start()
    for number in range(3):
        assert hosts.raise_event(again, f"waiter-{number}", 0) == 202

    hosts.check(again, within=LEASE_SECONDS + 20)
