"""A start that is handed over before it is stored: nothing of it is acknowledged, seen or lost before its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.model.ids import InstanceId
from durable_host.model.messages import Message
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host.storage.contract import Checkpoint, CommitOutcome, OrchestrationWorkItem
from durable_host.testing.store_contract import ContractHub
from durable_host.testing.store_contract.steps import (
    Caching,
    activity,
    advance,
    create,
    event,
    lock,
    lock_one,
    lock_tasks,
    start,
)
from durable_host_providers.postgres.store import PostgresTaskHubStore
from tests.live.postgres_hubs import opened_hub

pytestmark = pytest.mark.live

A = InstanceId("a")
NOW = timedelta(0)


class Early:
    """A store whose lock call waits, so that a start is handed over; remembers which functions are called."""

    def __init__(self, hub: ContractHub, store: PostgresTaskHubStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        self.store = store
        self.names: list[str] = []
        self.fail: Exception | None = None
        self.reached = asyncio.Event()
        self.held: asyncio.Event | None = None
        call = store.work.call

        async def noted(name: str, lease: int, arguments: Any) -> Any:
            self.names.append(name)
            self.reached.set()
            if self.held is not None:
                await self.held.wait()
            answer = await call(name, lease, arguments)
            if self.fail is not None:
                raise self.fail
            return answer

        monkeypatch.setattr(store.work, "call", noted)

    async def begin(
        self, message: Message, *, patient: bool = True
    ) -> tuple[asyncio.Task[bool], OrchestrationWorkItem]:
        """Start an instance; returns the start, and what the lock call got of it.

        Args:
            patient: the start waits long for its first step, however slow this machine is.
        """
        store = self.store
        if patient:
            store.work.early.moment = 10.0
        locking = asyncio.ensure_future(store.lock_orchestrations(10, wait=timedelta(seconds=20), cache=Caching()))
        async with asyncio.timeout(20):
            while not store.work.early.is_ready:  # noqa: ASYNC110 the store tells nobody
                await asyncio.sleep(0.01)
        self.names.clear()
        starting = asyncio.ensure_future(store.create_instance(message, replaceable=TERMINAL))
        (item,) = await locking
        return starting, item

    def first_step(self, message: Message, item: OrchestrationWorkItem, **rest: Any) -> Checkpoint:
        """The usual first checkpoint: it asks for an activity, and the instance stays locked."""
        assert message.execution_id is not None
        rest = {"activities": [activity(self.hub)], "hold": True, **rest}
        return advance(self.hub, item, state={"execution_id": message.execution_id}, **rest)


Opening = Callable[[], AbstractAsyncContextManager[Early]]


@pytest.fixture
def opening(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Opening:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[Early]:
        async with opened_hub(postgres_database) as (hub, store):
            yield Early(hub, store, monkeypatch)

    return opened


async def test_a_start_and_its_first_step_are_one_statement(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        assert (item.version, item.history, [each.id for each in item.inbox]) == (None, (), [message.id])
        assert not starting.done()
        assert await early.store.get_instance(A) is None
        step = early.first_step(message, item)

        assert await early.store.commit([step]) == [CommitOutcome.COMMITTED]

        assert await starting
        assert early.names == ["start_step"]
        assert step.state is not None
        state = await early.store.get_instance(A)
        assert state is not None
        assert (state.status, state.version, state.input) == (RuntimeStatus.RUNNING, step.state.version, '"input"')
        assert await early.store.get_history(A) == list(step.events)
        assert [each.task for each in await lock_tasks(early.store)] == list(step.activities)
        assert await lock(early.store) == []
        statistics = await early.store.statistics()
        assert statistics.inbox_waiting == 0


async def test_what_follows_the_first_step_is_as_ever(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        step = early.first_step(message, item)
        await early.store.commit([step])
        assert await starting
        assert not await early.store.create_instance(start(early.hub), replaceable=TERMINAL)
        assert await early.store.create_instance(
            message, replaceable=TERMINAL
        )  # the same one hears what it heard before

        await early.store.send([event(early.hub)])
        (more,) = await lock(early.store)

        assert step.state is not None
        assert more.version == step.state.version
        end = advance(early.hub, more, state={"status": RuntimeStatus.COMPLETED, "execution_id": message.execution_id})
        assert await early.store.commit([end]) == [CommitOutcome.COMMITTED]
        assert await early.store.create_instance(start(early.hub), replaceable=TERMINAL)


async def test_a_start_whose_first_step_takes_time_is_stored_by_itself(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message, patient=False)

        assert await asyncio.wait_for(starting, 10)

        assert early.names == ["start_at"]
        state = await early.store.get_instance(A)
        assert state is not None
        assert (state.status, state.version, state.input) == (RuntimeStatus.PENDING, None, '"input"')
        assert await lock(early.store) == []  # it has the lease that was handed over
        assert await early.store.commit([early.first_step(message, item)]) == [CommitOutcome.COMMITTED]
        assert early.names == ["start_at", "step_alone"]


async def test_a_start_whose_time_runs_out_as_its_first_step_is_about_to_be_written_is_stored_once(
    opening: Opening,
) -> None:
    async with opening() as early:
        await create(early.hub, early.store, "b")
        other = await lock_one(early.store)
        message = start(early.hub)
        starting, item = await early.begin(message)
        begun = early.store.work.early._current  # pyright: ignore[reportPrivateUsage]
        assert begun is not None
        step = early.first_step(message, item)
        loop = asyncio.get_running_loop()
        # Its alarm comes first in the turn of the loop in which the two statements of this call begin.
        loop.call_soon(early.store.work.early._store_alone, begun)  # pyright: ignore[reportPrivateUsage]

        outcomes = await early.store.commit([advance(early.hub, other), step])

        assert outcomes == [CommitOutcome.COMMITTED, CommitOutcome.COMMITTED]
        assert await starting
        assert sorted(early.names) == ["commit", "start_at", "step_alone"]
        assert await early.store.get_history(A) == list(step.events)


@pytest.mark.parametrize("kind", ["lets go", "two activities", "sends"])
async def test_an_unusual_first_step_finds_the_start_stored(opening: Opening, kind: str) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        kinds: dict[str, dict[str, Any]] = {
            "lets go": {"hold": False, "activities": []},
            "two activities": {"activities": [activity(early.hub), activity(early.hub)]},
            "sends": {"messages": [event(early.hub, "another")]},
        }

        assert await early.store.commit([early.first_step(message, item, **kinds[kind])]) == [CommitOutcome.COMMITTED]

        assert await starting
        assert early.names[0] == "start_at"
        state = await early.store.get_instance(A)
        assert state is not None
        assert state.status is RuntimeStatus.RUNNING


async def test_a_checkpoint_that_leaves_the_start_in_the_inbox_does_not_take_it_along(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)

        assert await early.store.commit([early.first_step(message, item, consumed=[])]) == [CommitOutcome.COMMITTED]

        assert await starting
        assert "start_step" not in early.names
        assert (await early.store.statistics()).inbox_waiting == 1


async def test_where_the_instance_runs_already_the_start_is_refused_and_the_step_lost(opening: Opening) -> None:
    async with opening() as early, _opened_beside(early) as other:
        await create(early.hub, other, A)
        await other.commit([advance(early.hub, await lock_one(other))])
        message = start(early.hub)
        starting, item = await early.begin(message)

        assert await early.store.commit([early.first_step(message, item)]) == [CommitOutcome.LEASE_LOST]

        assert not await starting
        assert early.names[0] == "start_step"
        state = await early.store.get_instance(A)
        assert state is not None
        assert state.execution_id != message.execution_id
        assert await lock_tasks(early.store) == []


async def test_where_an_instance_has_ended_the_start_takes_its_place_and_the_step_is_lost(opening: Opening) -> None:
    async with opening() as early, _opened_beside(early) as other:
        await create(early.hub, other, A)
        ended = advance(early.hub, await lock_one(other), state={"status": RuntimeStatus.COMPLETED})
        await other.commit([ended])
        message = start(early.hub)
        starting, item = await early.begin(message)

        assert await early.store.commit([early.first_step(message, item)]) == [CommitOutcome.LEASE_LOST]

        assert await starting
        again = await lock_one(early.store)
        assert [each.id for each in again.inbox] == [message.id]


async def test_where_an_event_came_first_it_is_kept(opening: Opening) -> None:
    async with opening() as early:
        sent = event(early.hub)
        async with _opened_beside(early) as other:
            await other.send([sent])
            assert len(await lock(other)) == 1
            message = start(early.hub)
            starting, item = await early.begin(message)

            assert await early.store.commit([early.first_step(message, item)]) == [CommitOutcome.LEASE_LOST]

            assert await starting
            assert (await early.store.statistics()).inbox_waiting == 2


async def test_work_that_is_given_back_is_stored_first_and_comes_again(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)

        await early.store.abandon([item.lease], delay=NOW)

        assert await starting
        again = await lock_one(early.store)
        assert [each.id for each in again.inbox] == [message.id]


async def test_quarantine_finds_the_start_stored(opening: Opening) -> None:
    async with opening() as early:
        starting, item = await early.begin(start(early.hub))

        assert await early.store.quarantine(item.lease, "broken") is CommitOutcome.COMMITTED

        assert await starting
        state = await early.store.get_instance(A)
        assert state is not None
        assert state.quarantined == "broken"


@pytest.mark.parametrize("size", ["alone", "with a step"])
async def test_when_the_answer_is_lost_both_hear_of_it_and_the_start_can_be_made_again(
    opening: Opening, size: str
) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message, patient=size != "alone")
        early.fail = StoreUnavailableError("gone")
        if size == "with a step":
            with pytest.raises(StoreUnavailableError):
                await early.store.commit([early.first_step(message, item)])
        with pytest.raises(StoreUnavailableError):
            await starting
        early.fail = None

        assert await early.store.create_instance(message, replaceable=TERMINAL)
        await early.store.abandon([item.lease], delay=NOW)

        state = await early.store.get_instance(A)
        assert state is not None
        assert state.execution_id == message.execution_id


async def test_a_value_that_the_server_refuses_fails_the_step_and_not_the_start(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        wrong = early.first_step(message, item, activities=[activity(early.hub, dispatch_id="nul\0")])

        with pytest.raises(Exception, match="0x00"):
            await early.store.commit([wrong])

        assert await starting
        again = await lock_one(early.store)
        assert [each.id for each in again.inbox] == [message.id]


async def test_a_commit_that_is_cancelled_leaves_a_start_that_is_decided(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        early.held = asyncio.Event()
        early.reached.clear()
        committing = asyncio.ensure_future(early.store.commit([early.first_step(message, item)]))
        await early.reached.wait()
        committing.cancel()
        early.held.set()

        assert await asyncio.wait_for(starting, 10)
        with pytest.raises(asyncio.CancelledError):
            await committing
        again = await lock_one(early.store)
        assert [each.id for each in again.inbox] == [message.id]


async def test_who_starts_may_go_away(opening: Opening) -> None:
    async with opening() as early:
        message = start(early.hub)
        starting, item = await early.begin(message)
        starting.cancel()

        assert await early.store.commit([early.first_step(message, item)]) == [CommitOutcome.COMMITTED]

        assert await early.store.get_instance(A) is not None


async def test_a_store_that_closes_stores_what_it_has_handed_over(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_hub(postgres_database) as (hub, store):
        message = start(hub)
        starting, _ = await Early(hub, store, monkeypatch).begin(message)
    assert await starting

    async with opened_hub(postgres_database) as (_, store):
        again = await lock_one(store)
    assert [each.id for each in again.inbox] == [message.id]


async def test_starts_with_tags_or_for_later_are_stored_first(opening: Opening) -> None:
    async with opening() as early:
        store, hub = early.store, early.hub
        starting, _ = await early.begin(start(hub, "warm"), patient=False)
        assert await starting
        early.names.clear()
        waiting = asyncio.ensure_future(store.lock_orchestrations(10, wait=timedelta(seconds=20), cache=Caching()))
        async with asyncio.timeout(20):
            while not store.work.early.is_ready:  # noqa: ASYNC110 the store tells nobody
                await asyncio.sleep(0.01)

        assert await store.create_instance(start(hub, "tagged", tags={"a": "b"}), replaceable=TERMINAL)
        assert await store.create_instance(
            start(hub, "later", visible_at=hub.now() + timedelta(hours=1)), replaceable=TERMINAL
        )

        assert {"start_at", "start_step"}.isdisjoint(early.names)
        assert [each.instance_id for each in await waiting] == ["tagged"]


@asynccontextmanager
async def _opened_beside(early: Early) -> AsyncGenerator[PostgresTaskHubStore]:
    """Another store object on the same hub, in whose memory the first one cannot look."""
    async with opened_hub(early.store.work.settings.dsn) as (_, store):
        yield store
