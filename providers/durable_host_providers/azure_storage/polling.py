"""When to look into a queue: at once while there is something, then less and less often, or when somebody knows.

The waits are those of DurableTask.AzureStorage (azure-storage-task-hub.md 6.1): 50 ms, then 50 ms more than a doubling
step, to the configured maximum. A poller only looks while somebody waits for what it may find.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from enum import IntEnum

from durable_host.errors import StoreError
from durable_host_providers.azure_storage.tasks import TaskOwner

__all__ = ["BackOff", "Found", "Poller"]

logger = logging.getLogger(__name__)

_STEP = 0.05
_ROUNDS = 1_000


class Found(IntEnum):
    """What one look into a queue has found."""

    NOTHING = 0
    SOME = 1
    MORE = 2
    """As much as was asked for: there may be more."""

    @classmethod
    def of(cls, count: int, limit: int) -> Found:
        """By the number of messages."""
        return cls.NOTHING if not count else cls.MORE if count >= limit else cls.SOME


class BackOff:
    """The next wait after an empty look, in seconds.

    Args:
        maximum: longest wait.
        uniform: a random number in [0, 1), so that hosts do not look in step.
    """

    def __init__(self, maximum: float, uniform: Callable[[], float]) -> None:
        self._maximum = maximum
        self._uniform = uniform
        self._count = 0
        self.interval = 0.0

    def waited(self) -> None:
        """A wait ended because its time was over."""
        self._count += 1
        if self.interval >= self._maximum:
            return
        if self._count == 1:
            self.interval = min(_STEP, self._maximum)
        else:
            factor = 0.8 + 0.4 * self._uniform()
            self.interval = min(_STEP + factor * 2 ** (self._count - 2) * _STEP, self._maximum)

    def reset(self) -> None:
        """Somebody knows that there is something."""
        self._count = 1
        self.interval = min(_STEP, self._maximum)


class Poller:
    """Looks into one queue.

    Args:
        fetch: one look.
        ready: waits until looking is allowed; False: it never will be again.
        demand: set while somebody waits for what may be found.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[Found]],
        *,
        ready: Callable[[], Awaitable[bool]],
        demand: asyncio.Event,
        back_off: BackOff,
        tasks: TaskOwner,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._ready = ready
        self._demand = demand
        self._back_off = back_off
        self._tasks = tasks
        self._wake = asyncio.Event()
        self._signalled = False
        self._due: list[float] = []
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = self._tasks.start(self._run(), f"poll {self._name}")

    def stop(self) -> None:
        """Look no more; a look that is under way ends by itself, so that nothing it takes is lost."""
        if self._task is not None:
            self._task.cancel()

    def signal(self) -> None:
        """There is something: look now."""
        self._signalled = True
        self._wake.set()

    def signal_at(self, when: float) -> None:
        """There will be something, in the loop's time."""
        heapq.heappush(self._due, when)
        self._wake.set()

    async def look(self) -> None:
        """Look until nothing is left, whatever the time. Cancelled, it goes on on the side.

        Raises:
            StoreUnavailableError: the queue cannot be reached.
        """
        await asyncio.shield(self._tasks.start(self._look_through(), f"look into {self._name}", awaited=True))

    async def _look_through(self) -> None:
        for _ in range(_ROUNDS):
            async with self._looking:
                if await self._fetch() is not Found.MORE:
                    return

    async def _run(self) -> None:
        while await self._ready():
            await self._demand.wait()
            # Shielded: cancelled between the answer and the inbox, messages would be hidden for minutes.
            look = self._tasks.start(self._one_look(), f"look into {self._name}")
            if await asyncio.shield(look) is not Found.MORE:
                await self._rest()

    async def _one_look(self) -> Found:
        self._signalled = False
        loop = asyncio.get_running_loop()
        while self._due and self._due[0] <= loop.time():
            heapq.heappop(self._due)
        try:
            async with self._looking:
                found = await self._fetch()
        except StoreError as error:
            logger.warning(
                "cannot look into queue %s: %s", self._name, error, extra={"event": "poll_failed", "queue": self._name}
            )
            self._back_off.waited()
            return Found.NOTHING
        if found is not Found.NOTHING:
            self._back_off.reset()
        return found

    async def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._back_off.interval
        while not self._signalled:
            due = self._due[0] if self._due else end
            left = min(due, end) - loop.time()
            if left <= 0:
                if due >= end:
                    self._back_off.waited()
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._back_off.reset()
