"""Large payloads, odd ids and every kind of event: what is stored comes back as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceQuery, InstanceState, pending_state
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import Checkpoint, CommitOutcome, TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    activity,
    advance,
    commit,
    completion,
    create,
    event,
    fact,
    ids,
    lock,
    lock_one,
    lock_task,
    lock_tasks,
    start,
    visible,
)

__all__ = ["ODD_IDS", "PayloadContract", "every_event"]

A = InstanceId("a")

LARGE = '"' + "0123456789abcdéf" * 65_536 + '"'
"""A JSON text of more than a megabyte."""

ODD_IDS = (
    "x",
    "x" * 256,
    "\U0001f600" * 256,
    'it\'s "quoted"; DROP TABLE instances; --',
    "100%_[a]*{b}",
    "@x@y",
    "a b\u00a0c\u3000",
    "e\u0301",
    "\u00e9",
    "\u200f\u202eabc",
    "A",
    "a",
    "null",
    "0",
    "00",
    ":memory:",
    "a:b:c|d~e^f`g&h=i+j,k<l>m",
)
"""Ids that are allowed, or that a hub taken over may hold."""


TEXT = 'it\'s "é" \U0001f600 \\ \u2028 %'
WHEN = datetime(2031, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)


def every_event() -> list[HistoryEvent]:
    """One event of each kind with every member set."""
    return [_filled(kind, 2) for kind in get_args(HistoryEvent)]


def _filled(kind: Any, depth: int) -> Any:
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return described.cls(**{each.name: _value(each.type, depth) for each in described.fields})


def _value(kind: msgspec.inspect.Type, depth: int) -> object:
    """A telling value of a type; below `depth` nothing where nothing is allowed."""
    inspect = msgspec.inspect
    match kind:
        case inspect.UnionType(types=types):
            return None if depth == 0 else _value(types[0], depth)
        case inspect.StructType(cls=cls):
            return _filled(cls, depth - 1)
        case inspect.DictType(value_type=value):
            return {TEXT: _value(value, depth)}
        case inspect.VarTupleType(item_type=item):
            return (_value(item, depth),)
        case inspect.EnumType(cls=cls):
            return list(cls)[-1]
        case inspect.DateTimeType():
            return WHEN
        case inspect.IntType():
            return 7
        case inspect.BoolType():
            return True
        case _:
            return TEXT


class PayloadContract(ContractBase):
    """Promise 9 for what is unusual."""

    @promise(9)
    async def test_every_kind_of_event_travels_and_stays_as_it_was(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store)))
        events = every_event()
        await store.send([Message(MessageId(f"m{at}"), A, each) for at, each in enumerate(events)])

        item = await lock_one(store)
        assert [each.event for each in item.inbox] == events
        assert await commit(store, advance(hub, item, events=events)) is CommitOutcome.COMMITTED

        assert list(await store.get_history(A) or ())[2:] == events
        await store.send([event(hub)])
        assert list((await lock_one(store)).history or ())[2:] == events

    @promise(7, 12)
    async def test_every_member_of_a_projection_stays_as_it_was(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        version = HistoryVersion(1, 1)
        state = msgspec.structs.replace(
            _filled(InstanceState, 3),
            instance_id=A,
            version=version,
            status=RuntimeStatus.FAILED,
            quarantined=None,
            revision=None,
        )
        await commit(store, Checkpoint(item.lease, None, state, (fact(hub),), consumed=ids(item)))

        assert (await visible(store))[0] == state
        page = await store.query_instances(InstanceQuery())
        assert msgspec.structs.replace(page.instances[0], revision=None) == state

    @promise(9)
    async def test_a_megabyte_goes_in_and_out(self, hub: ContractHub, store: TaskHubStore) -> None:
        message = start(hub, input=LARGE)
        await store.create_instance(message, replaceable=())
        assert (await visible(store))[0] == pending_state(message)
        item = await lock_one(store)
        assert item.inbox[0] == message
        task = msgspec.structs.replace(activity(hub), input=LARGE)
        signal = event(hub, input=LARGE)
        state = {"status": RuntimeStatus.COMPLETED, "output": LARGE, "custom_status": LARGE, "input": LARGE}
        checkpoint = advance(
            hub, item, events=[fact(hub, LARGE), fact(hub)], activities=(task,), messages=(signal,), state=state
        )

        assert await commit(store, checkpoint) is CommitOutcome.COMMITTED

        assert await visible(store) == (checkpoint.state, checkpoint.events)
        assert (await lock_task(store)).task == task
        assert (await lock_one(store)).inbox[0] == signal

    @promise(9)
    async def test_odd_ids_are_ids_like_any_other(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, *ODD_IDS)
        found = (await store.query_instances(InstanceQuery())).instances
        assert [state.instance_id for state in found] == sorted(ODD_IDS)

        items = await lock(store)
        assert [item.instance_id for item in items] == sorted(ODD_IDS)
        checkpoints = [
            advance(hub, item, activities=(activity(hub, item.instance_id),), messages=(event(hub, item.instance_id),))
            for item in items
        ]
        assert set(await store.commit(checkpoints)) == {CommitOutcome.COMMITTED}

        tasks = await lock_tasks(store)
        assert sorted(item.task.instance_id for item in tasks) == sorted(ODD_IDS)
        await store.complete_activities([completion(hub, item) for item in tasks])
        for item in await lock(store):
            assert len(item.inbox) == 2
            (checkpoint,) = [each for each in checkpoints if each.lease.key == item.instance_id]
            assert await visible(store, item.instance_id) == (checkpoint.state, checkpoint.events)
        assert await store.purge([InstanceId(each) for each in ODD_IDS], force=True) == len(ODD_IDS)

    @promise(9)
    async def test_odd_message_and_dispatch_ids_are_ids_like_any_other(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        tasks = [activity(hub, dispatch_id=each) for each in ODD_IDS]
        messages = [event(hub, message_id=each) for each in ODD_IDS]
        await commit(store, advance(hub, await lock_one(store), activities=tasks, messages=messages))

        item = await lock_one(store)
        assert ids(item) == ODD_IDS
        assert await commit(store, advance(hub, item, completed=[each.lease for each in await lock_tasks(store)]))
        assert await lock(store) == []
        assert (await store.statistics()).activities_running == 0
