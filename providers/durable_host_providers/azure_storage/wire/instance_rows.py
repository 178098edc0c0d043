"""Rows of the Instances table.

Beside the columns of the reference a row has, of ours: `HistoryVersion` and `HistoryStamp` (see `stamps`),
`FailureDetails`, `ParentInstanceId` (to ask for), `DurableHost` (what else a projection tells), `Quarantined` and
`QuarantinedStatus` with a stamp of its own. They count only as far as their stamp vouches for them, since another
writer of the row leaves them as they were.

What the reference leaves behind in a row is passed over when reading: output and completion time of an execution that
has not ended, and the reason of a suspension that is over, which stands in `Output`.

Source: azure-storage-task-hub.md 5.1, 5.2 and 9.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from durable_host.model.history import ParentInstance
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.cells import (
    NULL,
    failure_column,
    failure_of_column,
    optional,
    optional_instant,
    optional_number,
    tags_column,
    tags_of_column,
)
from durable_host_providers.azure_storage.wire.errors import UnreadableRowError
from durable_host_providers.azure_storage.wire.keys import escape_key, instance_of_key
from durable_host_providers.azure_storage.wire.objects import DETACHED_TAG, has_reserved_names
from durable_host_providers.azure_storage.wire.stamps import VERSION_COLUMNS, VersionStamp, read_stamp, stamp_columns
from durable_host_providers.azure_storage.wire.texts import json_text
from durable_host_providers.azure_storage.wire.times import edm_time

__all__ = [
    "PAYLOAD_COLUMNS",
    "WITHOUT_PAYLOADS",
    "instance_row",
    "is_detached_row",
    "merge_columns",
    "quarantine_columns",
    "read_instance",
    "release_columns",
]

PAYLOAD_COLUMNS = ("Input", "Output", "CustomStatus", "FailureDetails")
"""What a query without payloads leaves out."""

WITHOUT_PAYLOADS = (
    "PartitionKey",
    "RowKey",
    "ExecutionId",
    "Name",
    "Version",
    "CreatedTime",
    "LastUpdatedTime",
    "CompletedTime",
    "RuntimeStatus",
    "ScheduledStartTime",
    "Generation",
    "Tags",
    "TagsBlobName",
    *VERSION_COLUMNS,
    "DurableHost",
    "DurableHostBlobName",
    "Quarantined",
    "QuarantinedStatus",
    "QuarantinedStamp",
)
"""The columns to select for `read_instance(…, with_payloads=False)`."""


class _Facts(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Members of a projection that have no column."""

    parent: ParentInstance | None = None
    restarted_from: InstanceId | None = None
    traceparent: str | None = None
    suspended_reason: str | None = None
    tags: dict[str, str] | None = None


_NO_FACTS = _Facts()
_facts = msgspec.json.Decoder(_Facts).decode


def instance_row(
    state: InstanceState, hub: str, *, detached: bool = False, places: Mapping[str, str] | None = None
) -> dict[str, Value]:
    """The whole row of a projection, for an insert or a replace; see `merge_columns` for less.

    Args:
        hub: the hub's name as configured.
        detached: the execution was started without anybody waiting, which its tags tell.
        places: URLs of the blobs where `Input` and `Output` lie already, by column.
    """
    updated = edm_time(state.updated_at)
    values: dict[str, Value] = {
        "PartitionKey": escape_key(state.instance_id),
        "RowKey": "",
        "ExecutionId": state.execution_id,
        "Name": state.name,
        "CreatedTime": updated if state.created_at == state.updated_at else edm_time(state.created_at),
        "LastUpdatedTime": updated,
        "RuntimeStatus": state.status.value,
        "TaskHubName": hub,
        "Tags": tags_column(state.tags, detached),
    }
    if state.orchestrator_version is not None:
        values["Version"] = state.orchestrator_version
    if state.input is not None:
        values["Input"] = state.input
    if state.version is not None or state.custom_status is not None:  # absent until the first checkpoint
        values["CustomStatus"] = NULL if state.custom_status is None else state.custom_status
    if state.completed_at is not None:
        values["CompletedTime"] = edm_time(state.completed_at)
    if state.scheduled_at is not None:
        values["ScheduledStartTime"] = edm_time(state.scheduled_at)
    if state.starts is not None:
        values["Generation"] = state.starts
    output = state.suspended_reason if state.status is RuntimeStatus.SUSPENDED else state.output
    if output is not None:
        values["Output"] = output
    if places:
        values.update({column: url for column, url in places.items() if column in values})
    _add_ours(state, detached, updated, values)
    return values


