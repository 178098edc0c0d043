"""Promise 12 and `statistics`: finding instances and measuring a hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from durable_host.model.history import ParentInstance
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.store_contract.harness import ContractBase, ContractHub, promise
from durable_host.testing.store_contract.steps import (
    NEVER,
    activity,
    advance,
    commit,
    create,
    event,
    lock,
    lock_one,
    lock_task,
    settle,
    start,
)

__all__ = ["QueryContract", "StatisticsContract", "find", "found_ids", "settle_again"]


async def find(store: TaskHubStore, query: InstanceQuery) -> list[InstanceState]:
    """All pages."""
    found: list[InstanceState] = []
    while True:
        page = await store.query_instances(query)
        assert len(page.instances) <= query.limit
        found += page.instances
        if page.cursor is None:
            return found
        assert page.instances, "a page that is not the last must hold something"
        query = msgspec.structs.replace(query, cursor=page.cursor)


async def found_ids(store: TaskHubStore, **conditions: Any) -> list[str]:
    """Ids of what a query finds, over pages of two."""
    return [state.instance_id for state in await find(store, InstanceQuery(limit=2, **conditions))]


class QueryContract(ContractBase):
    """Promise 12."""

    async def populate(self, hub: ContractHub, store: TaskHubStore) -> dict[str, InstanceState]:
        """Sixteen instances, in which name, status, tag and parent vary independently; a second apart."""
        states: dict[str, InstanceState] = {}
        parent = ParentInstance(InstanceId("p'arent"), ExecutionId("e"), 1)
        binary = itertools.product((False, True), repeat=4)
        for number, (name, status, tag, child) in enumerate(binary):
            await settle(
                hub,
                store,
                f"{number:02}",
                name="Other" if name else "Orchestrator",
                status=RuntimeStatus.COMPLETED if status else RuntimeStatus.RUNNING,
                tags={"colour": "red", 'o"dd.$key': "it's"} if tag else {"colour": "blue"},
                parent=parent if child else None,
                updated_at=hub.now() + timedelta(hours=1),
            )
            state = await store.get_instance(InstanceId(f"{number:02}"))
            assert state is not None
            states[state.instance_id] = state
            await hub.wait(1)
        return states

    @promise(12)
    async def test_every_condition_and_every_combination_finds_what_it_should(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        states = await self.populate(hub, store)
        middle, late = states["07"], states["11"]
        conditions: list[tuple[dict[str, Any], Callable[[InstanceState], bool]]] = [
            ({"names": frozenset({"Other", "Nobody"})}, lambda s: s.name == "Other"),
            ({"statuses": frozenset({RuntimeStatus.COMPLETED})}, lambda s: s.status is RuntimeStatus.COMPLETED),
            ({"tags": (("colour", "red"), ('o"dd.$key', "it's"))}, lambda s: s.tags != {"colour": "blue"}),
            ({"parent": InstanceId("p'arent")}, lambda s: s.parent is not None),
            ({"prefix": "0"}, lambda s: s.instance_id < "1"),
            ({"created_from": middle.created_at}, lambda s: s.created_at >= middle.created_at),
            ({"created_to": late.created_at}, lambda s: s.created_at <= late.created_at),
            ({"updated_from": middle.updated_at}, lambda s: s.updated_at >= middle.updated_at),
            ({"updated_to": late.updated_at}, lambda s: s.updated_at <= late.updated_at),
        ]
        for size in range(len(conditions) + 1):
            for chosen in itertools.combinations(conditions, size):
                arguments = {name: value for condition, _ in chosen for name, value in condition.items()}
                expected = [each for each in states.values() if all(matches(each) for _, matches in chosen)]

                found = await store.query_instances(InstanceQuery(**arguments))

                assert [each.instance_id for each in found.instances] == [each.instance_id for each in expected]
                assert found.cursor is None

    @promise(12)
    async def test_a_query_tells_what_get_instance_tells(self, hub: ContractHub, store: TaskHubStore) -> None:
        states = await self.populate(hub, store)

        assert await find(store, InstanceQuery(limit=5)) == list(states.values())

    @promise(12)
    async def test_several_statuses_and_names_are_alternatives(self, hub: ContractHub, store: TaskHubStore) -> None:
        for number, status in enumerate((RuntimeStatus.COMPLETED, RuntimeStatus.FAILED, RuntimeStatus.RUNNING)):
            await settle(hub, store, str(number), status=status, name=f"N{number}")

        both = frozenset({RuntimeStatus.COMPLETED, RuntimeStatus.FAILED})
        assert await found_ids(store, statuses=both) == ["0", "1"]
        assert await found_ids(store, names=frozenset({"N0", "N2"})) == ["0", "2"]
        assert await found_ids(store, names=frozenset({"n0"})) == []

    @promise(12)
    async def test_tags_are_compared_exactly_and_all_must_be_there(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, "a", tags={"k": "v", "n": "1"})
        await settle(hub, store, "b", tags={"k": "v2"})
        await settle(hub, store, "c")

        assert await found_ids(store, tags=(("k", "v"),)) == ["a"]
        assert await found_ids(store, tags=(("k", "v"), ("n", "1"))) == ["a"]
        assert await found_ids(store, tags=(("k", "v"), ("n", "2"))) == []
        assert await found_ids(store, tags=(("K", "v"),)) == []
        assert await found_ids(store, tags=(("k", "v%"),)) == []

    @promise(12)
    async def test_order_is_by_code_points(self, hub: ContractHub, store: TaskHubStore) -> None:
        # UTF-16 would put the surrogates of U+1F600 before U+FF5E; many a collation would put a before B.
        names = ["B", "_", "a", "aa", "b", "é", "\uff5e", "\U0001f600"]
        await create(hub, store, *reversed(names))

        assert await found_ids(store) == names

    @promise(12)
    async def test_the_prefix_is_literal(self, hub: ContractHub, store: TaskHubStore) -> None:
        names = ["100%", "100x", "A_b", "Axb", "[a]x", "a*x", "a_b", "axb", "é1", "\U0010ffff1"]
        await create(hub, store, *names)

        for prefix in ("100%", "a_", "a*", "[a]", "A", "a", "é", "\U0010ffff", "zz", ""):
            assert await found_ids(store, prefix=prefix) == sorted(each for each in names if each.startswith(prefix))

    @promise(12)
    async def test_the_last_page_has_no_cursor(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, *"abcd")

        first = await store.query_instances(InstanceQuery(limit=2))
        second = await store.query_instances(InstanceQuery(limit=2, cursor=first.cursor))

        assert (first.cursor is None, second.cursor) == (False, None)
        assert [state.instance_id for state in (*first.instances, *second.instances)] == list("abcd")
        empty = await store.query_instances(InstanceQuery(prefix="x"))
        assert (empty.instances, empty.cursor) == ((), None)

    @promise(12)
    async def test_pages_are_stable_while_instances_come_and_go(self, hub: ContractHub, store: TaskHubStore) -> None:
        before = [f"{number:02}" for number in range(0, 40, 2)]
        for name in before:
            await settle(hub, store, name, status=RuntimeStatus.COMPLETED)
        seen: list[str] = []
        cursor: str | None = None
        for step in range(100):
            page = await store.query_instances(InstanceQuery(limit=3, cursor=cursor))
            seen += [state.instance_id for state in page.instances]
            cursor = page.cursor
            if cursor is None:
                break
            # One gone that was seen (the very last of the page), one new behind and one new ahead of the cursor.
            await store.purge([InstanceId(seen[-1])])
            await create(hub, store, f"{step * 2 + 1:02}-", f"{39 - step * 2:02}+")

        assert len(seen) == len(set(seen))
        assert seen == sorted(seen)
        assert set(before) <= set(seen)

    @promise(12)
    async def test_a_cursor_stays_readable_when_its_instance_is_gone_and_in_another_store_object(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a", "it's", "z\U0001f600", "\U0001f600")
        seen: list[str] = []
        query = InstanceQuery(limit=1)
        while True:
            async with hub.open() as other:
                page = await other.query_instances(query)
            seen += [state.instance_id for state in page.instances]
            if page.cursor is None:
                break
            await store.purge([page.instances[-1].instance_id], force=True)
            query = msgspec.structs.replace(query, cursor=page.cursor)

        assert seen == ["a", "it's", "z\U0001f600", "\U0001f600"]

    @promise(12)
    async def test_a_cursor_that_cannot_be_read_is_refused(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a", "b")
        page = await store.query_instances(InstanceQuery(limit=1))
        assert page.cursor is not None

        for cursor in ("", "x", "%%%", "é", "null", '{"a": 1}', "A" * 1_000, page.cursor[1:], f"x{page.cursor}"):
            with pytest.raises(ValueError):
                await store.query_instances(InstanceQuery(cursor=cursor))

    @promise(12)
    async def test_a_query_may_leave_payloads_out(self, hub: ContractHub, store: TaskHubStore) -> None:
        completed = RuntimeStatus.COMPLETED
        await settle(hub, store, status=completed, completed_at=hub.now(), output='"out"', custom_status='"custom"')

        (full,) = await find(store, InstanceQuery())
        (slim,) = await find(store, InstanceQuery(with_payloads=False))

        assert (full.input, full.output, full.custom_status) == ('"input"', '"out"', '"custom"')
        assert (slim.input, slim.output, slim.custom_status, slim.failure) == (None, None, None, None)
        assert (slim.status, slim.completed_at) == (full.status, full.completed_at)

    @promise(12)
    async def test_children_that_have_not_run_are_not_found(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        await commit(store, advance(hub, await lock_one(store), messages=(start(hub, "child"),)))

        assert await found_ids(store) == ["a"]

    @promise(12)
    async def test_what_is_created_again_is_found_once(self, hub: ContractHub, store: TaskHubStore) -> None:
        await settle(hub, store, status=RuntimeStatus.COMPLETED)
        await found_ids(store)
        await store.create_instance(start(hub), replaceable=[RuntimeStatus.COMPLETED])
        await store.purge([InstanceId("a")], force=True)
        await create(hub, store, "a")

        assert await found_ids(store) == ["a"]


class StatisticsContract(ContractBase):
    """`statistics`."""

    @promise()
    async def test_an_empty_hub_has_nothing(self, hub: ContractHub, store: TaskHubStore) -> None:
        found = await store.statistics()

        assert (sum(found.instances.values()), found.inbox_waiting, found.inbox_delayed) == (0, 0, 0)
        assert (found.activities_waiting, found.activities_running, found.quarantined) == (0, 0, 0)
        assert (found.oldest_message_age, found.oldest_activity_age, found.handed_back) == (None, None, ())

    @promise()
    async def test_instances_are_counted_by_status(self, hub: ContractHub, store: TaskHubStore) -> None:
        for number, status in enumerate((RuntimeStatus.COMPLETED, RuntimeStatus.COMPLETED, RuntimeStatus.RUNNING)):
            await settle(hub, store, str(number), status=status)
        await create(hub, store, "pending")
        await settle_again(hub, store)

        found = (await store.statistics()).instances

        assert {name: number for name, number in found.items() if number} == {"Completed": 2, "Running": 2}

    @promise()
    async def test_messages_and_activities_are_counted_with_their_ages(
        self, hub: ContractHub, store: TaskHubStore
    ) -> None:
        await create(hub, store, "a")
        item = await lock_one(store)
        late = event(hub, visible_at=hub.now() + timedelta(hours=1))
        tasks = [activity(hub) for _ in range(3)]
        await commit(store, advance(hub, item, activities=tasks, messages=(event(hub), event(hub), late)))
        (locked,) = await store.lock_activities(1, wait=NEVER)
        await hub.wait(5)
        await store.send([event(hub)])

        found = await store.statistics()

        assert (found.inbox_waiting, found.inbox_delayed) == (3, 1)
        assert (found.activities_waiting, found.activities_running) == (2, 1)
        assert found.oldest_message_age == pytest.approx(5, abs=1)
        assert found.oldest_activity_age == pytest.approx(5, abs=1)

        await store.abandon([locked.lease], delay=NEVER)
        assert (await store.statistics()).activities_waiting == 3

    @promise()
    async def test_what_is_locked_has_no_age(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a")
        await lock_one(store)

        assert (await store.statistics()).oldest_message_age is None

    @promise()
    async def test_what_comes_back_again_and_again_is_named(self, hub: ContractHub, store: TaskHubStore) -> None:
        await create(hub, store, "a", "once")
        a, once = await lock(store)
        await commit(store, advance(hub, a, activities=(activity(hub),)))
        await store.abandon([once.lease], delay=NEVER)
        await store.send([event(hub)])
        for _ in range(3):
            task = await lock_task(store)
            await store.abandon([task.lease], delay=NEVER)
        for _ in range(2):
            a, once = await lock(store)
            await store.abandon([a.lease], delay=NEVER)
            await commit(store, advance(hub, once, messages=(event(hub, "once"),)))

        found = (await store.statistics()).handed_back

        assert [(each.kind, each.instance_id, each.name, each.deliveries) for each in found] == [
            ("activity", "a", "Activity", 3),
            ("orchestration", "a", "Orchestrator", 2),
        ]

        for item in await lock(store):
            await commit(store, advance(hub, item))
        await store.complete_activities([])
        assert [each.kind for each in (await store.statistics()).handed_back] == ["activity"]


async def settle_again(hub: ContractHub, store: TaskHubStore) -> None:
    """Run the first episode of whatever is pending."""
    for item in await lock(store):
        await commit(store, advance(hub, item))
