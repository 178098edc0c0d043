"""Names of everything that a hub consists of. Source: azure-storage-task-hub.md 1.1."""

from __future__ import annotations

import msgspec

from durable_host_providers.azure_storage.wire.keys import control_queue_of

__all__ = ["Layout"]


class Layout(msgspec.Struct, frozen=True):
    """The names of one hub.

    Attributes:
        hub: as configured; tables keep its case, queues and containers are in lower case.
        partitions: number of control queues.
        tracking: prefix of the tables History and Instances where they lie in an account of their own; else the hub.
    """

    hub: str
    partitions: int = 4
    tracking: str | None = None

    @property
    def work_items(self) -> str:
        """The queue of activities."""
        return f"{self.hub.lower()}-workitems"

    @property
    def history(self) -> str:
        """The table of events."""
        return f"{self.tracking or self.hub}History"

    @property
    def instances(self) -> str:
        """The table of projections."""
        return f"{self.tracking or self.hub}Instances"

    @property
    def large_messages(self) -> str:
        """The container of what is too large for queues and tables."""
        return f"{self.hub.lower()}-largemessages"

    @property
    def poison(self) -> str:
        """The queue for texts that are no messages."""
        return f"{self.hub.lower()}-poison"

    @property
    def handed_back(self) -> str:
        """The table of what was handed back and waits."""
        return f"{self.hub}HandedBack"

    @property
    def control_queues(self) -> tuple[str, ...]:
        """The queues of instances, one for each partition."""
        return tuple(self.control_queue(index) for index in range(self.partitions))

    def control_queue(self, index: int) -> str:
        """The queue of one partition."""
        return f"{self.hub.lower()}-control-{index:02}"

    def control_queue_for(self, instance_id: str) -> str:
        """The queue that an instance's messages go to."""
        return self.control_queue(control_queue_of(instance_id, self.partitions))
