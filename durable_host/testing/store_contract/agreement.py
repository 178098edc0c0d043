"""Two providers agree: random sequences of calls tell the same on both.

    @given(call_sequences())
    def test_agrees_with_memory(calls):
        assert observe(calls, my_hub) == observe(calls, memory_hub)

A call is a small value that names what it acts on by position ("the third thing that is locked"), so that any sequence
makes sense and hypothesis can shrink it. `observe` runs a sequence on a fresh hub and tells what a caller saw, but not
what is a store's own business: tokens, revisions, and orders that nobody promised.

Nothing here waits inside a lock call, so hand-over plays no part; the suite has tests for that.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from durable_host.model.ids import DispatchId, InstanceId
from durable_host.model.instance import HistoryVersion, InstanceQuery, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityWorkItem,
    Checkpoint,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.testing.loop import run_simulated
from durable_host.testing.store_contract.harness import ContractHub
from durable_host.testing.store_contract.steps import (
    NEVER,
    Caching,
    Forgetful,
    activity,
    completion,
    event,
    fact,
    running,
    start,
)

if TYPE_CHECKING:  # hypothesis is needed to make sequences, not to run them
    from hypothesis.strategies import SearchStrategy

__all__ = ["Call", "call_sequences", "observe"]

IDS = ("a", "b", "c_", "c%")
STATUSES = tuple(status for status in RuntimeStatus)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what to do, on which of two store objects, and numbers that say to what and how."""

    verb: str
    store: int
    which: int
    how: int

    def __repr__(self) -> str:
        return f"Call({self.verb!r}, {self.store}, {self.which}, {self.how})"


def call_sequences(shortest: int = 12, longest: int = 60) -> SearchStrategy[list[Call]]:
    """Sequences of calls, for hypothesis, which without a least length prefers lists of five: too short to go wrong."""
    from hypothesis import strategies

    weights = [verb for verb, weight in WEIGHTS.items() for _ in range(weight)]
    call = strategies.builds(
        Call,
        verb=strategies.sampled_from(weights),
        store=strategies.integers(0, 1),
        which=strategies.integers(0, 7),
        how=strategies.integers(0, 63),
    )
    return strategies.lists(call, min_size=shortest, max_size=longest)


def observe(
    calls: Sequence[Call],
    new_hub: Callable[[], AbstractAsyncContextManager[ContractHub]],
    *,
    run: Callable[[Coroutine[Any, Any, list[object]]], list[object]] | None = None,
) -> list[object]:
    """Run a sequence on a fresh hub and tell what was seen.

    Args:
        run: how to run it; default: on virtual time. On a real loop the hub's clock must stand still between waits.
    """

    async def main() -> list[object]:
        async with new_hub() as hub:
            first, second = hub.open(), hub.open()
            await first.create()
            async with first, second:
                script = _Script(hub, (first, second))
                for call in calls:
                    script.seen.append((call, await VERBS[call.verb](script, call)))
                script.seen.append(await script.everything())
                return script.seen

    return (run or run_simulated)(main())


