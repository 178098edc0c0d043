"""Messages that this process has in its hands, and the instances that it works on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host_providers.azure_storage.instances_table import StoredRow
from durable_host_providers.azure_storage.origin import Origin
from durable_host_providers.azure_storage.ports import NotFoundError, Queue, QueueMessage

__all__ = ["Copies", "Fetched", "Held", "Known", "copies_of"]

T = TypeVar("T", Message, ActivityTask)


class Fetched(Generic[T]):
    """A message that is invisible to everybody else until `until`, in the clock's monotonic seconds.

    Attributes:
        stored: as the last call on it returned it; replaced whenever its pop receipt changes, also from the thread that
            renews leases.
        sequence: the sender's count, which orders what was put within one second.
        origin: who sent it.
        again: how often it was delivered without being fetched anew.
    """

    __slots__ = ("again", "body", "origin", "queue", "sequence", "stored", "until")

    def __init__(
        self, queue: Queue, stored: QueueMessage, body: T, sequence: int, origin: Origin, until: float
    ) -> None:
        self.queue = queue
        self.stored = stored
        self.body: T = body
        self.sequence = sequence
        self.origin = origin
        self.until = until
        self.again = 0

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included; 0: handed over."""
        return self.stored.dequeue_count + self.again

    @property
    def order(self) -> tuple[datetime, int]:
        """Oldest first. Source: azure-storage-task-hub.md 6.2."""
        return self.stored.inserted_at, self.sequence

    async def hide(self, seconds: int, now: float) -> bool:
        """Keep it invisible for so long; False: somebody else has it, or it is gone."""
        stored = self.stored
        try:
            self.stored = await self.queue.update(stored, visibility_s=seconds)
        except NotFoundError:
            return False
        self.until = now + seconds
        return True

    async def remove(self) -> bool:
        """Delete it; False: somebody else has it, or it is gone.

        A renewal may have changed the receipt while the request was on its way, so one more attempt is made with the
        newer one.
        """
        for _ in range(2):
            stored = self.stored
            try:
                await self.queue.remove(stored)
            except NotFoundError:
                if self.stored is stored:
                    return False
            else:
                return True
        return False


Copies = dict[MessageId, list[Fetched[Message]]]
"""Messages by id; one may be there several times, when it was sent or delivered twice."""


def copies_of(messages: Copies) -> Iterator[Fetched[Message]]:
    """All of them."""
    for copies in list(messages.values()):
        yield from list(copies)


@dataclass(slots=True)
class Known:
    """What this process last read or wrote of an instance.

    Attributes:
        sentinel: the ETag of the sentinel row, the fence; None: there is none.
        row: the row in Instances; None: there is none.
        episodes: how many the history has; None: it was not read.
        blobs: names of those that hold large columns of it.
    """

    version: HistoryVersion | None = None
    sentinel: str | None = None
    row: StoredRow | None = None
    episodes: int | None = None
    blobs: list[str] = field(default_factory=list[str])

    @property
    def state(self) -> InstanceState | None:
        """What the row says."""
        return None if self.row is None else self.row.state


@dataclass(slots=True)
class Held:
    """An instance that this process works on.

    Attributes:
        token: of its lease.
        until: end of the lease, in the clock's monotonic seconds.
        queue: name of its control queue.
        holding: the worker keeps it between episodes.
        busy: a commit is under way.
        ending: the last commit does not hold; the lease ends with what follows it.
        lost: its partition is another's.
        tail: what follows the history of the last commit, and of those before.
        shown: set when the row that follows the history of the last commit is written.
        late: a projection that differs from what is stored in its time only.
        orphans: blobs of a generation that was replaced.
        stage: the row of the crash table that the death of the process would show now, for simulations.
    """

    instance_id: InstanceId
    token: str
    until: float
    queue: str
    messages: Copies = field(default_factory=Copies)
    known: Known | None = None
    holding: bool = False
    busy: bool = False
    ending: bool = False
    lost: bool = False
    tail: asyncio.Task[None] | None = None
    shown: asyncio.Event | None = None
    late: InstanceState | None = None
    stage: str | None = None
    orphans: list[str] = field(default_factory=list[str])
