"""Everything a host answers, behind one door that knows no web framework: `Site.public` and `Site.local`.

Order of the public endpoint: host routes before function routes (functions-host.md 3.1) — management API, OpenAPI
document, admin, health, homepage — then the functions, then 404 with an empty body.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.routes import Match, RouteTable
from durable_host.bindings.urls import WEBHOOK_PATH
from durable_host.http.admin import AdminApi
from durable_host.http.errors import answer_of
from durable_host.http.health import Health
from durable_host.http.keys import SYSTEM_KEY, KeyRing, Level
from durable_host.http.management import ManagementApi
from durable_host.http.messages import NOT_FOUND, Answer, Request, empty, text_answer
from durable_host.http.openapi import document_answer
from durable_host.http.routing import below
from durable_host.http.throttle import Throttle
from durable_host.http.trust import names_loopback

__all__ = ["OPENAPI_PATH", "RPC_PATH", "Site"]

logger = logging.getLogger(__name__)

RPC_PATH = "/durabletask"
OPENAPI_PATH = "/runtime/openapi.json"

_UNAUTHORIZED = empty(401)
_FORBIDDEN = empty(403)
_TOO_MANY = Answer(429, headers=(("X-FUNCTION-SCALEOUT", "1"),))
_FAILED = empty(500)

_HOMEPAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>durable_host</title></head>
<body><h1>Your durable functions host is up and running</h1>
<p><a href="/runtime/openapi.json">API description</a> · <a href="/admin/functions">functions</a> ·
<a href="/health/ready">health</a></p></body></html>
"""


@dataclass(slots=True)
class Site:
    """What stands behind the listeners.

    Attributes:
        demands_keys: keys are asked for: the host is not bound to loopback, or was told to.
        homepage: False: `GET /` is 204, or a function's.
        custom_headers: added to every public answer that lacks them.
    """

    api: ManagementApi
    routes: RouteTable
    keys: KeyRing
    admin: AdminApi
    health: Health
    demands_keys: bool
    homepage: bool = True
    throttle: Throttle = field(default_factory=Throttle)
    custom_headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def public(self, request: Request) -> Answer:
        """Answer a request to the public endpoint; never raises."""
        try:
            answer = await self._public(request)
        except Exception as error:
            answer = answer_of(error)
        if self.custom_headers:
            present = {name.lower() for name, _ in answer.headers}
            extra = [(name, value) for name, value in self.custom_headers.items() if name.lower() not in present]
            answer = Answer(answer.status, answer.body, (*answer.headers, *extra))
        return answer

    async def local(self, request: Request) -> Answer:
        """Answer a request to the RPC endpoint: no key, but no other site's name either. Never raises."""
        if not names_loopback(request.headers):
            return _FORBIDDEN
        rest = below(request.path, RPC_PATH)
        return NOT_FOUND if rest is None else await self.api.handle(request, rest, local=True)

    async def _public(self, request: Request) -> Answer:
        path = request.path
        # One look at the start of the path: most requests are for functions and for the management API.
        match path[1:8].lower():
            case "runtime":
                return await self._runtime(request)
            case "admin" | "admin/f" | "admin/h":
                return await self._admin(request)
            case "health/" if (probe := await self.health.handle(request)) is not NOT_FOUND:
                return probe
            case "" if path in {"", "/"}:
                return await self._home(request)
            case _:
                found = self.routes.match(request.method, path)
                return NOT_FOUND if found is None else await self._function(request, found)

    async def _runtime(self, request: Request) -> Answer:
        rest = below(request.path, WEBHOOK_PATH)
        if rest is not None:
            if not self._trusted(request):
                level = await self.keys.level(_presented(request), system=SYSTEM_KEY)
                if level not in (Level.SYSTEM, Level.ADMIN):
                    return _UNAUTHORIZED
            return await self.api.handle(request, rest)
        if request.path.lower() == OPENAPI_PATH and request.method in {"GET", "HEAD"}:
            if not await self._is_admin(request):
                return _UNAUTHORIZED
            return document_answer(self.routes, f"{request.scheme}://{request.host}", self.demands_keys)
        return NOT_FOUND

    async def _admin(self, request: Request) -> Answer:
        open_to_all = request.path.rstrip("/").lower() == "/admin/host/ping"
        if not open_to_all and not await self._is_admin(request):
            return _UNAUTHORIZED
        return await self.admin.handle(request)

    async def _home(self, request: Request) -> Answer:
        if self.homepage:
            if request.method in {"GET", "HEAD"}:
                return text_answer(200, _HOMEPAGE, "text/html; charset=utf-8")
            return NOT_FOUND
        found = self.routes.match(request.method, "/")
        return empty(204) if found is None else await self._function(request, found)

    async def _function(self, request: Request, found: Match) -> Answer:
        route = found.route
        # Without a key an anonymous function needs no look-up at all.
        if route.disabled or (route.auth_level is not AuthLevel.ANONYMOUS and not self._trusted(request)):
            level = (
                Level.ADMIN if self._trusted(request) else await self.keys.level(_presented(request), route.function)
            )
            if route.disabled and level is not Level.ADMIN:
                return NOT_FOUND
            if not _suffices(level, route.auth_level):
                return _UNAUTHORIZED
        if not self.throttle.admit():
            return _TOO_MANY
        async with self.throttle:
            taken = HttpRequest.received(
                request.method,
                f"{request.scheme}://{request.host}{request.target}",
                request.headers.items(),
                request.body,
                found.params,
            )
            try:
                return _answer(await route.handler(taken), route.function)
            except Exception:
                logger.exception(
                    "An unhandled host error has occurred.", extra={"event": "http_failed", "function": route.function}
                )
                return _FAILED

    def _trusted(self, request: Request) -> bool:
        return not self.demands_keys and names_loopback(request.headers)

    async def _is_admin(self, request: Request) -> bool:
        return self._trusted(request) or await self.keys.level(_presented(request)) is Level.ADMIN


def _presented(request: Request) -> str | None:
    # The header wins even if it is wrong.
    return request.headers.get("x-functions-key") or request.query.text("code")


def _suffices(level: Level, demanded: AuthLevel) -> bool:
    match demanded:
        case AuthLevel.ANONYMOUS:
            return True
        case AuthLevel.FUNCTION:
            return level in (Level.FUNCTION, Level.ADMIN)  # a system key opens extensions, not functions
        case AuthLevel.ADMIN:
            return level is Level.ADMIN


_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "content-type"})


def _answer(response: HttpResponse, function: str) -> Answer:
    status, body = response.status_code, response.get_body()
    headers: list[tuple[str, str]] = []
    if status not in (204, 304):
        headers.append(("Content-Type", response.content_type))
    seen: set[str] = set()
    for name, value in response.headers.multi_items():
        key = name.lower()
        if key in _FRAMING:
            continue  # the server frames the body; what a function says about it could only be wrong
        if key in seen and key != "set-cookie":
            logger.debug("Duplicate HTTP header from function invocation removed. Duplicate key(s): %s.", name)
            continue
        seen.add(key)
        headers.append((name, value))
    if not 200 <= status <= 599 or any(_breaks(name) or _breaks(value) for name, value in headers):
        logger.error(
            "function %s answered with a status or header that HTTP cannot carry",
            function,
            extra={"event": "http_bad_response", "function": function, "status": status},
        )
        return _FAILED
    return Answer(status, body, headers)


def _breaks(text: str) -> bool:
    return "\n" in text or "\r" in text or "\0" in text
