"""What follows a history while the next commit is on its way: what waits for what, and in which order it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from durable_host.errors import StoreUnavailableError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import Checkpoint, CommitOutcome
from durable_host.testing.environment import simulated_environment
from durable_host.testing.store_contract.harness import ContractHub
from durable_host.testing.store_contract.steps import activity, advance, create, lock_one, others_run
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.contract.azure_shared import SharedPartitions, SharedStore
from tests.unit.azure.hub_in_memory import SETTINGS

pytestmark = pytest.mark.simulated

PUT, HISTORY, ROW, DELETE = "queue.put", "table.transact", "table.write", "queue.remove"


class Gates:
    """Requests of a kind that is closed wait; those that have had their effect are listed."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.failing: str | None = None
        self._closed: dict[str, asyncio.Event] = {}

    def close(self, kind: str) -> None:
        self._closed[kind] = asyncio.Event()

    def open(self, kind: str) -> None:
        self._closed.pop(kind).set()

    async def before(self, kind: str) -> None:
        await asyncio.sleep(0)
        if kind in self._closed:
            await self._closed[kind].wait()
        if kind == self.failing:
            raise StoreUnavailableError("gone")

    async def after(self, kind: str, effect: bool) -> None:
        if kind in (PUT, HISTORY, ROW, DELETE):
            self.made.append(kind)
        await asyncio.sleep(0)


class Held:
    """An instance that is held after its first episode, which has asked for an activity."""

    def __init__(self, hub: ContractHub, store: SharedStore, gates: Gates, first: Checkpoint) -> None:
        self.hub = hub
        self.store = store
        self.gates = gates
        self._last = first

    def next(self, *, ends: bool = False) -> Checkpoint:
        """The checkpoint of the next episode, which asks for another activity, or ends the instance."""
        state, version = self._last.state, self._last.state and self._last.state.version
        assert state is not None
        assert version is not None
        status = RuntimeStatus.COMPLETED if ends else RuntimeStatus.RUNNING
        self._last = replace(
            self._last,
            base=version,
            state=replace(state, version=HistoryVersion(version.generation, version.length + 2), status=status),
            consumed=(),
            activities=() if ends else (activity(self.hub),),
            completed=(),
            hold=not ends,
        )
        return self._last

    async def commit(self, checkpoint: Checkpoint) -> CommitOutcome:
        return await self.store.committer.commit(checkpoint)

    def made(self) -> Sequence[str]:
        """What was made since the last call."""
        made, self.gates.made = self.gates.made, []
        return made


@asynccontextmanager
async def _held(*closed: str) -> AsyncGenerator[Held]:
    environment, gates = simulated_environment(), Gates()
    account = SimulatedAccount(SimulatedService(environment.clock.now), gates)
    shared = SharedPartitions()
    hub = ContractHub(open=lambda: SharedStore(account, SETTINGS, environment, shared), environment=environment)
    store = hub.open()
    assert isinstance(store, SharedStore)
    await store.create()
    async with store:
        await create(hub, store, "a")
        item = await lock_one(store)
        for kind in closed:
            gates.close(kind)
        first = advance(hub, item, activities=(activity(hub),), hold=True)
        gates.made.clear()
        assert await store.committer.commit(first) is CommitOutcome.COMMITTED
        await others_run()
        yield Held(hub, store, gates, first)


async def test_history_waits_for_the_row_before_it_but_what_goes_out_does_not() -> None:
    async with _held(ROW) as held:
        assert held.made() == [PUT, HISTORY]
        committing = asyncio.ensure_future(held.commit(held.next()))
        await others_run()

        assert held.made() == [PUT]
        assert not committing.done()

        held.gates.open(ROW)
        assert await committing is CommitOutcome.COMMITTED
        made = held.made()
        assert made[0] == ROW
        assert HISTORY in made


async def test_history_does_not_wait_for_deletes_and_what_follows_it_does() -> None:
    async with _held(DELETE) as held:
        assert held.made() == [PUT, HISTORY, ROW]

        assert await held.commit(held.next(ends=True)) is CommitOutcome.COMMITTED
        await others_run()
        assert held.made() == [HISTORY], "its row waits for the deletes before it"

        held.gates.open(DELETE)
        await held.store.locks.settle()
        assert held.made() == [DELETE, ROW]
        assert not held.store.locks.held, "the instance was let go"


async def test_a_lease_that_ends_meanwhile_is_lost() -> None:
    async with _held(ROW) as held:
        committing = asyncio.ensure_future(held.commit(held.next()))
        await others_run()
        lost = held.store.locks.held[InstanceId("a")]
        lost.lost = True
        held.store.locks.forget(lost)
        held.gates.open(ROW)

        assert await committing is CommitOutcome.LEASE_LOST
        await others_run()
        assert held.made() == [PUT, HISTORY, PUT, ROW, DELETE]


async def test_a_commit_that_fails_meanwhile_leaves_nothing_that_is_known() -> None:
    async with _held(DELETE) as held:
        held.gates.failing = HISTORY
        checkpoint = held.next()
        with pytest.raises(StoreUnavailableError):
            await held.commit(checkpoint)

        held.gates.open(DELETE)
        await held.store.locks.settle()

        assert not held.store.locks.known, "a batch may be in"
        assert await held.commit(checkpoint) is CommitOutcome.LEASE_LOST
