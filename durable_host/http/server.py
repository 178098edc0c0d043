"""The two listeners: the public endpoint, and the local RPC endpoint for clients in other programming models.

Both read a request to its end, hand it to the site as a value and write the answer; aiohttp's low-level server does the
protocol, without its router and middlewares. The listeners live longer than a site: while there is none (the host
starts, or is being reloaded) requests wait for it up to 30 seconds and then hear 503.

What can go wrong on the wire, and what happens: a body over the limit is 413 without being read; a request cut off in
its middle runs nothing and is forgotten; what aiohttp would answer with a page of its own (a malformed request) is an
empty 400, so that the RPC endpoint never sends anything but JSON. A client that goes away interrupts no function.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from durable_host.environment import Environment, system_environment
from durable_host.errors import ConfigurationError
from durable_host.http.errors import first_form
from durable_host.http.health import alive, unready
from durable_host.http.messages import Answer, Request, empty, text_answer
from durable_host.http.protocol import LimitError, QuietServer, read_request
from durable_host.http.site import RPC_PATH, Site
from durable_host.http.trust import is_loopback
from durable_host.telemetry.metrics import Metrics

__all__ = ["DEFAULT_BODY_LIMIT", "HttpOptions", "HttpServer"]

logger = logging.getLogger(__name__)

DEFAULT_BODY_LIMIT = 104_857_600

_RPC_TRIES = 9
_BACKLOG = 128
_NOT_RUNNING = "Function host is not running."


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the listeners are set up.

    Attributes:
        host: address or name to bind; empty: every address.
        port: 0: any free one.
        enable_auth: demand keys on loopback, too.
        hostname: what callers reach this host as (`WEBSITE_HOSTNAME`), `example.org` or `localhost:8080`; empty: as
            bound.
        body_limit: most bytes of a request's body on the public endpoint (`FUNCTIONS_REQUEST_BODY_SIZE_LIMIT`).
        rpc: whether to open the RPC endpoint.
        rpc_port: its first choice; 0: any free one.
        ready_wait: how long a request waits for a host that starts.
        grace: how long a stop waits for requests that run.
    """

    host: str = "127.0.0.1"
    port: int = 7071
    enable_auth: bool = False
    hostname: str = ""
    body_limit: int = DEFAULT_BODY_LIMIT
    rpc: bool = True
    rpc_port: int = 17071
    ready_wait: timedelta = timedelta(seconds=30)
    grace: timedelta = timedelta(seconds=10)


