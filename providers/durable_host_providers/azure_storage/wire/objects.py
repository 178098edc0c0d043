"""The objects that events share, in both forms: with `$type` for queues, without for columns that hold JSON.

Member names and their order are those of the serializer. Source: azure-storage-task-hub.md 3.3 and 4.2.
"""

from __future__ import annotations

from typing import Any

import msgspec

from durable_host.model.failure import Failure
from durable_host.model.history import ParentInstance
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId

__all__ = [
    "DETACHED_TAG",
    "FailureDetails",
    "InstanceRef",
    "ParentRef",
    "TraceContext",
    "TypedFailureDetails",
    "TypedInstanceRef",
    "TypedParentRef",
    "TypedTraceContext",
    "failure_from",
    "failure_to",
    "has_reserved_names",
    "parent_from",
    "parent_to",
    "tags_from",
    "tags_to",
    "typed_failure_to",
    "typed_parent_to",
    "typed_tags_to",
]

DETACHED_TAG = "FireAndForget"
"""The tag by which a start says that nobody waits."""

_DICTIONARY = (
    "System.Collections.Generic.Dictionary`2"
    "[[System.String, System.Private.CoreLib],[System.String, System.Private.CoreLib]]"
)
_TYPE = "$type"


class InstanceRef(msgspec.Struct, frozen=True, rename="pascal"):
    """OrchestrationInstance in a column."""

    instance_id: str
    execution_id: str | None = None


class TypedInstanceRef(
    msgspec.Struct, frozen=True, rename="pascal", tag_field=_TYPE, tag="DurableTask.Core.OrchestrationInstance"
):
    """OrchestrationInstance in a message."""

    instance_id: str
    execution_id: str | None = None


class ParentRef(msgspec.Struct, frozen=True, rename="pascal"):
    """ParentInstance in a column; `dispatch_id` is ours."""

    name: str | None
    orchestration_instance: InstanceRef
    task_schedule_id: int = 0
    version: str | None = None
    dispatch_id: str | msgspec.UnsetType = msgspec.UNSET


class TypedParentRef(
    msgspec.Struct, frozen=True, rename="pascal", tag_field=_TYPE, tag="DurableTask.Core.ParentInstance"
):
    """ParentInstance in a message; `dispatch_id` is ours."""

    name: str | None
    orchestration_instance: TypedInstanceRef
    task_schedule_id: int = 0
    version: str | None = None
    dispatch_id: str | msgspec.UnsetType = msgspec.UNSET


class TraceContext(msgspec.Struct, frozen=True, rename="pascal"):
    """DistributedTraceContext in a column."""

    trace_parent: str | None = None
    trace_state: str | None = None
    id: str | None = None
    span_id: str | None = None
    activity_start_time: str | None = None


class TypedTraceContext(
    msgspec.Struct,
    frozen=True,
    rename="pascal",
    tag_field=_TYPE,
    tag="DurableTask.Core.Tracing.DistributedTraceContext",
):
    """DistributedTraceContext in a message."""

    trace_parent: str | None = None
    trace_state: str | None = None
    id: str | None = None
    span_id: str | None = None
    activity_start_time: str | None = None


class FailureDetails(msgspec.Struct, frozen=True, rename="pascal"):
    """FailureDetails in a column."""

    error_type: str | None
    error_message: str | None = None
    stack_trace: str | None = None
    inner_failure: FailureDetails | None = None
    is_non_retriable: bool = False
    properties: dict[str, Any] | None = None


class TypedFailureDetails(
    msgspec.Struct, frozen=True, rename="pascal", tag_field=_TYPE, tag="DurableTask.Core.FailureDetails"
):
    """FailureDetails in a message."""

    error_type: str | None
    error_message: str | None = None
    stack_trace: str | None = None
    inner_failure: TypedFailureDetails | None = None
    is_non_retriable: bool = False
    properties: dict[str, Any] | None = None


