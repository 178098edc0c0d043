"""Activities: one queue for all hosts, each request hidden from the others while it runs.

A result is sent before its request is removed; a crash between the two sends it twice, and history takes it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.ids import DispatchId
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import ActivityWorkItem, Lease
from durable_host_providers.azure_storage.fetched import Fetched
from durable_host_providers.azure_storage.mail import Mail
from durable_host_providers.azure_storage.polling import BackOff, Found, Poller
from durable_host_providers.azure_storage.ports import MAX_GET, NotFoundError, StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.tasks import TaskOwner
from durable_host_providers.azure_storage.waiting import Waiters

__all__ = ["Activities", "Running"]


class Running:
    """A request that this process runs.

    Attributes:
        completing: its result is on its way.
        replied: its result is sent; only the request has to go.
    """

    __slots__ = ("completing", "fetched", "replied", "token")

    def __init__(self, token: str, fetched: Fetched[ActivityTask]) -> None:
        self.token = token
        self.fetched = fetched
        self.completing = False
        self.replied = False


class Activities:
    """The requests of one hub as this process sees them."""

    def __init__(
        self,
        account: StorageAccount,
        settings: AzureSettings,
        mail: Mail,
        environment: Environment,
        tasks: TaskOwner,
        tokens: Iterator[str],
    ) -> None:
        self._settings = settings
        self._mail = mail
        self._clock = environment.clock
        self._queue = account.queue(settings.layout.work_items)
        self._demand = asyncio.Event()
        self.waiters = Waiters(self._demand)
        self._tokens = tokens
        self._tasks = tasks
        self._ready: list[Fetched[ActivityTask]] = []
        self._running: dict[str, Running] = {}
        self._wanted = 0
        self._closed = False
        self._poller = Poller(
            self._queue.name,
            self._fetch,
            ready=self._always,
            demand=self._demand,
            back_off=BackOff(settings.max_polling.total_seconds(), environment.ids.uniform),
            tasks=tasks,
        )

    def start(self) -> None:
        """Begin to look for requests."""
        self._poller.start()

    def stop(self) -> None:
        """Look no more."""
        self._poller.stop()

    async def _always(self) -> bool:
        return True

    def signal(self) -> None:
        """This process has put a request."""
        self._poller.signal()

    # Locking.

    async def lock(self, limit: int, wait: timedelta) -> Sequence[ActivityWorkItem]:
        """See `TaskHubStore.lock_activities`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        if limit <= 0:
            return ()
        waiter = self.waiters.join()
        self._wanted += limit
        try:
            if wait <= timedelta(0):
                await self._poller.look()
            while True:
                waiter.clear()
                items = self._take(limit)
                left = end - loop.time()
                if items or left <= 0 or self._closed:
                    return items
                waiter.free = limit
                try:
                    await waiter.wait(left)
                finally:
                    waiter.free = 0
        finally:
            self._wanted -= limit
            self.waiters.leave(waiter)

    async def _fetch(self) -> Found:
        room = min(self._wanted - len(self._ready), MAX_GET)
        if room <= 0:
            return Found.NOTHING
        visibility_s = self._settings.work_item_visibility_s
        until = self._clock.monotonic() + visibility_s
        try:
            messages = await self._queue.get(room, visibility_s=visibility_s)
        except NotFoundError:
            return Found.NOTHING
        found = await asyncio.gather(*(self._mail.read_task(self._queue, stored, until) for stored in messages))
        for fetched in found:
            if fetched is not None and not self._is_ours(fetched):
                self._ready.append(fetched)
        if messages:
            self.waiters.wake()
        return Found.of(len(messages), room)

    def _is_ours(self, again: Fetched[ActivityTask]) -> bool:
        """Whether the queue has delivered once more what is held here; the newer receipt is the one that counts.

        It must not be taken for a second copy and removed: there is no other, should this process die.
        """
        now = self._clock.monotonic()
        for fetched in (*self._ready, *(each.fetched for each in self._running.values())):
            if fetched.stored.id == again.stored.id and fetched.until > now:
                fetched.stored, fetched.until = again.stored, again.until
                return True
        return False

    def hand_over(self, fetched: Fetched[ActivityTask]) -> None:
        """Let a lock call of this process have it."""
        self._ready.append(fetched)
        self.waiters.wake()

    @property
    def has_handed_over(self) -> bool:
        """Whether something waits here that was never fetched."""
        return any(not fetched.deliveries for fetched in self._ready)

    def _take(self, limit: int) -> list[ActivityWorkItem]:
        now = self._clock.monotonic()
        self._reap(now)
        running = {each.fetched.body.dispatch_id for each in self._running.values()}
        ready = sorted((each for each in self._ready if each.until > now), key=lambda each: each.order)
        self._ready = []
        items: list[ActivityWorkItem] = []
        for fetched in ready:
            if fetched.body.dispatch_id in running:
                # The same request was sent twice, and both are ours: one is enough.
                self._tasks.start(fetched.remove(), "remove a second request")
            elif len(items) >= limit:
                self._ready.append(fetched)
            else:
                items.append(self._begin(fetched))
                running.add(fetched.body.dispatch_id)
        return items

    def _begin(self, fetched: Fetched[ActivityTask]) -> ActivityWorkItem:
        token = next(self._tokens)
        self._running[token] = Running(token, fetched)
        left = timedelta(seconds=max(0.0, fetched.until - self._clock.monotonic()))
        return ActivityWorkItem(fetched.body, Lease(fetched.body.dispatch_id, token, left), fetched.deliveries)

    def _reap(self, now: float) -> None:
        for token, each in list(self._running.items()):
            if each.fetched.until <= now:
                del self._running[token]

    # What workers do with leases.

    def find(self, lease: Lease) -> Running | None:
        """The request of a lease, if it is still ours."""
        if not isinstance(lease.token, str):
            return None
        running = self._running.get(lease.token)
        if running is None or running.fetched.body.dispatch_id != DispatchId(lease.key):
            return None
        return running if running.fetched.until > self._clock.monotonic() else None

    def forget(self, running: Running) -> None:
        """It is not ours any more."""
        self._running.pop(running.token, None)

    async def renew(self, lease: Lease, running: Running) -> Lease | None:
        """Extend a lease; None: lost. Called from any thread."""
        seconds = self._settings.work_item_visibility_s
        if not await running.fetched.hide(seconds, self._clock.monotonic()):
            self.forget(running)
            return None
        return Lease(lease.key, lease.token, timedelta(seconds=seconds))

    async def abandon(self, running: Running, delay_s: int) -> None:
        """Give a request back."""
        self.forget(running)
        if await running.fetched.hide(delay_s, self._clock.monotonic()):
            self._poller.signal_at(asyncio.get_running_loop().time() + delay_s)

    async def remove(self, leases: Iterable[Lease]) -> None:
        """They are done, and their results are recorded."""
        await asyncio.gather(*(each.fetched.remove() for each in self.claim(leases)))

    def claim(self, leases: Iterable[Lease]) -> list[Running]:
        """Those whose leases are still ours; the leases end."""
        running = [each for lease in leases if (each := self.find(lease)) is not None]
        for each in running:
            self.forget(each)
        return running

    async def close(self) -> None:
        """Show to others what is held; lock calls that wait return."""
        self._closed = True
        self.waiters.wake()
        self.stop()
        ready, self._ready = self._ready, []
        running, self._running = self._running, {}
        now = self._clock.monotonic()
        held = ready + [each.fetched for each in running.values() if not each.completing]
        for outcome in await asyncio.gather(*(each.hide(0, now) for each in held), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreError):
                raise outcome