def _add_ours(state: InstanceState, detached: bool, updated: EdmDateTime, values: dict[str, Value]) -> None:
    if state.failure is not None:
        values["FailureDetails"] = failure_column(state.failure)
    if state.parent is not None:
        values["ParentInstanceId"] = state.parent.instance_id
    facts = _Facts(
        parent=state.parent,
        restarted_from=state.restarted_from,
        traceparent=state.traceparent,
        suspended_reason=state.suspended_reason,  # also in `Output`, which a query without payloads leaves out
        tags=state.tags if has_reserved_names(state.tags) or (detached and state.tags == {}) else None,
    )
    if facts != _NO_FACTS:
        values["DurableHost"] = json_text(facts)
    if state.quarantined is not None:
        values["Quarantined"] = state.quarantined
        values["QuarantinedStamp"] = f"{state.execution_id} {updated}"
    if state.version is not None or len(values.keys() & _OURS) > 0:
        values.update(stamp_columns(state.execution_id, updated, state.version))


_OURS = frozenset({"FailureDetails", "DurableHost"})


def is_detached_row(values: Mapping[str, Value], execution_id: str) -> bool:
    """Whether a row says of this execution that nobody waits for it."""
    tags = values.get("Tags")
    # Most rows have no tags at all, and a text without the mark need not be parsed.
    if not isinstance(tags, str) or DETACHED_TAG not in tags or values.get("ExecutionId") != execution_id:
        return False
    return tags_of_column(tags)[1]


def merge_columns(before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Value] | None:
    """What to merge into a row that stands as `before`, so that it reads as `after`; None: replace it instead.

    Args:
        before, after: whole rows, made by `instance_row` of the same instance.
    """
    if before.get("ExecutionId") != after.get("ExecutionId") or before.keys() - after.keys() - _PASSED_OVER:
        return None
    status = str(after.get("RuntimeStatus"))
    # The row may still tell how an earlier attempt ended, before it was rewound.
    if status in _TERMINAL and not {"CompletedTime", "Output"} <= after.keys():
        return None
    columns = {name: value for name, value in after.items() if name in _ALWAYS or before.get(name) != value}
    # A merge cannot take a column away.
    columns.update({name: "" for name in _EMPTIED if name in before and name not in after})
    return columns


_ALWAYS = frozenset({"PartitionKey", "RowKey", "CustomStatus", "ExecutionId", "LastUpdatedTime", "TaskHubName"})
_TERMINAL = frozenset(status.value for status in TERMINAL)
_EMPTIED = ("FailureDetails", "DurableHost", "Quarantined", "QuarantinedStatus", "QuarantinedStamp")
_PASSED_OVER = frozenset({"CompletedTime", "Output", *_EMPTIED, *VERSION_COLUMNS})


def read_instance(values: Mapping[str, Value], *, etag: str | None = None, with_payloads: bool = True) -> InstanceState:
    """The projection of a row. Texts that lie in blobs have to be put back before.

    Raises:
        UnreadableRowError: no writer that we know has made this.
    """
    try:
        return _read(values, etag, with_payloads)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise UnreadableRowError(
            str(values.get("PartitionKey", "")), str(values.get("RowKey", "")), str(error)
        ) from error


