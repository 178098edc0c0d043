"""Blobs and their leases over the Azure SDK."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from azure.core import MatchConditions
from azure.storage.blob import BlobProperties, ContainerProperties, ContentSettings
from azure.storage.blob.aio import BlobClient, BlobLeaseClient, BlobServiceClient, ContainerClient

from .credentials import Connection, SharedKey, TokenSource
from .ports import (
    BlobContent,
    BlobItem,
    Blobs,
    ConflictError,
    LeaseState,
    NotFoundError,
    PreconditionFailedError,
)
from .rest_http import VERSIONS
from .rest_loops import PerLoop
from .rest_patience import Patience
from .sdk_calls import CLIENT_OPTIONS, SdkCalls, sdk_credential

__all__ = ["SdkBlobServices", "SdkBlobs"]

T = TypeVar("T")


class SdkBlobServices:
    """The blob service of an account, a client for each event loop."""

    def __init__(self, connection: Connection, patience: Patience, tokens: TokenSource | None) -> None:
        credential = connection.credential
        encoded = base64.b64encode(credential.key).decode() if isinstance(credential, SharedKey) else ""
        self.url = connection.urls["blob"]
        self.calls = SdkCalls(patience, urlsplit(self.url).netloc)
        self._credential = sdk_credential(connection, tokens, encoded)
        self.clients = PerLoop(self._open, lambda client: client.close())

    async def __aenter__(self) -> Self:
        await self.clients.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.clients.__aexit__(exc_type, exc, tb)

    def container(self, name: str) -> Blobs:
        """The container of that name."""
        return SdkBlobs(self, name)

    def _open(self) -> BlobServiceClient:
        return BlobServiceClient(
            self.url,
            credential=self._credential,
            api_version=VERSIONS["blob"],
            **CLIENT_OPTIONS,
        )


class SdkBlobs:
    """One container, see `ports.Blobs`."""

    def __init__(self, services: SdkBlobServices, container: str) -> None:
        self._services = services
        self._container = container

    @property
    def container(self) -> str:
        return self._container

    async def create(self) -> bool:
        try:
            await self._on_container("create", lambda client: client.create_container())
        except ConflictError:
            return False
        return True

    async def delete(self, *, lease_id: str | None = None) -> bool:
        options = _lease(lease_id)
        try:
            await self._on_container("delete", lambda client: client.delete_container(**options))
        except NotFoundError:
            return False
        except ConflictError as error:
            raise PreconditionFailedError(str(error), code=error.code) from None
        return True

    def url(self, name: str) -> str:
        path = "/".join(quote(each, safe="-._~") for each in name.split("/"))
        return f"{self._services.url}/{self._container}/{path}"

    async def read(self, name: str) -> BlobContent | None:
        async def read(client: BlobClient) -> BlobContent:
            download = await client.download_blob()
            return BlobContent(await download.readall(), str(download.properties.etag))

        try:
            return await self._on_blob("read", name, read)
        except NotFoundError:
            return None

    async def properties(self, name: str | None) -> BlobItem | None:
        try:
            if name is None:
                found = await self._on_container("properties", lambda client: client.get_container_properties())
                return _container_item(self._container, found)
            return _item(await self._on_blob("properties", name, lambda client: client.get_blob_properties()))
        except NotFoundError:
            return None

    async def write(
        self,
        name: str,
        data: bytes,
        *,
        if_match: str | None = None,
        if_absent: bool = False,
        lease_id: str | None = None,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        options = {**_match(if_match), **_lease(lease_id)}

        async def write(client: BlobClient) -> str:
            done = await client.upload_blob(
                data,
                length=len(data),
                overwrite=not if_absent,
                content_settings=ContentSettings(content_type=content_type),
                metadata=None if metadata is None else dict(metadata),
                **options,
            )
            return str(done["etag"])

        try:
            return await self._on_blob("write", name, write, safe=not (if_match or if_absent or lease_id))
        except PreconditionFailedError as error:
            if if_absent:
                raise ConflictError(str(error), code=error.code) from None
            raise

    async def remove(self, name: str, *, if_match: str | None = None, lease_id: str | None = None) -> bool:
        options = {**_match(if_match), **_lease(lease_id)}
        try:
            await self._on_blob("remove", name, lambda client: client.delete_blob(**options))
        except NotFoundError:
            return False
        return True

    async def list(self, prefix: str) -> Sequence[BlobItem]:
        async def pages(client: ContainerClient) -> list[BlobItem]:
            found = client.list_blobs(name_starts_with=prefix, include=["metadata"])
            return [_item(each) async for each in found]

        try:
            items = await self._on_container("list", pages)
        except NotFoundError:
            return []
        return sorted(items, key=lambda item: item.name)

    async def acquire_lease(self, name: str | None, *, duration_s: int, lease_id: str) -> None:
        await self._lease("acquire", name, lease_id, lambda lease: lease.acquire(lease_duration=duration_s))

    async def renew_lease(self, name: str | None, lease_id: str) -> None:
        await self._lease("renew", name, lease_id, lambda lease: lease.renew())

    async def change_lease(self, name: str | None, lease_id: str, *, new_lease_id: str) -> None:
        await self._lease("change", name, lease_id, lambda lease: lease.change(new_lease_id))

    async def release_lease(self, name: str | None, lease_id: str) -> None:
        await self._lease("release", name, lease_id, lambda lease: lease.release())

    async def _lease(
        self, operation: str, name: str | None, lease_id: str, call: Callable[[BlobLeaseClient], Awaitable[object]]
    ) -> None:
        if name is None:
            await self._on_container(f"{operation}_lease", lambda client: call(BlobLeaseClient(client, lease_id)))
        else:
            await self._on_blob(f"{operation}_lease", name, lambda client: call(BlobLeaseClient(client, lease_id)))

    async def _on_container(self, operation: str, call: Callable[[ContainerClient], Awaitable[T]]) -> T:
        services = self._services
        async with services.clients.use() as client:
            container = client.get_container_client(self._container)
            return await services.calls.run(f"blob.{operation}", self._container, lambda: call(container))

    async def _on_blob(
        self, operation: str, name: str, call: Callable[[BlobClient], Awaitable[T]], *, safe: bool | None = None
    ) -> T:
        services = self._services
        async with services.clients.use() as client:
            blob = client.get_blob_client(self._container, name)
            target = f"{self._container}/{name}"
            return await services.calls.run(f"blob.{operation}", target, lambda: call(blob), safe=safe)


def _match(etag: str | None) -> dict[str, Any]:
    return {} if etag is None else {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def _lease(lease_id: str | None) -> dict[str, Any]:
    return {} if lease_id is None else {"lease": lease_id}


def _item(found: BlobProperties) -> BlobItem:
    return BlobItem(
        name=str(found.name),
        etag=str(found.etag),
        size=int(found.size or 0),
        lease=_lease_state(found.lease.state),
        metadata=dict(found.metadata or {}),
    )


def _container_item(container: str, found: ContainerProperties) -> BlobItem:
    return BlobItem(container, str(found.etag), 0, _lease_state(found.lease.state), dict(found.metadata or {}))


def _lease_state(state: str | None) -> LeaseState:
    return LeaseState(str(state)) if state else LeaseState.AVAILABLE
