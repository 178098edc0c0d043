"""What a hub keeps of each message, instance and activity task."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus

if TYPE_CHECKING:  # a cycle in types only: records name their holder, who names records
    from durable_host_providers.memory.waiting import Holder

__all__ = ["InstanceRecord", "MessageRecord", "TaskRecord"]


class MessageRecord:
    """A message in an inbox.

    Attributes:
        order: place among everything that ever arrived or came back.
        since: when it became visible; for a delayed one when it will.
        deliveries: how often it was fetched.
        token: of the lease under which it was given last.
    """

    __slots__ = ("deliveries", "instance", "message", "order", "since", "token")

    def __init__(self, message: Message, instance: InstanceRecord, order: int, since: datetime) -> None:
        self.message = message
        self.instance = instance
        self.order = order
        self.since = since
        self.deliveries = 0
        self.token = 0

    def deliver(self, token: int, *, handed_over: bool) -> Message:
        """Count a delivery under a lease and return the message as it is delivered."""
        if self.token or not handed_over:
            self.deliveries += 1
        self.token = token
        message = self.message
        if message.deliveries == self.deliveries:
            return message
        return Message(
            message.id, message.target, message.event, message.execution_id, message.visible_at, self.deliveries
        )


class InstanceRecord:
    """An instance, or an id that only has messages so far.

    The inbox is three maps: a message waits for its time in `delayed`, then in `fresh` until a lease delivers it, then
    in `given` until a checkpoint takes it or the lease ends, which puts it back before what is fresh.

    Attributes:
        state: the projection; `shown` the same as readers see it (differs in quarantine). None: not created.
        version: of history; differs from the state's while a start waits that replaces the instance.
        token: of the present or the last lease; it stays current until somebody else takes the lease. 0: released.
        leased: the lease is live.
        hold: the holder asked to be topped up.
        queued: stands in the hub's ready heap.
        postponed_until: given back with a delay; its end or the next arrival ends that, and all come back together.
        start_id: message id of the start that created what `state` shows.
    """

    __slots__ = (
        "delayed",
        "fresh",
        "given",
        "history",
        "hold",
        "holder",
        "id",
        "lease_end",
        "leased",
        "postponed_until",
        "quarantined",
        "queued",
        "shown",
        "start_id",
        "state",
        "token",
        "version",
    )

    def __init__(self, instance_id: InstanceId) -> None:
        self.id = instance_id
        self.state: InstanceState | None = None
        self.shown: InstanceState | None = None
        self.version: HistoryVersion | None = None
        self.history: list[HistoryEvent] = []
        self.fresh: dict[MessageId, MessageRecord] = {}
        self.given: dict[MessageId, MessageRecord] = {}
        self.delayed: dict[MessageId, MessageRecord] = {}
        self.token = 0
        self.leased = False
        self.lease_end = 0.0
        self.holder: Holder | None = None
        self.hold = False
        self.queued = False
        self.postponed_until: datetime | None = None
        self.quarantined: str | None = None
        self.start_id: MessageId | None = None

    def knows(self, message_id: MessageId) -> bool:
        """Whether a message of this id waits here."""
        return message_id in self.fresh or message_id in self.given or message_id in self.delayed

    def deliver(self, *, handed_over: bool) -> tuple[Message, ...]:
        """Give the holder of the lease what is fresh."""
        token = self.token
        inbox = tuple([record.deliver(token, handed_over=handed_over) for record in self.fresh.values()])
        if self.given:
            self.given.update(self.fresh)
        else:
            self.given = self.fresh
        self.fresh = {}
        return inbox

    def take_back(self) -> None:
        """Put what was given back before what is fresh."""
        if self.given:
            self.given.update(self.fresh)
            self.fresh = self.given
            self.given = {}

    @property
    def is_eligible(self) -> bool:
        """A lock call may take it."""
        return bool(self.fresh) and not self.leased and self.quarantined is None and self.postponed_until is None

    def gives_way(self, replaceable: Collection[RuntimeStatus]) -> bool:
        """Whether a start may take this id."""
        return self.quarantined is None and (self.shown is None or self.shown.status in replaceable)

    @property
    def is_empty(self) -> bool:
        """Nothing is kept under this id."""
        return (
            self.state is None
            and self.version is None
            and not (self.fresh or self.given or self.delayed)
            and self.quarantined is None
        )


class TaskRecord:
    """An activity task; `since` is when it became visible, `gone` that it was completed or purged."""

    __slots__ = ("delayed", "deliveries", "gone", "holder", "lease_end", "leased", "order", "since", "task", "token")

    def __init__(self, task: ActivityTask, order: int, since: datetime) -> None:
        self.task = task
        self.order = order
        self.since = since
        self.deliveries = 0
        self.token = 0
        self.leased = False
        self.lease_end = 0.0
        self.holder: Holder | None = None
        self.delayed = False
        self.gone = False

    @property
    def is_eligible(self) -> bool:
        """A lock call may take it."""
        return not (self.leased or self.gone or self.delayed)
