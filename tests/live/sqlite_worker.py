"""A worker of the simplest kind, to be run as a process of its own and killed: `python sqlite_worker.py FILE SEED`.

Each instance asks for `STEPS` activities, one after the other, and completes with their results. It stands on the store
alone, so that what the tests of two processes prove is the store's.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from durable_host.environment import Environment, system_environment
from durable_host.model.history import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    TaskCompleted,
    TaskScheduled,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId, dispatch_id
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    Lease,
    OrchestrationWorkItem,
    StorageOptions,
    TaskHubStore,
)
from durable_host_providers.sqlite import provider

STEPS = 4
_WAIT = timedelta(seconds=5)


def options(file: Path, **settings: object) -> StorageOptions:
    """How the tests' processes open a hub."""
    return StorageOptions(hub="Hub", settings=settings, folder=file.parent, url=f"sqlite:///{file.name}")


def start(environment: Environment, instance_id: str) -> Message:
    """The start of an instance."""
    execution = ExecutionId(environment.ids.new_id())
    event = ExecutionStarted(
        timestamp=environment.clock.now(),
        instance_id=InstanceId(instance_id),
        execution_id=execution,
        name="Steps",
        input='"input"',
    )
    return Message(MessageId(environment.ids.new_id()), event.instance_id, event, execution, deliveries=0)


class _Forgetful:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


class Worker:
    """Locks, decides, runs and commits until it is cancelled."""

    def __init__(self, store: TaskHubStore, environment: Environment, seed: int) -> None:
        self._store = store
        self._environment = environment
        self._random = random.Random(seed)
        self._histories: dict[str, list[HistoryEvent]] = {}
        self._results: dict[str, list[tuple[Lease, Message]]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._orchestrations(group))
            group.create_task(self._activities(group))

    async def _orchestrations(self, group: asyncio.TaskGroup) -> None:
        while True:
            for item in await self._store.lock_orchestrations(20, wait=_WAIT, cache=_Forgetful()):
                group.create_task(self._episode(item))

    async def _activities(self, group: asyncio.TaskGroup) -> None:
        while True:
            for item in await self._store.lock_activities(20, wait=_WAIT):
                group.create_task(self._activity(item))

    async def _episode(self, item: OrchestrationWorkItem) -> None:
        history = self._histories.setdefault(item.instance_id, []) if item.history is None else list(item.history)
        checkpoint = self._decide(item, history)
        (outcome,) = await self._store.commit([checkpoint])
        if outcome is CommitOutcome.COMMITTED and checkpoint.hold:
            self._histories[item.instance_id] = [*history, *checkpoint.events]
        else:
            self._histories.pop(item.instance_id, None)

    def _decide(self, item: OrchestrationWorkItem, history: Sequence[HistoryEvent]) -> Checkpoint:
        now = self._environment.clock.now()
        arrived = [message.event for message in item.inbox]
        started = next(event for event in (*history, *arrived) if isinstance(event, ExecutionStarted))
        scheduled = [event for event in history if isinstance(event, TaskScheduled)]
        answered = {event.task_id for event in history if isinstance(event, TaskCompleted)}
        new: list[HistoryEvent] = []
        for event in arrived:
            if isinstance(event, ExecutionStarted) and not history:
                new.append(event)
            elif isinstance(event, TaskCompleted) and event.task_id not in answered and scheduled:
                new.append(event)
                answered.add(event.task_id)
            elif isinstance(event, EventRaised):
                new.append(event)
        tasks: tuple[ActivityTask, ...] = ()
        done = len(answered) == STEPS
        if len(scheduled) == len(answered) and not done:
            number = len(scheduled)
            identity = dispatch_id(started.execution_id, number, "activity", "Step", str(number), 0)
            new.append(TaskScheduled(timestamp=now, event_id=number, name="Step", dispatch_id=identity))
            tasks = (self._task(item.instance_id, started.execution_id, number, identity),)
        if new:
            new = [OrchestratorStarted(timestamp=now), *new, OrchestratorCompleted(timestamp=now)]
        results = [event.result for event in (*history, *new) if isinstance(event, TaskCompleted)]
        state = InstanceState(
            item.instance_id,
            started.execution_id,
            started.name,
            RuntimeStatus.COMPLETED if done else RuntimeStatus.RUNNING,
            started.timestamp,
            now,
            version=HistoryVersion(1, len(history) + len(new)),
            completed_at=now if done else None,
            input=started.input,
            output=",".join(each or "" for each in results) if done else None,
        )
        return Checkpoint(
            item.lease,
            item.version,
            state if new else None,
            new,
            activities=tasks,
            consumed=tuple(message.id for message in item.inbox),
            hold=bool(tasks) and self._random.random() < 0.5,
        )

    def _task(
        self, instance_id: InstanceId, execution_id: ExecutionId, number: int, identity: DispatchId
    ) -> ActivityTask:
        return ActivityTask(identity, instance_id, execution_id, number, "Step", input=str(number))

    async def _activity(self, item: ActivityWorkItem) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.02))
        task = item.task
        event = TaskCompleted(
            timestamp=self._environment.clock.now(),
            task_id=task.task_id,
            result=task.input,
            dispatch_id=task.dispatch_id,
        )
        reply = Message(MessageId(f"reply-{task.dispatch_id}"), task.instance_id, event, task.execution_id)
        await self._store.complete_activities([ActivityCompletion(item.lease, reply)])


async def main(file: Path, seed: int) -> None:
    """Work until killed."""
    environment = system_environment()
    async with provider.open(options(file), environment).hub as store:
        print("ready", flush=True)
        await Worker(store, environment, seed).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
