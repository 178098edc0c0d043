"""Hosts on a hub on Azurite, looks into its queues and tables, and a wire in between that can be cut."""

from __future__ import annotations

import asyncio
import random
import re
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from durable_host.environment import Environment
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ports import MAX_GET, NotFoundError, StorageAccount
from durable_host_providers.azure_storage.rest import RestAccount
from tests.hosting import HostProcess
from tests.live.several_hosts import SeveralHosts
from tests.servers.azurite import Azurite

__all__ = ["VISIBILITY_SECONDS", "AzureHosts", "Shuffler", "Wire", "override"]

VISIBILITY_SECONDS = 60
"""The shortest that host.json takes."""

T = TypeVar("T")


def override(setting: str) -> str:
    """The environment variable that overrides a setting of `durableTask`."""
    return f"AzureFunctionsJobHost__extensions__durableTask__{setting}"


class AzureHosts(SeveralHosts):
    """Hosts on one hub of their own; see `SeveralHosts`.

    Args:
        connection: how the hosts reach the server, if not directly.
        more: further settings.
    """

    def __init__(self, folder: Path, server: Azurite, *, connection: str | None = None, **more: str) -> None:
        self.hub = server.new_name()
        self.layout = Layout(self.hub)
        self.server = server
        settings = {
            "AzureWebJobsStorage": connection or server.connection_string,
            override("hubName"): self.hub,
            override("storageProvider__controlQueueVisibilityTimeout"): "00:01:00",
            override("storageProvider__workItemQueueVisibilityTimeout"): "00:01:00",
            override("storageProvider__maxQueuePollingInterval"): "00:00:01",
            **more,
        }
        super().__init__(folder, "azureStorage", settings=settings)
        self.settings = self._settings

    def start_of(self, app: str) -> HostProcess:
        """Start a host of an app with that name."""
        self.settings["WEBSITE_SITE_NAME"] = app
        return self.start()[0]

    def ask(self, question: Callable[[StorageAccount], Awaitable[T]]) -> T:
        """What the account answers."""

        async def run() -> T:
            async with RestAccount(parse_connection_string(self.server.connection_string), Environment()) as account:
                return await question(account)

        return asyncio.run(run())

    def owners(self) -> Counter[str]:
        """How many partitions each host fetches from, by worker id."""

        async def question(account: StorageAccount) -> Counter[str]:
            rows = (await account.table(f"{self.hub}Partitions").query()).rows
            return Counter(str(owner) for row in rows if (owner := row.values.get("CurrentOwner")))

        return self.ask(question)

    def count(self, queue: str) -> int | None:
        """How many messages a queue has, hidden ones too; None: there is no such queue."""

        async def question(account: StorageAccount) -> int | None:
            with suppress(NotFoundError):
                return await account.queue(queue).count()
            return None

        return self.ask(question)

    def peek(self, queue: str) -> list[str]:
        """The texts that a queue shows."""

        async def question(account: StorageAccount) -> list[str]:
            return [message.text for message in await account.queue(queue).peek(MAX_GET)]

        return self.ask(question)

    def put(self, queue: str, text: str) -> None:
        """Append a text to a queue."""

        async def question(account: StorageAccount) -> None:
            await account.queue(queue).put(text)

        self.ask(question)


class Shuffler:
    """Takes messages out of a hub's queues and puts each back twice, sooner or later; entered: it does.

    Attributes:
        doubled: how many messages it has put a second time.
    """

    def __init__(self, hosts: AzureHosts, seed: int) -> None:
        self._hosts = hosts
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: hosts.ask(self._run))
        self.doubled: Counter[str] = Counter()

    def __enter__(self) -> Shuffler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self, account: StorageAccount) -> None:
        layout = self._hosts.layout
        queues = [account.queue(name) for name in (*layout.control_queues, layout.work_items)]
        seen: set[str] = set()
        while not self._stop.is_set():
            for queue in queues:
                messages = list(await queue.get(8, visibility_s=30))
                self._random.shuffle(messages)
                for message in messages:
                    with suppress(NotFoundError):
                        if message.text in seen:
                            await queue.update(message, visibility_s=0)
                            continue
                        seen.add(message.text)
                        await queue.put(message.text, visibility_s=self._random.randrange(3))
                        self.doubled[queue.name] += 1
                        await queue.update(message, visibility_s=self._random.randrange(3))
            await asyncio.sleep(0.02)


class Wire:
    """A way to Azurite on ports of its own that can be cut; entered: open.

    Attributes:
        connection: connection string that leads over it.
    """

    def __init__(self, server: Azurite) -> None:
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._targets: dict[socket.socket, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._broken = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._sockets = ExitStack()
        self.connection = server.connection_string
        self.cuts = 0

    def __enter__(self) -> Wire:
        for url in self._server.urls.values():
            found = re.match(r"http://([\d.]+):(\d+)/", url)
            assert found is not None
            listener = self._sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.setblocking(False)
            self._targets[listener] = (found[1], int(found[2]))
            self._selector.register(listener, selectors.EVENT_READ)
            self.connection = self.connection.replace(f":{found[2]}/", f":{listener.getsockname()[1]}/")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self.cut()
        self._sockets.close()
        self._selector.close()

    def cut(self) -> None:
        """Break all connections in the middle of whatever is on them; new ones are served."""
        with self._lock:
            self.cuts += len(self._peers) // 2
            for each in list(self._peers):
                self._close(each)

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock in self._targets:
                        self._accept(sock)
                    elif sock in self._peers:
                        self._forward(sock)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            near, _ = listener.accept()
            try:
                far = socket.create_connection(self._targets[listener], timeout=5)
            except OSError:
                near.close()
                return
            self._peers[near], self._peers[far] = far, near
            for each in (near, far):
                each.settimeout(5)
                self._selector.register(each, selectors.EVENT_READ)

    def _forward(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65_536)
            if data:
                self._peers[sock].sendall(data)
                return
        except OSError:
            pass
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        peer = self._peers.pop(sock, None)
        if peer is None:
            return
        self._peers.pop(peer, None)
        for each in (sock, peer):
            self._selector.unregister(each)
            # Abortively, as a cut cable shows itself at last.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()
