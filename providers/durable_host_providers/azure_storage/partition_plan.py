"""What one pass over the rows of the Partitions table does: a function of the rows, the time and what is held here.

A row belongs to a control queue. `owner` may read the queue until `expires_at`; who wants it from a living owner writes
itself as `next_owner`; the owner then drains, that is ends what it has begun, and releases the row, and the next owner
claims it. All workers of a hub follow these rules, also those of .NET, so they cannot be changed here:

| state | owner / next / draining | what follows |
|---|---|---|
| free | – / – / no | any worker claims |
| owned | A / – / no | A renews; B requests by writing itself as next |
| requested | A / B / no | A drains |
| draining | A / B / yes | A renews until it has drained, then releases |
| released | – / B / no | B claims |
| shutting down | A / – / yes | the first other worker requests; or A releases |
| expired | any, `expires_at` has come | any worker claims |

Balancing: a worker that owns less than its share requests rows of those who own more than theirs. Shares are equal down
to one row, and no worker gives a row back that another would then want, so requests come to an end.

Where this departs from the reference: a row is renewed when half of its lease is gone instead of at every pass; a
request that its writer no longer needs is withdrawn when it stops; a row that names an owner but no end is expired.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

__all__ = ["LeaseRow", "Plan", "View", "Write", "claim", "plan_pass", "renewals"]


class LeaseRow(msgspec.Struct, frozen=True):
    """A row of the Partitions table; `queue` is its row key."""

    queue: str
    owner: str | None = None
    next_owner: str | None = None
    owned_since: datetime | None = None
    last_renewal: datetime | None = None
    expires_at: datetime | None = None
    draining: bool = False
    etag: str = ""

    def has_expired(self, now: datetime) -> bool:
        """Whether whoever it names lost it; a row that names nobody cannot expire."""
        if self.owner is None and self.next_owner is None:
            return False
        return self.expires_at is None or now >= self.expires_at


class Write(msgspec.Struct, frozen=True):
    """A row as it shall be, to be written if its ETag still stands.

    `owned`: this worker owns the row once it is written, until `row.expires_at`.
    """

    row: LeaseRow
    owned: bool


class View(msgspec.Struct, frozen=True):
    """What a worker knows beside the rows.

    Attributes:
        me: this worker's id.
        now: its clock.
        lease: how long a claim or renewal holds.
        renew: half of the lease is gone.
        held: queues that it listens to or drains.
        drained: those of them with nothing left to end.
        stopping: claim nothing more and release everything.
    """

    me: str
    now: datetime
    lease: timedelta
    renew: bool = True
    held: Collection[str] = ()
    drained: Collection[str] = ()
    stopping: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a pass leads to.

    Attributes:
        own: renewals, drains and releases: rows of this worker.
        wanted: claims and requests: rows that others may want, too.
        lost: held queues whose row is no longer this worker's; to be forgotten at once.
        drain: held queues whose work must be ended.
        waiting: something may change within a second: a drain, or another's release.
        others: another worker owns rows, or waits for one.
        next_end: when the first lease of another worker ends, if it is not renewed.
    """

    own: tuple[Write, ...] = ()
    wanted: tuple[Write, ...] = ()
    lost: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    waiting: bool = False
    others: bool = False
    next_end: datetime | None = None


def claim(row: LeaseRow, view: View) -> LeaseRow:
    """The row as its new owner writes it."""
    return LeaseRow(row.queue, view.me, None, view.now, view.now, view.now + view.lease, False, row.etag)


def renewals(rows: Sequence[LeaseRow], view: View) -> tuple[Write, ...]:
    """The worker's own rows, renewed, as they stood when last read or written; drains and requests stay as they are."""
    return tuple(Write(_renewed(row, view), owned=True) for row in rows if row.owner == view.me)


def plan_pass(rows: Sequence[LeaseRow], view: View) -> Plan:
    """Decide what to write, drain and forget, from all rows in table order."""
    return _Pass(view).plan(rows)


