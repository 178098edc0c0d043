"""The projection of an instance, and how to ask for many."""

from __future__ import annotations

from datetime import datetime

import msgspec

from durable_host.model.failure import Failure
from durable_host.model.history import ExecutionStarted, ParentInstance
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus

__all__ = ["HistoryVersion", "InstancePage", "InstanceQuery", "InstanceState", "pending_state"]


class HistoryVersion(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where committed history stands; larger is newer.

    Attributes:
        generation: one more whenever history is replaced: continue-as-new, a new start under the id.
        length: events committed in this generation.
    """

    generation: int
    length: int


class InstanceState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a status query tells: computed from history, never the other way round.

    Attributes:
        version: of the history it was computed from; None until the first commit (Pending).
        input, output, custom_status: JSON texts; `output` only of a terminal instance (of a failed one the failure's
            text, of a terminated one the reason: plain texts that need not be JSON).
        created_at: when the present execution was created.
        updated_at: time of the last event.
        suspended_reason: of the standing suspension.
        orchestrator_version: the version that the start asked for.
        starts: how often a client had created this id before (0 for the first time); None for children.
        quarantined: why the engine gave up on the instance; its status is Failed meanwhile.
        revision: opaque, the store's own.
    """

    instance_id: InstanceId
    execution_id: ExecutionId
    name: str
    status: RuntimeStatus
    created_at: datetime
    updated_at: datetime
    version: HistoryVersion | None = None
    completed_at: datetime | None = None
    scheduled_at: datetime | None = None
    input: str | None = None
    output: str | None = None
    custom_status: str | None = None
    failure: Failure | None = None
    suspended_reason: str | None = None
    orchestrator_version: str | None = None
    tags: dict[str, str] | None = None
    parent: ParentInstance | None = None
    restarted_from: InstanceId | None = None
    starts: int | None = None
    traceparent: str | None = None
    quarantined: str | None = None
    revision: str | None = None


def pending_state(start: Message) -> InstanceState:
    """The projection of an instance that was created and has not run: what `create_instance` shows at once.

    Stores call this instead of looking inside the start event.

    Raises:
        TypeError: the message is not a start.
    """
    event = start.event
    if not isinstance(event, ExecutionStarted):
        raise TypeError(f"create_instance takes a start message, not {type(event).__name__}")
    return InstanceState(
        instance_id=start.target,
        execution_id=event.execution_id,
        name=event.name,
        status=RuntimeStatus.PENDING,
        created_at=event.timestamp,
        updated_at=event.timestamp,
        scheduled_at=event.scheduled_at,
        input=event.input,
        orchestrator_version=event.version,
        tags=event.tags,
        parent=event.parent,
        restarted_from=event.restarted_from,
        starts=event.generation,
        traceparent=event.traceparent,
    )


class InstanceQuery(msgspec.Struct, frozen=True):
    """Which instances, in which portions. Every condition must hold; empty collections and None do not restrict.

    Order is by instance id, by code points. Instances without a projection (children that have not run) are not found.

    Attributes:
        names: orchestrator names, compared exactly.
        prefix: literal prefix of the instance id.
        tags: each of these must be present with this value.
        created_from, created_to: bounds of `created_at`, both inclusive.
        updated_from, updated_to: bounds of `updated_at`, both inclusive.
        parent: id of the parent instance.
        limit: at most this many instances in a page, at least 1.
        cursor: opaque text from the previous page.
        with_payloads: False leaves out input, output, custom status and failure.
    """

    statuses: frozenset[RuntimeStatus] = frozenset()
    names: frozenset[str] = frozenset()
    prefix: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    parent: InstanceId | None = None
    limit: int = 100
    cursor: str | None = None
    with_payloads: bool = True


class InstancePage(msgspec.Struct, frozen=True):
    """One portion of a query's answer; `cursor` is None on the last page."""

    instances: tuple[InstanceState, ...]
    cursor: str | None = None
