"""A hub's own things: made as the reference makes them, recognised, refused, removed."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta

import pytest

from durable_host.errors import StoreMismatchError, StoreUnavailableError
from durable_host.storage.contract import AppLeaseOptions
from durable_host.testing.environment import SimulatedClock, simulated_environment
from durable_host_providers.azure_storage.app_lease import app_lease_id
from durable_host_providers.azure_storage.blob_leases import new_lease_content
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ownership import partition_runs, worker_id
from durable_host_providers.azure_storage.partition_rows import new_row
from durable_host_providers.azure_storage.partitions import ManagerKind, OwnedPartition
from durable_host_providers.azure_storage.ports import EdmDateTime, TableAction, TableOperation
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService

KINDS = list(ManagerKind)
BLOB_KINDS = [ManagerKind.SAFE, ManagerKind.LEGACY]


def new_service() -> SimulatedService:
    return SimulatedService(SimulatedClock().now)


def hub_on(
    service: SimulatedService,
    kind: ManagerKind = ManagerKind.TABLE,
    *,
    partitions: int = 4,
    worker: bool = True,
    account: SimulatedAccount | None = None,
    tracking: SimulatedAccount | None = None,
    app: str = "",
) -> TaskHub:
    return TaskHub(
        account or SimulatedAccount(service),
        Layout("Orders", partitions),
        kind,
        simulated_environment(),
        tracking=tracking,
        worker=worker,
        app=app,
    )


class Listener:
    """A store that only notes."""

    def __init__(self) -> None:
        self.held: dict[str, OwnedPartition] = {}

    def begin(self, partition: OwnedPartition) -> None:
        self.held[partition.queue] = partition

    async def drain(self, partition: OwnedPartition) -> None:
        await asyncio.sleep(0)

    def end(self, partition: OwnedPartition) -> None:
        del self.held[partition.queue]


@pytest.mark.simulated
async def test_the_table_managers_hub_has_the_things_of_the_reference() -> None:
    service = new_service()
    account = SimulatedAccount(service)

    await hub_on(service, account=account).create()

    assert sorted(service.queues) == [*(f"orders-control-{n:02}" for n in range(4)), "orders-workitems"]
    assert set(service.tables) == {"ordershistory", "ordersinstances", "orderspartitions"}
    assert set(service.containers) == {"orders-applease"}
    assert service.containers["orders-applease"].blobs["orders-appleaseinfo"].data == b"{}"
    rows = (await account.table("OrdersPartitions").query()).rows
    assert [{k: v for k, v in row.values.items() if k != "Timestamp"} for row in rows] == [
        {"PartitionKey": "", "RowKey": f"orders-control-{n:02}", "IsDraining": False} for n in range(4)
    ]


@pytest.mark.parametrize(
    ("kind", "folders"), [(ManagerKind.SAFE, ["intent", "ownership"]), (ManagerKind.LEGACY, ["default"])]
)
@pytest.mark.simulated
async def test_the_blob_managers_hub_has_the_things_of_the_reference(kind: ManagerKind, folders: list[str]) -> None:
    service = new_service()

    await hub_on(service, kind).create()

    assert set(service.tables) == {"ordershistory", "ordersinstances"}
    assert set(service.containers) == {"orders-applease", "orders-leases"}
    blobs = service.containers["orders-leases"].blobs
    assert sorted(blobs) == [
        *(f"{folder}/orders-control-{n:02}" for folder in folders for n in range(4)),
        "taskhub.json",
    ]
    assert re.fullmatch(
        rb'\{"TaskHubName":"Orders","CreatedAt":"2030-01-01T00:00:0[0-9.]+Z","PartitionCount":4\}',
        blobs["taskhub.json"].data,
    )
    assert blobs[f"{folders[0]}/orders-control-00"].data == (
        b'{"PartitionId":"orders-control-00","Owner":null,"Token":null,"Epoch":0}'
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partitions", [1, 16])
@pytest.mark.simulated
async def test_a_hub_is_made_once_and_recognised(kind: ManagerKind, partitions: int) -> None:
    service = new_service()
    await hub_on(service, kind, partitions=partitions).create()
    before = repr((service.tables["ordershistory"].rows(), {n: c.blobs for n, c in service.containers.items()}))

    await hub_on(service, kind, partitions=partitions).create()
    await hub_on(service, kind, partitions=partitions).check()

    assert repr((service.tables["ordershistory"].rows(), {n: c.blobs for n, c in service.containers.items()})) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.simulated
async def test_two_may_make_a_hub_at_once(kind: ManagerKind) -> None:
    service = new_service()

    await asyncio.gather(*(hub_on(service, kind).create() for _ in range(5)))

    await hub_on(service, kind).check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partitions", [1, 3, 5, 16])
@pytest.mark.parametrize("step", ["create", "check"])
@pytest.mark.simulated
async def test_another_number_of_partitions_is_refused_with_the_fix(
    kind: ManagerKind, partitions: int, step: str
) -> None:
    service = new_service()
    await hub_on(service, kind).create()
    hub = hub_on(service, kind, partitions=partitions)

    with pytest.raises(
        StoreMismatchError, match=rf"has 4 partitions, but .*partitionCount is {partitions}\b.*set it to 4"
    ):
        await (hub.create() if step == "create" else hub.check())

    assert len(service.queues) == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.simulated
async def test_a_changed_number_is_refused_under_another_manager_too(kind: ManagerKind) -> None:
    for other in KINDS:
        service = new_service()
        await hub_on(service, other).create()

        with pytest.raises(StoreMismatchError):
            await hub_on(service, kind, partitions=8).create()


@pytest.mark.simulated
async def test_a_hub_whose_rows_are_gone_is_not_made_smaller() -> None:
    service = new_service()
    await hub_on(service, partitions=8).create()
    await SimulatedAccount(service).table("OrdersPartitions").delete()

    with pytest.raises(StoreMismatchError, match="has 8 partitions"):
        await hub_on(service).create()
    await hub_on(service, partitions=8).create()


@pytest.mark.parametrize("kind", BLOB_KINDS)
@pytest.mark.simulated
async def test_what_the_scaling_component_guessed_is_put_right(kind: ManagerKind) -> None:
    service = new_service()
    leases = SimulatedAccount(service).blobs("orders-leases")
    await leases.create()
    await leases.write(
        "taskhub.json", b'{"TaskHubName":"Orders","CreatedAt":"2026-01-01T00:00:00Z","PartitionCount":4}'
    )

    await hub_on(service, kind, partitions=8).create()

    blob = await leases.read("taskhub.json")
    assert blob is not None
    assert json.loads(blob.data)["PartitionCount"] == 8


@pytest.mark.simulated
async def test_rows_that_another_is_just_making_are_waited_for() -> None:
    service = new_service()
    table = SimulatedAccount(service).table("OrdersPartitions")
    await table.create()

    async def make_slowly() -> None:
        for number in range(4):
            await table.write(TableOperation(TableAction.INSERT, new_row(f"orders-control-{number:02}")))
            await asyncio.sleep(0.4)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(make_slowly())
        await asyncio.sleep(0.1)
        await hub_on(service).create()

    await hub_on(service).check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.simulated
async def test_a_hub_that_was_never_made_is_told_so(kind: ManagerKind) -> None:
    with pytest.raises(StoreMismatchError, match="There is no task hub 'Orders'"):
        await hub_on(new_service(), kind).check()


@pytest.mark.parametrize("mine", KINDS)
@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.simulated
async def test_a_hub_that_is_shared_in_another_way_is_refused_while_it_is_used(
    mine: ManagerKind, theirs: ManagerKind
) -> None:
    service = new_service()
    account = SimulatedAccount(service)
    other = hub_on(service, theirs)
    await other.create()
    environment = simulated_environment(1)
    runs = partition_runs(
        other, account, Layout("Orders"), theirs, "them", environment, app_lease=AppLeaseOptions(use=False)
    )
    stop, listener = asyncio.Event(), Listener()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runs(listener).run(stop))
        await asyncio.sleep(20)
        assert len(listener.held) == 4
        await hub_on(service, mine, worker=False).create()
        hub = hub_on(service, mine)
        if mine is theirs:
            await hub.check()
        else:
            for step in (hub.create, hub.check):
                with pytest.raises(StoreMismatchError, match=r"is in use by .*they would not see each other"):
                    await step()
        stop.set()

    await hub_on(service, mine).check()


@pytest.mark.simulated
async def test_rows_of_a_dead_worker_do_not_keep_a_blob_manager_out() -> None:
    service = new_service()
    await hub_on(service).create()
    table = SimulatedAccount(service).table("OrdersPartitions")
    old = EdmDateTime("2029-12-31T00:00:00.0000000Z")
    values = {**new_row("orders-control-00"), "CurrentOwner": "dead", "ExpiresAt": old}
    await table.write(TableOperation(TableAction.REPLACE, values))
    hub = hub_on(service, ManagerKind.SAFE)

    await hub.create()
    await hub.check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.simulated
async def test_a_deleted_hub_leaves_nothing(kind: ManagerKind) -> None:
    service = new_service()
    account = SimulatedAccount(service)
    hub = hub_on(service, kind, app="red")
    await hub.create()
    await account.queue("orders-poison").create()
    await account.blobs("orders-largemessages").create()
    await account.queue("orders-control-extra").create()
    await account.queue("ordersabc-control-00").create()

    await hub.delete()
    await hub.delete()

    assert set(service.queues) == {"orders-control-extra", "ordersabc-control-00"}
    assert not service.tables
    assert not service.containers
    await hub.create()
    await hub.check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", [True, False])
@pytest.mark.simulated
async def test_a_hub_on_which_a_host_works_is_not_deleted(kind: ManagerKind, use: bool) -> None:
    service = new_service()
    account = SimulatedAccount(service)
    hub = hub_on(service, kind, app="red")
    await hub.create()
    environment = simulated_environment()
    runs = partition_runs(
        hub, account, Layout("Orders", 4), kind, "me", environment, app="red", app_lease=AppLeaseOptions(use=use)
    )
    stop = asyncio.Event()
    listener = Listener()
    async with asyncio.TaskGroup() as group:
        group.create_task(runs(listener).run(stop))
        await asyncio.sleep(60)
        assert listener.held

        with pytest.raises(StoreUnavailableError, match=r"Task hub 'Orders' is in use by .*; stop it first"):
            await hub.delete()

        assert len(service.queues) == 5
        stop.set()
    await hub.delete()
    assert not service.queues
    assert not service.containers


@pytest.mark.simulated
async def test_a_hub_that_another_app_has_leased_is_not_deleted() -> None:
    service = new_service()
    hub = hub_on(service, app="red")
    await hub.create()
    lease = SimulatedAccount(service).blobs("orders-applease")
    await lease.acquire_lease(None, duration_s=60, lease_id=app_lease_id("blue"))

    with pytest.raises(StoreUnavailableError, match="an app that holds its lease"):
        await hub.delete()

    await asyncio.sleep(61)
    await hub.delete()
    assert not service.containers


@pytest.mark.simulated
async def test_tables_and_blobs_may_lie_in_an_account_of_their_own() -> None:
    queues, tables = new_service(), new_service()
    hub = TaskHub(
        SimulatedAccount(queues),
        Layout("Orders", 4, "Tracking"),
        ManagerKind.TABLE,
        simulated_environment(),
        tracking=SimulatedAccount(tables),
    )

    await hub.create()
    await hub.check()

    assert len(queues.queues) == 5
    assert not queues.tables
    assert not queues.containers
    assert set(tables.tables) == {"trackinghistory", "trackinginstances", "orderspartitions"}
    await hub.delete()
    assert not queues.queues
    assert not tables.tables


class _Failing:
    """The n-th request is cut off, before or after its effect."""

    def __init__(self, number: int, after: bool) -> None:
        self.left = number
        self.late = after

    async def before(self, kind: str) -> None:
        self.left -= 1
        if self.left == 0 and not self.late:
            raise StoreUnavailableError("cut off")

    async def after(self, kind: str, effect: bool) -> None:
        if self.left <= 0 and self.late:  # a request that was refused had no effect whose answer could be lost
            self.late = False
            raise StoreUnavailableError("cut off")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.simulated
async def test_a_making_that_was_interrupted_anywhere_is_completed(kind: ManagerKind, after: bool) -> None:
    whole = new_service()
    account = SimulatedAccount(whole)
    await hub_on(whole, kind, account=account).create()

    for number in range(1, account.requests.total() + 1):
        service = new_service()
        with pytest.raises(StoreUnavailableError):
            await hub_on(service, kind, account=SimulatedAccount(service, _Failing(number, after))).create()
        await hub_on(service, kind).create()
        await hub_on(service, kind).check()

        assert set(service.queues) == set(whole.queues)
        assert set(service.tables) == set(whole.tables)
        assert {n: set(c.blobs) for n, c in service.containers.items()} == {
            n: set(c.blobs) for n, c in whole.containers.items()
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.simulated
async def test_a_removal_that_was_interrupted_anywhere_is_completed(kind: ManagerKind) -> None:
    whole = new_service()
    account = SimulatedAccount(whole)
    await hub_on(whole, kind).create()
    await hub_on(whole, kind, account=account).delete()

    for number in range(1, account.requests.total() + 1):
        service = new_service()
        await hub_on(service, kind).create()
        with pytest.raises(StoreUnavailableError):
            await hub_on(service, kind, account=SimulatedAccount(service, _Failing(number, False))).delete()
        await hub_on(service, kind).delete()

        assert not service.queues
        assert not service.tables
        assert not service.containers


def test_legacy_management_wins_over_the_table() -> None:
    """As in the reference, where both settings are true."""
    assert ManagerKind.chosen(use_table=True, use_legacy=False) is ManagerKind.TABLE
    assert ManagerKind.chosen(use_table=False, use_legacy=False) is ManagerKind.SAFE
    assert ManagerKind.chosen(use_table=False, use_legacy=True) is ManagerKind.LEGACY
    assert ManagerKind.chosen(use_table=True, use_legacy=True) is ManagerKind.LEGACY


@pytest.mark.simulated
async def test_every_process_has_a_worker_id_of_its_own() -> None:
    site = {"WEBSITE_CURRENT_STAMPNAME": "stamp", "RoleInstanceId": "role"}.get

    assert worker_id(simulated_environment(1)) != worker_id(simulated_environment(2))
    assert re.fullmatch("stamp:role-[0-9a-f]{12}", worker_id(simulated_environment(1), site))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", [True, False])
@pytest.mark.simulated
async def test_partition_management_starts_and_ends_on_a_hub(kind: ManagerKind, use: bool) -> None:
    service = new_service()
    account = SimulatedAccount(service)
    hub = hub_on(service, kind, account=account)
    await hub.create()
    options = AppLeaseOptions(use=use, acquire=timedelta(seconds=10))
    runs = partition_runs(hub, account, Layout("Orders"), kind, "me", simulated_environment(), app_lease=options)
    for _ in range(2):
        stop, listener = asyncio.Event(), Listener()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runs(listener).run(stop))
            await asyncio.sleep(20)
            assert sorted(partition.index for partition in listener.held.values()) == [0, 1, 2, 3]
            stop.set()
        assert not listener.held
    assert (account.requests["blob.acquire_lease"] > 0) is (use or kind is not ManagerKind.TABLE)


def test_new_leases_are_as_recorded() -> None:
    assert json.loads(new_lease_content("q")) == {"PartitionId": "q", "Owner": None, "Token": None, "Epoch": 0}


@pytest.mark.simulated
async def test_a_check_of_a_known_hub_asks_the_store_each_time() -> None:
    service = new_service()
    failing = _Failing(1_000_000, False)
    hub = hub_on(service, account=SimulatedAccount(service, failing))
    await hub.create()
    await hub.check()

    failing.left = 1
    with pytest.raises(StoreUnavailableError):
        await hub.check()
    await hub.check()

    assert (await SimulatedAccount(service).table("OrdersHistory").query()).rows == []


@pytest.mark.parametrize("gone", ["queue", "table"])
@pytest.mark.simulated
async def test_a_check_notices_that_the_hub_was_deleted(gone: str) -> None:
    service = new_service()
    account = SimulatedAccount(service)
    hub = hub_on(service)
    await hub.create()

    await (account.queue("orders-workitems") if gone == "queue" else account.table("OrdersHistory")).delete()

    with pytest.raises(StoreMismatchError, match="no longer there, or not whole"):
        await hub.check()
