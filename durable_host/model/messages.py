"""What travels: messages to instances and tasks for activities."""

from __future__ import annotations

from datetime import datetime

import msgspec

from durable_host.model.history import HistoryEvent
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId

__all__ = ["ActivityTask", "Message"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event on its way to an instance.

    Attributes:
        id: stable across redelivery and a sender's retries; recorded in the event it becomes.
        target: the instance.
        event: what arrives.
        execution_id: the execution it is meant for; None: any (external events and control).
        visible_at: not delivered before; None: at once. Timers at most 6 days ahead; starts and signals any distance.
        deliveries: how often it has been fetched, this time included; 0: handed over, never fetched.
    """

    id: MessageId
    target: InstanceId
    event: HistoryEvent
    execution_id: ExecutionId | None = None
    visible_at: datetime | None = None
    deliveries: int = 1


class ActivityTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """An activity to run, identified by its dispatch id. `input` is JSON text or None."""

    dispatch_id: DispatchId
    instance_id: InstanceId
    execution_id: ExecutionId
    task_id: int
    name: str
    input: str | None = None
    traceparent: str | None = None
    tags: dict[str, str] | None = None
