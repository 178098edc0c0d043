"""What a store object remembers of the leases that it has given out.

The database has the truth: a lease is current if its row says so. This memory saves reading: it knows which messages a
holder has been given, how the projection stood, and whose inbox is to be looked at. What it knows of an instance is
dropped whenever a call that touches it fails.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from durable_host_providers._sql.grants import Grant, GrantedInstances, InstanceToken

__all__ = ["LEASE_BITS", "UNKNOWN_ROW", "ActivityToken", "Grant", "Grants", "InstanceToken", "carriers"]

LEASE_BITS = 36
"""Lower bits of a lease number, which count this store object's calls; above them stands the number of the object."""

UNKNOWN_ROW = 0
"""Stands for the number of a message that was handed over and never read."""

_MOST_EARLY = 10_000


class ActivityToken(msgspec.Struct, frozen=True, gc=False):
    """The fence of an activity's lease, and its dispatch id; `carrier`: the row of an instance that may carry it."""

    lease: int
    dispatch_id: str
    carrier: int | None = None


def carriers(tokens: Iterable[object]) -> list[int] | None:
    """The rows that may carry some of these."""
    found = {token.carrier for token in tokens if isinstance(token, ActivityToken) and token.carrier is not None}
    return sorted(found) or None


class Grants(GrantedInstances[float]):
    """All locked instances, and those whose inbox wants a look; times are of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._early: dict[InstanceToken, None] = {}

    def add(self, grant: Grant) -> None:
        super().add(grant)
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

    def unloaded(self, ref: int) -> None:
        """What an instance carried has a row of its own now."""
        grant = self.by_ref.get(ref)
        if grant is not None:
            grant.carried = None

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
        if not self.arrived:
            return False
        return any((grant := self.by_ref.get(ref)) is not None and grant.held for ref in self.arrived)
