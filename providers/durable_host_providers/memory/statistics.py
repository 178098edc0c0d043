"""Depths and ages of a hub's queues."""

from __future__ import annotations

import heapq

from durable_host.storage.contract import HandedBack, HubStatistics
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.records import InstanceRecord, TaskRecord

__all__ = ["measure"]

_HANDED_BACK = 100


def measure(hub: HubState) -> HubStatistics:
    """Look at the hub; the caller holds its lock."""
    now = hub.sweep()
    message, task = hub.oldest_ready(), hub.oldest_task()
    return HubStatistics(
        instances={name: number for name, number in sorted(hub.counts.items()) if number},
        inbox_waiting=hub.messages - hub.delayed,
        inbox_delayed=hub.delayed,
        activities_waiting=len(hub.tasks) - len(hub.task_leases),
        activities_running=len(hub.task_leases),
        oldest_message_age=None if message is None else max(0.0, (now - message.since).total_seconds()),
        oldest_activity_age=None if task is None else max(0.0, (now - task.since).total_seconds()),
        quarantined=len(hub.quarantined),
        handed_back=_handed_back(hub),
    )


def _handed_back(hub: HubState) -> tuple[HandedBack, ...]:
    found: list[HandedBack] = []
    for record in list(hub.returned):
        report = _instance_report(record) if isinstance(record, InstanceRecord) else _task_report(record)
        if report is not None:
            found.append(report)
        elif not record.leased:
            del hub.returned[record]  # somebody has dealt with it since
    return tuple(heapq.nlargest(_HANDED_BACK, found, key=lambda each: each.deliveries))


def _instance_report(instance: InstanceRecord) -> HandedBack | None:
    deliveries = max((record.deliveries for record in instance.fresh.values()), default=0)
    if instance.leased or instance.quarantined is not None or deliveries < 2:
        return None
    name = None if instance.state is None else instance.state.name
    return HandedBack("orchestration", instance.id, name, deliveries, instance.postponed_until)


def _task_report(record: TaskRecord) -> HandedBack | None:
    if record.leased or record.gone or record.deliveries < 2:
        return None
    task = record.task
    visible_at = record.since if record.delayed else None
    return HandedBack("activity", task.instance_id, task.name, record.deliveries, visible_at)
