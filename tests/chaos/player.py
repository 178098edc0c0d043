"""The client of a chaos run: starts instances, raises events, waits for ends, however often the store is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TypeVar

from durable_host.engine.client import NON_RUNNING_STATES, TaskHubClient
from durable_host.errors import (
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus
from durable_host.testing.oracle import Raised
from tests.chaos.kinds import Expected, Kind

__all__ = ["Notes", "RunningPlayer"]

T = TypeVar("T")


@dataclass(slots=True)
class Notes:
    """What the client knows at the end.

    Attributes:
        raised: events whose sender was told that they are stored.
        counts: instances by kind, and what else the client did.
    """

    expected: dict[str, Expected] = field(default_factory=dict[str, Expected])
    raised: list[Raised] = field(default_factory=list[Raised])
    counts: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])


class RunningPlayer:
    """Plays one instance; implements `kinds.Player`."""

    def __init__(self, client: TaskHubClient, notes: Notes, random: Random) -> None:
        self.random = random
        self._client = client
        self._notes = notes
        self._events = 0

    async def play(self, kind: Kind, instance_id: str) -> None:
        """Start the instance, drive it, and see its end."""
        self._notes.kinds[kind.name] += 1
        await kind.play(self, instance_id)
        if self._notes.expected[instance_id].status is not None:
            await self.wait(instance_id)

    # What kinds may do.

    def expect(
        self, instance_id: str, *outputs: object, status: RuntimeStatus | None = RuntimeStatus.COMPLETED
    ) -> None:
        self._notes.expected[instance_id] = Expected(status, outputs)

    async def start(
        self, orchestrator: str, instance_id: str, input: object, *, after: float = 0, again: bool = False
    ) -> None:
        start_at = timedelta(seconds=after) if after else None
        replaceable = NON_RUNNING_STATES if again else ()
        tried = False

        async def once() -> None:
            nonlocal tried
            try:
                await self._client.start(
                    orchestrator, input, instance_id=instance_id, start_at=start_at, replaceable=replaceable
                )
            except InstanceExistsError:
                if not tried:
                    raise  # nobody else uses this id
            except StoreUnavailableError:
                tried = True
                raise

        await self._insist(once)

    async def wait(self, instance_id: str) -> RuntimeStatus:
        return (await self._insist(lambda: self._client.wait_for_completion(instance_id))).status

    async def rewind(self, instance_id: str) -> None:
        try:
            await self._insist(lambda: self._client.rewind(instance_id, "again"))
            self._notes.counts["rewinds"] += 1
        except InvalidStateError:
            return  # an earlier attempt has worked
        # Until it is taken the instance looks as it did.
        await asyncio.sleep(1)

    async def purge(self, instance_id: str) -> None:
        try:
            await self._insist(lambda: self._client.purge(instance_id))
        except InstanceNotFoundError:
            return  # an earlier attempt has worked
        self._notes.counts["purges"] += 1

    async def raise_event(self, instance_id: str, name: str, data: object) -> None:
        self._events += 1
        message_id = f"{instance_id}/event-{self._events}"
        acknowledged = False
        for _ in range(self.random.choice((1, 1, 1, 2))):
            try:
                await self._insist(lambda: self._client.raise_event(instance_id, name, data, message_id=message_id))
            except InvalidStateError:
                # It was taken, though nobody told us so, and the instance has ended by it; the verdict will see.
                continue
            if not acknowledged:
                self._notes.raised.append(Raised(InstanceId(instance_id), message_id, name))
                self._notes.counts["events acknowledged"] += 1
            else:
                self._notes.counts["events sent again"] += 1
            acknowledged = True

    async def terminate(self, instance_id: str) -> None:
        try:
            await self._insist(lambda: self._client.terminate(instance_id, "enough", recursive=True))
        except InvalidStateError:
            return  # an earlier attempt has worked

    async def suspend_for_a_while(self, instance_id: str) -> None:
        try:
            await self._insist(lambda: self._client.suspend(instance_id, "wait"))
            await self.pause()
            # A suspension may come in behind the resumption that was sent after it.
            while True:
                await self._insist(lambda: self._client.resume(instance_id))
                try:
                    await self._client.wait_for_completion(instance_id, timeout=timedelta(seconds=5))
                    return
                except (WaitTimeoutError, StoreUnavailableError):
                    continue
        except InvalidStateError:
            return  # it has ended

    async def pause(self, most: float = 2.0) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.0, 0.1, 1.0)) * self.random.random() * most)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                self._notes.counts["client calls repeated"] += 1
                await asyncio.sleep(0.2 + self.random.random())
