"""Faults that need a process of their own: `python sqlite_faults.py FAULT FILE`. Prints what happened, line by line."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

from durable_host.environment import system_environment
from durable_host.errors import StoreError
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import ExecutionId, InstanceId, MessageId
from durable_host.model.instance import InstanceQuery
from durable_host.model.messages import Message
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host_providers.sqlite import provider

ENVIRONMENT = system_environment()


def opened(file: Path) -> TaskHubStore:
    """The hub."""
    return provider.open(
        StorageOptions("Hub", {"busyTimeout": 0.2}, file.parent, f"sqlite:///{file.name}"), ENVIRONMENT
    ).hub


def start(instance_id: str, size: int = 0) -> Message:
    """A start with a payload of this size."""
    execution = ExecutionId(ENVIRONMENT.ids.new_id())
    event = ExecutionStarted(
        timestamp=ENVIRONMENT.clock.now(),
        instance_id=InstanceId(instance_id),
        execution_id=execution,
        name="Orchestrator",
        input='"' + "x" * size + '"',
    )
    return Message(MessageId(ENVIRONMENT.ids.new_id()), InstanceId(instance_id), event, execution)


def tell(*words: object) -> None:
    print(*words, flush=True)


async def fill(store: TaskHubStore, prefix: str) -> list[str]:
    """Start instances until the store refuses; returns those that were acknowledged."""
    taken: list[str] = []
    try:
        while len(taken) < 2_000:
            name = f"{prefix}-{len(taken)}"
            await store.create_instance(start(name, 20_000), replaceable=())
            taken.append(name)
    except StoreError as error:
        tell(type(error).__name__, str(error))
    return taken


async def readiness(store: TaskHubStore) -> None:
    try:
        await store.check()
        tell("ready")
    except StoreError as error:
        tell("not ready", type(error).__name__)


async def file_size_limit(file: Path) -> None:
    """Writing beyond RLIMIT_FSIZE fails; raised again, the store goes on."""
    hub = opened(file)
    await hub.create()
    async with hub as store:
        await store.create_instance(start("first"), replaceable=())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        taken = await fill(store, "full")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # until now there is room in what was written before
        await readiness(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await readiness(store)
        await store.create_instance(start("later"), replaceable=())
    async with opened(file) as store:
        page = await store.query_instances(InstanceQuery(limit=10_000, with_payloads=False))
        found = {state.instance_id for state in page.instances}
        tell("lost", len({"first", "later", *taken} - found))


async def as_nobody(file: Path) -> None:
    """Open and use a hub without the rights of root."""
    os.setgid(65534)
    os.setuid(65534)
    hub = opened(file)
    try:
        await hub.create()
        async with hub as store:
            await store.create_instance(start(ENVIRONMENT.ids.new_id()), replaceable=())
            await readiness(store)
    except StoreError as error:
        tell(type(error).__name__, str(error))


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](Path(sys.argv[2])))
