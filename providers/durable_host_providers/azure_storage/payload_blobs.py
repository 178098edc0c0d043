"""The container of what is too large for queues and tables. It is made at the first need."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from durable_host_providers.azure_storage.ports import NotFoundError, StorageAccount, Value
from durable_host_providers.azure_storage.wire.errors import WireError
from durable_host_providers.azure_storage.wire.keys import payload_prefixes
from durable_host_providers.azure_storage.wire.payloads import Offload, decompress, offloaded

__all__ = ["MissingPayloadError", "PayloadBlobs"]


class MissingPayloadError(WireError):
    """A row refers to a blob that is gone."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The blob {name!r}, which holds a large value, is gone.")


class PayloadBlobs:
    """Large messages and large columns of one hub."""

    def __init__(self, account: StorageAccount, container: str) -> None:
        self._blobs = account.blobs(container)

    @property
    def url(self) -> str:
        """The container's URL, without a slash at its end."""
        return self._blobs.url("").rstrip("/")

    def url_of(self, name: str) -> str:
        """A blob's URL."""
        return self._blobs.url(name)

    async def write(self, name: str, data: bytes) -> None:
        """Write a blob."""
        try:
            await self._blobs.write(name, data)
        except NotFoundError:
            await self._blobs.create()
            await self._blobs.write(name, data)

    async def read(self, name: str) -> bytes | None:
        """A blob's content as stored, or None."""
        content = await self._blobs.read(name)
        return None if content is None else content.data

    async def text(self, name: str) -> str:
        """The text of a large column.

        Raises:
            MissingPayloadError: the blob is gone.
            WireError: it is none of ours.
        """
        data = await self.read(name)
        if data is None:
            raise MissingPayloadError(name)
        return decompress(data).decode("utf-8", "surrogatepass")

    async def write_all(self, offloads: Sequence[Offload]) -> None:
        """What has to be there before a row is written."""
        await asyncio.gather(*(self.write(each.blob_name, each.data) for each in offloads))

    async def restored(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """A row with its large columns put back.

        Raises:
            MissingPayloadError, WireError: see `text`.
        """
        names = offloaded(values)
        if not names:
            return values
        texts = await asyncio.gather(*(self.text(name) for name in names.values()))
        return {**values, **dict(zip(names, texts, strict=True))}

    async def remove(self, names: Sequence[str]) -> None:
        """Delete what nothing refers to any more."""
        await asyncio.gather(*(self._blobs.remove(name) for name in names))

    async def remove_all(self, instance_id: str) -> None:
        """Delete everything of an instance, and of no other."""
        for prefix in payload_prefixes(instance_id):
            found = await self._blobs.list(prefix)
            await asyncio.gather(*(self._blobs.remove(each.name) for each in found))
