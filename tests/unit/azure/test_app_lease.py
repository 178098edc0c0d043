"""At most one app processes a hub; its hosts hold the lease together."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from random import Random

import pytest

from durable_host.storage.contract import AppLeaseOptions
from durable_host.testing.loop import run_simulated
from durable_host_providers.azure_storage.app_lease import (
    EMPTY_INFO,
    AppLease,
    LeasedPartitions,
    app_lease_id,
)
from durable_host_providers.azure_storage.partition_rows import new_row
from durable_host_providers.azure_storage.partitions import PartitionContext, PartitionManager
from durable_host_providers.azure_storage.ports import Blobs, LeaseState, TableAction, TableOperation
from durable_host_providers.azure_storage.table_partitions import TablePartitionManager
from tests.unit.azure.partition_hosts import Cluster, Host

CONTAINER = "hub-applease"
INFO = "hub-appleaseinfo"
TABLE = "hubPartitions"


async def new_cluster(
    options: AppLeaseOptions | None = None, *, seed: int = 0, partitions: int = 4, fenced: bool = True
) -> Cluster:
    """A hub; the host `red/1` is one of the app `red`."""

    def make(context: PartitionContext) -> PartitionManager:
        app = context.me.partition("/")[0]
        lease = AppLease(context.account.blobs(CONTAINER), INFO, app, context.environment, options)
        table = context.account.table(TABLE)
        return LeasedPartitions(
            lease,
            lambda fence: TablePartitionManager(
                PartitionContext(
                    context.account,
                    context.queues,
                    context.me,
                    context.listener,
                    context.environment,
                    context.settings,
                    *((fence,) if fenced else ()),
                ),
                table,
            ),
            context.environment,
        )

    cluster = Cluster(make, seed=seed, partitions=partitions)
    table = cluster.account().table(TABLE)
    await table.create()
    await table.transact([TableOperation(TableAction.INSERT, new_row(queue)) for queue in cluster.queues])
    await blobs(cluster).create()
    await blobs(cluster).write(INFO, EMPTY_INFO, if_absent=True)
    return cluster


def blobs(cluster: Cluster) -> Blobs:
    return cluster.account().blobs(CONTAINER)


async def info(cluster: Cluster) -> dict[str, str | None]:
    blob = await blobs(cluster).read(INFO)
    assert blob is not None
    read: dict[str, str | None] = json.loads(blob.data)
    return read


async def state(cluster: Cluster) -> LeaseState:
    container = await blobs(cluster).properties(None)
    assert container is not None
    return container.lease


def apps(cluster: Cluster) -> set[str]:
    """Apps that may fetch at this moment."""
    return {host.name.partition("/")[0] for host in cluster.hosts if host.fetching}


@pytest.mark.parametrize(
    ("app", "lease_id"),
    [
        ("", "811c9dc5-0000-0000-0000-000000000000"),
        ("my-function-app", "49d19728-0000-0000-0000-000000000000"),
        ("MyApp", "828293a6-0000-0000-0000-000000000000"),
    ],
)
def test_the_lease_id_follows_from_the_name_of_the_app(app: str, lease_id: str) -> None:
    assert app_lease_id(app) == lease_id


@pytest.mark.simulated
async def test_the_owner_stands_in_the_info_blob_as_the_reference_writes_it() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        cluster.start("/1")
        await cluster.until(cluster.settled, 5)

        blob = await blobs(cluster).read(INFO)

        assert blob is not None
        assert blob.data == b'{"OwnerId":"811c9dc5-0000-0000-0000-000000000000","DesiredSwapId":null}'
        assert await state(cluster) is LeaseState.LEASED


@pytest.mark.simulated
async def test_hosts_of_one_app_hold_it_together() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        cluster.start("red/1")
        cluster.start("red/2")

        await cluster.until(cluster.settled, 30)
        await asyncio.sleep(300)

        assert cluster.settled()
        assert cluster.longest_unread < 15


@pytest.mark.simulated
async def test_another_app_waits_and_follows_within_half_a_minute_of_a_stop() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        blue = cluster.start("blue/1")
        await asyncio.sleep(200)
        assert not blue.held

        await cluster.stop(red)
        assert await state(cluster) is LeaseState.AVAILABLE

        assert await cluster.until(cluster.settled, 40) <= 31
        assert (await info(cluster))["OwnerId"] == app_lease_id("blue")


@pytest.mark.simulated
async def test_another_app_follows_a_killed_one_when_its_lease_has_ended() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        cluster.start("blue/1")
        await asyncio.sleep(100)

        cluster.kill(red)

        assert await cluster.until(cluster.settled, 100) <= 91


@pytest.mark.simulated
async def test_an_interval_that_was_set_holds() -> None:
    cluster = await new_cluster(AppLeaseOptions(acquire=timedelta(minutes=5)))
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        blue = cluster.start("blue/1")
        await asyncio.sleep(1)
        await cluster.stop(red)

        await asyncio.sleep(290)
        assert not blue.held
        await cluster.until(cluster.settled, 20)


@pytest.mark.simulated
async def test_a_stop_leaves_the_lease_to_the_other_hosts_of_the_app() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("red/1")
        cluster.start("red/2")
        await cluster.until(cluster.settled, 30)

        await cluster.stop(first)

        assert await state(cluster) is LeaseState.LEASED
        await cluster.until(cluster.settled, 12)


@pytest.mark.simulated
async def test_hosts_that_stop_together_release_it() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first, second = cluster.start("red/1"), cluster.start("red/2")
        await cluster.until(cluster.settled, 30)

        await asyncio.gather(cluster.stop(first), cluster.stop(second))

        assert await state(cluster) is LeaseState.AVAILABLE


@pytest.mark.simulated
async def test_a_host_whose_colleague_released_the_lease_takes_it_again_and_goes_on() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        partitions = dict(host.held)

        await blobs(cluster).release_lease(None, app_lease_id("red"))
        await asyncio.sleep(30)

        assert host.held == partitions
        assert host.fetching
        assert await state(cluster) is LeaseState.LEASED


@pytest.mark.simulated
async def test_who_is_to_have_it_next_takes_it_from_its_owner() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        await blobs(cluster).write(
            INFO, json.dumps({"OwnerId": app_lease_id("red"), "DesiredSwapId": app_lease_id("blue")}).encode()
        )

        blue = cluster.start("blue/1")
        await cluster.until(lambda: len(blue.fetching) == 4, 60)

        assert not red.held
        assert await info(cluster) == {"OwnerId": app_lease_id("blue"), "DesiredSwapId": None}
        assert cluster.overlaps == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"nonsense"])
@pytest.mark.simulated
async def test_an_info_blob_that_says_nothing_stops_nobody(content: bytes) -> None:
    cluster = await new_cluster()
    await blobs(cluster).write(INFO, content)
    async with cluster.running():
        cluster.start("red/1")

        await cluster.until(cluster.settled, 5)


@pytest.mark.simulated
async def test_a_host_that_cannot_renew_stops_fetching_when_the_lease_ends() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        blue = cluster.start("blue/1")
        await asyncio.sleep(100)
        red.faults.only = "blob."
        red.faults.cut_off = True

        took = await cluster.until(lambda: not red.fetching, 61)

        assert 30 < took <= 60, "the partitions themselves could be renewed all the time"
        await cluster.until(lambda: len(blue.fetching) == 4, 75)
        red.faults.cut_off = False
        await cluster.until(lambda: not red.held, 10)


@pytest.mark.simulated
async def test_trouble_and_a_refusal_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    cluster = await new_cluster()
    async with cluster.running():
        red = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        blue = cluster.start("blue/1")
        await asyncio.sleep(300)
        blue.faults.cut_off = red.faults.cut_off = True
        await asyncio.sleep(300)

    told = [record.getMessage() for record in caplog.records if "app lease" in record.getMessage()]
    assert sum("cannot be taken" in text for text in told) == 1
    assert sum("cannot be renewed" in text for text in told) == 1
    refusals = [record.getMessage() for record in caplog.records if "another app" in record.getMessage()]
    assert len(refusals) == 1
    assert app_lease_id("red") in refusals[0]
    assert "hubName" in refusals[0]


@pytest.mark.simulated
async def test_a_host_of_one_app_that_is_not_used_needs_two_requests_a_minute() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("red/1")
        await cluster.until(cluster.settled, 5)
        await asyncio.sleep(60)
        before = host.account.requests.copy()

        await asyncio.sleep(600)

        made = host.account.requests - before
        assert made["blob.renew_lease"] == made.total() - made["table.query"] - made["table.transact"] <= 24
        # With ten polls of queues that hold nothing this is all that an idle host does: at most 25 a minute.
        assert made.total() / 10 + 10 <= 25


@pytest.mark.parametrize("seed", range(10))
def test_two_apps_never_process_together(seed: int) -> None:
    overlaps = run_simulated(_storm(seed), seed=seed)
    assert overlaps == []


def test_without_the_fence_two_apps_process_together() -> None:
    """The negative control of the test above."""
    assert any(run_simulated(_storm(seed, fenced=False), seed=seed) for seed in range(10))


async def _storm(seed: int, *, fenced: bool = True) -> list[tuple[float, set[str]]]:
    random = Random(f"apps/{seed}")
    cluster = await new_cluster(seed=seed, fenced=fenced)
    mixed: list[tuple[float, set[str]]] = []
    started = 0

    def start(app: str) -> None:
        nonlocal started
        started += 1
        cluster.start(f"{app}/{started}", error=0.03, latency=0.05, drain_s=lambda: random.choice([0.0, 3.0]))

    async def watch() -> None:
        while True:
            if len(apps(cluster)) > 1:
                mixed.append((cluster.now(), apps(cluster)))
            await asyncio.sleep(0.1)

    async with cluster.running(), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        start("red")
        start("blue")
        start(random.choice(["red", "blue"]))
        for _ in range(12):
            await asyncio.sleep(random.uniform(0, 90))
            host: Host = random.choice(cluster.hosts)
            app = host.name.partition("/")[0]
            match random.randrange(3):
                case 0:
                    cluster.kill(host)
                    start(app)
                case 1:
                    await cluster.stop(host)
                    start(app)
                case _:
                    host.faults.only = random.choice(["blob.", ""])
                    host.faults.cut_off = True
                    await asyncio.sleep(random.uniform(0, 100))
                    host.faults.cut_off = False
        await cluster.until(lambda: sum(cluster.shares()) == 4, 300)
        watching.cancel()
    return mixed
