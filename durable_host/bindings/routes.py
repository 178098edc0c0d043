"""The one table of HTTP routes of a host.

Functions are tried in the order of their names, without regard to case; the first whose template, constraints and
methods fit wins. There is no order by how specific a template is, and a path that fits a template under another method
goes on to later functions (functions-host.md 3.1). Key checks are the server's: a route carries the level it demands.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.route_template import (
    RouteParameter,
    RouteTemplate,
    RouteTemplateError,
    parse_template,
    split_path,
)

__all__ = [
    "Match",
    "Route",
    "RouteParameter",
    "RouteTable",
    "RouteTemplate",
    "RouteTemplateError",
    "normalized_route",
    "parse_template",
    "route_problem",
]

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]

_RESERVED = ("admin", "runtime")


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP function's address.

    Attributes:
        function: its name.
        methods: upper case; empty: all.
        template: without the prefix, as the author wrote it.
        auth_level: which key the server demands.
        handler: runs the function; never raises for a failing function (that is a 500). Cancelling it cancels an
            `async def` function, so the server does that when the host stops, not when a client goes away.
        disabled: answer 404, except to a caller with the master key.
    """

    function: str
    methods: tuple[str, ...]
    template: str
    auth_level: AuthLevel
    handler: Handler
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A route that fits a request.

    Attributes:
        params: values for `HttpRequest.route_params`: unused optional parameters are absent.
        values: the same with None for those.
    """

    route: Route
    params: dict[str, str]
    values: dict[str, str | None]


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    key: tuple[str, str]
    route: Route = field(compare=False)
    template: RouteTemplate = field(compare=False)
    methods: frozenset[str] = field(compare=False)


class RouteTable:
    """Routes of all HTTP functions.

    Args:
        prefix: `extensions.http.routePrefix`; empty for none.
    """

    def __init__(self, prefix: str = "api") -> None:
        self.prefix = prefix.strip("/")
        self._entries: list[_Entry] = []

    @property
    def routes(self) -> Sequence[Route]:
        """All routes in the order in which they are tried."""
        return [entry.route for entry in self._entries]

    def full_template(self, route: Route) -> str:
        """The template with the prefix, for example `api/start/{name}`."""
        return self._with_prefix(route.template)

    def parameters(self, route: Route) -> Sequence[RouteParameter]:
        """Parameters of a route, parsed, for descriptions."""
        return next(entry.template.parameters for entry in self._entries if entry.route is route)

    def add(self, route: Route) -> None:
        """Add a route.

        Raises:
            RouteTemplateError: the template cannot be parsed.
        """
        template = parse_template(self._with_prefix(route.template))
        methods = frozenset(method.upper() for method in route.methods)
        insort(self._entries, _Entry((route.function.lower(), route.function), route, template, methods))

    def remove(self, route: Route) -> None:
        """Take a route out; one that is not there is ignored."""
        self._entries = [entry for entry in self._entries if entry.route is not route]

    def match(self, method: str, path: str) -> Match | None:
        """The first route that fits.

        Args:
            path: as in the request line: percent-encoded, without the query.
        """
        method = method.upper()
        segments = split_path(path)
        for entry in self._entries:
            if entry.methods and method not in entry.methods:
                continue
            values = entry.template.match(segments)
            if values is not None:
                params = {name: value for name, value in values.items() if value is not None}
                return Match(entry.route, params, values)
        return None

    def _with_prefix(self, template: str) -> str:
        return "/".join(part for part in (self.prefix, template.strip("/")) if part)


def normalized_route(template: str) -> str:
    """The form in which two routes are compared for a conflict."""
    return template.strip("/").lower()


def route_problem(template: str) -> str | None:
    """Why a route cannot be used by any function, or None; syntax is checked as well."""
    if normalized_route(template).startswith(_RESERVED):
        return "The specified route conflicts with one or more built in routes."
    try:
        parse_template(template)
    except RouteTemplateError as error:
        return str(error)
    return None
