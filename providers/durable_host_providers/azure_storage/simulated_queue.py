"""A storage queue in memory: at least once, in no promised order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from durable_host_providers.azure_storage.ports import (
    MAX_GET,
    MAX_VISIBILITY_S,
    NotFoundError,
    QueueMessage,
    RequestRefusedError,
)

if TYPE_CHECKING:  # in types only: the service holds queues
    from durable_host_providers.azure_storage.simulated import SimulatedCaller, SimulatedService

__all__ = ["MAX_TEXT_BYTES", "QueueState", "SimulatedQueue", "StoredMessage"]

MAX_TEXT_BYTES = 65_536
"""Longest text of a message, in UTF-8 bytes."""


@dataclass(slots=True)
class StoredMessage:
    """What the service keeps of a message."""

    id: str
    text: str
    receipt: str
    count: int
    inserted_at: datetime
    visible_at: datetime

    def shown(self, *, receipt: str | None = None) -> QueueMessage:
        return QueueMessage(
            self.id,
            self.text,
            self.receipt if receipt is None else receipt,
            self.count,
            self.inserted_at,
            self.visible_at,
        )


class QueueState:
    """One queue as the service keeps it; survives every crash. Times are the service's."""

    def __init__(self, service: SimulatedService) -> None:
        self._service = service
        self.messages: dict[str, StoredMessage] = {}

    def put(self, text: str, visibility_s: int) -> QueueMessage:
        _check_visibility(visibility_s)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
            raise RequestRefusedError("the message is too large", status=413, code="RequestBodyTooLarge")
        now = self._service.now()
        message = StoredMessage(
            f"message-{self._service.number():09}",
            text,
            self._receipt(),
            0,
            now.replace(microsecond=0),
            now + timedelta(seconds=visibility_s),
        )
        self.messages[message.id] = message
        self._service.notify()
        return message.shown()

    def get(self, limit: int, visibility_s: int) -> list[QueueMessage]:
        _check_visibility(visibility_s)
        found: list[QueueMessage] = []
        for message in self._visible(limit):
            message.count += 1
            message.receipt = self._receipt()
            if not self._service.delivers_twice():
                message.visible_at = self._service.now() + timedelta(seconds=visibility_s)
            found.append(message.shown())
        return found

    def peek(self, limit: int) -> list[QueueMessage]:
        return [message.shown(receipt="") for message in self._visible(limit)]

    def update(self, message: QueueMessage, visibility_s: int, text: str | None) -> QueueMessage:
        _check_visibility(visibility_s)
        stored = self._require(message)
        stored.visible_at = self._service.now() + timedelta(seconds=visibility_s)
        stored.receipt = self._receipt()
        if text is not None:
            stored.text = text
        self._service.notify()
        return stored.shown()

    def remove(self, message: QueueMessage) -> None:
        del self.messages[self._require(message).id]

    def next_visible_at(self) -> datetime | None:
        """When the next message becomes, or became, visible."""
        return min((each.visible_at for each in self.messages.values()), default=None)

    def _visible(self, limit: int) -> list[StoredMessage]:
        if not 1 <= limit <= MAX_GET:
            raise RequestRefusedError(
                f"{limit} messages were asked for", status=400, code="OutOfRangeQueryParameterValue"
            )
        now = self._service.now()
        visible = [each for each in self.messages.values() if each.visible_at <= now]
        visible.sort(key=lambda each: each.visible_at)
        self._service.shuffle(visible)
        return visible[:limit]

    def _require(self, message: QueueMessage) -> StoredMessage:
        stored = self.messages.get(message.id)
        if stored is None:
            raise NotFoundError(f"message {message.id} is gone", code="MessageNotFound")
        if stored.receipt != message.pop_receipt:
            raise NotFoundError(f"message {message.id} was changed since", status=400, code="PopReceiptMismatch")
        return stored

    def _receipt(self) -> str:
        return f"receipt-{self._service.number()}"


class SimulatedQueue:
    """A process's way to a queue."""

    def __init__(self, caller: SimulatedCaller, name: str) -> None:
        self._caller = caller
        self._queues = caller.service.queues
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        async with self._caller.request("queue.create"):
            created = self._name not in self._queues
            if created:
                self._queues[self._name] = QueueState(self._caller.service)
        return created

    async def delete(self) -> bool:
        async with self._caller.request("queue.delete"):
            return self._queues.pop(self._name, None) is not None

    async def put(self, text: str, *, visibility_s: int = 0) -> QueueMessage:
        async with self._caller.request("queue.put"):
            return self._state().put(text, visibility_s)

    async def get(self, limit: int, *, visibility_s: int) -> list[QueueMessage]:
        async with self._caller.request("queue.get") as request:
            messages = self._state().get(limit, visibility_s)
            request.effect = bool(messages)
        return messages

    async def peek(self, limit: int) -> list[QueueMessage]:
        async with self._caller.request("queue.peek"):
            return self._state().peek(limit)

    async def update(self, message: QueueMessage, *, visibility_s: int, text: str | None = None) -> QueueMessage:
        async with self._caller.request("queue.update"):
            return self._state().update(message, visibility_s, text)

    async def remove(self, message: QueueMessage) -> None:
        async with self._caller.request("queue.remove"):
            self._state().remove(message)

    async def count(self) -> int:
        async with self._caller.request("queue.count"):
            return len(self._state().messages)

    def _state(self) -> QueueState:
        try:
            return self._queues[self._name]
        except KeyError:
            raise NotFoundError(f"there is no queue {self._name!r}", code="QueueNotFound") from None


def _check_visibility(seconds: int) -> None:
    if not 0 <= seconds <= MAX_VISIBILITY_S:
        raise RequestRefusedError(
            f"a visibility of {seconds} s is out of range", status=400, code="OutOfRangeQueryParameterValue"
        )
