"""A task hub's own things: making them, recognising them, removing them.

The number of partitions belongs to the hub: with another one, messages of live instances would go to queues on which
nobody expects them. It is recorded by the rows of the Partitions table, which are made in one transaction and last, or
else by `taskhub.json`; where the latter contradicts the control queues that exist, it is what the scaling component
left there, and is put right.

Source: azure-storage-task-hub.md 1.1, 1.3, 1.4, 1.6.4 and 9.1 item 2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from durable_host.environment import Environment
from durable_host.errors import StoreMismatchError, StoreUnavailableError
from durable_host_providers.azure_storage.app_lease import EMPTY_INFO, app_lease_id
from durable_host_providers.azure_storage.blob_leases import new_lease_content
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.partition_plan import LeaseRow
from durable_host_providers.azure_storage.partition_rows import from_row, new_row
from durable_host_providers.azure_storage.partitions import ManagerKind
from durable_host_providers.azure_storage.ports import (
    Blobs,
    ConflictError,
    LeaseState,
    NotFoundError,
    PreconditionFailedError,
    StorageAccount,
    Table,
    TableAction,
    TableOperation,
)
from durable_host_providers.azure_storage.together import together
from durable_host_providers.azure_storage.wire.times import json_time

__all__ = ["LEASE_FOLDERS", "TASK_HUB_INFO", "TaskHub"]

logger = logging.getLogger(__name__)

TASK_HUB_INFO = "taskhub.json"
"""The blob that says how many partitions a hub has, for the scaling component and for us."""

LEASE_FOLDERS = {
    ManagerKind.TABLE: (),
    ManagerKind.SAFE: ("intent", "ownership"),
    ManagerKind.LEGACY: ("default",),
}
"""Folders of the lease blobs of each kind of partition manager."""

_COUNT = "extensions.durableTask.storageProvider.partitionCount"
_KIND = {
    ManagerKind.TABLE: ("the Partitions table", "useTablePartitionManagement to true"),
    ManagerKind.SAFE: (
        "blob leases (safe)",
        "useTablePartitionManagement and useLegacyPartitionManagement to false",
    ),
    ManagerKind.LEGACY: ("blob leases (legacy)", "useLegacyPartitionManagement to true"),
}
_NO_ROW = "ResourceNotFound"
_CREATION_S = 3
"""How long somebody else may take to make the rows of a hub."""


class _Info(msgspec.Struct, frozen=True, rename="pascal"):
    task_hub_name: str
    created_at: str
    partition_count: int


class TaskHub:
    """The things of one hub.

    Args:
        account: where queues are.
        tracking: where tables and blobs are, if in an account of their own.
        app: name of the app; a lease that it takes while the hub is being deleted goes, too.
        worker: processes; then others that share partitions in another way are refused.
    """

    def __init__(
        self,
        account: StorageAccount,
        layout: Layout,
        kind: ManagerKind,
        environment: Environment,
        *,
        tracking: StorageAccount | None = None,
        app: str = "",
        worker: bool = True,
    ) -> None:
        self._account = account
        self._tracking = tracking if tracking is not None else account
        self._layout = layout
        self._kind = kind
        self._clock = environment.clock
        self._app = app
        self._worker = worker
        self._known = False

    @property
    def partitions(self) -> Table:
        """The table of the table manager."""
        return self._tracking.table(f"{self._layout.hub}Partitions")

    @property
    def leases(self) -> Blobs:
        """The container of the blob managers."""
        return self._tracking.blobs(f"{self._layout.hub.lower()}-leases")

    @property
    def app_lease(self) -> Blobs:
        """The container that the app leases."""
        return self._tracking.blobs(f"{self._layout.hub.lower()}-applease")

    @property
    def app_lease_info(self) -> str:
        """Name of the blob that says which app has the lease."""
        return f"{self._layout.hub.lower()}-appleaseinfo"

    # Making.

    async def create(self) -> None:
        """Make what is missing; idempotent.

        Raises:
            StoreMismatchError: the hub has another number of partitions, or is shared in another way.
        """
        rows = await self._partition_rows()
        await self._refuse_other_managers(rows)
        count = await self._require_count(rows)
        layout, tracking = self._layout, self._tracking
        await together(
            [
                self._create_app_lease(),
                tracking.table(layout.history).create(),
                tracking.table(layout.instances).create(),
                self._account.queue(layout.work_items).create(),
                *(self._account.queue(name).create() for name in layout.control_queues),
            ]
        )
        if self._kind is ManagerKind.TABLE:
            await self.partitions.create()
            if count is None:
                await self._insert_rows()
        else:
            await self._create_leases()
        self._known = True

    async def _create_app_lease(self) -> None:
        await self.app_lease.create()
        try:
            await self.app_lease.write(self.app_lease_info, EMPTY_INFO, if_absent=True)
        except (ConflictError, PreconditionFailedError):
            return

    async def _insert_rows(self) -> None:
        """All at once, so that their number is the hub's from the first moment."""
        inserts = [TableOperation(TableAction.INSERT, new_row(queue)) for queue in self._layout.control_queues]
        try:
            await self.partitions.transact(inserts)
        except ConflictError:
            await self._require_count(await self._partition_rows())

    async def _create_leases(self) -> None:
        await self.leases.create()
        info = _Info(self._layout.hub, json_time(self._clock.now()), self._layout.partitions)
        found = await self._info()
        if found is None or found.partition_count != info.partition_count:
            await self.leases.write(TASK_HUB_INFO, msgspec.json.encode(info))
        existing = {item.name for item in await self.leases.list("")}
        names = [
            (f"{folder}/{queue}", queue)
            for folder in LEASE_FOLDERS[self._kind]
            for queue in self._layout.control_queues
        ]
        await together(self._create_lease(name, queue) for name, queue in names if name not in existing)

    async def _create_lease(self, name: str, queue: str) -> None:
        try:
            await self.leases.write(name, new_lease_content(queue), if_absent=True)
        except (ConflictError, PreconditionFailedError):
            return  # another host makes the hub at the same time

    # Recognising.

    async def check(self) -> None:
        """Refuse what is no hub, has another number of partitions, or is shared in another way.

        Once that is known, prove that queues and tables can be reached, and rows be written.

        Raises:
            StoreMismatchError: the text says what to do.
            StoreUnavailableError: the account cannot be reached.
        """
        if self._known:
            await self._prove()
            return
        rows = await self._partition_rows()
        await self._refuse_other_managers(rows)
        if await self._require_count(rows) is None:
            raise StoreMismatchError(
                f"There is no task hub {self._layout.hub!r} at {self._account.location}; call create() first."
            )
        self._known = True

    async def _prove(self) -> None:
        """Who may delete a row that never is may write; and the queue tells how much it holds."""
        removal = TableOperation(TableAction.DELETE, {"PartitionKey": "probe", "RowKey": "probe"})
        try:
            await together([self._account.queue(self._layout.work_items).count(), self._remove(removal)])
        except NotFoundError as error:
            raise StoreMismatchError(
                f"Task hub {self._layout.hub!r} at {self._account.location} is no longer there, or not whole. Restart "
                "its hosts to make it again; what was deleted is lost."
            ) from error

    async def _remove(self, removal: TableOperation) -> None:
        try:
            await self._tracking.table(self._layout.history).write(removal)
        except NotFoundError as error:
            if error.code != _NO_ROW:
                raise

    async def _require_count(self, rows: Sequence[LeaseRow]) -> int | None:
        """The hub's number of partitions if it is the configured one; None: there is no hub yet."""
        wanted = self._layout.partitions
        if rows and len(rows) != wanted:
            raise self._mismatch(len(rows))
        if self._kind is ManagerKind.TABLE and rows:
            return wanted
        found = await self._info()
        if found is not None and found.partition_count == wanted:
            return wanted if self._kind is not ManagerKind.TABLE else None
        if rows:
            return None
        queues = await self._queues()
        if found is None:
            # A hub whose table or leases are gone; with fewer queues it may be one whose making was interrupted.
            if any(number >= wanted for number in queues):
                raise self._mismatch(max(queues) + 1)
        elif queues and len(queues) != wanted:
            raise self._mismatch(found.partition_count)
        return None

    def _mismatch(self, count: int) -> StoreMismatchError:
        return StoreMismatchError(
            f"Task hub {self._layout.hub!r} has {count} partitions, but {_COUNT} is {self._layout.partitions}. A hub's "
            f"number of partitions cannot be changed: set it to {count}, or choose another hubName for a new hub."
        )

    async def _partition_rows(self) -> list[LeaseRow]:
        """The rows of partitions; waits a moment for whoever is just making them one by one."""
        for left in range(_CREATION_S, -1, -1):
            try:
                page = await self.partitions.query()
            except NotFoundError:
                return []
            rows = [from_row(row) for row in page.rows]
            fresh = all(row.owner is None and row.last_renewal is None for row in rows)
            if not left or not fresh or not 0 < len(rows) < self._layout.partitions:
                return rows
            await asyncio.sleep(1)
        raise AssertionError  # pragma: no cover

    async def _info(self) -> _Info | None:
        blob = await self.leases.read(TASK_HUB_INFO)
        try:
            return msgspec.json.decode(blob.data, type=_Info) if blob is not None else None
        except msgspec.DecodeError:
            return None

    async def _queues(self) -> list[int]:
        """Numbers of the control queues that exist."""
        prefix = self._layout.control_queue(0)[:-2]
        names = await self._account.queue_names(prefix)
        return [int(name[-2:]) for name in names if name[:-2] == prefix and name[-2:].isdecimal()]

    async def _refuse_other_managers(self, rows: Sequence[LeaseRow]) -> None:
        """Managers do not see each other: two kinds at once would read every queue twice (9.2 item 13)."""
        if not self._worker:
            return
        if self._kind is not ManagerKind.TABLE:
            now = self._clock.now()
            for row in rows:
                if row.owner is not None and not row.has_expired(now):
                    raise self._in_use(ManagerKind.TABLE, row.owner)
        leased = [item.name for item in await self.leases.list("") if item.lease is LeaseState.LEASED]
        for kind, folders in LEASE_FOLDERS.items():
            if kind is not self._kind and any(name.partition("/")[0] in folders for name in leased):
                raise self._in_use(kind, None)

    def _in_use(self, kind: ManagerKind, owner: str | None) -> StoreMismatchError:
        how, setting = _KIND[kind]
        who = f"worker {owner!r}" if owner is not None else "a worker"
        return StoreMismatchError(
            f"Task hub {self._layout.hub!r} is in use by {who} that shares partitions through {how}; this one would "
            f"do it through {_KIND[self._kind][0]}, and they would not see each other. Set {setting} under "
            "extensions.durableTask.storageProvider, or stop the other; after a crash its leases end within 30 seconds."
        )

    # Removing.

    async def delete(self) -> None:
        """Remove everything; idempotent. What tells the number of partitions goes last.

        Raises:
            StoreUnavailableError: a host is working on it.
        """
        await self._refuse_living()
        layout, tracking = self._layout, self._tracking
        prefix = layout.control_queue(0)[:-2]
        control = [f"{prefix}{number:02}" for number in await self._queues()]
        await together(
            [
                *(self._account.queue(name).delete() for name in (*control, layout.work_items, layout.poison)),
                tracking.table(layout.history).delete(),
                tracking.table(layout.instances).delete(),
                tracking.table(layout.handed_back).delete(),
                tracking.blobs(layout.large_messages).delete(),
                self._delete_app_lease(),
            ]
        )
        await together([self.partitions.delete(), self.leases.delete()])
        self._known = False

    async def _refuse_living(self) -> None:
        """Whoever processes the hub would make parts of it anew, and lose what it works on."""
        try:
            page = await self.partitions.query()
        except NotFoundError:
            pass
        else:
            now = self._clock.now()
            for row in map(from_row, page.rows):
                if row.owner is not None and not row.has_expired(now):
                    raise self._worked_on(f"worker {row.owner!r}")
        for item in await self.leases.list(""):
            if item.lease is LeaseState.LEASED:
                raise self._worked_on("a host that shares its partitions through blob leases")
        lease = await self.app_lease.properties(None)
        if lease is not None and lease.lease is LeaseState.LEASED:
            raise self._worked_on("an app that holds its lease")

    def _worked_on(self, who: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"Task hub {self._layout.hub!r} is in use by {who}; stop it first. After a crash its leases end within a "
            "minute."
        )

    async def _delete_app_lease(self) -> None:
        for lease_id in (None, app_lease_id(self._app)):
            try:
                await self.app_lease.delete(lease_id=lease_id)
            except (ConflictError, PreconditionFailedError):
                continue
            return
        logger.warning(
            "the container %s is leased by another app and was not deleted",
            self.app_lease.container,
            extra={"event": "app_lease_kept", "hub": self._layout.hub},
        )
