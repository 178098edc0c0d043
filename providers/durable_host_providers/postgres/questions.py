"""Reads: projections, histories, pages, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import MsgspecError

from durable_host.model.codec import decode_events, decode_task
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion, InstancePage, InstanceQuery, InstanceState
from durable_host.storage.contract import HandedBack, HubStatistics
from durable_host_providers._sql.filters import encode_cursor
from durable_host_providers._sql.rows import PAYLOADS, from_micros, state_of

from .connection import Pool
from .filters import page_text
from .gathering import Gathering
from .grants import InstanceToken
from .statements import Statements

__all__ = ["Questions"]

_MOST = 100

Row = Sequence[Any]


class Questions:
    """Asks on connections of its own, so that nobody who asks waits for a commit."""

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql
        self.hub = 0
        self._gets: Gathering[str, Row | None] = Gathering(self._get, concurrency=1)
        self._bare_gets: Gathering[str, Row | None] = Gathering(self._get_bare, concurrency=1)

    async def get(self, instance_id: str, with_payloads: bool) -> InstanceState | None:
        """A projection, or None."""
        if "\0" in instance_id:  # no text in this database holds one
            return None
        row = await (self._gets if with_payloads else self._bare_gets).put(instance_id)
        return None if row is None else _state(row)

    async def _get(self, instance_ids: Sequence[str]) -> Sequence[Row | None]:
        return await self._look("get_instances", instance_ids)

    async def _get_bare(self, instance_ids: Sequence[str]) -> Sequence[Row | None]:
        return await self._look("get_instances_without_payloads", instance_ids)

    async def _look(self, name: str, instance_ids: Sequence[str]) -> Sequence[Row | None]:
        rows = await self._pool.fetch(self._sql[name], self.hub, list(dict.fromkeys(instance_ids)))
        found = {row[0]: row for row in rows}
        return [found.get(instance_id) for instance_id in instance_ids]

    async def stop(self) -> None:
        """Wait for what was asked."""
        await self._gets.stop()
        await self._bare_gets.stop()

    async def page(self, query: InstanceQuery) -> InstancePage:
        """One page of a query.

        Raises:
            ValueError: the cursor cannot be read, or the limit is less than 1.
        """
        if query.limit < 1:
            raise ValueError(f"limit is {query.limit}; it must be at least 1")
        text, parameters = page_text(query, self._sql, self.hub)
        rows = await self._pool.fetch(text, *parameters)
        states = tuple(_state(row) for row in rows[: query.limit])
        more = len(rows) > query.limit
        return InstancePage(states, encode_cursor(states[-1].instance_id) if more else None)

    async def history(self, instance_id: str) -> list[HistoryEvent] | None:
        """The history of an instance."""
        if "\0" in instance_id:
            return None
        rows = await self._pool.fetch(self._sql["history_of"], self.hub, instance_id)
        if not rows:
            return None
        return [event for (run,) in rows if run is not None for event in decode_events(run)]

    async def histories(
        self, locked: Sequence[tuple[InstanceToken, HistoryVersion]]
    ) -> dict[int, list[HistoryEvent] | None]:
        """Histories by row, of those that stand as they were locked; None for one that cannot be decoded."""
        found: dict[int, list[HistoryEvent] | None] = {}
        rows = await self._pool.fetch(
            self._sql["histories"],
            [token.ref for token, _ in locked],
            [token.lease for token, _ in locked],
            [version.generation for _, version in locked],
            [version.length for _, version in locked],
        )
        for ref, text in rows:
            events = found.setdefault(ref, [])
            if events is not None and text is not None:
                try:
                    events += decode_events(text)
                except MsgspecError:
                    found[ref] = None  # one spoilt row must not keep the others of this call from being run
        return found

    async def statistics(self) -> HubStatistics:
        """Depths and ages."""
        hub, fetch, sql = self.hub, self._pool.fetch, self._sql
        statuses = await fetch(sql["count_statuses"], hub)
        ((waiting, delayed, oldest_message, quarantined),) = await fetch(sql["count_messages"], hub)
        ((tasks_waiting, tasks_running, oldest_task),) = await fetch(sql["count_activities"], hub)
        found: list[HandedBack] = []
        for instance_id, text, deliveries, wake_at in await fetch(sql["returned_activities"], hub, _MOST):
            task = decode_task(text)
            target = InstanceId(instance_id or task.instance_id)
            found.append(HandedBack("activity", target, task.name, deliveries, _later(wake_at)))
        for instance_id, name, deliveries, wake_at in await fetch(sql["returned_messages"], hub, _MOST):
            found.append(HandedBack("orchestration", InstanceId(instance_id), name, deliveries, _later(wake_at)))
        found.sort(key=lambda each: -each.deliveries)
        return HubStatistics(
            instances={row[0]: row[1] for row in statuses},
            inbox_waiting=waiting,
            inbox_delayed=delayed,
            activities_waiting=tasks_waiting,
            activities_running=tasks_running,
            oldest_message_age=_age(oldest_message),
            oldest_activity_age=_age(oldest_task),
            quarantined=quarantined,
            handed_back=tuple(found[:_MOST]),
        )


def _state(row: Sequence[Any]) -> InstanceState:
    _, text, quarantined, *columns = row
    payloads = {name: value.decode() for name, value in zip(PAYLOADS, columns, strict=False) if value is not None}
    return state_of(text, payloads, quarantined)


def _later(wake_at: int | None) -> datetime | None:
    return None if wake_at is None else from_micros(wake_at)


def _age(micros: int | None) -> float | None:
    return None if micros is None else max(0.0, micros / 1_000_000)
