"""A host of a chaos run, a process of its own: `python -m tests.chaos.host` with its settings as JSON in CHAOS_HOST.

It is either a TaskHubWorker in a plain program or the whole host, `durable-host start` on an app folder. Its standard
input is a pipe whose other end the run holds: when that closes, the run is gone, and so is the host.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import msgspec

import durable_host.host
from durable_host.cli import main as durable_host_main
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Clock, system_environment
from durable_host.errors import StoreError
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.storage.observed import observe
from durable_host.storage.registry import provider_for_url
from durable_host.telemetry.metrics import Metrics
from durable_host.worker import TaskHubWorker
from tests.chaos.app import ACTIVITIES, ORCHESTRATORS, Bench
from tests.chaos.journal import Journal

__all__ = ["READY", "VARIABLE", "HostSettings", "make_worker", "open_store"]

VARIABLE = "CHAOS_HOST"
READY = "ready"


class HostSettings(msgspec.Struct, frozen=True):
    """What a host is started with.

    Attributes:
        storage: URL of the hub's store.
        folder: where hosts leave what they write down.
        journal: this host's file in it.
        lease: seconds.
        app: folder of an app; None: a TaskHubWorker.
        port: of the whole host.
    """

    storage: str
    hub: str
    folder: str
    journal: str
    lease: float
    app: str | None = None
    port: int = 0


def open_store(settings: HostSettings, *, worker: bool) -> TaskHubStore:
    """The hub's store, as a library user opens it."""
    options = StorageOptions(
        hub=settings.hub,
        settings={},
        folder=Path(settings.folder),
        url=settings.storage,
        lease=timedelta(seconds=settings.lease),
        worker=worker,
    )
    return provider_for_url(settings.storage).open(options, system_environment()).hub


def make_worker(settings: HostSettings, store: TaskHubStore, *, manage_store: bool = True) -> TaskHubWorker:
    """A worker with the functions of the chaos app."""
    Bench.folder, Bench.lease = Path(settings.folder), settings.lease
    worker = TaskHubWorker(store, settings=EngineSettings(store_inputs=True), manage_store=manage_store)
    for orchestrator in ORCHESTRATORS:
        worker.orchestrator(orchestrator)
    for activity in ACTIVITIES:
        worker.activity(activity)
    return worker


async def _work(settings: HostSettings, journal: Journal) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = make_worker(settings, journal.watch(open_store(settings, worker=True)))
    async with worker:
        print(READY, flush=True)
        ended = asyncio.ensure_future(worker.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended.done():
            ended.result()


def _start(settings: HostSettings, journal: Journal, app: str) -> int:
    def observe_and_note(store: TaskHubStore, metrics: Metrics, clock: Clock) -> TaskHubStore:
        return journal.watch(observe(store, metrics, clock))

    durable_host.host.observe = observe_and_note  # the host has no other door for it
    return durable_host_main(["start", app, "--storage", settings.storage, "--port", str(settings.port), "--verbose"])


def _end_with_the_run() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock the interpreter wants when it ends
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _main() -> int:
    settings = msgspec.json.decode(os.environ[VARIABLE], type=HostSettings)
    Bench.folder, Bench.lease = Path(settings.folder), settings.lease
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    journal = Journal(Path(settings.folder) / settings.journal)
    if settings.app is not None:
        return _start(settings, journal, settings.app)
    try:
        asyncio.run(_work(settings, journal))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
