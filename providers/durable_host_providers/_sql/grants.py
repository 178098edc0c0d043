"""What a store object remembers of the instances that it has locked.

The database has the truth: a lease is current if its row says so. This memory saves reading: it knows which messages a
holder has been given, how the projection stood, and whose inbox is to be looked at.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

import msgspec

from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus

__all__ = ["Grant", "GrantedInstances", "InstanceToken"]

TimeT = TypeVar("TimeT", int, float)

_OPEN = frozenset(status.value for status in RuntimeStatus if not status.is_terminal)


class InstanceToken(msgspec.Struct, frozen=True, gc=False):
    """The fence of an instance's lease, and the number of its row."""

    lease: int
    ref: int


class Grant:
    """An instance that this store object has locked.

    Attributes:
        given: messages that were delivered under this lease and are not consumed yet: id → number of the row.
        held: the holder waits between two episodes and wants to be told of arrivals.
        version: where committed history stands.
        status, execution_id: of the projection as it was last written or read here.
        carried: the activity that stands in the instance's row, in a store that has that.
    """

    __slots__ = ("carried", "execution_id", "given", "held", "instance_id", "lease", "ref", "status", "version")

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
        self.carried: str | None = None


class GrantedInstances(Generic[TimeT]):
    """All locked instances, and those whose inbox wants a look, now or later; times are of the store's choice."""

    def __init__(self) -> None:
        self.by_ref: dict[int, Grant] = {}
        self.by_id: dict[str, Grant] = {}
        self.arrived: dict[int, None] = {}
        self._later: list[tuple[TimeT, int]] = []

    def add(self, grant: Grant) -> None:
        """Remember a lease; it takes the place of an earlier one of the same instance."""
        self.by_ref[grant.ref] = grant
        self.by_id[grant.instance_id] = grant

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
        """Whether the instance is locked here and has not ended; from any thread."""
        grant = self.by_id.get(instance_id)
        return grant is not None and grant.status in _OPEN

    def look(self, ref: int, due: TimeT, now: TimeT) -> None:
        """The inbox of an instance has something that is due at this time."""
        if due <= now:
            self.arrived[ref] = None
        else:
            heapq.heappush(self._later, (due, ref))

    @property
    def has_later(self) -> bool:
        """Whether any inbox is to be looked at later."""
        return bool(self._later)

    def next_due(self, now: TimeT) -> TimeT | None:
        """Move what is due to `arrived`; returns the time of the next."""
        later = self._later
        while later and (later[0][0] <= now or not self._watches(later[0][1])):
            ref = heapq.heappop(later)[1]
            if self._watches(ref):
                self.arrived[ref] = None
        return later[0][0] if later else None

    def _watches(self, ref: int) -> bool:
        """Whether later looks at this instance still concern anybody."""
        return ref in self.by_ref
