"""Hosts that share the partitions of a hub through the Partitions table, on virtual time."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from durable_host.testing.loop import run_simulated
from durable_host_providers.azure_storage import table_partitions
from durable_host_providers.azure_storage.partition_rows import new_row
from durable_host_providers.azure_storage.partitions import (
    Holdings,
    OwnedPartition,
    PartitionContext,
    PartitionManager,
    PartitionSettings,
)
from durable_host_providers.azure_storage.ports import ANY, Row, TableAction, TableOperation, Values
from durable_host_providers.azure_storage.table_partitions import TablePartitionManager
from tests.azure_recordings import recorded_hub
from tests.unit.azure.partition_hosts import Cluster
from tests.unit.azure.reference_manager import ReferenceManager

TABLE = "hubPartitions"


def manager(context: PartitionContext) -> PartitionManager:
    return TablePartitionManager(context, context.account.table(TABLE))


async def new_cluster(*, seed: int = 0, partitions: int = 4, settings: PartitionSettings | None = None) -> Cluster:
    cluster = Cluster(manager, seed=seed, partitions=partitions, settings=settings)
    table = cluster.account().table(TABLE)
    await table.create()
    await table.transact([TableOperation(TableAction.INSERT, new_row(queue)) for queue in cluster.queues])
    return cluster


async def stored(cluster: Cluster) -> list[Row]:
    return list((await cluster.account().table(TABLE).query()).rows)


@pytest.mark.simulated
async def test_a_lone_host_takes_everything_at_once() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")

        assert await cluster.until(cluster.settled, 5) < 1
        assert {each.index for each in host.held.values()} == {0, 1, 2, 3}
        assert all(row.values["CurrentOwner"] == "a" for row in await stored(cluster))
        assert cluster.account().service.queues.keys() == set(cluster.queues)


@pytest.mark.simulated
async def test_an_idle_host_makes_ten_requests_a_minute_for_four_partitions() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")
        await asyncio.sleep(60)
        before = host.account.requests.copy()

        await asyncio.sleep(600)

        made = host.account.requests - before
        assert made["table.query"] <= 61
        assert made["table.transact"] <= 41
        assert made.total() <= 102


@pytest.mark.simulated
async def test_an_idle_host_among_others_only_reads() -> None:
    cluster = await new_cluster(partitions=1)
    async with cluster.running():
        cluster.start("a")
        await asyncio.sleep(1)
        idle = cluster.start("b")
        await asyncio.sleep(60)
        before = idle.account.requests.copy()

        await asyncio.sleep(600)

        made = idle.account.requests - before
        assert set(made) == {"table.query"}
        assert made.total() <= 61


@pytest.mark.simulated
async def test_a_second_host_gets_half_after_the_first_has_drained() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a", drain_s=lambda: 3.0)
        await cluster.until(cluster.settled, 5)

        cluster.start("b")
        took = await cluster.until(cluster.settled, 30)

        assert took < 15  # the request is seen within 10 s, then 3 s of draining, then a look each second
        assert sorted(first.drains) == cluster.queues[:2]
        assert cluster.overlaps == []
        assert cluster.hasty == []


@pytest.mark.simulated
async def test_partitions_of_a_killed_host_are_taken_when_its_leases_end() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a")
        cluster.start("b")
        await cluster.until(cluster.settled, 30)
        await asyncio.sleep(100)

        cluster.kill(first)
        took = await cluster.until(cluster.settled, 41)

        assert took <= 31
        assert cluster.overlaps == []


@pytest.mark.simulated
async def test_a_host_that_stops_gives_up_cleanly() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a", drain_s=lambda: 2.0)
        cluster.start("b")
        await cluster.until(cluster.settled, 30)

        took = await cluster.stop(first)

        assert took < 4
        assert await cluster.until(cluster.settled, 12) <= 11
        assert len(first.drains) == 4  # two handed over to b, two now
        assert cluster.overlaps == []
        assert cluster.hasty == []


@pytest.mark.simulated
async def test_a_lone_host_that_stops_with_nothing_to_do_needs_three_requests() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")
        await cluster.until(cluster.settled, 5)
        before = host.account.requests.copy()

        assert await cluster.stop(host) < 1

        assert host.account.requests - before == {"table.query": 1, "table.transact": 1}
        for row in await stored(cluster):
            assert not {"CurrentOwner", "NextOwner"} & set(row.values)
            assert row.values["IsDraining"] is False


@pytest.mark.simulated
async def test_who_stops_is_relieved_while_it_still_drains() -> None:
    """The mark of a host that shuts down is answered by a request, so the release is noticed within a second."""
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a", drain_s=lambda: 20.0)
        await cluster.until(cluster.settled, 5)
        cluster.start("b")
        await asyncio.sleep(1)

        await cluster.stop(first)

        assert await cluster.until(cluster.settled, 5) <= 2.5
        assert cluster.overlaps == []
        assert cluster.hasty == []


@pytest.mark.simulated
async def test_a_host_that_is_cut_off_stops_fetching_before_others_begin() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a")
        await cluster.until(cluster.settled, 5)
        await asyncio.sleep(60)

        first.faults.cut_off = True
        cluster.start("b")
        await cluster.until(lambda: not first.fetching, 31)
        held = set(first.held)
        await cluster.until(lambda: sum(cluster.shares()) == 4, 31)

        assert len(held) == 4, "what it holds is kept until it hears that it lost it"
        first.faults.cut_off = False
        await cluster.until(cluster.settled, 30)
        assert cluster.overlaps == []


@pytest.mark.simulated
async def test_a_lone_host_goes_on_where_it_was_when_the_store_is_back() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")
        await cluster.until(cluster.settled, 5)
        partitions = dict(host.held)

        host.faults.cut_off = True
        await asyncio.sleep(300)
        assert host.fetching == set()
        host.faults.cut_off = False
        took = await cluster.until(cluster.settled, 10)

        assert took < 5
        assert host.held == partitions
        assert host.lost == []


@pytest.mark.simulated
async def test_a_stop_without_the_store_gives_up_after_a_while() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")
        await cluster.until(cluster.settled, 5)
        host.faults.cut_off = True

        assert await cluster.stop(host) < 15


@pytest.mark.simulated
async def test_a_drain_that_does_not_end_is_given_up_after_a_minute() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a", drain_s=lambda: 1e6)
        await cluster.until(cluster.settled, 5)
        cluster.start("b")

        took = await cluster.until(cluster.settled, 90)

        assert 60 < took < 75
        assert not host.drains
        assert cluster.overlaps == []


@pytest.mark.simulated
async def test_a_deleted_hub_is_nobodys() -> None:
    cluster = await new_cluster()
    async with cluster.running():
        host = cluster.start("a")
        await cluster.until(cluster.settled, 5)

        await cluster.account().table(TABLE).delete()
        await cluster.until(lambda: not host.held, 16)

        assert await cluster.stop(host) < 3


@pytest.mark.parametrize("skew", [-10.0, 10.0])
@pytest.mark.simulated
async def test_clocks_that_differ_by_ten_seconds_never_make_two_readers(skew: float) -> None:
    cluster = await new_cluster()
    async with cluster.running():
        first = cluster.start("a", skew=skew)
        second = cluster.start("b")
        await cluster.until(cluster.settled, 60)
        await asyncio.sleep(120)
        assert cluster.longest_unread < 15

        first.faults.cut_off = True
        await cluster.until(lambda: len(second.fetching) == 4, 60)

        assert cluster.overlaps == []


@pytest.mark.simulated
async def test_without_the_margin_a_clock_that_is_ahead_makes_two_readers() -> None:
    """The negative control of the test above."""
    cluster = await new_cluster(settings=PartitionSettings(skew=PartitionSettings().skew * 0))
    async with cluster.running():
        first = cluster.start("a", skew=-9)
        second = cluster.start("b")
        await cluster.until(cluster.settled, 60)

        first.faults.cut_off = True
        await cluster.until(lambda: bool(cluster.overlaps), 60)
        assert len(second.fetching) == 4


@pytest.mark.parametrize(("skew", "told"), [(-60.0, 1), (-8.0, 0), (0.0, 0), (8.0, 0), (60.0, 1)])
@pytest.mark.simulated
async def test_a_clock_that_is_off_is_pointed_out_once(
    skew: float, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await new_cluster()
    async with cluster.running():
        cluster.start("a", skew=skew)
        await asyncio.sleep(300)

    assert sum("clock is off by" in record.getMessage() for record in caplog.records) == told


@pytest.mark.simulated
async def test_two_processes_under_one_name_read_the_same_queues() -> None:
    """The negative control of worker ids: the reference's, the machine's name, is that of every process on it."""
    cluster = await new_cluster()
    async with cluster.running():
        cluster.start("machine")
        cluster.start("machine")

        await asyncio.sleep(30)

        assert cluster.overlaps


@pytest.mark.simulated
async def test_without_the_end_of_fetching_a_drained_partition_has_two_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of draining: a host that goes on to fetch from what it has released."""
    for name in ("drain", "end", "resume"):
        monkeypatch.setattr(Holdings, name, _do_nothing)
    monkeypatch.setattr(Holdings, "drained", property(lambda holdings: holdings.queues))
    cluster = await new_cluster()
    async with cluster.running():
        cluster.start("a")
        await cluster.until(cluster.settled, 5)
        cluster.start("b")

        await asyncio.sleep(15)

        assert cluster.overlaps


