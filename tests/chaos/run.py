"""One chaos run: hosts, a client, strikes for a while; then calm, and the verdict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from durable_host.engine.client import TaskHubClient
from durable_host.environment import system_environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.oracle import Final
from durable_host.testing.simulated_run import innermost
from tests.chaos.host import HostSettings, make_worker, open_store
from tests.chaos.hosts import HostSlot
from tests.chaos.journal import Journal, read_journals
from tests.chaos.kinds import KINDS
from tests.chaos.player import Notes, RunningPlayer
from tests.chaos.stores import Store, make_store
from tests.chaos.strikes import Strike, plan
from tests.chaos.verdict import Evidence, judge, log_problems, used_results

__all__ = ["Options", "Report", "run"]

_HUB = "Chaos"
_RUNNING = frozenset(RuntimeStatus) - TERMINAL


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made of.

    Attributes:
        storage: `sqlite`, `postgres`, or the URL of a store that is left alone.
        seconds: how long strikes fall.
        whole: how many of the hosts are `durable-host start`; the others are TaskHubWorkers.
        rate: instances that are started in a second.
        open: most instances that the client waits for at once.
        lease: seconds; most pauses are longer.
        factor: of the numbers of strikes.
        patience: seconds that the hosts have, when all is calm, to bring everything to its end.
        works: the client's process is a worker too, so that what it starts may be handed over within it.
        folder: where everything is left.
    """

    storage: str
    seconds: float
    seed: int
    folder: Path
    hosts: int = 3
    whole: int = 1
    rate: float = 10.0
    open: int = 300
    lease: float = 5.0
    factor: float = 1.0
    patience: float = 180.0
    works: bool = True


@dataclass(slots=True)
class Report:
    """What came of it; `problems` is empty when all is well."""

    seed: int
    kinds: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    figures: dict[str, str] = field(default_factory=dict[str, str])
    problems: list[str] = field(default_factory=list[str])


