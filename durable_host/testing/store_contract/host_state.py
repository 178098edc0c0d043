"""The host state store: named leases and versioned documents."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durable_host.storage.contract import HostStateStore, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise

__all__ = ["HostStateContract"]

MINUTE = timedelta(minutes=1)


class HostStateContract(ContractBase):
    """`HostStateStore`; nothing is asked of a hub that gives none."""

    @promise()
    async def test_a_named_lease_has_one_holder(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            lease = await state.acquire("timer/a", duration=MINUTE)

            assert lease is not None
            assert (lease.name, timedelta(0) < lease.remaining <= MINUTE) == ("timer/a", True)
            assert await state.acquire("timer/a", duration=MINUTE) is None
            assert await state.acquire("timer/b", duration=MINUTE) is not None

    @promise()
    async def test_of_several_at_once_one_gets_the_lease(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            leases = await asyncio.gather(*[state.acquire("one", duration=MINUTE) for _ in range(5)])

            assert sum(lease is not None for lease in leases) == 1

    @promise()
    async def test_a_named_lease_lasts_while_it_is_renewed(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            lease = await state.acquire("a", duration=MINUTE)
            assert lease is not None
            for _ in range(5):
                await hub.wait(45)
                lease = await state.renew(lease, duration=MINUTE)
                assert lease is not None
                assert await state.acquire("a", duration=MINUTE) is None

    @promise()
    async def test_a_named_lease_that_ended_is_taken_and_lost(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            old = await state.acquire("a", duration=MINUTE)
            assert old is not None
            await hub.wait(61)
            new = await state.acquire("a", duration=MINUTE)

            assert new is not None
            assert await state.renew(old, duration=MINUTE) is None
            await state.release(old)
            assert await state.acquire("a", duration=MINUTE) is None
            assert await state.renew(new, duration=MINUTE) is not None

    @promise()
    async def test_a_released_lease_is_free(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            lease = await state.acquire("a", duration=MINUTE)
            assert lease is not None
            await state.release(lease)
            await state.release(lease)

            assert await state.renew(lease, duration=MINUTE) is None
            assert await state.acquire("a", duration=MINUTE) is not None

    @promise()
    async def test_a_document_is_written_when_the_version_is_the_expected_one(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for state in _states(hub):
            assert await state.read("keys/host") is None
            assert await state.write("keys/host", b"x", expected="1") is None
            first = await state.write("keys/host", b"\x00\xff", expected=None)
            assert first is not None
            assert await state.read("keys/host") == first
            assert first.value == b"\x00\xff"

            assert await state.write("keys/host", b"2", expected=None) is None
            second = await state.write("keys/host", b"2", expected=first.version)
            assert second is not None
            assert second.version != first.version
            assert await state.write("keys/host", b"3", expected=first.version) is None
            assert await state.read("keys/host") == second

    @promise()
    async def test_of_several_writers_at_once_one_wins(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            written = await asyncio.gather(*[state.write("a", b"%d" % n, expected=None) for n in range(5)])

            winners = [each for each in written if each is not None]
            assert [await state.read("a")] == winners

    @promise()
    async def test_a_deleted_document_is_gone_and_its_version_does_not_come_back(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        for state in _states(hub):
            first = await state.write("a", b"1", expected=None)
            assert first is not None
            assert await state.delete("a") is True
            assert await state.delete("a") is False
            assert await state.read("a") is None
            assert await state.write("a", b"2", expected=first.version) is None

            again = await state.write("a", b"1", expected=None)

            assert again is not None
            assert await state.write("a", b"3", expected=first.version) is None

    @promise()
    async def test_documents_are_listed_by_literal_prefix_in_order(self, hub: ContractHub, store: TaskHubStore) -> None:
        for state in _states(hub):
            paths = ["keys/b", "keys/a", "keys_x", "timers/é", "Keys/a", "k%y", "key"]
            for path in paths:
                assert await state.write(path, b"", expected=None) is not None

            for prefix in ("keys/", "keys_", "k%", "timers/", "nothing", ""):
                expected = sorted(path for path in paths if path.startswith(prefix))
                assert list(await state.list(prefix)) == expected


def _states(hub: ContractHub) -> list[HostStateStore]:
    return [] if hub.host_state is None else [hub.host_state()]
