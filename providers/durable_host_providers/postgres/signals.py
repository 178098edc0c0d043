"""What store objects on one hub tell each other, through LISTEN and NOTIFY.

A committing transaction sends nothing: a NOTIFY takes a lock that all transactions of the server share, and at one's
own steps nobody else has anything to do. What others may want to know is collected for some milliseconds and sent in
a transaction of its own that waits for no disk. Should it get lost, those who wait look by themselves, more slowly.

A note is JSON: `o` who sends it (0: a caller's transaction), `i`, `a` instances, activities are eligible, `r` rows of
locked instances that have got a message, `c` instances that have changed, `*` anything may have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import msgspec

from durable_host.errors import StoreError

from .connection import Connection, connect
from .schema import PRESENCE
from .settings import Settings

__all__ = ["Note", "Signals", "channel"]

logger = logging.getLogger(__name__)

_PAUSE = 0.005
"""Seconds for which notes are collected."""

_LATER = 0.05
"""The same for those that nobody is in a hurry to know."""

_HEARD_BY = 0.3
"""Seconds after which everybody has heard of us."""

_ROOM = 6_000
"""Bytes of ids in a note; a payload takes less than 8,000."""

_RECONNECT = (0.1, 1.0)
_COUNT_EVERY = 30.0


class Note(msgspec.Struct, omit_defaults=True):
    """A note."""

    o: int = 0
    i: bool = False
    a: bool = False
    r: list[int] = msgspec.field(default_factory=list[int])
    c: list[str] = msgspec.field(default_factory=list[str])
    all: bool = msgspec.field(default=False, name="*")
    hello: bool = False


def channel(hub: int) -> str:
    """The channel of a hub; hubs of other schemas may share it, which does no harm."""
    return f"durable_host_{hub}"


class Signals:
    """Listens on a connection of its own, and sends.

    Args:
        send: sends a note.
        heard: takes a note of somebody else.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        send: Callable[[str], Awaitable[object]],
        heard: Callable[[Note], None],
    ) -> None:
        self._settings = settings
        self._send = send
        self._heard = heard
        self._owner = 0
        self._hub = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._ids: dict[str, None] = {}
        self._refs: dict[int, None] = {}
        self._instances = self._activities = self._hello = False
        self._bytes = 0
        self._urgent = asyncio.Event()
        self.is_listening = False
        self.has_peers = True
        """Whether anybody else listens, as far as is known."""

    def start(self, hub: int, owner: int) -> None:
        """Be ready to send."""
        self._hub, self._owner = hub, owner
        self._loop = asyncio.get_running_loop()

    @property
    def is_heard(self) -> bool:
        """Whether anybody would hear what is told, as far as is known."""
        return self._loop is not None and self.has_peers

    def listen(self) -> None:
        """Begin to listen."""
        if self._task is None and self._loop is not None:
            self._task = self._loop.create_task(self._listen(), name="durable-host-postgres-listener")

    async def stop(self) -> None:
        """End; what was collected is sent first."""
        self._urgent.set()
        if self._sending is not None:
            with suppress(asyncio.CancelledError):
                await self._sending
        task, self._task = self._task, None
        self._loop = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Sending.

    def tell(
        self,
        *,
        instances: bool = False,
        activities: bool = False,
        refs: Iterable[int] = (),
        changed: Iterable[str] = (),
        hello: bool = False,
        later: bool = False,
    ) -> None:
        """Let the others know, soon; `later`: nobody is in a hurry to know this."""
        if self._loop is None or not (self.has_peers or hello):
            return
        self._instances = self._instances or instances
        self._activities = self._activities or activities
        self._hello = self._hello or hello
        self._refs.update(dict.fromkeys(refs))
        for each in changed:
            if each not in self._ids:
                self._ids[each] = None
                self._bytes += 4 * len(each) + 3
        if not (self._instances or self._activities or self._hello or self._refs or self._ids):
            return
        if self._instances or self._activities or self._hello or self._refs or not later:
            self._urgent.set()
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_soon(), name="durable-host-postgres-notes")

    async def _send_soon(self) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LATER):
                    await self._urgent.wait()
            await asyncio.sleep(_PAUSE)
            self._urgent.clear()
            await self._send(self._note())
        except StoreError as error:
            logger.debug("a note could not be sent; the others will look by themselves: %s", error)
        finally:
            self._sending = None
            if self._ids or self._refs or self._instances or self._activities:
                self.tell()

    def _note(self) -> str:
        note = Note(self._owner, self._instances, self._activities, hello=self._hello)
        if self._bytes + 20 * len(self._refs) > _ROOM:
            note.all = True
        else:
            note.r, note.c = list(self._refs), list(self._ids)
        self._instances = self._activities = self._hello = False
        self._refs, self._ids, self._bytes = {}, {}, 0
        return _encode(note).decode()

    # Listening.

    async def _listen(self) -> None:
        pause = _RECONNECT[0]
        while True:
            try:
                connection = await connect(self._settings)
            except StoreError as error:
                logger.debug("listening is not possible now: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT[1])
                continue
            try:
                await self._listen_on(connection)
            except Exception as error:
                logger.debug("the listening connection was lost: %s", error)
            finally:
                self.is_listening = False
                connection.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT[1])

    async def _listen_on(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        def close(_: object) -> None:
            if not closed.done():
                closed.set_result(None)

        connection.add_termination_listener(close)
        await connection.fetch("SELECT pg_advisory_lock_shared($1, $2)", PRESENCE, self._hub)
        await connection.add_listener(channel(self._hub), self._received)
        self.is_listening = True
        self._heard(Note(all=True, i=True, a=True))  # whatever was said meanwhile
        self.tell(hello=True)
        # Those who had no peers tell us nothing until they have heard this.
        loop.call_later(_HEARD_BY, self._heard, Note(all=True, i=True, a=True))
        while not closed.done():
            others = await connection.fetch(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid "
                "AND objid = $2::bigint::oid AND objsubid = 2 AND pid <> pg_backend_pid() "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                PRESENCE,
                self._hub,
            )
            self.has_peers = bool(others[0][0])
            await asyncio.wait([closed], timeout=_COUNT_EVERY)

    def _received(self, connection: object, pid: int, channel: str, payload: str) -> None:
        try:
            note = _decode(payload)
        except msgspec.MsgspecError:
            note = Note(all=True, i=True, a=True)  # of a newer durable-host, or of somebody else
        if note.o != self._owner:
            self.has_peers = self.has_peers or note.o != 0
            self._heard(note)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Note).decode
