"""The control queues of this host: what is fetched from them, grouped by instance, until somebody locks it.

It is what partition managers call (`PartitionListener`): a poller per partition, begun and ended with its ownership.
Messages are looked for only while a lock call waits, and are kept with the pop receipts that make them ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.history import EventRaised, TimerFired
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host_providers.azure_storage.fetched import Copies, Fetched, copies_of
from durable_host_providers.azure_storage.mail import Mail, back_off_s
from durable_host_providers.azure_storage.partitions import OwnedPartition
from durable_host_providers.azure_storage.polling import BackOff, Found, Poller
from durable_host_providers.azure_storage.ports import MAX_VISIBILITY_S, Queue, QueueMessage, StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.tasks import TaskOwner
from durable_host_providers.azure_storage.waiting import whole_seconds_until
from durable_host_providers.azure_storage.wire.keys import is_entity

__all__ = ["Inbox"]

logger = logging.getLogger(__name__)

_FAR_S = MAX_VISIBILITY_S - 86_400
_TAKEN = 4_096


class _Listening:
    """A partition that is fetched from."""

    __slots__ = ("partition", "poller", "queue")

    def __init__(self, partition: OwnedPartition, queue: Queue, poller: Poller) -> None:
        self.partition = partition
        self.queue = queue
        self.poller = poller


class Inbox:
    """See the module.

    Args:
        demand: set while a lock call waits.
        changed: called when something may be lockable that was not.
        in_hand: how many instances of a queue are being worked on; a drain waits until there are none.
        lost: called with the name of a queue whose partition is another's now.
    """

    def __init__(
        self,
        account: StorageAccount,
        settings: AzureSettings,
        mail: Mail,
        environment: Environment,
        tasks: TaskOwner,
        demand: asyncio.Event,
        *,
        changed: Callable[[], None],
        in_hand: Callable[[str], int],
        lost: Callable[[str], None],
    ) -> None:
        self._account = account
        self._settings = settings
        self._mail = mail
        self._clock = environment.clock
        self._ids = environment.ids
        self._tasks = tasks
        self._changed = changed
        self._in_hand = in_hand
        self._lost = lost
        self._listening: dict[str, _Listening] = {}
        self._drains: dict[str, asyncio.Event] = {}
        self._taken: dict[tuple[InstanceId, MessageId], None] = {}
        self._demand = demand
        self.pending: dict[InstanceId, Copies] = {}

    # What partition managers call.

    def begin(self, partition: OwnedPartition) -> None:
        """Start fetching; see `PartitionListener`."""
        queue = self._account.queue(partition.queue)
        poller = Poller(
            partition.queue,
            lambda: self._fetch(partition, queue),
            ready=partition.fetchable,
            demand=self._demand,
            back_off=BackOff(self._settings.max_polling.total_seconds(), self._ids.uniform),
            tasks=self._tasks,
        )
        self._listening[partition.queue] = _Listening(partition, queue, poller)
        poller.start()
        self._changed()

    async def drain(self, partition: OwnedPartition) -> None:
        """Hand back what nobody works on, and wait for the rest; see `PartitionListener`."""
        self._stop(partition.queue)
        await asyncio.gather(*(self._show(fetched) for fetched in self._forget(partition.queue)))
        drained = self._drains.setdefault(partition.queue, asyncio.Event())
        while self._in_hand(partition.queue):
            drained.clear()
            await drained.wait()
        # What a release put back into the inbox meanwhile.
        await asyncio.gather(*(self._show(fetched) for fetched in self._forget(partition.queue)))

    def end(self, partition: OwnedPartition) -> None:
        """Forget it; see `PartitionListener`."""
        self._stop(partition.queue)
        self._forget(partition.queue)
        self._drains.pop(partition.queue, None)
        self._lost(partition.queue)

    def released(self, queue: str) -> None:
        """An instance of that queue is no longer worked on."""
        drained = self._drains.get(queue)
        if drained is not None:
            drained.set()

    def _stop(self, queue: str) -> None:
        listening = self._listening.pop(queue, None)
        if listening is not None:
            listening.poller.stop()

    def _forget(self, queue: str) -> list[Fetched[Message]]:
        forgotten: list[Fetched[Message]] = []
        for instance_id, messages in list(self.pending.items()):
            if self._settings.layout.control_queue_for(instance_id) == queue:
                forgotten += copies_of(messages)
                del self.pending[instance_id]
        return forgotten

    async def _show(self, fetched: Fetched[Message]) -> None:
        with contextlib.suppress(StoreError):  # it becomes visible by itself, later
            await fetched.hide(0, self._clock.monotonic())

    # Own messages.

    def owns(self, queue: str) -> bool:
        """Whether this process fetches from that control queue."""
        listening = self._listening.get(queue)
        return listening is not None and listening.partition.may_fetch

    def listens(self, queue: str) -> bool:
        """Whether the partition is this process's still, even if its lease was not renewed in time."""
        return queue in self._listening

    def signal(self, queue: str, delay_s: float = 0.0) -> None:
        """This process has put something there that becomes visible then."""
        listening = self._listening.get(queue)
        if listening is None:
            return
        if delay_s <= 0:
            listening.poller.signal()
        else:
            listening.poller.signal_at(asyncio.get_running_loop().time() + delay_s)

    async def look(self) -> None:
        """Fetch everything that is visible now."""
        await asyncio.gather(*(each.poller.look() for each in list(self._listening.values())))

    # Fetching.

    async def _fetch(self, partition: OwnedPartition, queue: Queue) -> Found:
        self.prune()
        if not partition.may_fetch or len(self.pending) >= self._settings.buffer_threshold:
            return Found.NOTHING
        limit = self._settings.batch_size
        visibility_s = self._settings.control_visibility_s
        until = self._clock.monotonic() + visibility_s
        messages = await queue.get(limit, visibility_s=visibility_s)
        if messages:
            await asyncio.gather(*(self._take(queue, stored, until) for stored in messages))
            self._changed()
        return Found.of(len(messages), limit)

    async def _take(self, queue: Queue, stored: QueueMessage, until: float) -> None:
        fetched = await self._mail.read_control(queue, stored, until)
        if fetched is None:
            return
        message = fetched.body
        rest = whole_seconds_until(message.visible_at, self._clock.now())
        if rest > 1 and not isinstance(message.event, TimerFired):
            # Beyond the queue's horizon: back with the rest of its delay.
            await fetched.hide(min(rest, _FAR_S), self._clock.monotonic())
            if rest < _FAR_S:
                self.signal(queue.name, rest)
        elif _is_for_an_entity(message):
            # Left for a host that has entities: handed back later and later, as what is not known here.
            await fetched.hide(back_off_s(stored.dequeue_count), self._clock.monotonic())
        elif (message.target, message.id) in self._taken:
            await fetched.remove()
        elif queue.name in self._listening:
            self.pend(fetched)
        else:
            await self._show(fetched)  # the partition was given away while the answer was on its way

    def pend(self, fetched: Fetched[Message]) -> None:
        """Keep a message that is ours until its instance is locked."""
        messages = self.pending.setdefault(fetched.body.target, {})
        copies = messages.setdefault(fetched.body.id, [])
        # A newer fetch of the same message has the receipt that counts.
        copies[:] = [other for other in copies if other.stored.id != fetched.stored.id]
        copies.append(fetched)

    @property
    def has_handed_over(self) -> bool:
        """Whether something waits here that was never fetched."""
        return any(not each.deliveries for messages in self.pending.values() for each in copies_of(messages))

    def took(self, message: Message) -> None:
        """A committed checkpoint consumed it; what comes again under its id is a second copy.

        Only of raised events, whose ids say so; a start may be sent again for good reason.
        """
        if isinstance(message.event, EventRaised):
            self._taken[message.target, message.id] = None
            if len(self._taken) > _TAKEN:
                del self._taken[next(iter(self._taken))]

    def prune(self) -> None:
        """Forget what is visible to others again."""
        now = self._clock.monotonic()
        for instance_id, messages in list(self.pending.items()):
            for id, copies in list(messages.items()):
                copies[:] = [fetched for fetched in copies if fetched.until > now]
                if not copies:
                    del messages[id]
            if not messages:
                del self.pending[instance_id]

    async def close(self) -> None:
        """Hand back what nobody works on."""
        for queue in list(self._listening):
            self._stop(queue)
        pending, self.pending = self.pending, {}
        await asyncio.gather(*(self._show(each) for messages in pending.values() for each in copies_of(messages)))


def _is_for_an_entity(message: Message) -> bool:
    """Whether it is part of the entity protocol (azure-storage-task-hub.md 6.12), which has no executor here."""
    event = message.event
    return (
        is_entity(message.target)
        and isinstance(event, EventRaised)
        and (event.name.startswith("op") or event.name in ("release", "continue"))
    )