def _renewed(row: LeaseRow, view: View) -> LeaseRow:
    return replace(row, last_renewal=view.now, expires_at=view.now + view.lease)


class _Pass:
    """The counters of one pass."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._own: list[Write] = []
        self._wanted: list[Write] = []
        self._drain: list[str] = []
        self._mine = 0
        self._waiting = False
        self._others: dict[str, list[LeaseRow | None]] = {}
        self._ends: list[datetime] = []

    def plan(self, rows: Sequence[LeaseRow]) -> Plan:
        view = self._view
        for row in rows:
            if view.stopping:
                self._stop(row)
            elif row.owner == view.me:
                self._keep(row)
            elif self._is_free(row):
                self._mine += 1
                self._wanted.append(Write(claim(row, view), owned=True))
            else:
                self._respect(row)
        if not view.stopping:
            self._balance(len(rows))
        mine = {row.queue for row in rows if row.owner == view.me}
        return Plan(
            own=tuple(self._own),
            wanted=tuple(self._wanted),
            lost=tuple(queue for queue in view.held if queue not in mine),
            drain=tuple(self._drain),
            waiting=self._waiting,
            others=bool(self._others),
            next_end=min(self._ends, default=None),
        )

    def _is_free(self, row: LeaseRow) -> bool:
        if row.owner is None and row.next_owner in (None, self._view.me):
            return True
        return row.has_expired(self._view.now)

    def _keep(self, row: LeaseRow) -> None:
        """A row of this worker."""
        view = self._view
        if row.next_owner is not None and row.next_owner != view.me:
            self._count(row.next_owner, None)
            self._give(row)
            return
        self._mine += 1
        # A claim whose answer was lost is found here: it is held from now on, under a lease that is known to stand.
        kept = replace(row, next_owner=None, draining=False)
        if view.renew or kept != row or row.queue not in view.held:
            self._own.append(Write(_renewed(kept, view), owned=True))

    def _give(self, row: LeaseRow) -> None:
        """Drain a row of this worker, or release it."""
        view = self._view
        if row.queue not in view.held or row.queue in view.drained:
            self._own.append(Write(replace(row, owner=None, draining=False), owned=False))
            return
        self._waiting = True
        self._drain.append(row.queue)
        if view.renew or not row.draining:
            self._own.append(Write(replace(_renewed(row, view), draining=True), owned=True))

    def _respect(self, row: LeaseRow) -> None:
        """A row of somebody else."""
        view = self._view
        if row.expires_at is not None:
            self._ends.append(row.expires_at)
        if row.next_owner == view.me:
            self._mine += 1
            self._waiting = True
        elif row.next_owner is not None:
            self._count(row.next_owner, None)
        elif row.owner is not None and row.draining:
            self._mine += 1
            self._request(row)
        elif row.owner is not None:
            self._count(row.owner, row)

    def _stop(self, row: LeaseRow) -> None:
        view = self._view
        if row.owner == view.me:
            self._give(row)
            return
        if row.next_owner == view.me:
            self._wanted.append(Write(replace(row, next_owner=None), owned=False))
        if not row.has_expired(view.now):
            for worker in (row.owner, row.next_owner):
                if worker is not None and worker != view.me:
                    self._count(worker, None)

    def _count(self, worker: str, row: LeaseRow | None) -> None:
        """A row, or the promise of one (None), of another worker."""
        self._others.setdefault(worker, []).append(row)

    def _request(self, row: LeaseRow) -> None:
        self._waiting = True
        self._wanted.append(Write(replace(row, next_owner=self._view.me), owned=False))

    def _balance(self, total: int) -> None:
        if not self._others:
            return
        share = total // (len(self._others) + 1)
        for rows in self._others.values():
            want = share - self._mine
            if want < 0:
                return
            excess = len(rows) - share
            if excess <= 0:
                continue
            if want == 0 and excess > 1:
                want = 1
            owned = [row for row in rows if row is not None]
            for row in owned[: min(want, excess)]:
                self._mine += 1
                self._request(row)
