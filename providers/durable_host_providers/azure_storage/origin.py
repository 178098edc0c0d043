"""Who sends a message: an execution, in which episode, with which tags; a client has none of it."""

from __future__ import annotations

import msgspec

from durable_host.model.ids import ExecutionId, InstanceId
from durable_host_providers.azure_storage.wire.envelopes import Sender
from durable_host_providers.azure_storage.wire.messages import CLIENT

__all__ = ["BY_CLIENT", "Origin"]


class Origin(msgspec.Struct, frozen=True):
    """See the module."""

    sender: Sender = CLIENT
    episode: int | None = None
    tags: dict[str, str] | None = None

    @classmethod
    def of(
        cls, instance_id: InstanceId, execution_id: ExecutionId, episode: int, tags: dict[str, str] | None = None
    ) -> Origin:
        """An execution of an instance."""
        return cls(Sender(instance_id, execution_id), episode, tags)


BY_CLIENT = Origin()
