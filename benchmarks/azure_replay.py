"""The bare requests of the reference library on Azure Storage, without the library: what the service alone costs.

    python -m benchmarks.azure_replay FAMILY SIZE     prints one JSON object with the figures

The account is that of the app setting `AzureWebJobsStorage`, and empty.

Azurite, not the host, bounds much of what is measured on it, and differs from machine to machine. So a ratio to this
replay, in the same run, is what counts. A client and a host take the steps of DurableTask.AzureStorage
(azure-storage-task-hub.md, sections 6 and 8) with its defaults: four control queues read 32 messages at a time, one
activity message at a time, ten activities and a hundred episodes at once, history read before each episode, no
hand-over and no sessions. Nothing is decided: a message says which step it is. Texts and rows have the sizes of
recorded ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from benchmarks.measure import median, percentile
from durable_host.environment import Environment
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.ports import (
    EdmDateTime,
    Queue,
    QueueMessage,
    StorageAccount,
    TableAction,
    TableOperation,
    Value,
)
from durable_host_providers.azure_storage.rest import RestAccount

__all__ = ["main", "replayed"]

T = TypeVar("T")

SETTING = "AzureWebJobsStorage"
CHAIN = 5
IN_FLIGHT = 256
PARTITIONS = 4
ACTIVITIES = 10
EPISODES = 100
REQUESTS = 50
"""At once, of one process: 25 for each of two cores."""

_VISIBILITY_S = 300
_BATCH = 99
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 30.0
_TEXT = "x" * 900
_WHEN = EdmDateTime("2026-11-21T10:43:17.6071993Z")
_PROJECTED = ("PartitionKey", "RowKey", "ExecutionId", "RuntimeStatus", "Generation", "CreatedTime", "LastUpdatedTime")


class _Polled:
    """A queue with the reference's pauses between empty looks, ended by own puts."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._signal = asyncio.Event()
        self._wait = 0.0

    async def put(self, message: dict[str, Any]) -> None:
        await self.queue.put(json.dumps({**message, "text": _TEXT}))
        self._signal.set()

    async def look(self, limit: int) -> Sequence[QueueMessage]:
        found = await self.queue.get(limit, visibility_s=_VISIBILITY_S)
        if found:
            self._wait = 0.0
            return found
        if self._wait and not self._signal.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signal.wait(), self._wait)
        self._wait = _FIRST_WAIT_S if self._signal.is_set() or not self._wait else min(self._wait * 2, _LONGEST_WAIT_S)
        self._signal.clear()
        return found


class _Instance:
    """What a session of the reference holds between its messages."""

    def __init__(self, calls: int, parallel: bool) -> None:
        self.calls = calls
        self.parallel = parallel
        self.answered = 0
        self.length = 0
        self.etag: str | None = None
        self.ended = asyncio.Event()
        self.inbox: list[tuple[dict[str, Any], QueueMessage]] = []
        self.busy = False


