"""Reads: a connection and a thread of their own, so that nobody who asks waits for a disk that syncs.

Requests for single instances that come in while the thread is busy are answered by one statement.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import MsgspecError

from durable_host.environment import SerialThread
from durable_host.errors import StoreUnavailableError
from durable_host.model.codec import decode_events
from durable_host.model.history import HistoryEvent
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host_providers._sql.filters import encode_cursor, where
from durable_host_providers._sql.rows import PAYLOADS, state_of

from .connection import Health, connect, is_lasting
from .settings import Settings
from .transaction import SQL, values
from .waiting import Outbox, Promise

__all__ = ["Execute", "Reader", "history_of", "page_of"]

T = TypeVar("T")
Execute = Callable[..., sqlite3.Cursor]

_GET = values("get_instances")
_LARGE = values("large_payloads")
_HISTORIES = values("histories")


class Reader:
    """Answers questions on its own thread; in memory, on the writer's connection and thread."""

    def __init__(self, settings: Settings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._thread: SerialThread | None = None
        self._shared: Callable[[], sqlite3.Connection] | None = None
        self._connection: sqlite3.Connection | None = None
        self._mutex = threading.Lock()
        self._gets: list[tuple[str, bool, Promise[InstanceState | None]]] = []

    def start(self, thread: SerialThread, shared: Callable[[], sqlite3.Connection] | None) -> None:
        """Begin. `shared`: use this connection instead of one of our own."""
        self._shared = shared
        self._thread = thread

    async def stop(self) -> None:
        """Close after the reads that were asked for."""
        thread = self._thread
        if thread is None:
            return
        promise: Promise[None] = Promise()

        def close() -> None:
            self._close()
            _deliver(promise, None)

        thread.submit(close)
        self._thread = None
        await promise.future
        if self._shared is None:
            thread.close()

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job on the reading thread."""
        if self._thread is None:
            raise StoreUnavailableError(f"The hub {self._settings.location} is not open.")
        self._thread.submit(job)

    async def call(self, question: Callable[[Execute], T]) -> T:
        """Ask a question."""
        promise: Promise[T] = Promise()

        def answer() -> None:
            outcome: T | BaseException
            try:
                outcome = self._ask(question)
            except Exception as error:
                outcome = error
            _deliver(promise, outcome)

        self.submit(answer)
        return await promise.future

    async def get(self, instance_id: str, with_payloads: bool) -> InstanceState | None:
        """A projection, or None."""
        promise: Promise[InstanceState | None] = Promise()
        with self._mutex:
            self._gets.append((instance_id, with_payloads, promise))
            first = len(self._gets) == 1
        if first:
            try:
                self.submit(self._answer_gets)
            except BaseException:
                with self._mutex:
                    self._gets.clear()
                raise
        return await promise.future

    def load(self, refs: Sequence[int]) -> dict[int, list[HistoryEvent] | None]:
        """The histories of locked instances; None for one that cannot be decoded. On the reading thread.

        Raises:
            StoreUnavailableError: they cannot be read.
        """

        def read(execute: Execute) -> dict[int, list[HistoryEvent] | None]:
            found: dict[int, list[HistoryEvent] | None] = {ref: [] for ref in refs}
            for cursor in _HISTORIES.run(execute, refs):
                for ref, text in cursor:
                    events = found[ref]
                    if events is not None:
                        try:
                            events += decode_events(text)
                        except MsgspecError:
                            found[ref] = None  # one spoilt row must not keep the others of this call from being run
            return found

        return self._ask(read)

    def _answer_gets(self) -> None:
        with self._mutex:
            gets, self._gets = self._gets, []
        outbox = Outbox()
        try:
            ids = list(dict.fromkeys(instance_id for instance_id, _, _ in gets))
            found = self._ask(lambda execute: _instances(execute, ids))
            for instance_id, with_payloads, promise in gets:
                state = found.get(instance_id)
                outbox.settle(promise, None if state is None else state_of(*state) if with_payloads else _bare(state))
        except Exception as error:
            for _, _, promise in gets:
                outbox.settle(promise, error)
        outbox.deliver()

    def _ask(self, question: Callable[[Execute], T]) -> T:
        if self._shared is not None:
            return question(self._shared().execute)
        self._health.check()
        try:
            if self._connection is None:
                self._connection = connect(self._settings, writer=False)
            return question(self._connection.execute)
        except sqlite3.Error as error:
            if is_lasting(error):
                self._close()
            raise self._health.failed(error) from error

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._health.close(connection)


_Found = tuple[str, dict[str, str | None], str | None]


def _deliver(promise: Promise[T], value: T | BaseException) -> None:
    outbox = Outbox()
    outbox.settle(promise, value)
    outbox.deliver()


def _bare(found: _Found) -> InstanceState:
    return state_of(found[0], None, found[2])


def _instances(execute: Execute, ids: Sequence[str]) -> dict[str, _Found]:
    rows = [row for cursor in _GET.run(execute, ids) for row in cursor]
    if not any(row[2] for row in rows):
        return {row[0]: _found(row, {}) for row in rows}
    execute("BEGIN")  # both statements must see the same state
    try:
        rows = [row for cursor in _GET.run(execute, ids) for row in cursor]
        return _with_large(execute, rows)
    finally:
        execute("COMMIT")


def _with_large(execute: Execute, rows: Sequence[Any]) -> dict[str, _Found]:
    refs = [row[8] for row in rows if row[2]]
    large = {(ref, member): text for cursor in _LARGE.run(execute, refs) for ref, member, text in cursor}
    return {row[0]: _found(row, large) for row in rows}


def _found(row: Any, large: dict[tuple[int, int], str]) -> _Found:
    _, text, mask, quarantined, *columns, ref = row
    payloads: dict[str, str | None] = {}
    for member, (name, value) in enumerate(zip(PAYLOADS, columns, strict=True)):
        if mask & 1 << member:
            payloads[name] = large[ref, member]
        elif value is not None:
            payloads[name] = value
    return text, payloads, quarantined


def page_of(query: InstanceQuery) -> Callable[[Execute], InstancePage]:
    """The question for one page of a query.

    Raises:
        ValueError: the cursor cannot be read, or the limit is less than 1.
    """
    if query.limit < 1:
        raise ValueError(f"limit is {query.limit}; it must be at least 1")
    condition, parameters = where(query)
    columns = SQL["query_columns" if query.with_payloads else "query_columns_without_payloads"]
    text = f"{columns} WHERE {condition} ORDER BY instance_id LIMIT ?"

    def read(execute: Execute) -> InstancePage:
        execute("BEGIN")
        try:
            rows = execute(text, [*parameters, query.limit + 1]).fetchall()
            found = _with_large(execute, rows[: query.limit])
        finally:
            execute("COMMIT")
        states = tuple(state_of(*each) for each in found.values())
        more = len(rows) > query.limit
        return InstancePage(states, encode_cursor(states[-1].instance_id) if more else None)

    return read


def history_of(instance_id: str) -> Callable[[Execute], list[HistoryEvent] | None]:
    """The question for an instance's history."""

    def read(execute: Execute) -> list[HistoryEvent] | None:
        rows: Iterable[Any] = execute(SQL["history_of"], (instance_id,)).fetchall()
        runs = [row[0] for row in rows]
        if not runs:
            return None
        return [event for run in runs if run is not None for event in decode_events(run)]

    return read
