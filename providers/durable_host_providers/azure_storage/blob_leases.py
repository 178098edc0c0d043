"""Leases on blobs as ownership of partitions: what the blob managers have in common.

A partition has one blob for each kind of lease. The lease itself is the service's, on the service's clock; the blob's
content says who holds it and under which token, so that others can count, and steal: whoever knows the token may change
the lease to a token of its own. What is stored is that of azure-storage-task-hub.md 1.6.2, which .NET workers share.

Fewer requests than the reference makes: a listing tells the state of each lease and the ETag of each blob, so a content
is read again only after it was written.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Collection, Sequence
from datetime import timedelta

import msgspec

from durable_host_providers.azure_storage.partitions import PartitionContext
from durable_host_providers.azure_storage.ports import (
    Blobs,
    ConflictError,
    LeaseState,
    NotFoundError,
    PreconditionFailedError,
)

__all__ = ["BlobLease", "BlobLeases", "as_guid", "new_lease_content", "plan_takes"]

_LOST = (ConflictError, PreconditionFailedError, NotFoundError)
"""What the service answers when somebody else was faster, or the lease is another's."""

_UNDER_WAY = timedelta(seconds=1)
"""How long before the end of a lease we stop to rely on it: a request that is under way then may arrive later."""


class _Content(msgspec.Struct, frozen=True, rename="pascal"):
    partition_id: str
    owner: str | None = None
    token: str | None = None
    epoch: int = 0


class BlobLease(msgspec.Struct, frozen=True):
    """A partition's lease as last listed.

    Attributes:
        owner, token, epoch: who took it last, under which lease id, and how often it was taken; as the blob tells.
        leased: whether the lease runs, whoever holds it.
    """

    queue: str
    owner: str | None = None
    token: str | None = None
    epoch: int = 0
    leased: bool = False

    @property
    def is_free(self) -> bool:
        """Whether anybody may take it."""
        return not self.leased or not self.owner


