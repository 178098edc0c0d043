"""Instances that this worker holds: at work, or parked until results come.

Parked instances keep their lease, so that results fold into the next checkpoint without a lock. They are let go, the
longest parked first, when nothing happens to them for a while, or when there are more than the session cache may keep:
what is held counts against the same bounds as what is cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from durable_host.engine.activities import FinishedActivity
from durable_host.engine.episode import Position
from durable_host.engine.leases import HeldLease
from durable_host.engine.sessions import size_of
from durable_host.model.ids import InstanceId
from durable_host.model.messages import Message
from durable_host.storage.contract import OrchestrationWorkItem

__all__ = ["HeldInstance", "Parking"]


class HeldInstance:
    """An instance whose lease this worker has.

    Attributes:
        item: what the lock call returned, until it is loaded.
        messages, results: arrived and not yet in an episode.
        running: an episode is on its way, or waits for a slot.
        lost: the lease is gone, or the instance was forgotten.
    """

    __slots__ = (
        "instance_id",
        "item",
        "lease",
        "lost",
        "messages",
        "parked_at",
        "position",
        "results",
        "running",
        "size",
    )

    def __init__(self, item: OrchestrationWorkItem, lease: HeldLease) -> None:
        self.instance_id = item.instance_id
        self.lease = lease
        self.item: OrchestrationWorkItem | None = item
        self.position: Position | None = None
        self.messages: list[Message] = list(item.inbox)
        self.results: list[FinishedActivity] = []
        self.running = False
        self.lost = False
        self.parked_at = 0.0
        self.size = 0


class Parking:
    """Parked instances, in the order in which they were parked.

    Args:
        release: gives up the leases of these instances; it calls `leave` for each.
        idle: how long an instance is kept.
        instances, size: bounds; passing one lets a quarter go.
    """

    def __init__(
        self,
        release: Callable[[Sequence[HeldInstance]], Awaitable[None]],
        *,
        idle: timedelta,
        instances: int,
        size: int,
        group: asyncio.TaskGroup,
    ) -> None:
        self._release = release
        self._idle = idle.total_seconds()
        self._limit = instances
        self._size_limit = size
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._parked: dict[InstanceId, HeldInstance] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._making_room = False
        self.size = 0
        """About how many bytes the parked positions keep alive."""

    def all(self) -> list[HeldInstance]:
        """What is parked, the longest first."""
        return list(self._parked.values())

    def enter(self, held: HeldInstance) -> None:
        """Park an instance."""
        held.parked_at = self._loop.time()
        position = held.position
        if position is not None and position.state is not None and position.session is not None:
            held.size = size_of(position.index, position.state, position.session)
        self._parked[held.instance_id] = held
        self.size += held.size
        if self._is_full(len(self._parked), self.size) and not self._making_room:
            self._making_room = True
            self._group.create_task(self._make_room())
        if self._sweeper is None:
            self._sweeper = self._group.create_task(self._sweep())

    def leave(self, held: HeldInstance) -> None:
        """Something happens to the instance, or it is given up; nothing if it is not parked."""
        if self._parked.get(held.instance_id) is held:
            del self._parked[held.instance_id]
            self.size -= held.size

    async def close(self) -> None:
        """Stop watching."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    def _is_full(self, count: int, size: int, share: float = 1.0) -> bool:
        return count > self._limit * share or size > self._size_limit * share

    async def _make_room(self) -> None:
        try:
            while self._is_full(len(self._parked), self.size):
                oldest: list[HeldInstance] = []
                count, size = len(self._parked), self.size
                for held in self._parked.values():
                    if not self._is_full(count, size, 0.75):
                        break
                    oldest.append(held)
                    count, size = count - 1, size - held.size
                await self._release(oldest)
        finally:
            self._making_room = False

    async def _sweep(self) -> None:
        """Let go of instances that nothing happens to; runs while there are any."""
        try:
            while self._parked:
                # Parking order is time order, since leaving removes and entering appends.
                oldest = next(iter(self._parked.values()))
                left = oldest.parked_at + self._idle - self._loop.time()
                if left > 0:
                    await asyncio.sleep(left)
                    continue
                now = self._loop.time()
                await self._release([held for held in self._parked.values() if held.parked_at + self._idle <= now])
        finally:
            self._sweeper = None
