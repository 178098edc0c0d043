"""What a simulation is given, and what it tells: scenario, load, hub, world and report."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from durable_host.engine.client import TaskHubClient
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Environment
from durable_host.errors import DurableHostError, InstanceExistsError, StoreUnavailableError
from durable_host.model.ids import InstanceId
from durable_host.model.payloads import encode_payload
from durable_host.storage.contract import TaskHubStore
from durable_host.testing.faults import FaultKind, FaultPlan, Rates
from durable_host.testing.oracle import Final, Raised

__all__ = ["CRASH_TABLE", "Load", "Report", "Scenario", "SimulatedHub", "SimulationFailedError", "World"]

T = TypeVar("T")

CRASH_TABLE: tuple[str, ...] = (
    "before anything",
    "after some or all outgoing messages",
    "between history batches",
    "after history",
    "after projection",
    "after some deletes",
    "with a finished activity not yet committed",
    "before `completed` is removed",
    "before a late row write",
    "with work handed over, not fetched",
    "lease lost while computing",
)
"""Where a process may die, and what else may happen to a checkpoint; the rows of the design's table."""


class SimulationFailedError(DurableHostError):
    """A run ended otherwise than it should; `report` says how."""

    def __init__(self, report: Report) -> None:
        self.report = report
        lines = [f"{report.scenario} on {report.hub}, seed {report.seed}:", *report.violations]
        if report.command:
            lines.append(f"Replay it with: {report.command}")
        super().__init__("\n".join(lines))


class SimulatedHub(ABC):
    """The side of a simulation that survives crashes: one hub, reached through one store object per process.

    Attributes:
        name: for reports.
        points: names of fault points that this hub adds to those of `FaultyStore`.
        rows: the rows of `CRASH_TABLE` that this hub can show.
        call_rates: False leaves whole calls alone, since the hub has finer fault points of its own.
    """

    name: str = "hub"
    points: Collection[str] = ()
    rows: Collection[str] = ()
    call_rates: bool = True

    @abstractmethod
    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        """A store object for a new process, not entered; `crash` None: for a client."""

    def vanish(self, store: TaskHubStore) -> None:  # noqa: B027  # not every hub notices
        """The process that owned the store object is gone, without a good-bye."""

    def stages(self, store: TaskHubStore) -> Iterable[str]:
        """Rows of the crash table that the owner's death would show at this moment, as far as only the store knows."""
        return ()

    async def close(self) -> None:  # noqa: B027  # not every hub has something to close
        """The run is over."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a run is on its workers. Times are virtual seconds.

    Attributes:
        workers: processes at once.
        rates: faults of every point.
        kills: mean time between two kills; 0: none but those of fault points.
        replacement: longest time until a dead worker is replaced.
        stalls: mean time between two stalls, in which a worker hears nothing from the store.
        stall: longest stall; leases last 30 s.
        skew: farthest that a worker's clock is off.
        trouble: everything above ends after so long, so that the run does.
        limit: a run that takes longer is stuck.
    """

    workers: int = 3
    rates: Rates = field(default_factory=lambda: Rates(error=0.02, crash=0.01))
    kills: float = 20.0
    replacement: float = 20.0
    stalls: float = 60.0
    stall: float = 80.0
    skew: float = 5.0
    trouble: float = 400.0
    limit: float = 40 * 86_400.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What runs, and who drives it.

    Attributes:
        drive: acts as the client; whatever it starts must end. None: one instance of each orchestrator, without input.
        check: more that must hold at the end; yields what does not.
        reply: what an activity answers to an input, for the oracle; None: activities are not functions of their input.
        settings: of every worker; None: small limits and a cache whose size changes from worker to worker.
    """

    name: str
    orchestrators: Sequence[Callable[..., Any]]
    activities: Sequence[Callable[..., Any]] = ()
    drive: Callable[[World], Awaitable[None]] | None = None
    check: Callable[[World, Final], Iterable[str]] | None = None
    reply: Callable[[str, Any], object] | None = None
    settings: EngineSettings | None = None
    load: Load = field(default_factory=Load)


@dataclass(slots=True)
class Report:
    """How a run went.

    Attributes:
        digest: of every step; equal for equal seeds.
        violations: empty when all is well.
        passes, hits: of fault points.
        rows: how often each row of the crash table was shown.
        elapsed: virtual seconds.
        kills: workers that died.
        orphans: executions of instances or activities that nobody had recorded; a measure, not a failure.
        command: replays this run.
    """

    scenario: str
    hub: str
    seed: int
    digest: str = ""
    violations: list[str] = field(default_factory=list[str])
    passes: Counter[str] = field(default_factory=Counter[str])
    hits: Counter[tuple[str, FaultKind]] = field(default_factory=Counter[tuple[str, FaultKind]])
    rows: Counter[str] = field(default_factory=Counter[str])
    elapsed: float = 0.0
    kills: int = 0
    commits: int = 0
    orphans: int = 0
    command: str = ""

    def require(self) -> Report:
        """This report; raises SimulationFailedError if anything is wrong."""
        if self.violations:
            raise SimulationFailedError(self)
        return self


class World:
    """What `drive` sees of a run.

    Attributes:
        client: a client whose store calls fail now and then; it repeats them with the same ids.
        random: the scenario's own chance.
        raised: external events that were acknowledged.
        optional: instances that need not exist or end.
        notes: for the scenario's own check.
    """

    def __init__(self, client: TaskHubClient, random: Random) -> None:
        self.client = client
        self.random = random
        self.started: list[InstanceId] = []
        self.raised: list[Raised] = []
        self.optional: set[InstanceId] = set()
        self.notes: dict[str, Any] = {}

    async def start(self, orchestrator: str | Callable[..., Any], input: object = None, **options: Any) -> InstanceId:
        """Start an instance as TaskHubClient.start does, however long the store is out of reach."""
        perhaps = False

        async def start() -> InstanceId:
            nonlocal perhaps
            try:
                return await self.client.start(orchestrator, input, **options)
            except StoreUnavailableError:
                perhaps = True
                raise
            except InstanceExistsError:
                # The instance that stands in the way may be the one that an attempt before has started, unheard.
                given = options.get("instance_id")
                if not perhaps or given is None:
                    raise
                present = await self.client.get(given)
                if present is None or present.input != (None if input is None else encode_payload(input)):
                    raise
                return present.instance_id

        instance_id = await self._insist(start)
        self.started.append(instance_id)
        return instance_id

    async def raise_event(self, instance_id: str, name: str, data: object = None, *, id: str | None = None) -> None:
        """Raise an external event and note that it was acknowledged."""
        message_id = id or f"event-{self.random.getrandbits(64):016x}"
        await self._insist(lambda: self.client.raise_event(instance_id, name, data, message_id=message_id))
        if not any(each.message_id == message_id for each in self.raised):
            self.raised.append(Raised(InstanceId(instance_id), message_id, name))

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Any call of the client, repeated while the store is out of reach."""
        return await self._insist(call)

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def pause(self, most: float = 5.0) -> None:
        """Let a random time pass, often none."""
        await asyncio.sleep(self.random.choice((0.0, 0.0, 0.01, 1.0)) * self.random.random() * most)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await asyncio.sleep(self.random.random())
