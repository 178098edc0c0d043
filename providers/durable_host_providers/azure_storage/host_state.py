"""Named leases and documents of the host, where Azure's own host keeps them.

| what | container | blob |
|---|---|---|
| document `keys/host` | `azure-webjobs-secrets` | `<site>/host.json` |
| document `keys/functions/<name>` | `azure-webjobs-secrets` | `<site>/<name>.json` |
| document `timers/<name>` | `azure-webjobs-hosts` | `timers/<host id>/Host.Functions.<name>/status` |
| any other document | `azure-webjobs-hosts` | `documents/<host id>/<path, percent-encoded>.json` |
| lease `timers/<name>` | `azure-webjobs-hosts` | `locks/<host id>/Host.Functions.<name>.Listener` |
| any other lease | `azure-webjobs-hosts` | `locks/<host id>/<name, percent-encoded>` |

The first three and the lease `host` are those of functions-host.md 3.3, 4.2, 4.4 and 11.2. A document's version is its
blob's ETag. A lease is the blob's; the service grants 15 to 60 s, so a longer one ends sooner and a shorter one keeps
others away a bit longer than its holder relies on.
"""

from __future__ import annotations

import contextlib
import platform
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.storage.contract import HostStateStore, NamedLease, VersionedValue

from .ports import Blobs, ConflictError, NotFoundError, PreconditionFailedError, StorageAccount

__all__ = ["AzureHostState", "HostIdentity", "host_identity"]

_HOSTS = "azure-webjobs-hosts"
_SECRETS = "azure-webjobs-secrets"
_KEYS = "keys/"
_FUNCTION_KEYS = "keys/functions/"
_HOST_KEYS = "keys/host"
_TIMERS = "timers/"
_FUNCTION = "Host.Functions."
_STATUS = "/status"
_DOCUMENT = ".json"
_OWNER = "FunctionInstance"
"""Metadata of a lock's blob: who took it last (functions-host.md 11.2)."""

_SHORTEST_S, _LONGEST_S = 15, 60
_ID_LENGTH = 32


class HostIdentity:
    """Which app the state belongs to: hosts that cooperate share it, two apps on one account must not.

    Attributes:
        site: folder of the keys.
        host_id: folder of everything else.
    """

    __slots__ = ("host_id", "site")

    def __init__(self, site: str, host_id: str) -> None:
        self.site = site
        self.host_id = host_id


def host_identity(folder: Path, setting: Callable[[str], str | None]) -> HostIdentity:
    """The identity that the settings give, else one of this machine and the app folder.

    Source: functions-host.md 3.3, 11.1.
    """
    site = (setting("WEBSITE_SITE_NAME") or "").strip()
    slot = (setting("WEBSITE_SLOT_NAME") or "").strip()
    if site and slot and slot.lower() != "production":
        site = f"{site}-{slot}"
    host_id = (setting("AzureFunctionsWebHost__hostid") or "").strip()
    if not host_id:
        host_id = site[:_ID_LENGTH].rstrip("-").lower() or _local_id(folder)
    return HostIdentity(site.lower() or host_id, host_id)


def _local_id(folder: Path) -> str:
    digest = 23
    for each in str(folder):
        digest = (digest * 31 + ord(each)) & 0xFFFFFFFF
    number = abs(digest - 0x1_0000_0000 if digest & 0x8000_0000 else digest)
    machine = "".join(each for each in platform.node() if each.isascii() and each.isalnum())
    return f"{machine}-{number}".lower()[:_ID_LENGTH].strip("-")


