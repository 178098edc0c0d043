"""Containers of blobs in memory, with leases on the service's clock."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from durable_host_providers.azure_storage.ports import (
    BlobContent,
    BlobItem,
    ConflictError,
    LeaseState,
    NotFoundError,
    PreconditionFailedError,
    RequestRefusedError,
)

if TYPE_CHECKING:  # in types only: the service holds containers
    from durable_host_providers.azure_storage.simulated import SimulatedCaller

__all__ = ["ContainerState", "SimulatedBlobs"]


@dataclass(slots=True)
class _Lease:
    id: str | None = None
    seconds: int = 0
    until: datetime | None = None

    def holder(self, now: datetime) -> str | None:
        return self.id if self.until is not None and self.until > now else None

    def state(self, now: datetime) -> LeaseState:
        if self.id is None:
            return LeaseState.AVAILABLE
        return LeaseState.LEASED if self.holder(now) else LeaseState.EXPIRED


@dataclass(slots=True)
class _Blob:
    data: bytes
    etag: str
    lease: _Lease = field(default_factory=_Lease)
    metadata: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class ContainerState:
    """A container as the service keeps it; survives every crash."""

    blobs: dict[str, _Blob] = field(default_factory=dict[str, _Blob])
    lease: _Lease = field(default_factory=_Lease)


class SimulatedBlobs:
    """A process's way to a container."""

    def __init__(self, caller: SimulatedCaller, container: str) -> None:
        self._caller = caller
        self._service = caller.service
        self._container = container

    @property
    def container(self) -> str:
        return self._container

    async def create(self) -> bool:
        async with self._caller.request("blob.create"):
            created = self._container not in self._service.containers
            if created:
                self._service.containers[self._container] = ContainerState()
        return created

    async def delete(self, *, lease_id: str | None = None) -> bool:
        async with self._caller.request("blob.delete"):
            state = self._service.containers.get(self._container)
            if state is not None:
                self._check_lease(state.lease, lease_id)
                del self._service.containers[self._container]
        return state is not None

    def url(self, name: str) -> str:
        path = "/".join(urllib.parse.quote(each, safe="-._~") for each in name.split("/"))
        return f"{self._service.blob_endpoint}/{self._container}/{path}"

    async def read(self, name: str) -> BlobContent | None:
        async with self._caller.request("blob.read"):
            blob = self._find(name)
        return None if blob is None else BlobContent(blob.data, blob.etag)

    async def properties(self, name: str | None) -> BlobItem | None:
        async with self._caller.request("blob.properties"):
            item: BlobItem | None = None
            if name is None:
                state = self._service.containers.get(self._container)
                if state is not None:
                    item = BlobItem(self._container, "", 0, state.lease.state(self._service.now()))
            else:
                blob = self._find(name)
                item = None if blob is None else self._item(name, blob)
        return item

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
        async with self._caller.request("blob.write"):
            blobs = self._state().blobs
            blob = blobs.get(name)
            if blob is None:
                if if_match is not None or lease_id is not None:
                    raise PreconditionFailedError(f"there is no blob {name!r}", code="ConditionNotMet")
                blob = blobs[name] = _Blob(b"", "")
            elif if_absent:
                raise ConflictError(f"the blob {name!r} exists", code="BlobAlreadyExists")
            else:
                self._check(blob, if_match, lease_id)
            blob.data, blob.metadata = data, dict(metadata or {})
            blob.etag = f'"{self._service.number()}"'
        return blob.etag

    async def remove(self, name: str, *, if_match: str | None = None, lease_id: str | None = None) -> bool:
        async with self._caller.request("blob.remove"):
            blob = self._find(name)
            if blob is not None:
                self._check(blob, if_match, lease_id)
                del self._state().blobs[name]
        return blob is not None

    async def list(self, prefix: str) -> list[BlobItem]:
        async with self._caller.request("blob.list"):
            state = self._service.containers.get(self._container)
            blobs = {} if state is None else state.blobs
            return [self._item(name, blobs[name]) for name in sorted(blobs) if name.startswith(prefix)]

    async def acquire_lease(self, name: str | None, *, duration_s: int, lease_id: str) -> None:
        async with self._caller.request("blob.acquire_lease"):
            if not 15 <= duration_s <= 60:
                raise RequestRefusedError(f"a lease of {duration_s} s", status=400, code="InvalidHeaderValue")
            lease = self._lease(name)
            now = self._service.now()
            if lease.holder(now) not in {None, lease_id}:
                raise ConflictError("somebody holds the lease", code="LeaseAlreadyPresent")
            lease.id, lease.seconds, lease.until = lease_id, duration_s, now + timedelta(seconds=duration_s)

    async def renew_lease(self, name: str | None, lease_id: str) -> None:
        async with self._caller.request("blob.renew_lease"):
            # An expired lease can be renewed while nobody has taken it since.
            lease = self._own(name, lease_id)
            lease.until = self._service.now() + timedelta(seconds=lease.seconds)

    async def change_lease(self, name: str | None, lease_id: str, *, new_lease_id: str) -> None:
        async with self._caller.request("blob.change_lease"):
            lease = self._lease(name)
            if lease.holder(self._service.now()) not in {lease_id, new_lease_id}:
                raise ConflictError("the lease is another's", code="LeaseIdMismatchWithLeaseOperation")
            lease.id = new_lease_id

    async def release_lease(self, name: str | None, lease_id: str) -> None:
        async with self._caller.request("blob.release_lease"):
            lease = self._own(name, lease_id)
            lease.id = lease.until = None
        self._service.notify()

    def _own(self, name: str | None, lease_id: str) -> _Lease:
        lease = self._lease(name)
        if lease.id != lease_id:
            raise ConflictError("the lease is another's", code="LeaseIdMismatchWithLeaseOperation")
        return lease

    def _lease(self, name: str | None) -> _Lease:
        if name is None:
            return self._state().lease
        blob = self._find(name)
        if blob is None:
            raise NotFoundError(f"there is no blob {name!r}", code="BlobNotFound")
        return blob.lease

    def _check(self, blob: _Blob, if_match: str | None, lease_id: str | None) -> None:
        if if_match is not None and if_match != blob.etag:
            raise PreconditionFailedError("the blob was changed", code="ConditionNotMet")
        self._check_lease(blob.lease, lease_id)

    def _check_lease(self, lease: _Lease, lease_id: str | None) -> None:
        holder = lease.holder(self._service.now())
        if holder != lease_id:
            code = "LeaseIdMissing" if lease_id is None else "LeaseIdMismatchWithBlobOperation"
            raise PreconditionFailedError("it is leased, or the lease is lost", code=code)

    def _item(self, name: str, blob: _Blob) -> BlobItem:
        return BlobItem(name, blob.etag, len(blob.data), blob.lease.state(self._service.now()), dict(blob.metadata))

    def _find(self, name: str) -> _Blob | None:
        state = self._service.containers.get(self._container)
        return None if state is None else state.blobs.get(name)

    def _state(self) -> ContainerState:
        try:
            return self._service.containers[self._container]
        except KeyError:
            raise NotFoundError(f"there is no container {self._container!r}", code="ContainerNotFound") from None
