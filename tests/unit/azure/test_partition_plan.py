"""Who claims, requests, drains and releases which rows, decided without a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_host_providers.azure_storage.partition_plan import LeaseRow, Plan, View, plan_pass, renewals

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)


def queue(number: int) -> str:
    return f"hub-control-{number:02d}"


def owned(
    number: int, owner: str, *, next_owner: str | None = None, left: float = 20, draining: bool = False
) -> LeaseRow:
    end = NOW + timedelta(seconds=left)
    return LeaseRow(queue(number), owner, next_owner, end - LEASE, end - LEASE, end, draining, "1")


def view(me: str = "me", **changes: object) -> View:
    return replace(View(me=me, now=NOW, lease=LEASE, renew=False), **changes)


def written(plan: Plan) -> dict[str, LeaseRow]:
    return {write.row.queue: write.row for write in (*plan.own, *plan.wanted)}


def test_free_rows_are_claimed_for_one_lease() -> None:
    plan = plan_pass([LeaseRow(queue(0)), LeaseRow(queue(1))], view())

    assert written(plan)[queue(0)] == LeaseRow(queue(0), "me", None, NOW, NOW, NOW + LEASE)
    assert [write.owned for write in plan.wanted] == [True, True]
    assert not plan.waiting


def test_rows_of_the_living_are_left_alone() -> None:
    plan = plan_pass([owned(0, "other"), owned(1, "me")], view(held=[queue(1)]))

    assert written(plan) == {}
    assert plan.others
    assert plan.next_end == NOW + timedelta(seconds=20)


def test_a_lease_that_ends_now_has_ended() -> None:
    rows = [owned(0, "other", left=0), owned(1, "other", next_owner="third", left=-1)]

    claimed = written(plan_pass(rows, view()))

    assert {row.owner for row in claimed.values()} == {"me"}
    assert {row.next_owner for row in claimed.values()} == {None}


def test_an_owner_without_an_end_does_not_block_its_partition_for_ever() -> None:
    row = LeaseRow(queue(0), owner="strange tool")

    assert written(plan_pass([row], view()))[queue(0)].owner == "me"


def test_a_released_row_is_for_who_asked_for_it() -> None:
    released = replace(owned(0, "gone", next_owner="me"), owner=None)

    assert written(plan_pass([released], view()))[queue(0)].owner == "me"
    assert written(plan_pass([released], view("third"))) == {}


def test_half_of_the_surplus_is_requested_in_table_order() -> None:
    """As recorded: four rows of one owner, the first two are requested and keep all other values."""
    rows = [owned(number, "other") for number in range(4)]

    plan = plan_pass(rows, view())

    assert written(plan) == {queue(n): replace(rows[n], next_owner="me") for n in (0, 1)}
    assert not any(write.owned for write in plan.wanted)
    assert plan.waiting


def test_a_row_that_is_wanted_elsewhere_is_not_requested_again() -> None:
    rows = [owned(0, "a", next_owner="b"), *(owned(number, "a") for number in range(1, 6))]

    assert queue(0) not in written(plan_pass(rows, view()))


def test_nobody_requests_when_rows_are_even_down_to_one() -> None:
    rows = [owned(0, "a"), owned(1, "a"), owned(2, "b"), owned(3, "b"), owned(4, "me")]

    assert written(plan_pass(rows, view(held=[queue(4)]))) == {}


def test_a_requested_row_is_drained_before_it_is_released() -> None:
    row = owned(0, "me", next_owner="other")

    draining = plan_pass([row], view(held=[queue(0)]))
    released = plan_pass([replace(row, draining=True)], view(held=[queue(0)], drained=[queue(0)]))

    assert draining.drain == (queue(0),)
    assert written(draining)[queue(0)].draining
    assert written(draining)[queue(0)].owner == "me"
    assert written(draining)[queue(0)].expires_at == NOW + LEASE
    assert released.drain == ()
    assert written(released)[queue(0)] == replace(row, owner=None, draining=False)
    assert [write.owned for write in (*draining.own, *released.own)] == [True, False]


def test_a_draining_row_is_not_written_at_every_look() -> None:
    row = owned(0, "me", next_owner="other", draining=True)

    assert plan_pass([row], view(held=[queue(0)])).own == ()
    assert len(plan_pass([row], view(held=[queue(0)], renew=True)).own) == 1


def test_a_row_of_a_worker_that_shuts_down_is_requested_at_once() -> None:
    plan = plan_pass([owned(0, "other", draining=True)], view())

    assert written(plan)[queue(0)].next_owner == "me"
    assert plan.waiting


def test_a_row_that_names_another_is_lost() -> None:
    assert plan_pass([owned(0, "other"), owned(1, "me")], view(held=[queue(0), queue(1), queue(2)])).lost == (
        queue(0),
        queue(2),
    )


def test_a_claim_that_went_through_unnoticed_is_kept_and_renewed() -> None:
    plan = plan_pass([owned(0, "me")], view())

    assert plan.own[0].owned
    assert plan.own[0].row.expires_at == NOW + LEASE


def test_own_rows_are_renewed_when_half_of_the_lease_is_gone_only() -> None:
    rows = [owned(0, "me"), owned(1, "me")]
    held = [queue(0), queue(1)]

    assert plan_pass(rows, view(held=held)).own == ()
    assert {row.expires_at for row in written(plan_pass(rows, view(held=held, renew=True))).values()} == {NOW + LEASE}


def test_a_renewal_between_two_passes_changes_nothing_else() -> None:
    row = owned(0, "me", next_owner="other", draining=True)

    (write,) = renewals([row, owned(1, "other"), LeaseRow(queue(2))], view())

    assert write.row == replace(row, last_renewal=NOW, expires_at=NOW + LEASE)


def test_a_mark_of_a_shutdown_that_did_not_happen_is_removed() -> None:
    plan = plan_pass([owned(0, "me", draining=True)], view(held=[queue(0)]))

    assert not written(plan)[queue(0)].draining


def test_who_stops_drains_its_own_rows_and_withdraws_its_requests() -> None:
    rows = [
        owned(0, "me"),
        owned(1, "me"),
        owned(2, "other", next_owner="me"),
        LeaseRow(queue(3)),
        owned(4, "gone", left=-1),
    ]

    plan = plan_pass(rows, view(stopping=True, held=[queue(0), queue(1)], drained=[queue(1)]))

    rows_now = written(plan)
    assert set(rows_now) == {queue(0), queue(1), queue(2)}
    assert rows_now[queue(0)].draining
    assert rows_now[queue(1)].owner is None
    assert rows_now[queue(2)] == replace(rows[2], next_owner=None)
    assert plan.others


def test_who_stops_last_sees_no_others() -> None:
    rows = [owned(0, "me"), LeaseRow(queue(1)), owned(2, "gone", left=-1)]

    assert not plan_pass(rows, view(stopping=True, held=[queue(0)], drained=[queue(0)])).others


# Many workers on one table, in turns.


class Table:
    """Rows, and workers that look at them in any order; drains end before the next look."""

    def __init__(self, rows: int) -> None:
        self.rows = {queue(number): LeaseRow(queue(number)) for number in range(rows)}
        self.now = NOW

    def look(self, me: str, *, stopping: bool = False) -> Plan:
        held = [row.queue for row in self.rows.values() if row.owner == me]
        draining = [row.queue for row in self.rows.values() if row.owner == me and row.draining]
        plan = plan_pass(
            list(self.rows.values()),
            View(me, self.now, LEASE, renew=True, held=held, drained=draining, stopping=stopping),
        )
        self.rows.update(written(plan))
        return plan

    def owners(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.rows.values():
            if row.owner is not None:
                counts[row.owner] = counts.get(row.owner, 0) + 1
        return counts


@given(
    rows=st.integers(1, 16),
    workers=st.integers(1, 6),
    order=st.lists(st.integers(0, 5), max_size=30),
    stopped=st.integers(0, 5),
)
def test_any_order_of_looks_ends_even_and_at_rest(rows: int, workers: int, order: list[int], stopped: int) -> None:
    table = Table(rows)
    names = [f"w{number}" for number in range(workers)]
    for number in order:
        table.look(names[number % workers])
    if workers > 1:
        leaver = names.pop(stopped % workers)
        while table.look(leaver, stopping=True).waiting:
            pass
        assert leaver not in table.owners()

    for _ in range(3 + 2 * rows):
        for name in names:
            table.look(name)

    counts = [table.owners().get(name, 0) for name in names]
    assert sum(counts) == rows
    assert max(counts) - min(counts) <= 1
    assert not any(row.next_owner or row.draining for row in table.rows.values())
    before = table.owners()
    for name in names:
        table.look(name)
    assert table.owners() == before


@given(rows=st.integers(1, 16), workers=st.integers(2, 6))
def test_rows_of_the_dead_are_shared_when_their_leases_end(rows: int, workers: int) -> None:
    table = Table(rows)
    names = [f"w{number}" for number in range(workers)]
    for _ in range(3 + 2 * rows):
        for name in names:
            table.look(name)

    table.now += LEASE
    living = names[1:]
    for _ in range(3 + 2 * rows):
        for name in living:
            table.look(name)

    counts = [table.owners().get(name, 0) for name in living]
    assert sum(counts) == rows
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("stopping", [False, True])
def test_a_pass_never_writes_a_row_twice(stopping: bool) -> None:
    rows = [
        LeaseRow(queue(0)),
        owned(1, "me", next_owner="a"),
        owned(2, "a"),
        owned(3, "a"),
        owned(4, "a"),
        owned(5, "b", draining=True),
        owned(6, "b", next_owner="me"),
        owned(7, "c", left=-1),
    ]
    plan = plan_pass(rows, view(renew=True, held=[queue(1)], stopping=stopping))
    queues = [write.row.queue for write in (*plan.own, *plan.wanted)]

    assert len(queues) == len(set(queues))
