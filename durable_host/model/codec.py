"""Stored JSON of events, messages, tasks and states: one place for its version and for upgrades of old shapes.

Providers store these bytes as opaque text. The shape is msgspec's tagged JSON of the model; a change that old rows do
not decode under gets a new `STORED_VERSION` and an upgrade step here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from durable_host.model.history import HistoryEvent
from durable_host.model.instance import InstanceState
from durable_host.model.messages import ActivityTask

__all__ = [
    "STORED_VERSION",
    "decode_event",
    "decode_events",
    "decode_state",
    "decode_task",
    "encode_event",
    "encode_events",
    "encode_state",
    "encode_task",
]

STORED_VERSION = 1

_encoder = msgspec.json.Encoder()
_events: msgspec.json.Decoder[HistoryEvent] = msgspec.json.Decoder(HistoryEvent)
_runs: msgspec.json.Decoder[list[HistoryEvent]] = msgspec.json.Decoder(list[HistoryEvent])
_states = msgspec.json.Decoder(InstanceState)
_tasks = msgspec.json.Decoder(ActivityTask)


def encode_event(event: HistoryEvent) -> str:
    """The stored text of an event."""
    return _encoder.encode(event).decode()


def decode_event(text: str | bytes) -> HistoryEvent:
    """The event of a stored text."""
    return _events.decode(text)


def encode_events(events: Sequence[HistoryEvent]) -> str:
    """The stored text of a run of events: a JSON array of their stored texts."""
    return _encoder.encode(events).decode()


def decode_events(text: str | bytes) -> list[HistoryEvent]:
    """The events of a stored run."""
    return _runs.decode(text)


def encode_state(state: InstanceState) -> str:
    """The stored text of a projection."""
    return _encoder.encode(state).decode()


def decode_state(text: str | bytes) -> InstanceState:
    """The projection of a stored text."""
    return _states.decode(text)


def encode_task(task: ActivityTask) -> str:
    """The stored text of an activity task."""
    return _encoder.encode(task).decode()


def decode_task(text: str | bytes) -> ActivityTask:
    """The activity task of a stored text."""
    return _tasks.decode(text)
