"""Keys of a host, kept as documents in the provider's host-state store (functions-host.md 3.3).

`keys/host` holds the master key, host function keys and system keys; `keys/functions/<name in lower case>` the keys of
one function. A document is made on first use: written only if absent, so that of several hosts one wins and the others
read what it wrote. Changes are written with the version that was read, and tried again when somebody was faster.

`KeyRing` answers what a key opens from a cache. A document is read again when it is older than ten seconds (a key
deleted by the command line closes within that time) and at once when a key is not known, though for that reason at most
once a minute.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError, StoreError
from durable_host.http.secrets import KeyKind, generate_secret
from durable_host.storage.contract import HostStateStore, VersionedValue

__all__ = ["MASTER", "SYSTEM_KEY", "Key", "KeyRing", "KeyScope", "Level", "create_key", "delete_key", "list_keys"]

SYSTEM_KEY = "durabletask_extension"
"""Name of the system key of the management API; there from the first use."""

MASTER = "_master"
"""Under this name the master key is read and set through the key endpoints."""

_FRESH = 10.0
_FORCED = 60.0
_ATTEMPTS = 20


class Key(msgspec.Struct, frozen=True):
    """A named key. `encrypted` is always false here; a document with an encrypted one is refused."""

    name: str
    value: str
    encrypted: bool = False


class _HostDocument(msgspec.Struct, rename="camel"):
    master_key: Key | str
    function_keys: list[Key] = []
    system_keys: list[Key] = []
    host_name: str = ""
    instance_id: str = ""
    source: str = "runtime"
    decryption_key_id: str = ""
    function_key: str | msgspec.UnsetType = msgspec.UNSET  # the legacy shape


class _FunctionDocument(msgspec.Struct, rename="camel"):
    keys: list[Key] = []
    host_name: str = ""
    instance_id: str = ""
    source: str = "runtime"
    decryption_key_id: str = ""
    key: str | msgspec.UnsetType = msgspec.UNSET  # the legacy shape


_Document = _HostDocument | _FunctionDocument


@dataclass(frozen=True, slots=True)
class KeyScope:
    """Which keys: `KeyScope.host()` (host function keys), `KeyScope.system()` or `KeyScope.function(name)`."""

    kind: str
    name: str | None = None

    @classmethod
    def host(cls) -> KeyScope:
        """Keys for every function."""
        return cls("host")

    @classmethod
    def system(cls) -> KeyScope:
        """Keys of extensions; the management API's is `durabletask_extension`."""
        return cls("system")

    @classmethod
    def function(cls, name: str) -> KeyScope:
        """Keys of one function."""
        return cls("function", name)

    @property
    def path(self) -> str:
        """Path of the document."""
        return "keys/host" if self.name is None else f"keys/functions/{self.name.lower()}"


class Level(IntEnum):
    """What a caller may do; each level but SYSTEM includes those below it."""

    ANONYMOUS = 0
    FUNCTION = 2
    SYSTEM = 3
    ADMIN = 4


async def list_keys(store: HostStateStore, environment: Environment, scope: KeyScope) -> Sequence[Key]:
    """Keys of a scope, in the order in which they were made; documents that are missing are made.

    Raises:
        ConfigurationError: the document cannot be read.
        StoreUnavailableError: neither can the store.
    """
    _, document = await _load(store, environment, scope)
    return tuple(_keys(document, scope))


async def create_key(
    store: HostStateStore, environment: Environment, scope: KeyScope, name: str, value: str | None = None
) -> tuple[Key, bool]:
    """Make or replace a key, with a generated value unless one is given; also says whether it is new.

    The name `_master` in the host and system scopes sets the master key.
    """
    kind = KeyKind.MASTER if name == MASTER else KeyKind.SYSTEM if scope.kind == "system" else KeyKind.FUNCTION
    key = Key(name, value if value is not None else generate_secret(environment.ids, kind))
    new = False

    def change(document: _Document) -> bool:
        nonlocal new
        if name == MASTER and isinstance(document, _HostDocument):
            document.master_key = Key("master", key.value)
            return True
        keys = _keys(document, scope)
        at = next((at for at, each in enumerate(keys) if _same(each.name, name)), None)
        new = at is None
        if at is None:
            keys.append(key)
        else:
            keys[at] = key
        return True

    await _change(store, environment, scope, change)
    return key, new


async def delete_key(store: HostStateStore, environment: Environment, scope: KeyScope, name: str) -> bool:
    """Remove a key; False: there was none. The master key cannot be removed.

    Raises:
        ConfigurationError: it is the master key.
    """
    if name == MASTER:
        raise ConfigurationError("Cannot delete System Key.")
    found = False

    def change(document: _Document) -> bool:
        nonlocal found
        keys = _keys(document, scope)
        kept = [each for each in keys if not _same(each.name, name)]
        found = len(kept) < len(keys)
        keys[:] = kept
        return found

    await _change(store, environment, scope, change)
    return found


async def _change(
    store: HostStateStore, environment: Environment, scope: KeyScope, change: Callable[[_Document], bool]
) -> None:
    for _ in range(_ATTEMPTS):
        stored, document = await _load(store, environment, scope)
        if not change(document):
            return
        if await store.write(scope.path, msgspec.json.encode(document), expected=stored.version) is not None:
            return
    raise StoreError(f"The keys at {scope.path!r} keep changing under our hands; try again.")


