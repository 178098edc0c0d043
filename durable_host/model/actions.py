"""What an orchestrator may ask for in an episode.

`id` is the action id: a counter per execution, from 0, one for each activity call, timer (each link of a long one),
child, sent event and the completion (`azure-storage-task-hub.md` 6.7).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from durable_host.model.failure import Failure
from durable_host.model.history import EventRaised
from durable_host.model.ids import InstanceId
from durable_host.model.status import RuntimeStatus

__all__ = [
    "Action",
    "CompleteOrchestration",
    "ContinueAsNew",
    "CreateTimer",
    "ScheduleActivity",
    "SendEvent",
    "StartChild",
]


class ScheduleActivity(msgspec.Struct, frozen=True):
    """Run an activity. `input` is JSON text or None for "no input"."""

    id: int
    name: str
    input: str | None = None
    tags: dict[str, str] | None = None


class CreateTimer(msgspec.Struct, frozen=True):
    """Wake me at `fire_at` (aware, UTC), at most 6 days from the episode; longer timers are chains of these."""

    id: int
    fire_at: datetime


class StartChild(msgspec.Struct, frozen=True):
    """Start an orchestration. Without an instance id it becomes `{execution id}:{action id}`."""

    id: int
    name: str
    input: str | None = None
    instance_id: InstanceId | None = None
    version: str | None = None
    tags: dict[str, str] | None = None
    detached: bool = False


class SendEvent(msgspec.Struct, frozen=True):
    """Raise an event in another instance."""

    id: int
    instance_id: InstanceId
    name: str
    input: str | None = None


class CompleteOrchestration(msgspec.Struct, frozen=True):
    """End: Completed with an output, Failed with a text and a failure, Terminated with the reason."""

    id: int
    status: RuntimeStatus
    result: str | None = None
    failure: Failure | None = None


class ContinueAsNew(msgspec.Struct, frozen=True):
    """End this execution and begin the next with `input`; `carried` are the events it has not consumed, in order."""

    input: str | None = None
    carried: tuple[EventRaised, ...] = ()
    version: str | None = None


Action = ScheduleActivity | CreateTimer | StartChild | SendEvent | CompleteOrchestration | ContinueAsNew
"""Any action."""