def _read(values: Mapping[str, Value], etag: str | None, with_payloads: bool) -> InstanceState:
    execution_id = str(values.get("ExecutionId", ""))
    updated = values.get("LastUpdatedTime")
    stamp = read_stamp(values, execution_id, None if updated is None else str(updated))
    facts = _facts_of(values, stamp)
    shown = RuntimeStatus(str(values.get("RuntimeStatus", "Pending")))
    stands = values.get("QuarantinedStamp") == f"{execution_id} {optional(values, 'LastUpdatedTime') or ''}"
    quarantined = optional(values, "Quarantined") if stands and shown is RuntimeStatus.FAILED else None
    status = RuntimeStatus(str(values.get("QuarantinedStatus") or "Failed")) if quarantined else shown
    tags, _ = tags_of_column(optional(values, "Tags"))
    output = optional(values, "Output")
    suspended_reason = facts.suspended_reason
    if status is RuntimeStatus.SUSPENDED and not stamp.valid:
        suspended_reason = output
    custom_status = optional(values, "CustomStatus")
    updated_at = optional_instant(values, "LastUpdatedTime") or optional_instant(values, "Timestamp") or _NEVER
    version = None
    if stamp.length is not None:
        version = HistoryVersion(stamp.generation, stamp.length)
    return InstanceState(
        instance_id=InstanceId(instance_of_key(str(values["PartitionKey"]))),
        execution_id=ExecutionId(execution_id),
        name=optional(values, "Name") or "",
        status=shown,
        created_at=optional_instant(values, "CreatedTime") or updated_at,
        updated_at=updated_at,
        version=version,
        completed_at=optional_instant(values, "CompletedTime") if status.is_terminal else None,
        scheduled_at=optional_instant(values, "ScheduledStartTime"),
        input=optional(values, "Input") if with_payloads else None,
        output=output if with_payloads and status.is_terminal else None,
        custom_status=custom_status if with_payloads and custom_status != NULL else None,
        failure=failure_of_column(optional(values, "FailureDetails")) if with_payloads and stamp.valid else None,
        suspended_reason=suspended_reason,
        orchestrator_version=optional(values, "Version"),
        tags=tags if facts.tags is None else facts.tags,
        parent=facts.parent,
        restarted_from=facts.restarted_from,
        starts=optional_number(values, "Generation"),
        traceparent=facts.traceparent,
        quarantined=quarantined or None,
        revision=etag,
    )


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def _facts_of(values: Mapping[str, Value], stamp: VersionStamp) -> _Facts:
    text = values.get("DurableHost")
    if not stamp.same_execution or not isinstance(text, str) or not text:
        return _NO_FACTS
    facts = _facts(text)
    return facts if stamp.valid else msgspec.structs.replace(facts, suspended_reason=None)


_MAX_REASON = 8_000


def quarantine_columns(values: Mapping[str, Value], reason: str) -> dict[str, Value]:
    """What to merge into a row so that its instance shows as Failed with a reason, and is remembered as it was."""
    reason = reason[:_MAX_REASON]
    state = read_instance(values)
    if state.quarantined is not None:
        return {**_keys(values), "Quarantined": reason}
    return {
        **_keys(values),
        "RuntimeStatus": RuntimeStatus.FAILED.value,
        "Quarantined": reason,
        "QuarantinedStatus": state.status.value,
        # Nobody else's writing must leave it quarantined: the same companion as that of the version, as it stands.
        "QuarantinedStamp": f"{state.execution_id} {optional(values, 'LastUpdatedTime') or ''}",
    }


def release_columns(values: Mapping[str, Value]) -> dict[str, Value] | None:
    """What to merge into the row of a quarantined instance to make it what it was; None: it is not quarantined."""
    if read_instance(values, with_payloads=False).quarantined is None:
        return None
    return {
        **_keys(values),
        "RuntimeStatus": str(values.get("QuarantinedStatus", "Failed")),
        "Quarantined": "",
    }


def _keys(values: Mapping[str, Value]) -> dict[str, Value]:
    return {"PartitionKey": values["PartitionKey"], "RowKey": values.get("RowKey", "")}
