"""One checkpoint takes effect, or nothing of it does."""

from __future__ import annotations

from datetime import datetime

from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.storage.contract import Checkpoint, CommitOutcome
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.records import InstanceRecord
from durable_host_providers.memory.waiting import Holder

__all__ = ["apply"]


def apply(hub: HubState, checkpoint: Checkpoint, now: datetime, by: Holder) -> CommitOutcome:
    """Put a checkpoint in place; the caller holds the hub's lock."""
    instance = hub.instances.get(checkpoint.lease.key)
    if instance is None or instance.token != checkpoint.lease.token or instance.version != checkpoint.base:
        return CommitOutcome.LEASE_LOST
    if checkpoint.state is not None:
        _record(hub, instance, checkpoint, checkpoint.state)
    for message_id in checkpoint.consumed:
        hub.consume(instance, message_id)
    for message_id in checkpoint.deferred:
        hub.defer(instance, message_id, now)
    for lease in checkpoint.completed:
        task = hub.tasks.get(lease.key)
        if task is not None:
            # Whoever holds it: its result is in history now, and another run of it would be for nothing.
            hub.remove_task(task)
    # What is new comes last: it may be handed over at once, and the instance itself with its own messages.
    for activity in checkpoint.activities:
        hub.add_task(activity, now, by)
    for message in checkpoint.messages:
        hub.put(message, now, by)
    if checkpoint.hold:
        if not instance.leased:
            hub.renew(instance)
        instance.hold = True
        hub.offer(instance)
    else:
        hub.release(instance, by)
        hub.forget_if_empty(instance)
    return CommitOutcome.COMMITTED


def _record(hub: HubState, instance: InstanceRecord, checkpoint: Checkpoint, state: InstanceState) -> None:
    """Append, amend or replace history, and let the projection follow where it is newer."""
    version = state.version
    assert version is not None  # check() saw to that
    if _replaces(checkpoint.base, version):
        instance.history = list(checkpoint.events)
    else:
        instance.history.extend(checkpoint.events)
    for index, event in checkpoint.amended:
        instance.history[index] = event
    newer = instance.version is None or version > instance.version or bool(checkpoint.amended)
    instance.version = version
    # A start that replaces the instance shows as Pending, over a history that still stands. Only the checkpoint that
    # drops this very start may put the old projection back.
    dropped = instance.state is not None and instance.state.version is None and instance.start_id in checkpoint.consumed
    if newer or dropped:
        hub.set_state(instance, state)


def _replaces(base: HistoryVersion | None, version: HistoryVersion) -> bool:
    return base is None or version.generation > base.generation
