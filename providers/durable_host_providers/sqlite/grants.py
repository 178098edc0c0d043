"""What the writer remembers of the leases that this store object has given out.

The file has the truth: a lease is current if its row says so. This memory saves reading: it knows which messages a
holder has been given, how the projection stood, and whose inbox is to be looked at. It is used on the writer thread
only (but for `is_running`), is changed while a transaction is built, and is dropped for every instance that a failed
transaction touched.
"""

from __future__ import annotations

import msgspec

from durable_host_providers._sql.grants import Grant, GrantedInstances, InstanceToken

__all__ = ["ActivityToken", "Grant", "Grants", "InstanceToken"]


class ActivityToken(msgspec.Struct, frozen=True, gc=False):
    """The fence of an activity's lease, and the number of its row."""

    lease: int
    seq: int


class Grants(GrantedInstances[int]):
    """All locked instances, and the held ones whose inbox wants a look; times are microseconds of the clock."""

    def look_at_all(self) -> None:
        """Another process has written: any inbox may hold something new."""
        for ref, grant in self.by_ref.items():
            if grant.held:
                self.arrived[ref] = None

    def _watches(self, ref: int) -> bool:
        grant = self.by_ref.get(ref)
        return grant is not None and grant.held
