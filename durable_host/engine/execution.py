"""The books of one execution: ids taken, actions that history does not show yet, requests that are still open.

Action ids are taken when a context method is called, as in DurableTask.Core, or while an event is applied (retries,
links of long timers, bounded fan-out); both happen in an order that history determines. `pending` holds actions until
history confirms them; in a session the checkpoint does. Whoever waits for a reply stands in `calls`, `children` or
`timers` under the action id: three tables, so that a timer's reply can never end up at a call that has taken over its
id after a rewind. Cancelled timers and detached children stand nowhere: nobody waits for them.

Source: azure-storage-task-hub.md 6.7; DurableTask.Core TaskOrchestrationContext.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn, Protocol

from durable_host.engine.callsites import CallSite, caller_site
from durable_host.engine.external_events import ExternalEvents
from durable_host.errors import OrchestratorError, TaskFailedError
from durable_host.model.actions import Action, CreateTimer, ScheduleActivity, SendEvent, StartChild
from durable_host.model.ids import ExecutionId, InstanceId

__all__ = ["CallWaiter", "Continuation", "Execution", "TimerWaiter"]

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class CallWaiter(Protocol):
    """Waits for the reply of an activity or a child."""

    def on_result(self, text: str | None) -> None:
        """It succeeded; `text` is its JSON result."""
        ...

    def on_failure(self, error: TaskFailedError) -> None:
        """It failed."""
        ...


class TimerWaiter(Protocol):
    """Waits for a timer."""

    def on_timer(self) -> None:
        """The timer that was asked for is due, whatever the clock says."""
        ...


class Continuation:
    """What `continue_as_new` asked for; takes effect when the code ends."""

    __slots__ = ("input", "keep_events", "version")

    def __init__(self, input: str | None, keep_events: bool, version: str | None) -> None:
        self.input = input
        self.keep_events = keep_events
        self.version = version


class Execution:
    """State that context, tasks and driver share."""

    __slots__ = (
        "active",
        "bytes",
        "calls",
        "children",
        "closed",
        "continuation",
        "custom_status",
        "events",
        "execution_id",
        "instance_id",
        "is_replaying",
        "next_id",
        "now",
        "pending",
        "sites",
        "timers",
    )

    def __init__(self, instance_id: InstanceId, execution_id: ExecutionId) -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.now = _BEGINNING
        self.is_replaying = False
        self.active = False
        """User code is running: only now may the context be used."""
        self.closed = False
        """The position is dropped; nothing of this matters any more."""
        self.next_id = 0
        self.pending: dict[int, Action] = {}
        self.calls: dict[int, CallWaiter] = {}
        self.children: dict[int, CallWaiter] = {}
        self.timers: dict[int, TimerWaiter] = {}
        self.sites: dict[int, CallSite | None] = {}
        self.events = ExternalEvents()
        self.custom_status: str | None = None
        self.continuation: Continuation | None = None
        self.bytes = 0

    def ask_activity(self, waiter: CallWaiter, name: str, input: str | None, tags: dict[str, str] | None) -> int:
        """Ask for an activity; returns the action id."""
        taken = self.next_id
        self.next_id = taken + 1
        self.pending[taken] = ScheduleActivity(taken, name, input, tags)
        self.calls[taken] = waiter
        if self.is_replaying:
            self.sites[taken] = caller_site()
        return taken

    def ask_child(
        self,
        waiter: CallWaiter | None,
        name: str,
        input: str | None,
        instance_id: InstanceId | None,
        version: str | None,
        tags: dict[str, str] | None,
    ) -> int:
        """Ask for a sub-orchestration; without a waiter it is detached. Returns the action id."""
        taken = self.next_id
        self.next_id = taken + 1
        self.pending[taken] = StartChild(taken, name, input, instance_id, version, tags, waiter is None)
        if waiter is not None:
            self.children[taken] = waiter
        if self.is_replaying:
            self.sites[taken] = caller_site()
        return taken

    def ask_timer(self, waiter: TimerWaiter, fire_at: datetime) -> int:
        """Ask for one timer; returns the action id."""
        taken = self.next_id
        self.next_id = taken + 1
        self.pending[taken] = CreateTimer(taken, fire_at)
        self.timers[taken] = waiter
        if self.is_replaying:
            self.sites[taken] = caller_site()
        return taken

    def send_event(self, instance_id: InstanceId, name: str, input: str | None) -> int:
        """Send an event to another instance; returns the action id."""
        taken = self.next_id
        self.next_id = taken + 1
        self.pending[taken] = SendEvent(taken, instance_id, name, input)
        if self.is_replaying:
            self.sites[taken] = caller_site()
        return taken

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open: no activity, no child, no timer that was not cancelled."""
        return not self.calls and not self.timers and not self.children

    def refuse(self) -> NoReturn:
        """The context is used while its code is not running."""
        raise OrchestratorError(
            "The orchestration context was used from outside its orchestrator's code (a callback, another thread, or "
            "after the end). Call its methods in the orchestrator itself and yield or await what they return."
        )
