"""The Durable Functions HTTP API: one request value in, one answer value out.

The same core serves the public webhook and the local RPC endpoint; `Call` says which. Every answer follows
http-api.md to the letter, and the recording of the reference is replayed against it as a test. What an operation does
lives in three modules beside this one: `starts` (start, restart, waiting), `instances` (what acts on one instance) and
`listing` (filters, list and purge).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from durable_host.bindings.urls import DEFAULT_CONNECTION, ManagementUrls
from durable_host.engine.client import NON_RUNNING_STATES, TaskHubClient
from durable_host.http import instances, listing, starts
from durable_host.http.calls import Call
from durable_host.http.errors import ARGUMENT, INCORRECT, answer_of, first_form, second_form
from durable_host.http.messages import EMPTY, NOT_FOUND, Answer, Request
from durable_host.http.routing import match
from durable_host.model.status import RuntimeStatus

__all__ = ["ENTITIES_LATER", "HubOpener", "ManagementApi"]

ENTITIES_LATER = "Entities are not supported by this version of durable_host; a later version brings them."

logger = logging.getLogger(__name__)

_INVOCATION = "x-azure-functions-invocationid"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONNECTIONS = frozenset({DEFAULT_CONNECTION.lower(), "azurewebjobsstorage"})


class HubOpener(Protocol):
    """Gives clients for other task hubs of the same store."""

    async def __call__(self, hub: str, *, create: bool) -> TaskHubClient | None:
        """The client of a hub that is open for use; None when it does not exist and is not to be created."""
        ...


@dataclass(slots=True)
class ManagementApi:
    """What the operations need.

    Attributes:
        client: of the app's own hub.
        urls: of the public webhook, whichever endpoint a request came to.
        knows: whether the host runs an orchestrator of this name, in any case.
        names: names of the orchestrators, for the text about an unknown one.
        now: the current time, for the default end of a purge's window.
        open_hub: other hubs; None: there are none, and none can be created.
        connections: names of storage connections that mean the app's own store, in lower case.
        replaceable: statuses in which an instance gives way to a start under its id.
        default_version: version of instances whose start names none.
        forwarded_host: generated addresses follow X-Forwarded-Host and X-Forwarded-Proto.
        unwrap_events: on the RPC endpoint, event data that is a JSON string holding JSON is stored as that JSON
            (http-api.md 15.4).
    """

    client: TaskHubClient
    urls: ManagementUrls
    knows: Callable[[str], bool]
    names: Callable[[], Sequence[str]]
    now: Callable[[], datetime]
    open_hub: HubOpener | None = None
    connections: Collection[str] = _CONNECTIONS
    replaceable: frozenset[RuntimeStatus] = NON_RUNNING_STATES
    default_version: str | None = None
    forwarded_host: bool = False
    unwrap_events: bool = False
    _others: dict[str, TaskHubClient] = field(default_factory=dict[str, TaskHubClient], repr=False)

    async def handle(self, request: Request, rest: str, *, local: bool = False) -> Answer:
        """Answer a request to the API; never raises for anything the caller or the store did.

        Args:
            rest: the path behind the base path, as sent.
            local: it came to the RPC endpoint.
        """
        route = match(request.method, rest)
        invocation = request.headers.get(_INVOCATION)
        if invocation is not None and _GUID.fullmatch(invocation):
            logger.debug(
                "request of an invocation",
                extra={"event": "http_invocation", "invocation": invocation, "operation": route.operation},
            )
        operation = _OPERATIONS.get(route.operation)
        if operation is None:
            return NOT_FOUND
        query = request.query
        hub = query.value("taskHub") or self.urls.hub
        connection = query.value("connection") or query.value("connectionName")
        if connection is not None and connection.lower() not in self.connections:
            text = f"Unable to resolve the Azure Storage connection named '{connection}'."
            return second_form(400, INCORRECT, text, "System.InvalidOperationException")
        own = hub.lower() == self.urls.hub.lower()
        try:
            creates = route.operation == "start"
            client = self.client if own else await self._other(hub, create=creates)
            if client is None and creates:
                text = f"Task hub {hub!r} does not exist, and this host cannot create it."
                return second_form(400, INCORRECT, text, ARGUMENT)
            call = Call(self, request, route, client, self._urls(request, hub, own), own, local)
            return await operation(call)
        except Exception as error:
            return answer_of(error)

    async def _other(self, hub: str, *, create: bool) -> TaskHubClient | None:
        known = self._others.get(hub)
        if known is None and self.open_hub is not None:
            known = await self.open_hub(hub, create=create)
            if known is not None:
                self._others[hub] = known
        return known

    def _urls(self, request: Request, hub: str, own: bool) -> ManagementUrls:
        urls = self.urls if own else self.urls.for_hub(hub)
        if self.forwarded_host and (host := _first(request.headers, "x-forwarded-host")):
            scheme = _first(request.headers, "x-forwarded-proto") or urls.webhook.partition("://")[0]
            return urls.with_origin(f"{scheme}://{host}")
        return urls


def _first(headers: Mapping[str, str], name: str) -> str | None:
    # A chain of proxies appends; the first entry is what the caller used.
    return headers.get(name, "").split(",", 1)[0].strip() or None


async def _make_primary(_: Call) -> Answer:
    return EMPTY


async def _entities(_: Call) -> Answer:
    return first_form(501, ENTITIES_LATER)


_OPERATIONS: Mapping[str, Callable[[Call], Awaitable[Answer]]] = {
    "start": starts.start,
    "status": instances.status,
    "list": listing.show,
    "purge": instances.purge,
    "purge_many": listing.purge,
    "raise_event": instances.raise_event,
    "terminate": instances.terminate,
    "suspend": instances.suspend,
    "resume": instances.resume,
    "rewind": instances.rewind,
    "restart": starts.restart,
    "restartwithoptions": starts.restart_with_options,
    "makeprimary": _make_primary,
    "entities": _entities,
}
