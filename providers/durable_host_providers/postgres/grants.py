"""What a store object remembers of the leases that it has given out.

The database has the truth: a lease is current if its row says so. This memory saves reading: it knows which messages a
holder has been given, how the projection stood, and whose inbox is to be looked at. What it knows of an instance is
dropped whenever a call that touches it fails.
"""

from __future__ import annotations

import heapq

import msgspec

from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus

__all__ = ["LEASE_BITS", "UNKNOWN_ROW", "ActivityToken", "Grant", "Grants", "InstanceToken"]

LEASE_BITS = 36
"""Lower bits of a lease number, which count this store object's calls; above them stands the number of the object."""

UNKNOWN_ROW = 0
"""Stands for the number of a message that was handed over and never read."""

_MOST_EARLY = 10_000
_OPEN = frozenset(status.value for status in RuntimeStatus if not status.is_terminal)


class InstanceToken(msgspec.Struct, frozen=True, gc=False):
    """The fence of an instance's lease, and the number of its row."""

    lease: int
    ref: int


class ActivityToken(msgspec.Struct, frozen=True, gc=False):
    """The fence of an activity's lease, and its dispatch id."""

    lease: int
    dispatch_id: str


class Grant:
    """An instance that this store object has locked.

    Attributes:
        given: messages that were delivered under this lease and are not consumed yet: id → number of the row.
        held: the holder waits between two episodes and wants to be told of arrivals.
        version: where committed history stands.
        status, execution_id: of the projection as it was last written or read here.
    """

    __slots__ = ("execution_id", "given", "held", "instance_id", "lease", "ref", "status", "version")

    def __init__(
        self,
        ref: int,
        instance_id: str,
        lease: int,
        version: HistoryVersion | None = None,
        status: str | None = None,
        execution_id: str | None = None,
    ) -> None:
        self.ref = ref
        self.instance_id = instance_id
        self.lease = lease
        self.version = version
        self.status = status
        self.execution_id = execution_id
        self.given: dict[str, int] = {}
        self.held = False


class Grants:
    """All locked instances, and those whose inbox wants a look, now or later."""

    def __init__(self) -> None:
        self.by_ref: dict[int, Grant] = {}
        self.by_id: dict[str, Grant] = {}
        self.arrived: dict[int, None] = {}
        self._later: list[tuple[float, int]] = []
        self._early: dict[InstanceToken, None] = {}

    def add(self, grant: Grant) -> None:
        """Remember a lease; it takes the place of an earlier one of the same instance."""
        self.by_ref[grant.ref] = grant
        self.by_id[grant.instance_id] = grant
        if self._early and self._early.pop(InstanceToken(grant.lease, grant.ref), self) is None:
            self.arrived[grant.ref] = None

    def heard(self, token: InstanceToken, at: float, now: float) -> None:
        """Something came for an instance that is locked under this lease, which one of our calls has given."""
        if self.find(token) is not None:
            self.look(token.ref, at, now)
        elif at <= now:
            # The answer that tells of the lease is still on its way.
            if len(self._early) >= _MOST_EARLY:
                self._early.clear()
            self._early[token] = None

    def find(self, token: InstanceToken) -> Grant | None:
        """What is known of this lease."""
        grant = self.by_ref.get(token.ref)
        return grant if grant is not None and grant.lease == token.lease else None

    def drop(self, ref: int) -> None:
        """Forget an instance."""
        grant = self.by_ref.pop(ref, None)
        if grant is not None and self.by_id.get(grant.instance_id) is grant:
            del self.by_id[grant.instance_id]
        self.arrived.pop(ref, None)

    def is_running(self, instance_id: str) -> bool:
        """Whether the instance is locked here and has not ended."""
        grant = self.by_id.get(instance_id)
        return grant is not None and grant.status in _OPEN

    def look(self, ref: int, at: float, now: float) -> None:
        """The inbox of an instance has something that is due at this time of the loop."""
        if at <= now:
            self.arrived[ref] = None
        else:
            heapq.heappush(self._later, (at, ref))

    def look_at_all(self) -> None:
        """Any inbox may hold something new."""
        self.arrived.update(dict.fromkeys(self.by_ref))

    def look_at(self, instance_id: str) -> bool:
        """The inbox of this instance may hold something new; False: it is not locked here."""
        grant = self.by_id.get(instance_id)
        if grant is None:
            return False
        self.arrived[grant.ref] = None
        return True

    def next_due(self, now: float) -> float | None:
        """Move what is due to `arrived`; returns the time of the next."""
        later = self._later
        while later and (later[0][0] <= now or later[0][1] not in self.by_ref):
            ref = heapq.heappop(later)[1]
            if ref in self.by_ref:
                self.arrived[ref] = None
        return later[0][0] if later else None

    def to_look_at(self, room: int) -> list[Grant]:
        """Held instances whose inbox wants a look; they are off the list then."""
        found: list[Grant] = []
        for ref in list(self.arrived):
            if len(found) >= room:
                break
            grant = self.by_ref.get(ref)
            if grant is None:
                del self.arrived[ref]
            elif grant.held:
                del self.arrived[ref]
                found.append(grant)
        return found

    def wants_look(self) -> bool:
        """Whether the inbox of any held instance wants a look."""
        return any((grant := self.by_ref.get(ref)) is not None and grant.held for ref in self.arrived)