class HttpServer:
    """Listens while its context is entered; `attach` puts a site behind it.

    Entering binds the sockets, so that addresses are known before the app is loaded: `origin` and `rpc_base`.

    Args:
        sockets: bound already and kept open by somebody else, for the public endpoint; by default it binds its own.
    """

    def __init__(
        self,
        options: HttpOptions,
        environment: Environment | None = None,
        metrics: Metrics | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self._given = list(sockets)
        self.options = options
        self._environment = environment or system_environment()
        self._metrics = metrics
        self._site: Site | None = None
        self._attached = asyncio.Event()
        self._stopping = False
        self._runners: list[web.ServerRunner] = []
        self._sockets: list[socket.socket] = []
        self._port = options.port
        self._rpc_port: int | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = 0

    # What is known once it is entered.

    @property
    def port(self) -> int:
        """The public port."""
        return self._port

    @property
    def origin(self) -> str:
        """Scheme and authority on this machine: `http://localhost:7071` where that reaches this host."""
        host = self.options.host
        return f"http://{'localhost' if host in _ANY or is_loopback(host) else _bracketed(host)}:{self._port}"

    @property
    def public_origin(self) -> str:
        """Scheme and authority for generated addresses; another host name than localhost is reached by https."""
        name = self.options.hostname
        if not name:
            return self.origin
        return f"{'http' if name.lower().startswith('localhost:') else 'https'}://{name}"

    @property
    def rpc_base(self) -> str | None:
        """Address of the RPC endpoint with the slash at its end; None: there is none."""
        return None if self._rpc_port is None else f"http://127.0.0.1:{self._rpc_port}{RPC_PATH}/"

    @property
    def demands_keys(self) -> bool:
        """Whether callers need keys: told so, or not bound to loopback."""
        return self.options.enable_auth or not all(is_loopback(str(one.getsockname()[0])) for one in self._sockets)

    @property
    def running(self) -> int:
        """Requests being answered now."""
        return self._running

    # The site.

    def attach(self, site: Site) -> None:
        """Serve this site from now on; requests that wait go on."""
        self._site = site
        self._attached.set()

    def detach(self) -> None:
        """Serve nothing: requests wait for the next site. Those that run already keep the old one."""
        self._site = None
        self._attached.clear()

    async def idle(self, timeout: timedelta) -> bool:
        """Wait until no request runs; False when time is up."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # Life cycle.

    async def __aenter__(self) -> Self:
        try:
            await self._listen_publicly()
            if self.options.rpc:
                await self._listen_locally()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop accepting, finish what runs within the grace period, close."""
        self._stopping = True
        self._attached.set()  # whoever waits for a site hears 503 now
        await self._close()

    async def _close(self) -> None:
        runners, self._runners = self._runners, []
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        for one in self._sockets:
            one.close()

    async def _listen_publicly(self) -> None:
        options = self.options
        host = options.host
        try:
            self._sockets = self._given or _bind(host, options.port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"Port {options.port} is unavailable. Close the process using that port, or specify another port "
                    "using --port [-p]."
                ) from error
            raise ConfigurationError(
                f"Cannot listen on {host or 'any address'}, port {options.port}: {error.strerror or error}. "
                "Stop whatever uses the port, or choose another one with --port."
            ) from error
        self._port = int(self._sockets[0].getsockname()[1])
        await self._serve(self._sockets, self._answer_publicly, options.body_limit)

    async def _listen_locally(self) -> None:
        ports = [self.options.rpc_port]
        if self.options.rpc_port:
            ports += [30_000 + int(self._environment.ids.uniform() * 1_001) for _ in range(_RPC_TRIES)]
        for port in ports:
            try:
                found = _bind("127.0.0.1", port)
            except OSError:
                continue
            self._rpc_port = int(found[0].getsockname()[1])
            self._sockets += found
            await self._serve(found, self._answer_locally, None)
            return
        logger.warning(
            "no port is free for the local RPC endpoint; clients of other programming models will not work",
            extra={"event": "rpc_unavailable", "ports": ports},
        )

    async def _serve(
        self, sockets: list[socket.socket], answer: Callable[[Request], Awaitable[Answer]], limit: int | None
    ) -> None:
        port = int(sockets[0].getsockname()[1])

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._handle(request, answer, limit, port)

        runner = web.ServerRunner(QuietServer(handle), shutdown_timeout=self.options.grace.total_seconds())
        await runner.setup()
        self._runners.append(runner)
        for one in sockets:
            await web.SockSite(runner, one).start()

    # One request.

    async def _handle(
        self,
        incoming: web.BaseRequest,
        answer: Callable[[Request], Awaitable[Answer]],
        limit: int | None,
        port: int,
    ) -> web.StreamResponse:
        self._running += 1
        self._idle.clear()
        try:
            try:
                request = await read_request(incoming, limit, port)
            except LimitError:
                return _last_response(413)
            except ConnectionError:
                # The client went away in the middle of its body, or sent what is no body: its affair, not the log's.
                return _last_response(400)
            if self._metrics is None:
                return _response(await answer(request))
            began = self._environment.clock.monotonic()
            outcome = await answer(request)
            self._metrics.observe("http_request_seconds", self._environment.clock.monotonic() - began)
            self._metrics.count("http_requests_total", 1, status=str(outcome.status))
            return _response(outcome)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _answer_publicly(self, request: Request) -> Answer:
        site = self._site
        if site is None:
            match request.path.rstrip("/").lower():
                case "/health/live":
                    return alive()
                case "/health/ready":
                    return unready("The host is stopping." if self._stopping else "The host is starting.")
                case "/admin/host/ping":
                    return empty(200)
                case _:
                    site = await self._next_site()
        return text_answer(503, _NOT_RUNNING) if site is None else await site.public(request)

    async def _answer_locally(self, request: Request) -> Answer:
        site = self._site or await self._next_site()
        return first_form(503, _NOT_RUNNING) if site is None else await site.local(request)

    async def _next_site(self) -> Site | None:
        if not self._stopping:
            try:
                async with asyncio.timeout(self.options.ready_wait.total_seconds()):
                    await self._attached.wait()
            except TimeoutError:
                return None
        return self._site


_ANY = frozenset({"", "0.0.0.0", "::"})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets: one for each address of the name, all with the same port."""
    if host in {"", "*"}:
        addresses = [(socket.AF_INET, "0.0.0.0")]
    else:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
    bound: list[socket.socket] = []
    try:
        for family, address in addresses:
            one = socket.socket(family, socket.SOCK_STREAM)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address, port))
            except OSError:
                # A machine without IPv6 still resolves `localhost` to ::1.
                if len(addresses) > 1 and ipaddress.ip_address(address).version == 6 and len(bound) > 1:
                    bound.pop().close()
                    continue
                raise
            one.setblocking(False)
            one.listen(_BACKLOG)  # only listening claims the port for good: two sockets may be bound to one
            port = port or int(one.getsockname()[1])
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def _last_response(status: int) -> web.Response:
    """An empty answer, after which the connection is closed: nobody knows where the next request would begin."""
    response = _response(empty(status))
    response.force_close()
    return response


def _response(answer: Answer) -> web.Response:
    headers = CIMultiDict(answer.headers)
    headers["Server"] = "durable_host"
    return web.Response(status=answer.status, body=answer.body, headers=headers)
