"""Messages into queues and out of them: envelopes, large ones in blobs, texts that are none.

A text that is no envelope is looked at five times and then moved, with the reason, to the hub's poison queue; an
envelope of a kind that we do not know is handed back later and later, since another host may know it.
"""

from __future__ import annotations

import itertools
import logging

import msgspec

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.messages import ActivityTask, Message
from durable_host_providers.azure_storage.fetched import Fetched
from durable_host_providers.azure_storage.handed_back import HandedBackTable
from durable_host_providers.azure_storage.origin import Origin
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import NotFoundError, Queue, QueueMessage, StorageAccount
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.wire.envelopes import Envelope, read_envelope
from durable_host_providers.azure_storage.wire.errors import NotAnEnvelopeError, UnknownKindError, WireError
from durable_host_providers.azure_storage.wire.messages import (
    CLIENT,
    Packed,
    Stamp,
    message_of,
    pack_message,
    pack_task,
    read_blob,
    task_of,
)

__all__ = ["Mail", "back_off_s"]

logger = logging.getLogger(__name__)

_LOOKS = 5
_MAX_TEXT_BYTES = 60_000


def back_off_s(deliveries: int) -> int:
    """How long what cannot be processed yet stays away. Source: azure-storage-task-hub.md 6.8."""
    return 600 if deliveries > 9 else min(2**deliveries, 600)


class Mail:
    """Reads and writes the queues of one hub."""

    def __init__(
        self,
        account: StorageAccount,
        settings: AzureSettings,
        environment: Environment,
        blobs: PayloadBlobs,
        handed_back: HandedBackTable,
    ) -> None:
        self._account = account
        self._settings = settings
        self._layout = settings.layout
        self._clock = environment.clock
        self._ids = environment.ids
        self._blobs = blobs
        self._handed_back = handed_back
        self._numbers = itertools.count(1)

    # Writing.

    def number(self) -> int:
        """The next in the count of all that this process sends."""
        return next(self._numbers)

    async def put_message(
        self, message: Message, origin: Origin, visibility_s: int, number: int | None = None
    ) -> Fetched[Message]:
        """Put a message into its instance's control queue; large ones into a blob first."""
        queue = self._account.queue(self._layout.control_queue_for(message.target))
        stamp = self._stamp(origin, number)
        packed = pack_message(message, stamp, use_base64=self._settings.base64)
        until = self._clock.monotonic() + visibility_s
        try:
            stored = await self._put(queue, packed, visibility_s)
        except NotFoundError:
            # As the reference does it: a hub whose partition count was raised elsewhere has this queue soon.
            await queue.create()
            stored = await self._put(queue, packed, visibility_s)
        return Fetched(queue, stored, message, stamp.sequence, origin, until)

    async def put_task(
        self, task: ActivityTask, origin: Origin, visibility_s: int, number: int | None = None
    ) -> Fetched[ActivityTask]:
        """Put a request for an activity into the work-item queue."""
        queue = self._account.queue(self._layout.work_items)
        stamp = self._stamp(origin, number)
        wrapped = msgspec.structs.replace(task, input=f"[{'null' if task.input is None else task.input}]")
        packed = pack_task(wrapped, stamp, at=self._clock.now(), use_base64=self._settings.base64)
        until = self._clock.monotonic() + visibility_s
        stored = await self._put(queue, packed, visibility_s)
        return Fetched(queue, stored, task, stamp.sequence, origin, until)

    def _stamp(self, origin: Origin, number: int | None) -> Stamp:
        return Stamp(
            self._ids.new_id(), self.number() if number is None else number, origin.sender, origin.episode, origin.tags
        )

    async def _put(self, queue: Queue, packed: Packed, visibility_s: int) -> QueueMessage:
        if packed.blob_name is not None and packed.blob is not None:
            await self._blobs.write(packed.blob_name, packed.blob)
        return await queue.put(packed.text, visibility_s=visibility_s)

    # Reading.

    async def read_control(self, queue: Queue, stored: QueueMessage, until: float) -> Fetched[Message] | None:
        """The message of a control queue; None: it is none, and was put away."""
        try:
            envelope = await self._envelope(stored)
            message = message_of(envelope, queue_id=stored.id, deliveries=stored.dequeue_count)
        except WireError as error:
            await self._put_away(queue, stored, error)
            return None
        return Fetched(queue, stored, message, envelope.sequence_number, _origin(envelope), until)

    async def read_task(self, queue: Queue, stored: QueueMessage, until: float) -> Fetched[ActivityTask] | None:
        """The request of the work-item queue; None: it is none, and was put away."""
        try:
            envelope = await self._envelope(stored)
            task = _unwrapped(task_of(envelope, queue_id=stored.id))
        except WireError as error:
            await self._put_away(queue, stored, error)
            return None
        return Fetched(queue, stored, task, envelope.sequence_number, _origin(envelope), until)

    async def _envelope(self, stored: QueueMessage) -> Envelope:
        envelope = read_envelope(stored.text)
        if envelope.task_message is None and envelope.compressed_blob_name:
            data = await self._blobs.read(envelope.compressed_blob_name)
            if data is None:
                raise NotAnEnvelopeError(f"the blob {envelope.compressed_blob_name!r} of a large message is gone")
            envelope = read_blob(data)
        return envelope

    async def _put_away(self, queue: Queue, stored: QueueMessage, error: WireError) -> None:
        level = logging.WARNING if isinstance(error, UnknownKindError) else logging.ERROR
        moves = not isinstance(error, UnknownKindError) and stored.dequeue_count >= _LOOKS
        logger.log(
            level,
            "message %s of queue %s cannot be processed: %s",
            stored.id,
            queue.name,
            error,
            extra={"event": "message_moved" if moves else "message_handed_back", "queue": queue.name},
        )
        try:
            if moves:
                await self._to_poison(queue, stored, str(error))
            else:
                hidden = await queue.update(stored, visibility_s=back_off_s(stored.dequeue_count))
                if isinstance(error, UnknownKindError):
                    kind = "activity" if queue.name == self._layout.work_items else "orchestration"
                    await self._handed_back.note_message(kind, error.instance_id, error.kind, queue.name, hidden)
        except StoreError:  # it comes again when its time is over
            logger.debug("message %s could not be put away", stored.id, exc_info=True)

    async def _to_poison(self, queue: Queue, stored: QueueMessage, reason: str) -> None:
        note = {"reason": reason, "queue": queue.name, "text": stored.text}
        text = msgspec.json.encode(note).decode()
        if len(text) > _MAX_TEXT_BYTES or len(text.encode()) > _MAX_TEXT_BYTES:
            text = stored.text  # the reason is in the log
        poison = self._account.queue(self._layout.poison)
        try:
            await poison.put(text)
        except NotFoundError:
            await poison.create()
            await poison.put(text)
        await queue.remove(stored)


_elements = msgspec.json.Decoder(list[msgspec.Raw])


def _unwrapped(task: ActivityTask) -> ActivityTask:
    """The request with its bare input: between hosts it is an array of one element (azure-storage-task-hub.md 3.9)."""
    if task.input is None or not task.input.startswith("["):
        return task
    try:
        found = _elements.decode(task.input)
    except msgspec.DecodeError:
        return task
    if len(found) != 1:
        return task
    text = bytes(found[0]).decode()
    return msgspec.structs.replace(task, input=None if text == "null" else text)


def _origin(envelope: Envelope) -> Origin:
    episode = None if envelope.episode is msgspec.UNSET else envelope.episode
    return Origin(envelope.sender or CLIENT, episode)
