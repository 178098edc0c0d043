"""`durable-host start --reload`: a supervisor that keeps the port open and replaces the host when the app changes.

Each version of the app runs in a process of its own (see `generation`), because Python cannot unload modules. A version
that cannot be loaded is reported and never takes over. Requests that arrive while one generation hands over to the next
wait in the listening socket. Instances are in the task hub, so they go on where they were.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
from pathlib import Path

from durable_host.cli.console import complain
from durable_host.cli.context import AppContext, load_context
from durable_host.cli.generation import GO, LOADED, READY
from durable_host.cli.start import address_of
from durable_host.cli.watching import Snapshot, changes, snapshot
from durable_host.errors import ConfigurationError

__all__ = ["listening_sockets", "supervise"]

_REVIVE_AFTER = 1.0
_MOST_DEATHS = 3
_DEATHS_WITHIN = 1800.0
_LOOK_EVERY = 0.3
_SETTLE = 0.3
_STOP_LIMIT = 20.0


def supervise(arguments: argparse.Namespace) -> int:
    """Run generation after generation until a signal."""
    # A copy of the environment: values of local.settings.json must reach each generation from the file, not from here.
    context = load_context(arguments, environ=dict(os.environ))
    address, port = address_of(arguments, context)
    sockets = listening_sockets(address, port)
    try:
        return asyncio.run(_Supervisor(arguments, context, sockets).run())
    finally:
        for each in sockets:
            each.close()


def listening_sockets(address: str, port: int) -> list[socket.socket]:
    """One socket that listens; `[]` where descriptors cannot be inherited (each generation binds by itself then).

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    if os.name == "nt":
        return []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((address, port))
        found.listen(128)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {port} is unavailable. Close the process using that port, or specify another port using "
                "--port [-p]."
            ) from None
        raise ConfigurationError(f"Cannot listen on {address}, port {port}: {error.strerror}.") from None
    return [found]


class _Child:
    """A generation, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self._control = control
        self._heard = b""

    async def hears(self, word: bytes) -> bool:
        """Wait until the generation says a word; False: it ended first."""
        loop = asyncio.get_running_loop()
        while word not in self._heard:
            try:
                more = await loop.sock_recv(self._control, 64)
            except OSError:
                more = b""
            if not more:
                return False
            self._heard += more
        return True

    async def go(self) -> None:
        """It is this generation's turn."""
        await asyncio.get_running_loop().sock_sendall(self._control, GO)

    async def stop(self) -> int:
        """End it: with SIGTERM, and when it takes too long at once."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(_STOP_LIMIT):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        code = await self.process.wait()
        self._control.close()
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()
        self._control.close()


class _Supervisor:
    def __init__(self, arguments: argparse.Namespace, context: AppContext, sockets: list[socket.socket]) -> None:
        self._arguments = arguments
        self._context = context
        self._sockets = sockets
        self._stop = asyncio.Event()
        self._running: _Child | None = None
        self._coming: _Child | None = None
        self._signals = 0
        self._deaths: list[float] = []

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._signalled)
        seen = self._snapshot()
        if not await self._replace():
            return 0 if self._stop.is_set() else 1
        while not self._stop.is_set():
            ended = self._running is not None and self._running.process.returncode is not None
            if ended:
                assert self._running is not None
                code = self._running.process.returncode
                await self._running.stop()
                self._running = None
                if not await self._revive(code):
                    return 1
                continue
            await self._pause(_LOOK_EVERY)
            now = await self._settled(seen)
            if now is None or self._stop.is_set():
                continue
            for kind, path in changes(seen, now):
                _say(f"File change of type '{kind}' detected for '{_relative(path, self._context.folder)}'")
            _say("Host configuration has changed. Signaling restart")
            seen = now
            if not await self._replace() and not self._stop.is_set():
                kept = "the previous version goes on" if self._running is not None else "waiting for a change"
                complain(f"The new version of the app did not start; {kept}.", warning=True)
        if self._running is not None:
            return max(0, await self._running.stop())
        return 0

    async def _revive(self, code: int | None) -> bool:
        """Start a host again that ended by itself; False: it does so again and again.

        Requests wait in the listening socket meanwhile. Source: functions-host.md 9.2, with a shorter pause.
        """
        now = asyncio.get_running_loop().time()
        self._deaths = [each for each in self._deaths if each > now - _DEATHS_WITHIN] + [now]
        if len(self._deaths) >= _MOST_DEATHS:
            complain(f"The host ended with {code}, {_MOST_DEATHS} times within 30 minutes. Shutting down.")
            return False
        complain(f"The host ended with {code}; it is started again.", warning=True)
        await self._pause(_REVIVE_AFTER)
        if not self._stop.is_set() and not await self._replace() and not self._stop.is_set():
            complain("The app did not start; waiting for a change.", warning=True)
        return True

    async def _replace(self) -> bool:
        """Load the present version and put it in the place of the running one; False: it cannot be loaded."""
        coming = self._coming = await self._spawn()
        stopping = asyncio.ensure_future(self._stop.wait())
        hearing = asyncio.ensure_future(coming.hears(LOADED))
        try:
            await asyncio.wait({stopping, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done() or not hearing.result():
                await coming.stop()
                return False
        finally:
            self._coming = None
            for each in (stopping, hearing):
                each.cancel()
            await asyncio.gather(stopping, hearing, return_exceptions=True)
        if self._running is not None:
            await self._running.stop()
        self._running = coming
        await coming.go()
        if not await coming.hears(READY):
            await coming.stop()
            self._running = None
            return False
        return True

    async def _spawn(self) -> _Child:
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        descriptors = [theirs.fileno(), *(each.fileno() for each in self._sockets)]
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "durable_host",
                *self._command(),
                "--reload-child",
                ",".join(map(str, descriptors)),
                pass_fds=descriptors,
                # A group of its own: Ctrl-C in a terminal comes to the supervisor, which decides what to do.
                process_group=0,
            )
        return _Child(process, mine)

    def _command(self) -> list[str]:
        given = self._arguments
        port = self._sockets[0].getsockname()[1] if self._sockets else given.port
        command = ["start", "--app", str(self._context.folder), "--reload"]
        for name, value in (
            ("--port", port),
            ("--host", given.host),
            ("--storage", given.storage),
            ("--user-log-level", given.user_log_level),
        ):
            if value is not None:
                command += [name, str(value)]
        for name in ("json", "debug", "verbose", "enable_auth"):
            if getattr(given, name):
                command.append(f"--{name.replace('_', '-')}")
        if given.functions:
            command += ["--functions", *given.functions]
        return command

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for each in (self._running, self._coming):
                if each is not None:
                    each.kill()
            os._exit(130)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _settled(self, seen: Snapshot) -> Snapshot | None:
        """The files as they stand once they have stopped changing; None: nothing has changed."""
        now = self._snapshot()
        if now == seen:
            return None
        while not self._stop.is_set():
            await self._pause(_SETTLE)
            later = self._snapshot()
            if later == now:
                break
            now = later
        return None if now == seen else now

    def _snapshot(self) -> Snapshot:
        host_json = self._context.host_json
        return snapshot(
            self._context.folder,
            host_json=host_json.path,
            files=host_json.watch_files,
            directories=host_json.watch_directories,
        )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _relative(path: str, folder: Path) -> str:
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path
