"""HttpRequest and HttpResponse: what an HTTP function takes and returns, in the shapes that Azure users know.

The names, parameters and attributes are those of `azure.functions`. Both are plain values: they know nothing of the
server. `HttpRequest.received` is the one place that turns what came over the wire into these shapes
(functions-host.md 3.4): header names in lower case, repeated headers and query keys joined, empty ones left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from enum import Enum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from durable_host.bindings.forms import FormData, UploadedFile, parse_form

__all__ = ["AuthLevel", "Headers", "HttpRequest", "HttpResponse", "MalformedBodyError"]

_EMPTY: Mapping[str, str] = MappingProxyType({})


class MalformedBodyError(ValueError):
    """The body of a request is not what the function asked for, such as JSON."""


class AuthLevel(Enum):
    """Which key a request to an HTTP function has to carry; the host checks it (functions-host.md 3.2)."""

    ANONYMOUS = "anonymous"
    FUNCTION = "function"
    ADMIN = "admin"


class Headers(MutableMapping[str, str]):
    """Headers: names compare without case, one name may occur several times, order is kept.

    As a mapping each name occurs once, with its first value, as it was spelled first; `multi_items` shows all.
    Assigning replaces all values of a name, `add` appends one.
    """

    __slots__ = ("_values",)

    def __init__(self, source: Mapping[str, str] | Iterable[tuple[str, str]] | None = None) -> None:
        self._values: dict[str, list[tuple[str, str]]] = {}
        if isinstance(source, Headers):
            source = source.multi_items()
        elif isinstance(source, Mapping):
            source = list(cast("Mapping[str, str]", source).items())
        for name, value in source or ():
            self.add(name, value)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][0][1]

    def __setitem__(self, name: str, value: str) -> None:
        self._values[name.lower()] = [(name, str(value))]

    def __delitem__(self, name: str) -> None:
        del self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return (values[0][0] for values in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Values may be keys and cookies; names are enough to find a mistake.
        return f"Headers({list(self)!r})"

    def add(self, name: str, value: str) -> None:
        """Append one more header of this name."""
        self._values.setdefault(name.lower(), []).append((name, str(value)))

    def getlist(self, name: str) -> list[str]:
        """All values of a name, in order; empty when there is none."""
        return [value for _, value in self._values.get(name.lower(), ())]

    def multi_items(self) -> list[tuple[str, str]]:
        """Every header, repeated ones included."""
        return [item for values in self._values.values() for item in values]


class HttpRequest:
    """An HTTP request.

    Args:
        method: any case.
        url: absolute, with the scheme and authority that the caller used, and the query.
        headers: names compare without case and are listed in lower case.
        params: the query, one text for each key.
        route_params: values matched by the route, as texts; an unused optional one is absent.
        body: the raw bytes.
    """

    __slots__ = ("_body", "_form", "_headers", "_method", "_params", "_route_params", "_url")

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        route_params: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        self._method = method.upper()
        self._url = url
        self._headers = Headers((name.lower(), value) for name, value in (headers or {}).items())
        self._params = MappingProxyType(dict(params)) if params else _EMPTY
        self._route_params = MappingProxyType(dict(route_params)) if route_params else _EMPTY
        self._body = bytes(body)
        self._form: tuple[FormData[str], FormData[UploadedFile]] | None = None

    @classmethod
    def received(
        cls,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        route_params: Mapping[str, str] | None = None,
    ) -> HttpRequest:
        """Make a request from what came over the wire, by the rules of functions-host.md 3.4.

        Args:
            url: absolute; its query gives `params`.
            headers: every header as it was sent; repeated names are joined with `,`.
        """
        joined: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            joined[key] = f"{joined[key]},{value}" if key in joined else value
        params: dict[str, str] = {}
        for key, value in parse_qsl(urlsplit(url).query):  # keys with an empty value are left out
            params[key] = f"{params[key]},{value}" if key in params else value
        return cls(method, url, headers=joined, params=params, route_params=route_params, body=body)

    @property
    def method(self) -> str:
        """The method in upper case."""
        return self._method

    @property
    def url(self) -> str:
        """The absolute address, with the query."""
        return self._url

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers; names compare without case."""
        return self._headers

    @property
    def params(self) -> Mapping[str, str]:
        """The query; repeated keys joined with `,`, keys without a value left out."""
        return self._params

    @property
    def route_params(self) -> Mapping[str, str]:
        """Values matched by the route template."""
        return self._route_params

    @property
    def form(self) -> FormData[str]:
        """Fields of a urlencoded or multipart body; empty for any other content type."""
        return self._parsed_form()[0]

    @property
    def files(self) -> FormData[UploadedFile]:
        """Files of a multipart body."""
        return self._parsed_form()[1]

    def get_body(self) -> bytes:
        """The raw body."""
        return self._body

    def get_json(self) -> Any:
        """The body decoded as UTF-8 JSON.

        Raises:
            MalformedBodyError: the body is empty or no JSON; a ValueError. If nobody catches it the caller gets 400.
        """
        try:
            return json.loads(self._body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise MalformedBodyError(f"HTTP request does not contain valid JSON data: {error}") from None

    def _parsed_form(self) -> tuple[FormData[str], FormData[UploadedFile]]:
        if self._form is None:
            self._form = parse_form(self._headers.get("content-type", ""), self._body)
        return self._form

    def __repr__(self) -> str:
        # No query: it may hold a key.
        return f"<HttpRequest {self._method} {self._url.partition('?')[0]}>"


class HttpResponse:
    """An HTTP response.

    Args:
        body: text (encoded with `charset`), bytes, or nothing.
        status_code: a number or an `HTTPStatus`.
        headers: response headers; for several of one name (`Set-Cookie`) use `response.headers.add(name, value)`, or
            pass pairs.
        mimetype: content type, unless a `Content-Type` header says otherwise; `text/plain` by default.
        charset: encoding of a text body, and part of the content type of `text/…`.

    Raises:
        TypeError: the body is neither text nor bytes.
    """

    __slots__ = ("_body", "_charset", "_headers", "_mimetype", "_status_code")

    def __init__(
        self,
        body: str | bytes | bytearray | None = None,
        *,
        status_code: HTTPStatus | int | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        mimetype: str | None = None,
        charset: str | None = None,
    ) -> None:
        self._status_code = 200 if status_code is None else int(status_code)
        self._headers = Headers(headers)
        self._mimetype = mimetype or "text/plain"
        self._charset = charset or "utf-8"
        if body is None:
            self._body = b""
        elif isinstance(body, str):
            self._body = body.encode(self._charset)
        elif isinstance(body, (bytes, bytearray)):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._body = bytes(body)
        else:
            raise TypeError(f"response is expected to be either of str, bytes, or bytearray, got {type(body).__name__}")

    @property
    def status_code(self) -> int:
        """The status."""
        return self._status_code

    @property
    def headers(self) -> Headers:
        """Response headers; may be changed."""
        return self._headers

    @property
    def mimetype(self) -> str:
        """Content type without charset, unless a `Content-Type` header says otherwise."""
        return self._mimetype

    @property
    def charset(self) -> str:
        """Encoding of a text body."""
        return self._charset

    @property
    def content_type(self) -> str:
        """What `Content-Type` is sent: the header if there is one, else made of `mimetype` and `charset`."""
        given = self._headers.get("content-type")
        if given is not None:
            return given
        return f"{self._mimetype}; charset={self._charset}" if self._mimetype.startswith("text/") else self._mimetype

    def get_body(self) -> bytes:
        """The body as bytes."""
        return self._body

    def __repr__(self) -> str:
        return f"<HttpResponse {self._status_code} {len(self._body)} bytes>"
