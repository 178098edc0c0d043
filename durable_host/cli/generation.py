"""One generation of a host under `--reload`, seen from inside: what it inherits and what it tells its supervisor.

The supervisor keeps the listening sockets open and starts a process per version of the app. A generation loads the app,
says `loaded`, and waits for `go`, which comes when the previous one has stopped; then it serves and says `ready`. One
that cannot load its app says why and ends: the previous one never stopped. When the supervisor dies, its end of the
control socket closes, and the generation stops as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

__all__ = ["GO", "LOADED", "READY", "Generation"]

LOADED, GO, READY = b"loaded\n", b"go\n", b"ready\n"


class Generation:
    """The child's side.

    Args:
        control: to the supervisor.
        sockets: that listen already; served, never closed by anyone but their owner's last process.
    """

    def __init__(self, control: socket.socket, sockets: Sequence[socket.socket]) -> None:
        self.sockets = sockets
        self._control = control
        self._control.setblocking(False)

    @classmethod
    def inherited(cls, text: str) -> Generation:
        """From the numbers of the inherited descriptors: the control socket first, `5,6,7`."""
        control, *listening = (socket.socket(fileno=int(each)) for each in text.split(","))
        return cls(control, listening)

    async def loaded(self) -> bool:
        """Say that the app is loaded and wait for the turn; False: there will be none."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._control, LOADED)
        return await loop.sock_recv(self._control, len(GO)) == GO

    def ready(self) -> None:
        """Say that requests are served."""
        self._control.send(READY)

    async def abandoned(self) -> None:
        """Wait until the supervisor is gone."""
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self._control, 16):
            pass