@pytest.mark.simulated
async def test_a_stopped_run_leaves_nothing_to_the_next_one() -> None:
    """The reference's manager stays in shutdown once it was stopped; here each run begins anew, under the same name."""
    cluster = await new_cluster()
    async with cluster.running():
        for _ in range(3):
            host = cluster.start("a")
            await cluster.until(cluster.settled, 5)
            await cluster.stop(host)


@pytest.mark.parametrize("first", ["ours", "the reference's"])
@pytest.mark.parametrize("partitions", [1, 4, 7, 16])
@pytest.mark.simulated
async def test_hosts_share_with_workers_of_the_reference(first: str, partitions: int) -> None:
    """The reference's rules, as its sources tell them, beside ours: both directions of every hand-over."""
    cluster = await new_cluster(partitions=partitions)
    kinds = (manager, ReferenceManager)
    async with cluster.running():
        hosts = [
            cluster.start(f"w{number}", make=kinds[(number + (first != "ours")) % 2], drain_s=lambda: 1.0)
            for number in range(4)
            if not await asyncio.sleep(number * 7)
        ]
        await cluster.until(cluster.settled, 200)
        await cluster.stop(hosts.pop(1))
        await cluster.until(cluster.settled, 200)
        await cluster.stop(hosts.pop(0))
        await cluster.until(cluster.settled, 200)
        cluster.kill(hosts.pop(0))
        await cluster.until(cluster.settled, 60)

        assert cluster.overlaps == []


