"""aiohttp's low-level server, made quiet: no pages of its own, and bodies read under a limit."""

from __future__ import annotations

import logging

from aiohttp import web

from durable_host.http.messages import Request

__all__ = ["LimitError", "QuietServer", "read_request"]

logger = logging.getLogger(__name__)

_LONGEST_LINE = 65_536


class LimitError(Exception):
    """The body is larger than allowed; it was not read to its end."""


class _Handler(web.RequestHandler):
    """One connection; errors are statuses without pages."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not parse, or what went wrong in our own code, with an empty body."""
        if status >= 500:
            logger.error("request failed in the server", exc_info=exc, extra={"event": "http_server_failed"})
        response = web.Response(status=status, headers={"Server": "durable_host"})
        response.force_close()
        return response


class QuietServer(web.Server):
    """Makes quiet connections. Bodies are handed on as they were sent, compressed or not."""

    def __call__(self) -> web.RequestHandler:
        return _Handler(
            self,
            loop=self._loop,
            access_log=None,  # type: ignore[arg-type] # documented: None switches the access log off
            auto_decompress=False,
            keepalive_timeout=75.0,
            lingering_time=2.0,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )


async def read_request(incoming: web.BaseRequest, limit: int | None, port: int) -> Request:
    """Read one request to its end.

    Args:
        limit: most bytes of the body; None: any number.
        port: of the listener, for a request without a Host header.

    Raises:
        LimitError: the body is larger.
        ConnectionError: the client went away in the middle, or sent no proper chunks.
    """
    headers: dict[str, str] = {}
    for name, value in incoming.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    if "expect" in headers and headers["expect"].lower() == "100-continue":
        if limit is not None and (incoming.content_length or 0) > limit:
            raise LimitError
        await incoming.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _body(incoming, limit) if incoming.body_exists else b""
    target = incoming.raw_path
    if not target.isascii():
        target = target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not target.startswith("/") and "://" in target:
        # Absolute form, as to a proxy.
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    return Request(
        incoming.method.upper(),
        path,
        query,
        headers,
        body,
        incoming.scheme,
        headers.get("host") or f"127.0.0.1:{port}",
    )


async def _body(incoming: web.BaseRequest, limit: int | None) -> bytes:
    if limit is not None and (incoming.content_length or 0) > limit:
        raise LimitError
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            part = await incoming.content.readany()
            if not part:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            size += len(part)
            if limit is not None and size > limit:
                raise LimitError
            parts.append(part)
    except web.RequestPayloadError as error:
        raise ConnectionResetError("the request was cut off") from error