def as_guid(digits: str) -> str:
    """32 hexadecimal digits as lease ids are written."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_lease_content(queue: str) -> bytes:
    """The blob of a partition that nobody has owned yet."""
    return msgspec.json.encode(_Content(queue))


def plan_takes(leases: Sequence[BlobLease], me: str, held: Collection[str], *, steal: bool) -> tuple[BlobLease, ...]:
    """Which leases to take now, in order; one of them at most is another's.

    Args:
        leases: all, in order of their names.
        held: queues whose lease this worker holds.
        steal: whether living owners may be robbed; else whatever is free is taken.

    Source: azure-storage-task-hub.md 1.6.2, balancer pass.
    """
    free: list[BlobLease] = []
    others: dict[str, list[BlobLease]] = {}
    for lease in leases:
        if lease.queue in held:
            continue
        # One of ours that we do not hold is what an acquisition without an answer left.
        if lease.is_free or lease.owner == me or lease.owner is None:
            free.append(lease)
        else:
            others.setdefault(lease.owner, []).append(lease)
    if not steal:
        return tuple(free)
    target = max(1, math.ceil(len(leases) / (len(others) + 1)))
    need = target - len(held)
    if need <= 0:
        return ()
    if free:
        return tuple(free[:need])
    if not others:
        return ()
    richest = max(others.values(), key=len)
    return (richest[0],) if len(richest) > target - (1 if need > 1 else 0) else ()


class _Held(msgspec.Struct):
    token: str
    epoch: int
    renewed_at: float


class BlobLeases:
    """The leases of one kind: a folder of blobs, and which of them this worker holds.

    Args:
        folder: `intent`, `ownership` or `default`.
        duration: of a lease; the service takes 15 to 60 seconds.
    """

    def __init__(self, context: PartitionContext, blobs: Blobs, folder: str, duration: timedelta) -> None:
        self._blobs = blobs
        self._folder = folder
        self._queues = frozenset(context.queues)
        self._me = context.me
        self._duration = min(max(duration, timedelta(seconds=15)), timedelta(seconds=60))
        self._clock = context.environment.clock
        self._ids = context.environment.ids
        self._held: dict[str, _Held] = {}
        self._tokens: dict[str, str] = {}
        self._contents: dict[str, tuple[str, _Content]] = {}
        self.looking = asyncio.Lock()
        """Held by whoever lists and takes: what it listed must still be so when it takes."""

    @property
    def held(self) -> tuple[str, ...]:
        """Queues whose lease this worker holds, as far as it knows."""
        return tuple(self._held)

    def until(self, queue: str) -> float:
        """How long a held lease can be relied on, in monotonic seconds."""
        return self._held[queue].renewed_at + (self._duration - _UNDER_WAY).total_seconds()

    def renewed_at(self, queue: str) -> float:
        """When the last renewal that went through was asked for, in monotonic seconds."""
        return self._held[queue].renewed_at

    async def list(self) -> list[BlobLease]:
        """All leases of this kind."""
        found: list[BlobLease] = []
        for item in await self._blobs.list(f"{self._folder}/"):
            queue = item.name.removeprefix(f"{self._folder}/")
            if queue not in self._queues:
                continue
            content = await self._content(queue, item.etag)
            found.append(BlobLease(queue, content.owner, content.token, content.epoch, item.lease is LeaseState.LEASED))
        return found

    async def acquire(self, lease: BlobLease) -> bool:
        """Take a lease that is free, or another's; False: somebody else was faster."""
        queue = lease.queue
        # After an attempt whose answer was lost the lease may be ours already, under the token of that attempt.
        before = self._tokens.get(queue)
        asked_at = self._clock.monotonic()
        if before is None or not (lease.leased and await self._try(self._blobs.renew_lease(self._name(queue), before))):
            token = self._tokens[queue] = as_guid(self._ids.new_id())
            if not await self._take(lease, token):
                del self._tokens[queue]
                return False
        token = self._tokens[queue]
        content = _Content(queue, self._me, token, lease.epoch + 1)
        if not await self._try(self._write(queue, content, token)):
            return False
        del self._tokens[queue]
        self._held[queue] = _Held(token, content.epoch, asked_at)
        return True

    async def renew(self, queue: str) -> bool:
        """Hold it longer; False: it is lost."""
        asked_at = self._clock.monotonic()
        held = self._held.get(queue)
        if held is None:
            return False
        if not await self._try(self._blobs.renew_lease(self._name(queue), held.token)):
            self._held.pop(queue, None)
            return False
        held.renewed_at = asked_at
        return True

    async def release(self, queue: str) -> None:
        """Give it back; one that is lost is ignored."""
        held = self._held.get(queue)
        if held is None:
            return
        if await self._try(self._write(queue, _Content(queue, epoch=held.epoch), held.token)):
            await self._try(self._blobs.release_lease(self._name(queue), held.token))
        self._held.pop(queue, None)

    async def _take(self, lease: BlobLease, token: str) -> bool:
        name = self._name(lease.queue)
        if not lease.leased:
            seconds = round(self._duration.total_seconds())
            return await self._try(self._blobs.acquire_lease(name, duration_s=seconds, lease_id=token))
        if lease.token is None:
            return False
        # A changed lease ends when it would have ended: only a renewal lets it run for its duration again.
        return await self._try(self._blobs.change_lease(name, lease.token, new_lease_id=token)) and await self._try(
            self._blobs.renew_lease(name, token)
        )

    async def _try(self, request: Awaitable[None]) -> bool:
        try:
            await request
        except _LOST:
            return False
        return True

    async def _content(self, queue: str, etag: str) -> _Content:
        known = self._contents.get(queue)
        if known is not None and known[0] == etag:
            return known[1]
        blob = await self._blobs.read(self._name(queue))
        if blob is None:
            return _Content(queue)
        try:
            content = msgspec.json.decode(blob.data, type=_Content)
        except msgspec.DecodeError:
            content = _Content(queue)  # nobody can hold it under a token that nobody can read
        self._contents[queue] = (blob.etag, content)
        return content

    async def _write(self, queue: str, content: _Content, token: str) -> None:
        etag = await self._blobs.write(self._name(queue), msgspec.json.encode(content), lease_id=token)
        self._contents[queue] = (etag, content)

    def _name(self, queue: str) -> str:
        return f"{self._folder}/{queue}"
