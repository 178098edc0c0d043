"""Poolers of connections, such as PgBouncer, between us and the server.

Prepared statements, LISTEN and advisory locks belong to a session of the server. A pooler that keeps one for each
client as long as the client is there does no harm. One that gives it to others between two transactions loses all
three, some of them without a word, so it is recognised by what it breaks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .connection import Connection, connect, no_session
from .settings import Settings

__all__ = ["check_session"]

_HEARD_WITHIN = 3.0


async def check_session(connection: Connection, settings: Settings) -> None:
    """Prove that the connection is a session of ours, if it is not the server itself that answers.

    Raises:
        StoreMismatchError: it is not.
    """
    ((process,),) = await connection.fetch("SELECT pg_backend_pid()")
    # A pooler tells keys of its own: whom a client reaches at the moment of a cancellation, it only knows then.
    if process == connection.get_server_pid():
        return
    channel = f"durable_host_session_{process}"
    heard = asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    other = await connect(settings)
    try:
        await connection.add_listener(channel, hear)
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_WITHIN):
                await other.execute(f"NOTIFY {channel}")
                await heard.wait()
        await connection.execute(f"UNLISTEN {channel}")
    finally:
        other.terminate()
    if not heard.is_set():
        raise no_session(settings)