class _Run:
    def __init__(self, options: Options, store: Store, say: Callable[[str], None]) -> None:
        self.options = options
        self.store = store
        self.say = say
        self.report = Report(options.seed)
        self.settings = HostSettings(store.url, _HUB, str(options.folder), "", options.lease)
        self.notes = Notes()
        self.plays: set[asyncio.Task[None]] = set()
        self.slots = [
            HostSlot(
                number,
                self.settings,
                whole=number > options.hosts - options.whole,
                random=Random(f"{options.seed}/host {number}"),
                counts=self.report.counts,
                problems=self.report.problems,
                down=store.down,
            )
            for number in range(1, options.hosts + 1)
        ]
        self.watches: set[asyncio.Task[None]] = set()
        self.resumed: list[float] = []

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        hub = open_store(self.settings, worker=self.options.works)
        await hub.create()
        keeping = [loop.create_task(slot.run()) for slot in self.slots]
        try:
            async with hub, self._working(hub):
                client = TaskHubClient(hub, system_environment())
                await self._all_ready(keeping)
                self.say("all hosts are ready; chaos begins")
                self.store.on_return = self._returned
                began = loop.time()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._strike(began))
                    group.create_task(self._start_instances(client, began))
                self.say(f"calm; {len(self.plays)} instances are still waited for")
                if await self._comes_to_rest(client):
                    await asyncio.gather(*(slot.stop(last=True) for slot in self.slots))
                    await asyncio.wait(keeping, timeout=30)
                self.say("looking at what is stored")
                await self._judge(client)
        finally:
            await _cancelled(*self.plays, *self.watches, *keeping)
            for slot in self.slots:
                slot.end()

    @asynccontextmanager
    async def _working(self, hub: TaskHubStore) -> AsyncGenerator[None]:
        """A worker in this process, which nobody kills, on the client's own store."""
        if not self.options.works:
            yield
            return
        journal = Journal(self.options.folder / "client.journal")
        async with make_worker(self.settings, journal.watch(hub), manage_store=False):
            yield

    async def _all_ready(self, keeping: list[asyncio.Task[None]]) -> None:
        async with asyncio.timeout(120):
            while not all(slot.is_ready for slot in self.slots):
                for task in keeping:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.05)

    # Load.

    async def _start_instances(self, client: TaskHubClient, began: float) -> None:
        loop = asyncio.get_running_loop()
        random = Random(f"{self.options.seed}/instances")
        weights = [kind.weight for kind in KINDS]
        number = 0
        while (now := loop.time() - began) < self.options.seconds:
            if len(self.plays) >= self.options.open or number >= now * self.options.rate:
                await asyncio.sleep(0.02)
                continue
            number += 1
            (kind,) = random.choices(KINDS, weights)
            player = RunningPlayer(client, self.notes, Random(random.getrandbits(64)))
            play = loop.create_task(player.play(kind, f"{kind.name}-{number}"), name=f"{kind.name}-{number}")
            self.plays.add(play)
            play.add_done_callback(self._played)

    def _played(self, play: asyncio.Task[None]) -> None:
        self.plays.discard(play)
        if not play.cancelled() and (error := play.exception()) is not None:
            self.report.problems.append(f"{play.get_name()}: the client failed with {innermost(error)!r}")

    # Strikes.

    async def _strike(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        kinds = self.store.kinds | {"kill", "pause", "stop"}
        async with asyncio.TaskGroup() as group:
            for strike in plan(self.options.seed, self.options.seconds, kinds, self.options.factor):
                await asyncio.sleep(max(0.0, began + strike.at - loop.time()))
                if strike.kind in self.store.kinds:
                    group.create_task(self.store.suffer(strike, self.report.counts))
                else:
                    group.create_task(self._hurt_host(strike))

    async def _hurt_host(self, strike: Strike) -> None:
        slot = self.slots[int(strike.chance * len(self.slots))]
        match strike.kind:
            case "kill":
                slot.kill()
            case "pause":
                await slot.pause(self.options.lease * (0.9 + 1.3 * strike.strength))
            case _:
                await slot.stop()

    def _returned(self) -> None:
        watch = asyncio.get_running_loop().create_task(self._watch_return())
        self.watches.add(watch)
        watch.add_done_callback(self.watches.discard)

    async def _watch_return(self) -> None:
        """How long it takes until a host commits again, now that the store is back."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        journals = {file: file.stat().st_size for file in self.options.folder.glob("*.journal")}
        while not any(_has_commit(file, size) for file, size in journals.items()):
            await asyncio.sleep(0.02)
            if not self.store.is_up:
                return  # there will be another return
            if not any(slot.is_able for slot in self.slots):
                began = loop.time()  # nobody is there to do it
            if loop.time() - began > self.store.returns_within:
                self.report.problems.append(f"no commit within {self.store.returns_within:.0f} s of the store's return")
                return
        self.resumed.append(loop.time() - began)

    # The end.

    async def _comes_to_rest(self, client: TaskHubClient) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self.options.patience):
                while self.plays:
                    await asyncio.wait(set(self.plays))
                while await self._open(client):  # noqa: ASYNC110  # other processes work
                    await asyncio.sleep(0.5)
        except TimeoutError:
            waiting = sorted(play.get_name() for play in self.plays)
            self.report.problems.append(
                f"not at rest after {self.options.patience:.0f} s of calm: the client waits for {waiting}; "
                f"open: {await self._open(client)}; {await client.store.statistics()}"
            )
            return False
        self.report.figures["calm until everything had ended"] = f"{loop.time() - began:.1f} s"
        return True

    async def _open(self, client: TaskHubClient) -> list[str]:
        query = InstanceQuery(statuses=_RUNNING, with_payloads=False)
        while True:
            try:
                return [state.instance_id async for state in client.instances(query)]
            except StoreUnavailableError:
                await asyncio.sleep(0.5)

    async def _judge(self, client: TaskHubClient) -> None:
        report, folder = self.report, self.options.folder
        final = Final(raised=self.notes.raised)
        events = 0
        async for state in client.instances():
            history = await client.history(state.instance_id)
            events += len(history)
            final.add(state, history)
        final.commits, counts = read_journals(sorted(folder.glob("*.journal")))
        runs_log = folder / "runs.log"
        runs = Counter(runs_log.read_text(encoding="utf-8").splitlines() if runs_log.exists() else ())
        report.problems += await judge(Evidence(final, self.notes.expected, runs))
        report.problems += log_problems([slot.log for slot in self.slots], self.store.secrets)
        report.kinds = self.notes.kinds
        report.counts += counts + self.notes.counts
        report.counts["instances"] = len(final.states)
        report.counts["events in their histories"] = events
        report.counts["commits seen"] = len(final.commits)
        report.counts["runs of activities"] = runs.total()
        self.store.tell(report.counts)
        if report.counts["deadlocks"]:
            report.problems.append(f"the server has found {report.counts['deadlocks']} deadlocks; rows have an order")
        report.counts["results used"] = len(used_results(final))
        if self.resumed:
            report.figures["longest time from the store's return to a commit"] = f"{max(self.resumed):.2f} s"


def _has_commit(file: Path, size: int) -> bool:
    with file.open("rb") as journal:
        journal.seek(size)
        return b'"commits"' in journal.read()


async def run(options: Options, say: Callable[[str], None]) -> Report:
    """Run once. Whatever happens, nothing that was started here remains.

    Args:
        say: hears where the run stands.
    """
    (options.folder / "attempts").mkdir(parents=True)
    async with make_store(options.storage, options.folder) as store:
        chaos = _Run(options, store, say)
        await chaos.main()
        return chaos.report


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
