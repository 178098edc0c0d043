"""Requests and answers as values: the API's core takes one and gives the other, and knows no web framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from durable_host.http.query import Query

__all__ = [
    "EMPTY",
    "JSON_TYPE",
    "NOT_FOUND",
    "Answer",
    "Request",
    "empty",
    "json_answer",
    "raw_json_answer",
    "text_answer",
]

JSON_TYPE = "application/json; charset=utf-8"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Request:
    """One request, read to its end.

    Attributes:
        method: upper-case.
        path: as sent, escaped, without the query.
        query_text: as sent, escaped, without `?`.
        headers: names in lower case; repeated ones joined with `, `.
        host: the Host header, or the address the request arrived at.
    """

    method: str
    path: str
    query_text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    scheme: str = "http"
    host: str = "localhost"

    @cached_property
    def query(self) -> Query:
        """The decoded query."""
        return Query.parse(self.query_text)

    @property
    def target(self) -> str:
        """Path and query as sent."""
        return f"{self.path}?{self.query_text}" if self.query_text else self.path


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `headers` may repeat names; the length is added by the server."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default=())

    def header(self, name: str) -> str | None:
        """The first header of this name, found without case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


def empty(status: int) -> Answer:
    """An answer without a body."""
    return Answer(status)


EMPTY = Answer(200)
NOT_FOUND = Answer(404)


def json_answer(status: int, value: object, *headers: tuple[str, str]) -> Answer:
    """An answer with compact JSON."""
    return Answer(status, _encode(value), (("Content-Type", JSON_TYPE), *headers))


def raw_json_answer(status: int, body: bytes, *headers: tuple[str, str]) -> Answer:
    """An answer whose body is JSON already."""
    return Answer(status, body, (("Content-Type", JSON_TYPE), *headers))


def text_answer(status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> Answer:
    """An answer with text."""
    return Answer(status, text.encode(), (("Content-Type", content_type),))
