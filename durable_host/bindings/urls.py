"""Addresses of the management API: what a starter answers, what a client binding holds, what status answers name.

Written once here, so that the server, the binding of a client and the check-status response agree to the letter
(http-api.md sections 4 and 15.1). `{eventName}`, `{text}`, `INSTANCEID` and the templates of `creationUrls` are literal
placeholders: whoever follows the address replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote_plus, urlsplit

__all__ = ["DEFAULT_CONNECTION", "INSTANCE_PLACEHOLDER", "WEBHOOK_PATH", "ManagementUrls", "quote_segment"]

WEBHOOK_PATH = "/runtime/webhooks/durabletask"
"""Path of the public endpoint below the host's address."""

DEFAULT_CONNECTION = "Storage"
"""What generated addresses call the provider's own connection."""

INSTANCE_PLACEHOLDER = "INSTANCEID"

_SAFE = "!*()"


def quote_segment(text: str) -> str:
    """A text as one path segment or query value: blank as `+`, everything unusual as upper-case UTF-8 escapes.

    The server decodes paths as form fields (http-api.md 1.4), so this is undone by `unquote_plus`.
    """
    # `~` is the one character that Python leaves alone and the reference escapes.
    return quote_plus(text, safe=_SAFE, errors="surrogatepass").replace("~", "%7E")


@dataclass(frozen=True, slots=True)
class ManagementUrls:
    """Makes the addresses of one task hub.

    Attributes:
        webhook: public endpoint without a slash at its end, `http://localhost:7071/runtime/webhooks/durabletask`.
        hub: name of the task hub.
        connection: name of the storage connection; `Storage` when the provider's default applies.
        code: system key `durabletask_extension`, when keys are demanded; else None and left out.
    """

    webhook: str
    hub: str
    connection: str = DEFAULT_CONNECTION
    code: str | None = None

    @property
    def query(self) -> str:
        """`taskHub=…&connection=…[&code=…]`."""
        query = f"taskHub={quote_segment(self.hub)}&connection={quote_segment(self.connection)}"
        return query if self.code is None else f"{query}&code={quote_segment(self.code)}"

    def status(self, instance_id: str) -> str:
        """The status address of an instance."""
        return f"{self.webhook}/instances/{quote_segment(instance_id)}?{self.query}"

    def check_status(self, instance_id: str) -> dict[str, str]:
        """The payload of a 202 that the server sends after a start: no `rewindPostUri` (http-api.md section 4)."""
        payload = self.management(instance_id)
        del payload["rewindPostUri"]
        return payload

    def management(self, instance_id: str) -> dict[str, str]:
        """The addresses that a client hands out, `rewindPostUri` included (http-api.md 15.1)."""
        base = f"{self.webhook}/instances/{quote_segment(instance_id)}"
        query = self.query
        return {
            "id": instance_id,
            "statusQueryGetUri": f"{base}?{query}",
            "sendEventPostUri": f"{base}/raiseEvent/{{eventName}}?{query}",
            "terminatePostUri": f"{base}/terminate?reason={{text}}&{query}",
            "rewindPostUri": f"{base}/rewind?reason={{text}}&{query}",
            "purgeHistoryDeleteUri": f"{base}?{query}",
            "restartPostUri": f"{base}/restart?{query}",
            "suspendPostUri": f"{base}/suspend?reason={{text}}&{query}",
            "resumePostUri": f"{base}/resume?reason={{text}}&{query}",
        }

    def creation(self) -> dict[str, str]:
        """Templates of the addresses that start instances; they name neither hub nor connection (http-api.md 15.1)."""
        start = f"{self.webhook}/orchestrators/{{functionName}}[/{{instanceId}}]"
        code = self.required_query
        return {
            "createNewInstancePostUri": f"{start}?{code}" if code else start,
            "createAndWaitOnNewInstancePostUri": (
                f"{start}?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}"
                + (f"&{code}" if code else "")
            ),
        }

    @property
    def required_query(self) -> str:
        """The query that every request needs: `code=…`, or nothing."""
        return "" if self.code is None else f"code={quote_segment(self.code)}"

    def binding(self, rpc_base: str | None) -> dict[str, object]:
        """The JSON object of a `durableClient` parameter, members in the recorded order.

        Args:
            rpc_base: address of the local RPC endpoint, with the slash at its end; None when there is none.
        """
        return {
            "taskHubName": self.hub,
            "connectionName": None,
            "creationUrls": self.creation(),
            "managementUrls": self.management(INSTANCE_PLACEHOLDER),
            "baseUrl": self.webhook,
            "requiredQueryStringParameters": self.required_query,
            "rpcBaseUrl": rpc_base,
            "httpBaseUrl": None,
            "maxGrpcMessageSizeInBytes": None,
            "grpcHttpClientTimeout": None,
        }

    def with_origin(self, origin: str) -> ManagementUrls:
        """The same addresses under another scheme and authority, such as `https://example.org`."""
        return replace(self, webhook=origin.rstrip("/") + urlsplit(self.webhook).path)

    def for_hub(self, hub: str, connection: str | None = None) -> ManagementUrls:
        """The same addresses for another task hub or connection."""
        return replace(self, hub=hub, connection=connection or self.connection)