@pytest.mark.simulated
async def test_partitions_of_a_recorded_worker_are_taken_over() -> None:
    """The rows of a hub that the reference's worker left behind, killed; its leases ended long ago."""
    rows = recorded_hub("table").tables["recordedPartitions"]
    cluster = await new_cluster()
    cluster.queues = [str(row["RowKey"]) for row in rows]
    table = cluster.account().table(TABLE)
    await table.delete()
    await table.create()
    stripped = [{name: value for name, value in row.items() if name != "Timestamp"} for row in rows]
    await table.transact([TableOperation(TableAction.INSERT, row) for row in stripped])
    async with cluster.running():
        cluster.start("a")

        assert await cluster.until(cluster.settled, 5) < 1


@pytest.mark.parametrize("seed", range(20))
def test_hosts_that_come_and_go_under_faults(seed: int) -> None:
    """Three hosts and their successors, wrong clocks, errors before and after every request, kills and cut lines."""
    assert run_simulated(_storm(seed), seed=seed) == []


@pytest.mark.parametrize("guard", ["the row's ETag", "the end of the lease"])
def test_without_a_guard_two_hosts_fetch_from_one_partition(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls of the storm: each of them fails at one of its seeds."""
    if guard == "the row's ETag":
        monkeypatch.setattr(table_partitions, "TableOperation", _careless)
    else:
        monkeypatch.setattr(
            OwnedPartition, "may_fetch", property(lambda partition: not partition._closed and partition.until > 0)
        )

    assert any(run_simulated(_storm(seed), seed=seed) for seed in range(20))


def _do_nothing(holdings: Holdings, *arguments: object) -> None:
    return None


def _careless(action: TableAction, values: Values, etag: str) -> TableOperation:
    return TableOperation(action, values, ANY)


async def _storm(seed: int) -> list[tuple[float, str, list[str]]]:
    random = Random(f"storm/{seed}")
    cluster = await new_cluster(seed=seed, partitions=random.randint(1, 16))
    started = 0

    def start() -> None:
        nonlocal started
        started += 1
        cluster.start(
            f"h{started}",
            skew=random.uniform(-5, 5),
            error=0.05,
            latency=random.choice([0.01, 0.3]),
            drain_s=lambda: random.choice([0.0, 0.2, 5.0, 100.0]),
        )

    async with cluster.running():
        for _ in range(3):
            start()
        for _ in range(12):
            await asyncio.sleep(random.uniform(0, 40))
            host = random.choice(cluster.hosts)
            match random.randrange(4):
                case 0:
                    cluster.kill(host)
                    start()
                case 1:
                    start()
                    await cluster.stop(host)
                case 2:
                    host.faults.cut_off = True
                    await asyncio.sleep(random.uniform(0, 60))
                    host.faults.cut_off = False
                case _:
                    host.clock.step(random.uniform(-1, 1) * (5 - abs(host.clock.skew.total_seconds())) * _SECOND)
            for queue, since in cluster.unread_since.items():
                assert cluster.now() - since < 120, f"{queue} is not read, seed {seed}: {cluster.readers()}"
        await cluster.until(cluster.settled, 200)
    return cluster.overlaps


_SECOND = PartitionSettings().lease / 30
