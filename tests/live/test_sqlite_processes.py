"""Several real processes on one hub file, also when they are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreMismatchError
from durable_host.model.history import EventRaised, TaskCompleted
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceQuery, InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import Checkpoint, StorageOptions, TaskHubStore
from durable_host_providers.sqlite import SqliteTaskHubStore, provider

from .sqlite_worker import STEPS, options, start

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("sqlite_worker.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "providers")])}


class _Forgetful:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


@contextmanager
def worker(file: Path, seed: int) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(file), str(seed)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def all_ended(store: TaskHubStore, count: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if (await store.statistics()).instances.get("Completed", 0) == count:
            return True
        await asyncio.sleep(0.05)
    return False


async def each_step_counts_once(store: TaskHubStore) -> None:
    page = await store.query_instances(InstanceQuery(limit=1000))
    for state in page.instances:
        history = await store.get_history(state.instance_id)
        assert history is not None
        answers = Counter(event.task_id for event in history if isinstance(event, TaskCompleted))
        assert answers == Counter(range(STEPS)), state.instance_id
        assert state.output == ",".join(map(str, range(STEPS)))


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_processes_lose_nothing_and_are_replaced_at_once(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "hub.db"
    environment = system_environment()
    chance = random.Random(seed)
    hub = provider.open(options(file), environment).hub
    await hub.create()
    async with hub as store:
        count, unfinished_kills = 0, 0
        for round_ in range(8):
            with worker(file, chance.randrange(1000)) as first, worker(file, chance.randrange(1000)) as second:
                starts = [start(environment, f"{round_}-{number}") for number in range(80)]
                assert all(await asyncio.gather(*(store.create_instance(each, replaceable=()) for each in starts)))
                count += len(starts)
                await asyncio.sleep(chance.uniform(0.0, 0.2))
                (first if chance.random() < 0.5 else second).send_signal(signal.SIGKILL)
                unfinished_kills += (await store.statistics()).instances.get("Completed", 0) < count
                await asyncio.sleep(chance.uniform(0.0, 0.1))
        with worker(file, seed):
            # Far less than a lease: the locks of the dead are free, and the living know it.
            assert await all_ended(store, count, within=15), await store.statistics()
        await each_step_counts_once(store)
        found = await store.statistics()
        assert (found.inbox_waiting, found.activities_waiting) == (0, 0)
    assert unfinished_kills >= 4


async def test_work_of_one_process_wakes_another(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    environment = system_environment()
    hub = provider.open(options(file), environment).hub
    await hub.create()
    async with hub as store:
        with worker(file, 1):
            await asyncio.sleep(0.3)  # it waits for work now
            began = time.monotonic()

            await store.create_instance(start(environment, "a"), replaceable=())
            state: InstanceState | None = None
            while state is None or not state.status.is_terminal:
                state = await store.wait_for_change(InstanceId("a"), after=state, timeout=timedelta(seconds=5))
                assert time.monotonic() - began < 4, "somebody waits for a poll that is far too slow"
        assert state.status is RuntimeStatus.COMPLETED


async def test_what_another_process_sends_reaches_the_holder(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    environment = system_environment()
    hub = provider.open(options(file), environment).hub
    await hub.create()
    script = (
        "import asyncio, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from live.sqlite_worker import options, start\n"
        "from durable_host.environment import system_environment as env\n"
        "from durable_host_providers.sqlite import provider\n"
        "async def main():\n"
        "    async with provider.open(options(Path(sys.argv[1])), env()).hub as store:\n"
        "        await store.send([start(env(), 'a')])\n"
        "asyncio.run(main())\n"
    )
    async with hub as store:
        await store.create_instance(start(environment, "a"), replaceable=())
        (item,) = await store.lock_orchestrations(1, wait=timedelta(0), cache=_Forgetful())
        await store.commit([Checkpoint(item.lease, None, None, consumed=[item.inbox[0].id], hold=True)])
        waiting = asyncio.ensure_future(store.lock_orchestrations(1, wait=timedelta(seconds=10), cache=_Forgetful()))

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(file), str(ROOT / "tests"), env=ENVIRONMENT
        )
        assert await process.wait() == 0

        (top_up,) = await waiting
        assert (top_up.lease.token, len(top_up.inbox)) == (item.lease.token, 1)


async def test_two_apps_on_one_file_are_refused_while_both_live(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"

    def of(app: str) -> TaskHubStore:
        choice = options(file)
        return provider.open(
            StorageOptions(hub=choice.hub, settings={}, folder=choice.folder, url=choice.url, app=app),
            system_environment(),
        ).hub

    await of("one").create()
    async with of("one"), of("one"):
        with pytest.raises(StoreMismatchError, match=r"in use by another app \(one\); this is two"):
            await of("two").__aenter__()
    async with of("two"):
        pass


async def test_events_of_many_processes_arrive_once_each(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    environment = system_environment()
    hubs = [provider.open(options(file), environment).hub for _ in range(3)]
    await hubs[0].create()
    async with hubs[0] as one, hubs[1] as two, hubs[2] as three:
        await one.create_instance(start(environment, "a"), replaceable=())

        def events(store: TaskHubStore, name: str) -> list[asyncio.Future[None]]:
            return [
                asyncio.ensure_future(
                    store.send(
                        [
                            Message(
                                MessageId(f"{name}-{number}"),
                                InstanceId("a"),
                                EventRaised(timestamp=environment.clock.now(), name=name),
                            )
                        ]
                    )
                )
                for number in range(50)
            ]

        await asyncio.gather(*events(one, "same"), *events(two, "same"), *events(three, "other"))

        (item,) = await three.lock_orchestrations(1, wait=timedelta(seconds=1), cache=_Forgetful())
        found = Counter(message.id for message in item.inbox)
        assert len(found) == 101
        assert set(found.values()) == {1}


async def test_numbers_that_another_process_took_are_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(store: SqliteTaskHubStore) -> None:
        """As if the other were another process."""

    monkeypatch.setattr(SqliteTaskHubStore, "_wrote", silent)
    file = tmp_path / "hub.db"
    environment = system_environment()
    hubs = [provider.open(options(file, pollInterval=0), environment).hub for _ in range(2)]
    await hubs[0].create()
    async with hubs[0] as one, hubs[1] as two:
        for number in range(20):
            assert await (one, two)[number % 2].create_instance(start(environment, f"{number}"), replaceable=())

        items = await one.lock_orchestrations(100, wait=timedelta(0), cache=_Forgetful())
        assert sorted(int(item.instance_id) for item in items) == list(range(20))
        assert {len(item.inbox) for item in items} == {1}


async def test_a_job_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    environment = system_environment()
    hub = provider.open(options(tmp_path / "hub.db"), environment).hub
    await hub.create()
    async with hub as store:
        starts = [start(environment, name) for name in ("a", "b\udc80", "c")]

        heard = await asyncio.gather(
            *(store.create_instance(each, replaceable=()) for each in starts), return_exceptions=True
        )

        assert (heard[0], heard[2]) == (True, True)
        assert isinstance(heard[1], UnicodeError)
