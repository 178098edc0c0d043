"""Texts of the codec with places to fill, for starts and events that the database makes itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from durable_host.model.codec import encode_event
from durable_host.model.history import EventRaised, ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import pending_state
from durable_host.model.messages import Message
from durable_host_providers._sql.rows import state_text

__all__ = ["templates"]

_NOW = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
_LATER = datetime(2002, 2, 3, 4, 5, 6, 7, tzinfo=UTC)


def templates() -> Mapping[str, str]:
    """The templates by name; `migrations/0003_callers.sql` fills them."""
    start = ExecutionStarted(
        timestamp=_NOW,
        instance_id=InstanceId(_place("instance")),
        execution_id=ExecutionId(_place("execution")),
        name=_place("name"),
        input=_place("input"),
        generation=0,
    )
    later = msgspec.structs.replace(start, scheduled_at=_LATER)
    return {
        "start": encode_event(start),
        "start later": encode_event(later),
        "pending": _pending(start),
        "pending later": _pending(later),
        "event": encode_event(EventRaised(timestamp=_NOW, name=_place("name"), input=_place("input"))),
    }


def _place(name: str) -> str:
    return f"durable-host:{name}"


def _pending(start: ExecutionStarted) -> str:
    return state_text(pending_state(Message(MessageId(""), start.instance_id, start, start.execution_id)))
