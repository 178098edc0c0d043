"""Sending: into the queue for everybody, or kept invisible for a lock call of this process that waits.

What is handed over this way costs neither a poll nor a fetch: its pop receipt is that of the put. Only the owner of a
partition may do so, and nothing is delivered before the history that records it is in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.messages import ActivityTask, Message
from durable_host_providers.azure_storage.activities import Activities
from durable_host_providers.azure_storage.fetched import Fetched
from durable_host_providers.azure_storage.inbox import Inbox
from durable_host_providers.azure_storage.mail import Mail
from durable_host_providers.azure_storage.origin import Origin
from durable_host_providers.azure_storage.ports import MAX_VISIBILITY_S
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.tasks import TaskOwner
from durable_host_providers.azure_storage.waiting import Waiters, whole_seconds_until

__all__ = ["Handed", "Outbox"]


@dataclass(slots=True)
class Handed:
    """What was put invisible, for lock calls of this process."""

    messages: list[Fetched[Message]] = field(default_factory=list[Fetched[Message]])
    tasks: list[Fetched[ActivityTask]] = field(default_factory=list[Fetched[ActivityTask]])

    def __bool__(self) -> bool:
        return bool(self.messages or self.tasks)


_FAR_S = MAX_VISIBILITY_S - 86_400


class Outbox:
    """Sends messages and tasks of this process."""

    def __init__(
        self,
        settings: AzureSettings,
        environment: Environment,
        mail: Mail,
        inbox: Inbox,
        waiters: Waiters,
        activities: Activities,
        tasks: TaskOwner,
    ) -> None:
        self._settings = settings
        self._clock = environment.clock
        self._mail = mail
        self._inbox = inbox
        self._waiters = waiters
        self._activities = activities
        self._tasks = tasks

    def number(self) -> int:
        """The place of a message among all that this process sends; taken in order, before puts overtake each other."""
        return self._mail.number()

    async def send(
        self, message: Message, origin: Origin, handed: Handed | None = None, number: int | None = None
    ) -> None:
        """Put a message.

        Args:
            handed: takes what is kept for this process; None: nothing is.
        """
        queue = self._settings.layout.control_queue_for(message.target)
        delay_s = min(whole_seconds_until(message.visible_at, self._clock.now()), _FAR_S)
        if delay_s == 0 and handed is not None and self._inbox.owns(queue) and self._waiters.take_slot():
            handed.messages.append(await self._mail.put_message(message, origin, self._settings.hand_over_s, number))
            return
        await self._mail.put_message(message, origin, delay_s, number)
        self._inbox.signal(queue, delay_s)

    async def send_all(self, messages: Sequence[tuple[int, Message]], origin: Origin, handed: Handed) -> None:
        """Put numbered messages, one after another."""
        for number, message in messages:
            await self.send(message, origin, handed, number)

    async def send_task(self, task: ActivityTask, origin: Origin, handed: Handed, number: int) -> None:
        """Put a request for an activity."""
        if self._activities.waiters.take_slot():
            handed.tasks.append(await self._mail.put_task(task, origin, self._settings.hand_over_s, number))
            return
        await self._mail.put_task(task, origin, 0, number)
        self._activities.signal()

    def deliver(self, handed: Handed) -> None:
        """Let this process's lock calls have what was put for them."""
        for message in handed.messages:
            if self._inbox.listens(message.queue.name):
                self._inbox.pend(message)
            else:  # the partition was given away meanwhile
                self._tasks.start(self._show_message(message), "show a message")
        for task in handed.tasks:
            self._activities.hand_over(task)
        if handed.messages:
            self._waiters.wake()

    def show(self, handed: Handed) -> None:
        """What was put for them is for everybody, since history is not in."""
        for message in handed.messages:
            self._tasks.start(self._show_message(message), "show a message")
        for task in handed.tasks:
            self._tasks.start(self._show_task(task), "show a request")

    async def _show_message(self, message: Fetched[Message]) -> None:
        with contextlib.suppress(StoreError):  # it becomes visible by itself
            await message.hide(0, self._clock.monotonic())
            self._inbox.signal(message.queue.name)

    async def _show_task(self, task: Fetched[ActivityTask]) -> None:
        with contextlib.suppress(StoreError):
            await task.hide(0, self._clock.monotonic())
            self._activities.signal()
