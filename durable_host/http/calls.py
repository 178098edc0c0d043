"""One call of the management API: the request, where it goes, and what several operations share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import TaskHubClient
from durable_host.http.messages import Request
from durable_host.http.routing import Route

if TYPE_CHECKING:  # the table of operations imports the operations; they name it in types only
    from durable_host.http.management import ManagementApi

__all__ = ["Call", "InvalidJsonError", "compact_json", "json_text"]

_ESCAPED_UNRESERVED = re.compile("%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")


@dataclass(frozen=True, slots=True)
class Call:
    """What an operation works with.

    Attributes:
        client: of the task hub asked for; None: that hub does not exist.
        urls: addresses for the answer.
        own: the hub is the app's own, so that its functions are known here.
        local: the request came to the RPC endpoint.
    """

    api: ManagementApi
    request: Request
    route: Route
    client: TaskHubClient | None
    urls: ManagementUrls
    own: bool
    local: bool

    @property
    def key(self) -> str:
        """The instance id in the path."""
        return self.route.key or ""

    def hub(self) -> TaskHubClient:
        """The client where the hub is known to exist."""
        assert self.client is not None
        return self.client

    def address(self) -> str:
        """The address of the request itself, unreserved escapes decoded (recorded #238)."""
        request = self.request
        origin = f"{request.scheme}://{request.host}"
        if self.api.forwarded_host and request.headers.get("x-forwarded-host"):
            origin = self.urls.webhook[: self.urls.webhook.index("/", len("https://"))]
        target = request.target
        return origin + (_ESCAPED_UNRESERVED.sub(_decoded, target) if "%" in target else target)


def _decoded(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


class InvalidJsonError(ValueError):
    """A body is not JSON; the text is what the parser says."""


def json_text(body: bytes) -> str | None:
    """The text of a JSON body exactly as received; None for an empty body or one of blanks.

    Raises:
        InvalidJsonError: it is not JSON, not UTF-8, or holds what no orchestrator could read back.
    """
    try:
        text = body.decode("utf-8-sig")
        if not text.strip(" \t\r\n"):
            return None
        msgspec.json.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"The body is not UTF-8: {error.reason} at position {error.start}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidJsonError(str(error)) from None
    return text


def compact_json(body: bytes) -> str:
    """The text of a JSON body without blanks between tokens; numbers and texts stay as sent.

    Raises:
        InvalidJsonError: as `json_text`; an empty body is not JSON either.
    """
    text = json_text(body)
    if text is None:
        raise InvalidJsonError("The body is empty; a null event is the body null.")
    return msgspec.json.format(text, indent=-1)