async def _load(store: HostStateStore, environment: Environment, scope: KeyScope) -> tuple[VersionedValue, _Document]:
    for _ in range(_ATTEMPTS):
        stored = await store.read(scope.path)
        if stored is None:
            made = msgspec.json.encode(_new_document(environment, scope))
            stored = await store.write(scope.path, made, expected=None)
            if stored is None:
                continue  # somebody else made it; read theirs
        document, legacy = _decoded(stored.value, scope)
        if legacy:
            written = await store.write(scope.path, msgspec.json.encode(document), expected=stored.version)
            if written is None:
                continue
            stored = written
        return stored, document
    raise StoreError(f"The keys at {scope.path!r} keep changing under our hands; try again.")


def _new_document(environment: Environment, scope: KeyScope) -> _Document:
    ids = environment.ids
    default = Key("default", generate_secret(ids, KeyKind.FUNCTION))
    if scope.name is not None:
        return _FunctionDocument([default], instance_id=ids.new_id())
    return _HostDocument(
        Key("master", generate_secret(ids, KeyKind.MASTER)),
        [default],
        [Key(SYSTEM_KEY, generate_secret(ids, KeyKind.SYSTEM))],
        instance_id=ids.new_id(),
    )


def _decoded(value: bytes, scope: KeyScope) -> tuple[_Document, bool]:
    kind: type[_HostDocument] | type[_FunctionDocument] = _HostDocument if scope.name is None else _FunctionDocument
    try:
        document: _Document = msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"The key document {scope.path!r} cannot be read: {error}. Repair or delete it."
        ) from None
    legacy = False
    if isinstance(document, _HostDocument):
        if isinstance(document.master_key, str):
            document.master_key, legacy = Key("master", document.master_key), True
        if document.function_key is not msgspec.UNSET:
            document.function_keys.insert(0, Key("default", document.function_key))
            document.function_key, legacy = msgspec.UNSET, True
        held: list[Key | str] = [document.master_key, *document.function_keys, *document.system_keys]
    else:
        if document.key is not msgspec.UNSET:
            document.keys.insert(0, Key("default", document.key))
            document.key, legacy = msgspec.UNSET, True
        held = [*document.keys]
    if any(isinstance(key, Key) and key.encrypted for key in held):
        raise ConfigurationError(
            f"The key document {scope.path!r} holds encrypted keys, which only Azure can read. "
            "Delete it to make new ones."
        )
    return document, legacy


def _keys(document: _Document, scope: KeyScope) -> list[Key]:
    if isinstance(document, _FunctionDocument):
        return document.keys
    return document.system_keys if scope.kind == "system" else document.function_keys


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


@dataclass(slots=True)
class _Cached:
    document: _Document
    read_at: float


class KeyRing:
    """What a key opens, from a cache of the documents.

    Args:
        store: None: there is no secret store; every caller stays anonymous.
    """

    def __init__(self, store: HostStateStore | None, environment: Environment) -> None:
        self.store = store
        self.environment = environment
        self._cache: dict[str, _Cached] = {}
        self._forced_at: float | None = None

    def forget(self) -> None:
        """Read every document again; after a change made through this host."""
        self._cache.clear()

    async def system_key(self) -> str | None:
        """The value of `durabletask_extension` for generated addresses; made when it is missing."""
        if self.store is None:
            return None
        keys = await list_keys(self.store, self.environment, KeyScope.system())
        found = next((key for key in keys if _same(key.name, SYSTEM_KEY)), None)
        if found is None:
            found, _ = await create_key(self.store, self.environment, KeyScope.system(), SYSTEM_KEY)
        return found.value

    async def master_key(self) -> str | None:
        """The master key."""
        if self.store is None:
            return None
        _, document = await _load(self.store, self.environment, KeyScope.host())
        assert isinstance(document, _HostDocument)
        return _value(document.master_key)

    async def level(self, presented: str | None, function: str | None = None, system: str | None = None) -> Level:
        """What the presented key opens.

        Args:
            function: the function that is called; its own keys count.
            system: name of the system key that counts; another one opens nothing here.

        Raises:
            StoreUnavailableError, ConfigurationError: the keys cannot be read.
        """
        if not presented or self.store is None:
            return Level.ANONYMOUS
        found = await self._judge(presented, function, system)
        now = self.environment.clock.monotonic()
        if found is Level.ANONYMOUS and (self._forced_at is None or now - self._forced_at >= _FORCED):
            self._forced_at = now
            self.forget()
            found = await self._judge(presented, function, system)
        return found

    async def _judge(self, presented: str, function: str | None, system: str | None) -> Level:
        host = await self._document(KeyScope.host())
        assert isinstance(host, _HostDocument)
        found = Level.ANONYMOUS
        # Every candidate is compared, so that time tells nothing about which one came close.
        for key in host.function_keys:
            found = max(found, Level.FUNCTION if _equal(key.value, presented) else Level.ANONYMOUS)
        if function is not None:
            own = await self._document(KeyScope.function(function))
            assert isinstance(own, _FunctionDocument)
            for key in own.keys:
                found = max(found, Level.FUNCTION if _equal(key.value, presented) else Level.ANONYMOUS)
        for key in host.system_keys:
            opens = _equal(key.value, presented) and (system is None or _same(key.name, system))
            found = max(found, Level.SYSTEM if opens else Level.ANONYMOUS)
        return max(found, Level.ADMIN if _equal(_value(host.master_key), presented) else Level.ANONYMOUS)

    async def _document(self, scope: KeyScope) -> _Document:
        assert self.store is not None
        now = self.environment.clock.monotonic()
        cached = self._cache.get(scope.path)
        if cached is None or now - cached.read_at >= _FRESH:
            _, document = await _load(self.store, self.environment, scope)
            self._cache[scope.path] = cached = _Cached(document, now)
        return cached.document


def _value(key: Key | str) -> str:
    return key if isinstance(key, str) else key.value


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
