"""The app lease: at most one app processes a hub.

The lease is the service's, on a container of its own. Its id follows from the app's name, so that all hosts of one app,
those of .NET included, hold it together: each of them may acquire and renew it while another does. The info blob in the
container says whose it is, and who is to have it next.

Unlike the reference it is released at stop, unless other hosts of the app still process; and a host that finds it gone
takes it again before it gives up, since a colleague may have released it. A host that cannot renew it stops fetching
when it ends, not when the store answers again, and lets its partitions lapse.

Source: azure-storage-task-hub.md 1.5 and 9.2 item 15.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

import msgspec

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.storage.contract import AppLeaseOptions
from durable_host_providers.azure_storage.partitions import OwnedPartition, PartitionManager
from durable_host_providers.azure_storage.ports import Blobs, ConflictError, NotFoundError, PreconditionFailedError
from durable_host_providers.azure_storage.wire.keys import fnv1a

__all__ = ["EMPTY_INFO", "AppLease", "LeasedPartitions", "app_lease_id"]

logger = logging.getLogger(__name__)

EMPTY_INFO = b"{}"
"""The info blob of a hub that no app has processed yet."""

_REFUSED = (ConflictError, PreconditionFailedError)
_UNDER_WAY_S = 1.0
"""How long before its end we stop to rely on the lease: a request that is under way then may arrive later."""

_RETRY_S = 30.0
"""How often an app tries that does not have the lease; the reference's five minutes are long for a redeployment."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STOP_LIMIT_S = 5.0


class _Info(msgspec.Struct, frozen=True, rename="pascal"):
    owner_id: str | None = None
    desired_swap_id: str | None = None


def app_lease_id(app: str) -> str:
    """The lease id of an app; hosts without a name share that of the empty name."""
    return f"{fnv1a(app):08x}-0000-0000-0000-000000000000"


class AppLease:
    """An app's lease on a hub, as one host has it.

    Args:
        blobs: the container that is leased.
        info: name of the info blob in it.
    """

    def __init__(
        self, blobs: Blobs, info: str, app: str, environment: Environment, options: AppLeaseOptions | None = None
    ) -> None:
        self._blobs = blobs
        self._info = info
        self._clock = environment.clock
        self._until = -math.inf
        self.options = options or AppLeaseOptions()
        self.retry_s = _RETRY_S if self.options.acquire is None else self.options.acquire.total_seconds()
        self.id = app_lease_id(app)

    def fence(self) -> float:
        """Until when this app may process, in monotonic seconds; see `PartitionContext.fence`."""
        return self._until

    async def acquire(self) -> bool:
        """Try to get it, or get it again; False: another app has it."""
        asked_at = self._clock.monotonic()
        info = await self._read()
        if not (await self._swap(info) or await self._take()):
            return False
        if info.owner_id != self.id or info.desired_swap_id == self.id:
            swap = None if info.desired_swap_id == self.id else info.desired_swap_id
            await self._blobs.write(self._info, msgspec.json.encode(_Info(self.id, swap)))
        self._hold(asked_at)
        return True

    async def renew(self) -> bool:
        """Hold it longer; False: another app has it."""
        asked_at = self._clock.monotonic()
        try:
            await self._blobs.renew_lease(None, self.id)
        except _REFUSED:
            # Another host of this app may have released it. If another app has taken it, this fails, too.
            if not await self._take():
                self._until = -math.inf
                return False
        self._hold(asked_at)
        return True

    async def release(self) -> None:
        """Let another app have it; one that is lost is ignored."""
        self._until = -math.inf
        try:
            await self._blobs.release_lease(None, self.id)
        except (*_REFUSED, NotFoundError):
            return

    async def owner(self) -> str | None:
        """Lease id of the app that had it last."""
        return (await self._read()).owner_id

    def _hold(self, asked_at: float) -> None:
        self._until = asked_at + self._duration_s - _UNDER_WAY_S

    @property
    def _duration_s(self) -> int:
        return min(max(round(self.options.lease.total_seconds()), 15), 60)

    async def _swap(self, info: _Info) -> bool:
        """Take it over from its owner if somebody has asked for that."""
        if info.desired_swap_id != self.id or info.owner_id in {None, self.id}:
            return False
        try:
            await self._blobs.change_lease(None, str(info.owner_id), new_lease_id=self.id)
            await self._blobs.renew_lease(None, self.id)
        except _REFUSED:
            return False
        return True

    async def _take(self) -> bool:
        try:
            await self._blobs.acquire_lease(None, duration_s=self._duration_s, lease_id=self.id)
        except _REFUSED:
            return False
        return True

    async def _read(self) -> _Info:
        blob = await self._blobs.read(self._info)
        try:
            return msgspec.json.decode(blob.data, type=_Info) if blob is not None else _Info()
        except msgspec.DecodeError:
            return _Info()  # it only informs; the lease decides


