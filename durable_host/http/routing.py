"""Which operation a path of the management API means, exactly as http-api.md 1.4 says."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus

__all__ = ["OPERATIONS", "Route", "below", "match"]

OPERATIONS = frozenset({"terminate", "suspend", "resume", "rewind", "restart", "restartwithoptions"})
"""Operations on an instance that take nothing from the path, in lower case."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked for. `operation` is one of the names of `ManagementApi`'s table, or empty for no match."""

    operation: str
    name: str = ""
    key: str | None = None


_NONE = Route("")


def below(path: str, base: str) -> str | None:
    """What follows a base path, compared without case; None when the path is not below it."""
    rest = path[len(base) :]
    if path[: len(base)].lower() != base.lower() or (rest and rest[0] != "/"):
        return None
    return rest


def match(method: str, rest: str) -> Route:
    """The route of what follows the base path, as sent.

    The text is decoded as a form field *before* it is split, so an escaped slash splits and `+` is a blank.
    """
    parts = unquote_plus(rest.rstrip("/"), errors="replace").removeprefix("/").split("/")
    if "" in parts:
        return _NONE
    match [parts[0].lower(), *parts[1:]]:
        case ["orchestrators", name] if method == "POST":
            return Route("start", name)
        case ["orchestrators", name, key] if method == "POST":
            return Route("start", name, key)
        case ["instances"]:
            return Route({"GET": "list", "DELETE": "purge_many"}.get(method, ""))
        case ["instances", key]:
            return Route({"GET": "status", "DELETE": "purge"}.get(method, ""), key=key)
        case ["instances", key, operation] if method == "POST" and operation.lower() in OPERATIONS:
            return Route(operation.lower(), key=key)
        case ["instances", key, operation, name] if method == "POST" and operation.lower() == "raiseevent":
            return Route("raise_event", name, key)
        case ["entities"]:
            return Route("entities" if method == "GET" else "")
        case ["entities", name]:
            return Route({"GET": "entities", "POST": "entities", "DELETE": "entities"}.get(method, ""), name)
        case ["entities", name, key]:
            return Route({"GET": "entities", "POST": "entities", "DELETE": "entities"}.get(method, ""), name, key)
        case ["makeprimary"] if method in {"GET", "POST"}:
            return Route("makeprimary")
        case _:
            return _NONE
