"""Calls of the Azure SDK with our patience instead of its own, and its exceptions as the port's errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError

from .credentials import Connection, Sas, SharedKey, TokenSource
from .rest_answers import error_of, retry_after_s, unreachable
from .rest_patience import NotSentError, Patience

__all__ = ["CLIENT_OPTIONS", "SdkCalls", "SdkCredential", "sdk_credential"]

T = TypeVar("T")

CLIENT_OPTIONS: Mapping[str, Any] = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 35}
"""For every client: retries are `Patience`'s, and so they are counted."""


class _AsyncTokens:
    """Our tokens in the shape that the SDK's asynchronous clients ask for."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(*await self._tokens.token())

    async def close(self) -> None:
        return None

    async def __aenter__(self) -> _AsyncTokens:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        return None


SdkCredential = AzureNamedKeyCredential | AzureSasCredential | _AsyncTokens


def sdk_credential(connection: Connection, tokens: TokenSource | None, encoded_key: str) -> SdkCredential:
    """What the SDK's clients open the account with. `encoded_key`: of a shared key, in Base64."""
    credential = connection.credential
    if isinstance(credential, SharedKey):
        return AzureNamedKeyCredential(credential.account, encoded_key)
    if isinstance(credential, Sas):
        return AzureSasCredential(credential.token)
    if tokens is None:
        raise ValueError("an identity needs a source of tokens")
    return _AsyncTokens(tokens)


class SdkCalls:
    """Makes calls for the SDK's clients of one account."""

    def __init__(self, patience: Patience, location: str) -> None:
        self.patience = patience
        self._location = location

    async def run(self, kind: str, target: str, call: Callable[[], Awaitable[T]], *, safe: bool | None = None) -> T:
        """One request; errors are the port's. `safe`: see `Patience.run`."""

        async def attempt() -> T:
            try:
                return await call()
            except HttpResponseError as error:
                if error.status_code is None:
                    raise unreachable(kind, target, self._location, error) from None
                response: Any = error.response
                headers: Mapping[str, str] = response.headers if response is not None else {}
                code: Any = getattr(error, "error_code", None) or headers.get("x-ms-error-code", "")
                raise error_of(
                    kind,
                    target,
                    error.status_code,
                    str(getattr(code, "value", code)),
                    error.message or "",
                    index=getattr(error, "index", None),
                    retry_after=retry_after_s(headers, 0.0),
                ) from None
            except ServiceRequestError as error:
                raise NotSentError(str(unreachable(kind, target, self._location, error))) from None
            except (AzureError, OSError) as error:
                raise unreachable(kind, target, self._location, error) from None

        return await self.patience.run(kind, attempt, safe=safe)