class LeasedPartitions:
    """A `PartitionManager` that works while its app has the lease.

    Args:
        make: a run of the manager below; it is handed the fence.
    """

    def __init__(
        self, lease: AppLease, make: Callable[[Callable[[], float]], PartitionManager], environment: Environment
    ) -> None:
        self._lease = lease
        self._make = make
        self._clock = environment.clock
        self._ids = environment.ids
        self._manager: PartitionManager | None = None
        self._refused = False
        self._troubled = False
        self.others = False

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        return self._manager.owned if self._manager is not None else ()

    async def run(self, stop: asyncio.Event) -> None:
        """See `PartitionManager`."""
        while not stop.is_set():
            pause = await self._acquire()
            if pause is None:
                await self._process(stop)
            else:
                await _wait(stop, pause)

    async def _acquire(self) -> float | None:
        """Try; how long to wait until the next try, None: the lease is ours."""
        try:
            if await self._lease.acquire():
                logger.info("app lease taken", extra={"event": "app_lease_taken", "lease_id": self._lease.id})
                self._refused = self._troubled = False
                return None
            owner = await self._lease.owner()
        except (StoreError, TimeoutError) as error:
            if not self._troubled:
                self._troubled = True
                logger.warning(
                    "app lease cannot be taken: %s; trying again",
                    error or type(error).__name__,
                    extra={"event": "app_lease_trouble"},
                )
            return min(_LONGEST_PAUSE_S, self._lease.retry_s) * (0.5 + self._ids.uniform())
        retry_s = self._lease.retry_s
        if not self._refused:
            self._refused = True
            logger.warning(
                "another app (lease id %s) processes this task hub; trying again every %g s. Stop that app, give this "
                "one a hub of its own (hubName), or set useAppLease to false where both are meant to share it",
                owner,
                retry_s,
                extra={"event": "app_lease_refused", "owner": owner, "lease_id": self._lease.id},
            )
        return retry_s

    async def _process(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until the lease is lost; nothing is owned any more then."""
        ended = asyncio.Event()
        manager = self._manager = self._make(self._lease.fence)
        async with asyncio.TaskGroup() as tasks:
            side = [
                tasks.create_task(_forward(stop, ended), name="app lease stop"),
                tasks.create_task(self._renew(ended), name="renew app lease"),
            ]
            try:
                await manager.run(ended)
            finally:
                for task in side:
                    task.cancel()
        self.others = manager.others
        if stop.is_set() and not manager.others:
            await self._release()

    async def _renew(self, lost: asyncio.Event) -> None:
        failures = 0
        while True:
            pause = self._lease.options.renew.total_seconds()
            if failures:
                pause = min(pause, _FIRST_PAUSE_S * 2.0 ** min(failures, 10), _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)
            try:
                held = await self._lease.renew()
            except (StoreError, TimeoutError) as error:
                failures += 1
                if failures == 3:
                    logger.warning(
                        "app lease cannot be renewed: %s; nothing is fetched once it has ended",
                        error or type(error).__name__,
                        extra={"event": "app_lease_trouble"},
                    )
                continue
            failures = 0
            if not held:
                logger.warning(
                    "another app has taken the app lease; this one gives its partitions up",
                    extra={"event": "app_lease_lost", "lease_id": self._lease.id},
                )
                lost.set()
                return

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._lease.release()
        except (StoreError, TimeoutError):
            logger.warning("app lease was not released; it ends by itself", extra={"event": "app_lease_not_released"})


async def _forward(stop: asyncio.Event, ended: asyncio.Event) -> None:
    await stop.wait()
    ended.set()


async def _wait(stop: asyncio.Event, pause: float) -> None:
    try:
        async with asyncio.timeout(pause):
            await stop.wait()
    except TimeoutError:
        return
