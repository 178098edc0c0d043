"""A storage account over a thin client on aiohttp: queues and tables, which are asked all the time.

What is rare, blobs and leases, goes through the Azure SDK. Every request of both is counted and repeated in one place.
Measured on Azurite, a merge takes a fifth of the time that it takes through the SDK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from durable_host.environment import Environment

from .credentials import Connection, Identity, TokenSource
from .ports import Blobs, Queue, Table
from .rest_http import HttpClient
from .rest_patience import Patience
from .rest_queue import RestQueue, queue_names
from .rest_table import RestTable
from .sdk_blobs import SdkBlobServices

__all__ = ["RestAccount"]


class RestAccount:
    """See `ports.StorageAccount`. Works without being entered, too, with connections that live for a request."""

    def __init__(self, connection: Connection, environment: Environment) -> None:
        credential = connection.credential
        tokens = TokenSource(credential, environment) if isinstance(credential, Identity) else None
        self._ids = environment.ids
        self._location = connection.location
        self._patience = Patience(environment)
        self._client = HttpClient(connection, environment, self._patience, tokens)
        self._blobs = SdkBlobServices(connection, self._patience, tokens)

    @property
    def location(self) -> str:
        return self._location

    @property
    def requests(self) -> Mapping[str, int]:
        return self._patience.requests

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._blobs.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._blobs.__aexit__(exc_type, exc, tb)
        finally:
            await self._client.__aexit__(exc_type, exc, tb)

    def queue(self, name: str) -> Queue:
        return RestQueue(self._client, name)

    def table(self, name: str) -> Table:
        return RestTable(self._client, self._ids, name)

    def blobs(self, container: str) -> Blobs:
        return self._blobs.container(container)

    async def queue_names(self, prefix: str) -> Sequence[str]:
        return await queue_names(self._client, prefix)