@dataclass(slots=True)
class _Script:
    """What the sequence has in hands."""

    hub: ContractHub
    stores: tuple[TaskHubStore, TaskHubStore]
    items: list[OrchestrationWorkItem] = field(default_factory=list[OrchestrationWorkItem])
    lockers: dict[int, TaskHubStore] = field(default_factory=dict[int, TaskHubStore])
    tasks: list[ActivityWorkItem] = field(default_factory=list[ActivityWorkItem])
    sent: list[Message] = field(default_factory=list[Message])
    starts: dict[str, Message] = field(default_factory=dict[str, Message])
    seen: list[object] = field(default_factory=list[object])

    def store(self, call: Call) -> TaskHubStore:
        return self.stores[call.store]

    def locker(self, item: OrchestrationWorkItem | ActivityWorkItem) -> TaskHubStore:
        """The store object that locked it: a worker commits where it locks."""
        return self.lockers[id(item)]

    def item(self, call: Call) -> OrchestrationWorkItem | None:
        return self.items[-1 - call.which % len(self.items)] if self.items else None

    def task(self, call: Call) -> ActivityWorkItem | None:
        return self.tasks[-1 - call.which % len(self.tasks)] if self.tasks else None

    def target(self, call: Call) -> InstanceId:
        return InstanceId(IDS[call.which % len(IDS)])

    async def create(self, call: Call) -> object:
        again = self.starts.get(self.target(call)) if call.how & 1 else None
        delay = timedelta(seconds=3) if call.how & 2 else None
        visible_at = None if delay is None else self.hub.now() + delay
        message = again or start(self.hub, self.target(call), visible_at=visible_at, tags={"how": str(call.how)})
        replaceable = STATUSES if call.how & 4 else (RuntimeStatus.COMPLETED,) if call.how & 8 else ()
        heard = await self.store(call).create_instance(message, replaceable=replaceable)
        if heard:
            self.starts[self.target(call)] = message
        return heard

    async def send(self, call: Call) -> object:
        if call.how & 1 and self.sent:
            messages = [self.sent[-1 - call.how % len(self.sent)]]
        else:
            seconds = (0, 0, 1, 5, 40)[call.how % 5]
            later = self.hub.now() + timedelta(seconds=seconds) if seconds else None
            messages = [event(self.hub, self.target(call), visible_at=later) for _ in range(1 + call.how % 3)]
            self.sent += messages
        await self.store(call).send(messages)
        return len(messages)

    async def lock(self, call: Call) -> object:
        cache = Caching() if call.how & 1 else Forgetful()
        items = await self.store(call).lock_orchestrations(100, wait=NEVER, cache=cache)
        items = sorted(items, key=lambda item: item.instance_id)
        self.items += items
        self.lockers.update({id(item): self.store(call) for item in items})
        return [(item.instance_id, item.version, _tuple(item.history), _by_id(item.inbox)) for item in items]

    async def commit(self, call: Call) -> object:
        item = self.item(call)
        if item is None:
            return None
        return list(await self.locker(item).commit([self.checkpoint(item, call.how)]))

    async def commit_all(self, call: Call) -> object:
        store = self.store(call)
        newest = {item.instance_id: item for item in self.items if self.locker(item) is store}
        if not newest:
            return None
        return list(await store.commit([self.checkpoint(item, call.how) for item in newest.values()]))

    def checkpoint(self, item: OrchestrationWorkItem, how: int) -> Checkpoint:
        hub, base = self.hub, item.version
        replaces = base is not None and how & 3 == 3
        amends = base is not None and base.length > 0 and not replaces and how & 12 == 12
        events = tuple(fact(hub, str(hub.number())) for _ in range(1 if base is None or replaces else how % 3))
        if base is None or replaces:
            version = HistoryVersion(1 if base is None else base.generation + 1, len(events))
        else:
            version = HistoryVersion(base.generation, base.length + len(events))
        status = STATUSES[how % len(STATUSES)]
        ended = {"output": '"out"', "completed_at": hub.now()} if how & 16 else {}
        inbox = [message.id for message in item.inbox]
        split = len(inbox) if how & 32 else how % (len(inbox) + 1)
        return Checkpoint(
            item.lease,
            base,
            running(hub, item.instance_id, version, status=status, custom_status=str(hub.number()), **ended),
            events,
            amended=((how % base.length, fact(hub, "amended")),) if amends and base else (),
            activities=self.activities(item, how),
            messages=self.outbox(item, how),
            consumed=tuple(inbox[:split]),
            deferred=tuple(inbox[split : split + how % 2]),
            completed=(self.tasks[-1].lease,) if self.tasks and how % 7 == 0 else (),
            hold=how % 4 == 1,
        )

    def activities(self, item: OrchestrationWorkItem, how: int) -> tuple[ActivityTask, ...]:
        return tuple(
            msgspec.structs.replace(activity(self.hub, item.instance_id), dispatch_id=DispatchId(self.fresh("d")))
            for _ in range(how % 3)
        )

    def outbox(self, item: OrchestrationWorkItem, how: int) -> tuple[Message, ...]:
        hub = self.hub
        timer = event(hub, item.instance_id, visible_at=hub.now() + timedelta(seconds=how))
        return (timer, event(hub, IDS[how % len(IDS)]), start(hub, IDS[how // 8 % len(IDS)]))[: how % 5]

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{self.hub.number()}"

    async def lock_tasks(self, call: Call) -> object:
        items = await self.store(call).lock_activities(100, wait=NEVER)
        items = sorted(items, key=lambda item: item.task.dispatch_id)
        self.tasks += items
        self.lockers.update({id(item): self.store(call) for item in items})
        return [(item.task, item.deliveries) for item in items]

    async def complete(self, call: Call) -> object:
        task = self.task(call)
        if task is None:
            return None
        done = completion(self.hub, task)
        return list(await self.locker(task).complete_activities([done] * (1 + call.how % 2)))

    async def renew(self, call: Call) -> object:
        store = self.store(call)
        held = [item.lease for item in self.items[-6:] if self.locker(item) is store]
        held += [task.lease for task in self.tasks[-6:] if self.locker(task) is store]
        renewed = await store.renew(held)
        return [lease and lease.key for lease in renewed]

    async def abandon(self, call: Call) -> object:
        item = self.item(call) if call.how & 1 else self.task(call)
        if item is None:
            return None
        await self.locker(item).abandon([item.lease], delay=timedelta(seconds=(0, 0, 2, 20)[call.how // 2 % 4]))
        return item.lease.key

    async def quarantine(self, call: Call) -> object:
        item = self.item(call)
        return item and await self.locker(item).quarantine(item.lease, f"reason {call.how}")

    async def release(self, call: Call) -> object:
        return await self.store(call).release_quarantined([self.target(call), InstanceId(IDS[call.how % len(IDS)])])

    async def purge(self, call: Call) -> object:
        ids = [self.target(call), InstanceId(IDS[call.how % len(IDS)])]
        return await self.store(call).purge(ids, force=call.how % 4 == 3)

    async def wait(self, call: Call) -> object:
        seconds = (0.5, 1, 2, 4, 10, 20, 31, 700)[call.how % 8]
        await self.hub.wait(seconds)
        return seconds

    async def read(self, call: Call) -> object:
        store, instance_id = self.store(call), self.target(call)
        state = await store.get_instance(instance_id, with_payloads=bool(call.how & 1))
        return _plain(state), _tuple(await store.get_history(instance_id))

    async def query(self, call: Call) -> object:
        how = call.how
        query = InstanceQuery(
            statuses=frozenset(STATUSES[how % 5 :: 2]) if how & 1 else frozenset(),
            prefix=("", "c", "c_", "a")[how % 4],
            tags=(("how", str(how)),) if how % 16 == 2 else (),
            created_from=self.hub.now() - timedelta(seconds=how) if how & 8 else None,
            updated_to=self.hub.now() - timedelta(seconds=how % 8) if how & 4 else None,
            limit=1 + how % 3,
        )
        found: list[InstanceState | None] = []
        while True:
            page = await self.store(call).query_instances(query)
            found += [_plain(state) for state in page.instances]
            if page.cursor is None:
                return found
            query = msgspec.structs.replace(query, cursor=page.cursor)

    async def measure(self, call: Call) -> object:
        found = await self.store(call).statistics()
        numbers = {name: number for name, number in found.instances.items() if number}
        return (
            numbers,
            (found.inbox_waiting, found.inbox_delayed),
            (found.activities_waiting, found.activities_running),
            found.quarantined,
        )

    async def everything(self) -> object:
        """What is left at the end, when every lease is over and all is visible."""
        found: list[object] = []
        await self.hub.wait(1_000)
        for number in range(len(self.stores)):
            call = Call("", number, 0, 0)
            found += [await self.measure(call), await self.query(call), await self.lock(call)]
            found += [await self.lock_tasks(call)]
            for which in range(len(IDS)):
                found.append(await self.read(Call("", number, which, 1)))
        return found


def _plain(state: InstanceState | None) -> InstanceState | None:
    return None if state is None else msgspec.structs.replace(state, revision=None)


def _by_id(inbox: Sequence[Message]) -> list[Message]:
    # No order is promised among messages that came back, waited for their time or came from several checkpoints.
    return sorted(inbox, key=lambda message: message.id)


def _tuple(events: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if events is None else tuple(events)


VERBS: dict[str, Callable[[_Script, Call], Any]] = {
    "create": _Script.create,
    "send": _Script.send,
    "lock": _Script.lock,
    "commit": _Script.commit,
    "commit all": _Script.commit_all,
    "lock tasks": _Script.lock_tasks,
    "complete": _Script.complete,
    "renew": _Script.renew,
    "abandon": _Script.abandon,
    "quarantine": _Script.quarantine,
    "release": _Script.release,
    "purge": _Script.purge,
    "wait": _Script.wait,
    "read": _Script.read,
    "query": _Script.query,
    "measure": _Script.measure,
}

WEIGHTS = {
    "create": 4,
    "send": 4,
    "lock": 6,
    "commit": 5,
    "commit all": 3,
    "lock tasks": 3,
    "complete": 3,
    "renew": 1,
    "abandon": 2,
    "quarantine": 1,
    "release": 1,
    "purge": 1,
    "wait": 3,
    "read": 1,
    "query": 1,
    "measure": 1,
}