class AzureHostState(HostStateStore):
    """The host state of one app. Needs nothing to be created beforehand; containers and blobs come with first use."""

    def __init__(self, account: StorageAccount, environment: Environment, identity: HostIdentity) -> None:
        self._hosts = account.blobs(_HOSTS)
        self._secrets = account.blobs(_SECRETS)
        self._ids = environment.ids
        self._me = str(uuid.UUID(environment.ids.new_id()))
        self._keys = f"{identity.site}/"
        self._timers = f"timers/{identity.host_id}/{_FUNCTION}"
        self._documents = f"documents/{identity.host_id}/"
        self._locks = f"locks/{identity.host_id}/"

    # Leases.

    async def acquire(self, name: str, *, duration: timedelta) -> NamedLease | None:
        blob = self._lock(name)
        seconds = min(max(int(duration.total_seconds()), _SHORTEST_S), _LONGEST_S)
        token = str(uuid.UUID(self._ids.new_id()))
        try:
            try:
                await self._hosts.acquire_lease(blob, duration_s=seconds, lease_id=token)
            except NotFoundError:
                await self._make_lock(blob)
                await self._hosts.acquire_lease(blob, duration_s=seconds, lease_id=token)
        except ConflictError:
            return None
        with contextlib.suppress(StoreError):  # it is for people who look; the lease is ours without it
            await self._hosts.write(blob, b"", lease_id=token, metadata={_OWNER: self._me})
        return NamedLease(name, f"{token}/{seconds}", min(duration, timedelta(seconds=seconds)))

    async def renew(self, lease: NamedLease, *, duration: timedelta) -> NamedLease | None:
        token, _, seconds = lease.token.partition("/")
        try:
            await self._hosts.renew_lease(self._lock(lease.name), token)
        except (NotFoundError, ConflictError, PreconditionFailedError):
            return None
        # The service renews for as long as it granted at first.
        return NamedLease(lease.name, lease.token, min(duration, timedelta(seconds=int(seconds))))

    async def release(self, lease: NamedLease) -> None:
        try:
            await self._hosts.release_lease(self._lock(lease.name), lease.token.partition("/")[0])
        except (NotFoundError, ConflictError, PreconditionFailedError):
            return

    def _lock(self, name: str) -> str:
        if _is_function(name, _TIMERS):
            return f"{self._locks}{_FUNCTION}{name.removeprefix(_TIMERS)}.Listener"
        return f"{self._locks}{quote(name, safe='')}"

    async def _make_lock(self, blob: str) -> None:
        await self._hosts.create()
        try:
            await self._hosts.write(blob, b"", if_absent=True)
        except ConflictError:
            return  # somebody else made it

    # Documents.

    async def read(self, path: str) -> VersionedValue | None:
        container, blob = self._place(path)
        found = await container.read(blob)
        return None if found is None else VersionedValue(found.data, found.etag)

    async def write(self, path: str, value: bytes, *, expected: str | None) -> VersionedValue | None:
        container, blob = self._place(path)
        if expected is not None and not expected.startswith('"'):
            return None  # no ETag, so it was never a version
        try:
            try:
                etag = await container.write(blob, value, if_match=expected, if_absent=expected is None)
            except NotFoundError:
                if expected is not None:
                    return None
                await container.create()
                etag = await container.write(blob, value, if_absent=True)
        except (ConflictError, PreconditionFailedError):
            return None
        return VersionedValue(value, etag)

    async def delete(self, path: str) -> bool:
        container, blob = self._place(path)
        return await container.remove(blob)

    async def list(self, prefix: str) -> Sequence[str]:
        paths: list[str] = []
        if _meets(_KEYS, prefix):
            paths += [self._key_path(item.name) for item in await self._secrets.list(self._keys)]
        if _meets(_TIMERS, prefix):
            for item in await self._hosts.list(self._timers):
                if item.name.endswith(_STATUS):
                    paths.append(_TIMERS + item.name[len(self._timers) : -len(_STATUS)])
        for item in await self._hosts.list(self._documents):
            paths.append(unquote(item.name[len(self._documents) : -len(_DOCUMENT)]))
        return sorted(path for path in paths if path and path.startswith(prefix))

    def _place(self, path: str) -> tuple[Blobs, str]:
        if path == _HOST_KEYS:
            return self._secrets, f"{self._keys}host.json"
        if _is_function(path, _FUNCTION_KEYS) and path != f"{_FUNCTION_KEYS}host":
            return self._secrets, f"{self._keys}{path.removeprefix(_FUNCTION_KEYS)}.json"
        if _is_function(path, _TIMERS):
            return self._hosts, f"{self._timers}{path.removeprefix(_TIMERS)}{_STATUS}"
        return self._hosts, f"{self._documents}{quote(path, safe='')}{_DOCUMENT}"

    def _key_path(self, blob: str) -> str:
        """The path of a key document; empty for blobs that are none, such as Azure's snapshots."""
        name = blob.removeprefix(self._keys)
        if not name.endswith(_DOCUMENT):
            return ""
        name = name.removesuffix(_DOCUMENT)
        path = _HOST_KEYS if name == "host" else f"{_FUNCTION_KEYS}{name}"
        return path if path == _HOST_KEYS or _is_function(path, _FUNCTION_KEYS) else ""


def _is_function(path: str, prefix: str) -> bool:
    """Whether the path is the prefix and a name that stands as one part of a blob's name."""
    name = path.removeprefix(prefix)
    return path.startswith(prefix) and bool(name) and not any(each in "/\\." for each in name)


def _meets(folder: str, prefix: str) -> bool:
    """Whether the folder may hold paths of that prefix."""
    return folder.startswith(prefix) or prefix.startswith(folder)
