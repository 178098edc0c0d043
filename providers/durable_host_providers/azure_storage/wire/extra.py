"""What is ours alone and has no place in the format: one extra member of the envelope, one extra column of a row.

.NET ignores both, and what it writes lacks them; then everything here has its default. Dispatch and message ids, which
people look for, have members and columns of their own.
"""

from __future__ import annotations

import msgspec

from durable_host.model.history import (
    EventRaised,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    ParentInstance,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from durable_host.model.ids import DispatchId, InstanceId, MessageId
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.wire.objects import has_reserved_names

__all__ = ["NOTHING", "Extra", "extra_of", "is_made_up", "made_up_id"]


class Extra(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Members of our events that the format lacks; see the events of the same names in `model.history`.

    Attributes:
        tags, tracestate: only where the format's own place would not give them back unchanged.
        message_id: that the event of a message bears already, beside the id of the message itself.
        reason, original: of a GenericEvent; see `history_rows`.
    """

    replaceable: tuple[RuntimeStatus, ...] = ()
    restarted_from: InstanceId | None = None
    seen: tuple[MessageId, ...] = ()
    starts: int | None = None
    custom_status: str | None = None
    tags: dict[str, str] | None = None
    tracestate: str | None = None
    recursive: bool = False
    parent: ParentInstance | None = None
    message_id: MessageId | None = None
    reason: str | None = None
    original: HistoryEvent | None = None


NOTHING = Extra()
"""What the events of other writers have."""


def extra_of(event: HistoryEvent) -> Extra | None:
    """What of an event has no place in the format; None for nothing, which is the rule."""
    match event:
        case ExecutionStarted():
            extra = Extra(
                replaceable=event.replaceable,
                restarted_from=event.restarted_from,
                seen=event.seen,
                starts=event.starts,
                custom_status=event.custom_status,
                tags=_odd_tags(event.tags, event.detached),
                tracestate=event.tracestate if event.traceparent is None else None,
            )
        case ExecutionTerminated(recursive=True):
            extra = Extra(recursive=True)
        case ExecutionRewound():
            extra = Extra(parent=event.parent)
        case TaskScheduled() | SubOrchestrationInstanceCreated():
            extra = Extra(tags=_odd_tags(event.tags, getattr(event, "detached", False)))
        case GenericEvent():
            extra = Extra(reason=event.reason, original=event.original)
        case EventRaised():
            return None
        case _:
            return None
    return None if extra == NOTHING else extra


def _odd_tags(tags: dict[str, str] | None, detached: bool) -> dict[str, str] | None:
    # No tags at all and empty tags look the same beside the mark of a detached start.
    return tags if has_reserved_names(tags) or (detached and tags == {}) else None


_MADE_UP = "queue:"


def made_up_id(queue_id: str) -> DispatchId:
    """The dispatch id of a request that carried none, from the queue's id of its message: unique, but nobody's."""
    return DispatchId(f"{_MADE_UP}{queue_id}")


def is_made_up(dispatch_id: DispatchId) -> bool:
    """Whether a request carried no dispatch id; its reply must carry none either, and match by its task id."""
    return dispatch_id.startswith(_MADE_UP)