def failure_from(details: FailureDetails | TypedFailureDetails | None) -> Failure | None:
    """The failure that was described."""
    if details is None:
        return None
    properties = details.properties
    if properties is not None and str(properties.get(_TYPE)).startswith("System."):
        properties = {name: value for name, value in properties.items() if name != _TYPE}
    return Failure(
        type=details.error_type or "",
        message=details.error_message or "",
        stack=details.stack_trace,
        cause=failure_from(details.inner_failure),
        non_retriable=details.is_non_retriable,
        properties=properties,
    )


def failure_to(failure: Failure | None) -> FailureDetails | None:
    """The description of a failure for a column."""
    if failure is None:
        return None
    return FailureDetails(
        error_type=failure.type,
        error_message=failure.message,
        stack_trace=failure.stack,
        inner_failure=failure_to(failure.cause),
        is_non_retriable=failure.non_retriable,
        properties=failure.properties,
    )


def typed_failure_to(failure: Failure | None) -> TypedFailureDetails | None:
    """The description of a failure for a message."""
    if failure is None:
        return None
    return TypedFailureDetails(
        error_type=failure.type,
        error_message=failure.message,
        stack_trace=failure.stack,
        inner_failure=typed_failure_to(failure.cause),
        is_non_retriable=failure.non_retriable,
        properties=failure.properties,
    )


def parent_from(parent: ParentRef | TypedParentRef | None) -> ParentInstance | None:
    """Who waits for an execution."""
    if parent is None:
        return None
    return ParentInstance(
        instance_id=InstanceId(parent.orchestration_instance.instance_id),
        execution_id=ExecutionId(parent.orchestration_instance.execution_id or ""),
        task_id=parent.task_schedule_id,
        name=parent.name or "",
        version=parent.version,
        dispatch_id=None if parent.dispatch_id is msgspec.UNSET else DispatchId(parent.dispatch_id),
    )


def parent_to(parent: ParentInstance | None) -> ParentRef | None:
    """ParentInstance for a column."""
    if parent is None:
        return None
    return ParentRef(
        name=parent.name,
        orchestration_instance=InstanceRef(parent.instance_id, parent.execution_id),
        task_schedule_id=parent.task_id,
        version=parent.version,
        dispatch_id=msgspec.UNSET if parent.dispatch_id is None else parent.dispatch_id,
    )


def typed_parent_to(parent: ParentInstance | None) -> TypedParentRef | None:
    """ParentInstance for a message."""
    if parent is None:
        return None
    return TypedParentRef(
        name=parent.name,
        orchestration_instance=TypedInstanceRef(parent.instance_id, parent.execution_id),
        task_schedule_id=parent.task_id,
        version=parent.version,
        dispatch_id=msgspec.UNSET if parent.dispatch_id is None else parent.dispatch_id,
    )


def has_reserved_names(tags: dict[str, str] | None) -> bool:
    """Whether .NET would take a tag's name for metadata of the serializer, or for the mark of a detached start."""
    return tags is not None and any(map(_is_reserved, tags))


def _is_reserved(name: str) -> bool:
    return name.startswith("$") or name == DETACHED_TAG


def tags_to(tags: dict[str, str] | None, detached: bool = False) -> dict[str, str] | None:
    """Tags as they are stored; a detached start is marked by one of its own, and only such a start."""
    if has_reserved_names(tags):
        assert tags is not None
        tags = {name: value for name, value in tags.items() if not _is_reserved(name)}
    return {**(tags or {}), DETACHED_TAG: ""} if detached else tags


def typed_tags_to(tags: dict[str, str] | None, detached: bool = False) -> dict[str, str] | None:
    """Tags as they stand in a message."""
    stored = tags_to(tags, detached)
    return None if stored is None else {_TYPE: _DICTIONARY, **stored}


def tags_from(stored: dict[str, str | None] | None) -> tuple[dict[str, str] | None, bool]:
    """Tags of either form, and whether the start is a detached one."""
    if stored is None:
        return None, False
    detached = DETACHED_TAG in stored
    tags = {name: value or "" for name, value in stored.items() if name not in (_TYPE, DETACHED_TAG)}
    # A mark that stands alone was set on a start without tags.
    return (tags if tags or not detached else None), detached
