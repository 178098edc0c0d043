"""Depths and ages of a hub's queues."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from durable_host.model.codec import decode_task
from durable_host.model.ids import InstanceId
from durable_host.storage.contract import HandedBack, HubStatistics
from durable_host_providers._sql.rows import from_micros, to_micros

from .reader import Execute
from .transaction import AT_ONCE, SQL

__all__ = ["statistics_at"]

_MOST = 100


def statistics_at(instant: datetime) -> Callable[[Execute], HubStatistics]:
    """The question for the statistics at a time."""
    now = to_micros(instant)

    def read(execute: Execute) -> HubStatistics:
        execute("BEGIN")
        try:
            return _read(execute, now)
        finally:
            execute("COMMIT")

    return read


def _read(execute: Execute, now: int) -> HubStatistics:
    statuses: dict[str, int] = dict(execute(SQL["count_statuses"]).fetchall())
    waiting, delayed, oldest_message, quarantined = execute(SQL["count_messages"], (now,)).fetchone()
    tasks_waiting, tasks_running, oldest_task = execute(SQL["count_activities"], (now,)).fetchone()
    return HubStatistics(
        instances=statuses,
        inbox_waiting=waiting,
        inbox_delayed=delayed,
        activities_waiting=tasks_waiting,
        activities_running=tasks_running,
        oldest_message_age=_age(oldest_message, now),
        oldest_activity_age=_age(oldest_task, now),
        quarantined=quarantined,
        handed_back=_handed_back(execute, now),
    )


def _handed_back(execute: Execute, now: int) -> tuple[HandedBack, ...]:
    found: list[HandedBack] = []
    for instance_id, text, deliveries, wake_at in execute(SQL["returned_activities"], (now, _MOST)):
        task = decode_task(text)
        target = InstanceId(instance_id or task.instance_id)
        found.append(HandedBack("activity", target, task.name, deliveries, _later(wake_at, now)))
    for instance_id, name, deliveries, wake_at in execute(SQL["returned_messages"], (now, _MOST)):
        found.append(HandedBack("orchestration", InstanceId(instance_id), name, deliveries, _later(wake_at, now)))
    found.sort(key=lambda each: -each.deliveries)
    return tuple(found[:_MOST])


def _later(wake_at: int | None, now: int) -> datetime | None:
    return from_micros(wake_at) if wake_at is not None and wake_at >= AT_ONCE and wake_at > now else None


def _age(since: int | None, now: int) -> float | None:
    return None if since is None else max(0.0, (now - since) / 1_000_000)
