"""A hub's own things and the sharing of its partitions on a real service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from durable_host.environment import Environment
from durable_host.errors import StoreMismatchError
from durable_host.storage.contract import AppLeaseOptions
from durable_host_providers.azure_storage.app_lease import AppLease
from durable_host_providers.azure_storage.hub import LEASE_FOLDERS, TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ownership import partition_runs
from durable_host_providers.azure_storage.partitions import (
    ManagerKind,
    OwnedPartition,
    PartitionManager,
    PartitionSettings,
)
from durable_host_providers.azure_storage.ports import LeaseState, StorageAccount
from tests.live.azure_accounts import Service, make_service

pytestmark = pytest.mark.live

QUICK = PartitionSettings(
    lease=timedelta(seconds=6), acquire=timedelta(seconds=1), time_limit=timedelta(seconds=2), skew=timedelta(0)
)


@pytest.fixture(params=["sdk", "rest"])
def service(request: pytest.FixtureRequest) -> Service:
    return make_service(request.param, request)


class Process:
    """One host on a hub: what it holds, and its end."""

    def __init__(self, run: Callable[[Process], PartitionManager]) -> None:
        self.held: dict[str, OwnedPartition] = {}
        self.manager = run(self)
        self.stopped = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self.manager.run(self.stopped))

    def begin(self, partition: OwnedPartition) -> None:
        self.held[partition.queue] = partition

    async def drain(self, partition: OwnedPartition) -> None:
        assert not partition.may_fetch

    def end(self, partition: OwnedPartition) -> None:
        del self.held[partition.queue]

    def fetching(self) -> int:
        return sum(partition.may_fetch for partition in self.held.values())

    async def stop(self) -> None:
        self.stopped.set()
        await self.task

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def hub_name(service: Service) -> str:
    return "Hub" + "".join(each for each in service.new_name() if each.isalnum())[:30]


def new_hub(account: StorageAccount, layout: Layout, kind: ManagerKind, app: str = "") -> TaskHub:
    return TaskHub(account, layout, kind, Environment(), app=app)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a real service tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", list(ManagerKind))
async def test_a_hub_is_made_recognised_and_removed(service: Service, kind: ManagerKind) -> None:
    name = hub_name(service)
    async with service.open() as account:
        hub = new_hub(account, Layout(name), kind)
        await hub.create()
        await new_hub(account, Layout(name), kind).create()
        await new_hub(account, Layout(name), kind).check()
        with pytest.raises(StoreMismatchError, match="has 4 partitions"):
            await new_hub(account, Layout(name, 8), kind).create()
        if kind is not ManagerKind.TABLE:
            names = [item.name for item in await hub.leases.list("")]
            assert len(names) == 1 + 4 * len(LEASE_FOLDERS[kind])

        await hub.delete()
        await hub.delete()

        assert await account.queue_names(name.lower()) == []
        with pytest.raises(StoreMismatchError, match="There is no task hub"):
            await new_hub(account, Layout(name), kind).check()


async def test_hosts_share_the_table_and_take_over_from_a_killed_one(service: Service) -> None:
    layout = Layout(hub_name(service))
    async with service.open() as account, service.open() as other:
        hub = new_hub(account, layout, ManagerKind.TABLE)
        await hub.create()
        no_lease = AppLeaseOptions(use=False)

        def start(name: str, way: StorageAccount) -> Process:
            return Process(
                partition_runs(
                    new_hub(way, layout, ManagerKind.TABLE),
                    way,
                    layout,
                    ManagerKind.TABLE,
                    name,
                    Environment(),
                    app_lease=no_lease,
                    settings=QUICK,
                )
            )

        first = start("first", account)
        await until(lambda: first.fetching() == 4)
        second = start("second", other)
        await until(lambda: first.fetching() == second.fetching() == 2)
        await first.kill()
        await until(lambda: second.fetching() == 4)
        await second.stop()

        rows = (await hub.partitions.query()).rows
        assert [row.values.get("CurrentOwner") for row in rows] == [None] * 4
        await hub.delete()


@pytest.mark.parametrize("kind", [ManagerKind.SAFE, ManagerKind.LEGACY])
async def test_a_host_takes_all_leases_and_gives_them_back(service: Service, kind: ManagerKind) -> None:
    layout = Layout(hub_name(service), 2)
    async with service.open() as account:
        hub = new_hub(account, layout, kind)
        await hub.create()
        runs = partition_runs(
            hub, account, layout, kind, "me", Environment(), app_lease=AppLeaseOptions(use=False), settings=QUICK
        )

        process = Process(runs)
        await until(lambda: process.fetching() == 2)
        with pytest.raises(StoreMismatchError, match="is in use by"):
            await new_hub(account, layout, ManagerKind.TABLE).check()
        await asyncio.sleep(2.5)  # a renewal
        assert process.fetching() == 2
        await process.stop()

        states = {item.lease for item in await hub.leases.list("")}
        assert states == {LeaseState.AVAILABLE}
        await hub.delete()


async def test_one_app_at_a_time_processes_a_hub(service: Service) -> None:
    layout = Layout(hub_name(service), 2)
    async with service.open() as account:
        hub = new_hub(account, layout, ManagerKind.TABLE, app="red")
        await hub.create()

        def start(app: str) -> Process:
            return Process(
                partition_runs(
                    hub,
                    account,
                    layout,
                    ManagerKind.TABLE,
                    f"{app}-worker",
                    Environment(),
                    app=app,
                    app_lease=AppLeaseOptions(renew=timedelta(seconds=1), acquire=timedelta(seconds=1)),
                    settings=QUICK,
                )
            )

        red = start("red")
        await until(lambda: red.fetching() == 2)
        blue = start("blue")
        await asyncio.sleep(2.5)
        assert red.fetching() == 2
        assert not blue.held
        await red.stop()
        await until(lambda: blue.fetching() == 2)
        await hub.app_lease.release_lease(None, (await _owner(hub)))
        await asyncio.sleep(1.5)
        assert blue.fetching() == 2, "a lease that somebody released is taken again"
        await blue.stop()
        await hub.delete()


async def _owner(hub: TaskHub) -> str:
    owner = await AppLease(hub.app_lease, hub.app_lease_info, "blue", Environment()).owner()
    assert owner is not None
    return owner
