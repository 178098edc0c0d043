"""Pure: the projection of an instance from its history.

Incremental: `project(state, events, …)` is what `project(None, all events, …)` would be, so a prefix never runs ahead
of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from durable_host.model.history import (
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    GenericEvent,
    HistoryEvent,
)
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.status import RuntimeStatus

__all__ = ["project", "rewound"]

_SHOWN = frozenset({ExecutionStarted, ExecutionCompleted, ExecutionSuspended, ExecutionResumed})


def project(
    state: InstanceState | None,
    events: Iterable[HistoryEvent],
    *,
    version: HistoryVersion,
    custom_status: str | None,
) -> InstanceState:
    """Fold events into a projection.

    Args:
        state: what the events before these make; None when `events` begins a generation.
        version: of the history including `events`.
        custom_status: JSON text as the executor left it.

    Raises:
        ValueError: there is neither a state nor a start among the events.
    """
    last = state.updated_at if state is not None else None
    for event in events:
        last = event.timestamp
        if type(event) not in _SHOWN:
            continue
        if isinstance(event, ExecutionStarted):
            if state is None or state.execution_id != event.execution_id:
                state = _begin(event)
        elif state is None:
            continue
        elif isinstance(event, ExecutionCompleted):
            state = replace(
                state,
                status=event.status,
                output=event.result,
                failure=event.failure,
                completed_at=event.timestamp,
                suspended_reason=None,
            )
        elif isinstance(event, ExecutionSuspended):
            state = replace(state, status=RuntimeStatus.SUSPENDED, suspended_reason=event.reason)
        elif state.status is RuntimeStatus.SUSPENDED:
            state = replace(state, status=RuntimeStatus.RUNNING, suspended_reason=None)
    if state is None or last is None:
        raise ValueError("a history without ExecutionStarted has no projection")
    return replace(state, version=version, custom_status=custom_status, updated_at=max(last, state.updated_at))


def rewound(state: InstanceState, events: Iterable[HistoryEvent], *, custom_status: str | None) -> InstanceState:
    """The projection of a failed instance whose failure was taken out of its history."""
    return replace(
        state,
        status=RuntimeStatus.RUNNING,
        output=None,
        failure=None,
        completed_at=None,
        custom_status=custom_status,
        updated_at=max([state.updated_at, *(e.timestamp for e in events if isinstance(e, GenericEvent))]),
    )


def _begin(event: ExecutionStarted) -> InstanceState:
    return InstanceState(
        instance_id=event.instance_id,
        execution_id=event.execution_id,
        name=event.name,
        status=RuntimeStatus.RUNNING,
        created_at=event.timestamp,
        updated_at=event.timestamp,
        scheduled_at=event.scheduled_at,
        input=event.input,
        orchestrator_version=event.version,
        tags=event.tags,
        parent=event.parent,
        restarted_from=event.restarted_from,
        starts=event.generation if event.generation is not None else event.starts,
        traceparent=event.traceparent,
    )
