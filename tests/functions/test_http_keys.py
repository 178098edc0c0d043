"""Keys: documents, generated values, what a key opens."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.http.keys import (
    MASTER,
    SYSTEM_KEY,
    KeyRing,
    KeyScope,
    Level,
    create_key,
    delete_key,
    list_keys,
)
from durable_host.http.secrets import KeyKind, generate_secret, is_generated
from durable_host.storage.contract import HostStateStore, VersionedValue
from durable_host.testing.environment import SeededIds, SimulatedClock
from durable_host_providers.memory import MemoryHub

HOST = KeyScope.host()
SYSTEM = KeyScope.system()
START = KeyScope.function("Start")


def _environment() -> tuple[Environment, SimulatedClock]:
    clock = SimulatedClock(lambda: 0.0)
    return Environment(clock=clock, ids=SeededIds(1)), clock


def _store() -> HostStateStore:
    return MemoryHub().host_state


# Values.


@pytest.mark.parametrize("kind", list(KeyKind))
def test_generated_values_have_marker_and_checksum(kind: KeyKind) -> None:
    value = generate_secret(SeededIds(3), kind)

    assert len(value) == 56
    assert value[44:48] == "AzFu"
    assert value.endswith("==")
    assert is_generated(value, kind)


def test_checksum_tells_kinds_and_changes_apart() -> None:
    value = generate_secret(SeededIds(3), KeyKind.MASTER)

    assert not is_generated(value, KeyKind.SYSTEM)
    assert not is_generated(("B" if value[0] == "A" else "A") + value[1:], KeyKind.MASTER)
    assert not is_generated("short", KeyKind.MASTER)


# Documents.


async def test_first_use_makes_the_documents_with_the_layout_of_azure() -> None:
    store, (environment, _) = _store(), _environment()

    await list_keys(store, environment, HOST)
    await list_keys(store, environment, START)

    host, function = await store.read("keys/host"), await store.read("keys/functions/start")
    assert host is not None
    assert function is not None
    document = json.loads(host.value)
    assert list(document) == [
        *("masterKey", "functionKeys", "systemKeys", "hostName", "instanceId", "source", "decryptionKeyId"),
    ]
    assert document["masterKey"].keys() == {"name", "value", "encrypted"}
    assert [key["name"] for key in document["functionKeys"]] == ["default"]
    assert [key["name"] for key in document["systemKeys"]] == [SYSTEM_KEY]
    assert list(json.loads(function.value)) == ["keys", "hostName", "instanceId", "source", "decryptionKeyId"]


async def test_hosts_that_start_together_agree_on_one_document() -> None:
    store = _store()
    environments = [Environment(ids=SeededIds(seed)) for seed in range(5)]

    lists = await asyncio.gather(*(list_keys(store, each, HOST) for each in environments))

    assert len({keys[0].value for keys in lists}) == 1


async def test_legacy_documents_are_read_and_rewritten() -> None:
    store, (environment, _) = _store(), _environment()
    await store.write("keys/host", b'{"masterKey": "m", "functionKey": "f"}', expected=None)
    await store.write("keys/functions/start", b'{"key": "k"}', expected=None)

    assert [key.value for key in await list_keys(store, environment, HOST)] == ["f"]
    assert [key.value for key in await list_keys(store, environment, START)] == ["k"]

    ring = KeyRing(store, environment)
    assert await ring.level("m") is Level.ADMIN
    rewritten = await store.read("keys/host")
    assert rewritten is not None
    assert json.loads(rewritten.value)["masterKey"]["value"] == "m"
    assert "functionKey" not in json.loads(rewritten.value)


@pytest.mark.parametrize(
    "document",
    [b"no json", b'{"masterKey": {"name": "master", "value": "x", "encrypted": true}}'],
)
async def test_documents_that_cannot_be_read_are_reported_and_kept(document: bytes) -> None:
    store, (environment, _) = _store(), _environment()
    await store.write("keys/host", document, expected=None)

    with pytest.raises(ConfigurationError, match="keys/host"):
        await list_keys(store, environment, HOST)

    kept = await store.read("keys/host")
    assert kept is not None
    assert kept.value == document


async def test_keys_are_made_replaced_and_removed() -> None:
    store, (environment, _) = _store(), _environment()

    made, new = await create_key(store, environment, START, "extra")
    replaced, again = await create_key(store, environment, START, "EXTRA", "given")

    assert (new, again) == (True, False)
    assert is_generated(made.value, KeyKind.FUNCTION)
    assert [(key.name, key.value) for key in await list_keys(store, environment, START)][1:] == [("EXTRA", "given")]
    assert replaced.value == "given"
    assert await delete_key(store, environment, START, "extra")
    assert not await delete_key(store, environment, START, "extra")


async def test_the_master_key_can_be_set_but_not_removed() -> None:
    store, (environment, _) = _store(), _environment()

    await create_key(store, environment, HOST, MASTER, "new master")

    assert await KeyRing(store, environment).level("new master") is Level.ADMIN
    with pytest.raises(ConfigurationError):
        await delete_key(store, environment, HOST, MASTER)


async def test_changes_made_at_once_are_all_kept() -> None:
    store, (environment, _) = _store(), _environment()

    await asyncio.gather(*(create_key(store, environment, HOST, f"k{n}", f"v{n}") for n in range(10)))

    assert {key.name for key in await list_keys(store, environment, HOST)} == {"default", *(f"k{n}" for n in range(10))}


# What a key opens.


async def test_each_key_opens_its_own_level() -> None:
    store, (environment, _) = _store(), _environment()
    ring = KeyRing(store, environment)
    host = (await list_keys(store, environment, HOST))[0].value
    system = (await list_keys(store, environment, SYSTEM))[0].value
    own = (await list_keys(store, environment, START))[0].value
    await create_key(store, environment, SYSTEM, "other_extension", "other")
    master = await ring.master_key()

    assert await ring.level(master) is Level.ADMIN
    assert await ring.level(host, "start") is Level.FUNCTION
    assert await ring.level(own, "START") is Level.FUNCTION
    assert await ring.level(own, "another") is Level.ANONYMOUS
    assert await ring.level(system, system=SYSTEM_KEY) is Level.SYSTEM
    assert await ring.level("other", system=SYSTEM_KEY) is Level.ANONYMOUS
    assert await ring.level("wrong") is Level.ANONYMOUS
    assert await ring.level(None) is Level.ANONYMOUS


async def test_without_a_secret_store_nobody_is_known() -> None:
    ring = KeyRing(None, _environment()[0])

    assert await ring.level("anything") is Level.ANONYMOUS
    assert await ring.system_key() is None


class _Counting:
    """A host-state store that counts reads."""

    def __init__(self, store: HostStateStore) -> None:
        self.store = store
        self.reads = 0

    async def read(self, path: str) -> VersionedValue | None:
        self.reads += 1
        return await self.store.read(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


async def test_wrong_keys_reach_the_store_at_most_once_a_minute() -> None:
    environment, clock = _environment()
    counting = _Counting(_store())
    ring = KeyRing(counting, environment)  # type: ignore[arg-type] # delegates what it does not count
    await ring.level("wrong")
    before = counting.reads

    for _ in range(100):
        await ring.level("wrong")
    assert counting.reads == before

    clock.advance(timedelta(seconds=61))
    await ring.level("wrong")
    assert counting.reads > before


async def test_a_key_made_elsewhere_opens_at_once_and_a_removed_one_closes_soon() -> None:
    environment, clock = _environment()
    store = _store()
    ring = KeyRing(store, environment)
    await ring.level((await list_keys(store, environment, HOST))[0].value)

    await create_key(store, environment, HOST, "new", "fresh")
    assert await ring.level("fresh", "f") is Level.FUNCTION

    await delete_key(store, environment, HOST, "new")
    clock.advance(timedelta(seconds=11))
    assert await ring.level("fresh", "f") is Level.ANONYMOUS