class Replay:
    """One client and one host on a hub of their own."""

    def __init__(self, account: StorageAccount) -> None:
        self._control = [_Polled(account.queue(f"replay-control-{number:02}")) for number in range(PARTITIONS)]
        self._work = _Polled(account.queue("replay-workitems"))
        self._history = account.table("replayHistory")
        self._instances = account.table("replayInstances")
        self._known: dict[str, _Instance] = defaultdict(lambda: _Instance(0, False))
        self._limit = asyncio.Semaphore(REQUESTS)
        self._episodes = asyncio.Semaphore(EPISODES)
        self._activities = asyncio.Semaphore(ACTIVITIES)

    async def create(self) -> None:
        for each in (*(polled.queue for polled in (*self._control, self._work)), self._history, self._instances):
            await each.create()

    async def start(self, name: str, calls: int, *, parallel: bool = False) -> _Instance:
        """A client's three requests."""
        instance = self._known[name] = _Instance(calls, parallel)
        await self._request(self._instances.query(f"PartitionKey eq '{name}'", top=1, select=_PROJECTED))
        await self._request(self._queue_of(name).put({"kind": "start", "instance": name}))
        row = {"RuntimeStatus": "Pending", "CreatedTime": _WHEN, "LastUpdatedTime": _WHEN, "Input": str(calls)}
        await self._request(self._instances.write(TableOperation(TableAction.INSERT, _row(name, "", **row))))
        return instance

    async def serve(self) -> None:
        """A host, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for polled in self._control:
                group.create_task(self._read_control(polled, group))
            group.create_task(self._read_work(group))

    async def _read_control(self, polled: _Polled, group: asyncio.TaskGroup) -> None:
        while True:
            for message in await polled.look(32):
                content = json.loads(message.text)
                name = content["instance"]
                instance = self._known[name]
                instance.inbox.append((content, message))
                if not instance.busy:
                    instance.busy = True
                    group.create_task(self._run(name, instance, polled))

    async def _run(self, name: str, instance: _Instance, polled: _Polled) -> None:
        async with self._episodes:
            while instance.inbox:
                batch, instance.inbox = instance.inbox, []
                await self._episode(name, instance, [content["kind"] for content, _ in batch])
                await asyncio.gather(*(self._request(polled.queue.remove(message)) for _, message in batch))
                if instance.answered == instance.calls:
                    instance.ended.set()
            instance.busy = False

    async def _episode(self, name: str, instance: _Instance, kinds: Sequence[str]) -> None:
        begins = "start" in kinds
        if begins:
            await self._request(self._instances.query(f"PartitionKey eq '{name}'", top=1, select=_PROJECTED))
        await self._read_history(name)
        instance.answered += kinds.count("answer")
        events = ["OrchestratorStarted", *(["ExecutionStarted"] if begins else ["TaskCompleted"] * len(kinds))]
        if begins:
            asked = instance.calls if instance.parallel else 1
        else:
            asked = 0 if instance.parallel or instance.answered == instance.calls else 1
        call = {"kind": "call", "instance": name}
        await asyncio.gather(*(self._request(self._work.put(call)) for _ in range(asked)))
        ends = instance.answered == instance.calls
        events += ["TaskScheduled"] * asked + ["ExecutionCompleted"] * ends + ["OrchestratorCompleted"]
        await self._write_history(name, instance, events)
        status: dict[str, Value] = {"RuntimeStatus": "Completed" if ends else "Running", "LastUpdatedTime": _WHEN}
        merge = TableOperation(TableAction.UPSERT_MERGE, _row(name, "", CustomStatus="null", **status))
        await self._request(self._instances.write(merge))

    async def _read_history(self, name: str) -> None:
        filter = f"PartitionKey eq '{name}' and (RowKey eq 'sentinel' or ExecutionId eq '{_execution(name)}')"
        page = await self._request(self._history.query(filter))
        while page.continuation is not None:
            page = await self._request(self._history.query(filter, continuation=page.continuation))

    async def _write_history(self, name: str, instance: _Instance, events: Sequence[str]) -> None:
        for first in range(0, len(events), _BATCH):
            batch = [
                TableOperation(TableAction.UPSERT_REPLACE, _event(name, instance.length + offset, kind))
                for offset, kind in enumerate(events[first : first + _BATCH])
            ]
            instance.length += len(batch)
            sentinel = _row(name, "sentinel", IsCheckpointComplete=True, CheckpointCompletedTimestamp=_WHEN)
            if instance.etag is None:
                batch.append(TableOperation(TableAction.INSERT, sentinel))
            else:
                batch.append(TableOperation(TableAction.MERGE, sentinel, instance.etag))
            instance.etag = (await self._request(self._history.transact(batch)))[-1]

    async def _read_work(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._activities.acquire()
            for message in await self._work.look(1):
                group.create_task(self._activity(message))
                break
            else:
                self._activities.release()

    async def _activity(self, message: QueueMessage) -> None:
        try:
            name = json.loads(message.text)["instance"]
            await self._request(self._queue_of(name).put({"kind": "answer", "instance": name}))
            await self._request(self._work.queue.remove(message))
        finally:
            self._activities.release()

    def _queue_of(self, name: str) -> _Polled:
        return self._control[sum(name.encode()) % PARTITIONS]

    async def _request(self, call: Awaitable[T]) -> T:
        async with self._limit:
            return await call


def _execution(name: str) -> str:
    return f"{name:0>32}"


def _row(name: str, row_key: str, **columns: Value) -> dict[str, Value]:
    return {"PartitionKey": name, "RowKey": row_key, "ExecutionId": _execution(name), **columns}


def _event(name: str, index: int, kind: str) -> dict[str, Value]:
    columns: dict[str, Value] = {"EventType": kind, "EventId": -1, "IsPlayed": False, "_Timestamp": _WHEN}
    if kind == "ExecutionStarted":
        columns |= {"Name": "chain", "Version": "", "Input": "5", "OrchestrationInstance": _TEXT[:120], "Tags": "null"}
    elif kind == "TaskScheduled":
        columns |= {"Name": "step", "Version": "", "ParentTraceContext": "null", "Tags": "null"}
    elif kind == "TaskCompleted":
        columns |= {"TaskScheduledId": index, "Result": "1"}
    elif kind == "ExecutionCompleted":
        columns |= {"OrchestrationStatus": "Completed", "Result": "5", "FailureDetails": "null"}
    return _row(name, f"{index:016X}", **columns)


async def _measure(replay: Replay, family: str, size: int) -> dict[str, float]:
    began = time.perf_counter()
    if family == "W4":
        numbers = iter(range(size))

        async def starter() -> None:
            for number in numbers:
                await replay.start(f"w4{number}", CHAIN)

        await asyncio.gather(*(starter() for _ in range(IN_FLIGHT)))
    elif family == "W2":
        latencies: list[float] = []
        for number in range(size):
            begin = time.perf_counter()
            await (await replay.start(f"w2{number}", CHAIN)).ended.wait()
            latencies.append((time.perf_counter() - begin) * 1000)
        return {"p50_ms": median(latencies), "p99_ms": percentile(latencies, 0.99)}
    elif family == "W1":
        started = await asyncio.gather(*(replay.start(f"w1{number}", CHAIN) for number in range(size)))
        await asyncio.gather(*(instance.ended.wait() for instance in started))
    elif family in {"W3", "W6"}:
        await (await replay.start(family.lower(), size, parallel=family == "W3")).ended.wait()
    else:
        raise SystemExit(f"unknown workload {family!r}")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "per_second": size / seconds, "step_ms": seconds / size * 1000}


async def replayed(family: str, size: int, connection: str) -> dict[str, float]:
    """The figures of one workload in an empty account, and how many requests each unit took."""
    account = RestAccount(parse_connection_string(connection), Environment())
    async with account:
        replay = Replay(account)
        await replay.create()
        created = sum(account.requests.values())
        host = None if family == "W4" else asyncio.create_task(replay.serve())
        try:
            figures = await asyncio.wait_for(_measure(replay, family, size), 300)
        finally:
            if host is not None:
                host.cancel()
                await asyncio.wait([host])
        figures["requests"] = (sum(account.requests.values()) - created) / size
    return figures


def main(arguments: list[str]) -> None:
    """Replay one workload."""
    family, size = arguments
    print(json.dumps(asyncio.run(replayed(family, int(size), os.environ[SETTING]))))


if __name__ == "__main__":
    main(sys.argv[1:])
