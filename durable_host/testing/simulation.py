"""Run orchestrators through everything that can go wrong, from a seed.

    from durable_host.testing import simulation

    scenario = simulation.Scenario("orders", orchestrators=[order], activities=[charge, ship], drive=drive)
    simulation.run(scenario, seed=7).require()

One run is a small hub on virtual time: several workers, each a process of its own with a clock that is off; store
calls that fail before or after their effect; workers that die at any `await` and are replaced; workers that hear
nothing from the store for longer than their leases. `drive` acts as the client. When everything that was started has
ended, the oracle (`durable_host.testing.oracle`) looks at what is stored.

The same seed gives the same run to the last step: `Report.digest` says so. A failing run names its seed.

A *crash* cancels every task of one worker and makes its store object deaf; nothing it still tries has an effect. The
hub (`SimulatedHub`) is what survives.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from durable_host.environment import Environment
from durable_host.storage.contract import StorageOptions, TaskHubStore
from durable_host.storage.registry import load_provider
from durable_host.testing.faults import FaultPlan
from durable_host.testing.loop import SimulatedLoop
from durable_host.testing.oracle import Final
from durable_host.testing.scenario import (
    CRASH_TABLE,
    Load,
    Report,
    Scenario,
    SimulatedHub,
    SimulationFailedError,
    World,
)
from durable_host.testing.simulated_run import SimulatedRun, innermost
from durable_host.worker import TaskHubWorker

__all__ = [
    "CRASH_TABLE",
    "Final",
    "Load",
    "Report",
    "Scenario",
    "SimulatedHub",
    "SimulationFailedError",
    "World",
    "run",
]

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


class _MemoryHub(SimulatedHub):
    """The memory provider, found by its entry point; a hub with a name of its own is shared by all who open it."""

    name = "memory"

    def __init__(self) -> None:
        self._options = StorageOptions(
            hub="simulated", settings={}, folder=Path(), url=f"memory://simulation-{next(_numbers)}"
        )
        self._store: TaskHubStore | None = None

    async def open(
        self, environment: Environment, plan: FaultPlan, random: Random, crash: Callable[[], None] | None
    ) -> TaskHubStore:
        self._store = load_provider("memory").open(self._options, environment).hub
        return self._store

    async def close(self) -> None:
        if self._store is not None:
            await self._store.delete()


def run(
    scenario: Scenario,
    seed: int,
    *,
    hub: Callable[[Random], SimulatedHub] | None = None,
    load: Load | None = None,
    command: str = "",
    mutate: Callable[[TaskHubWorker], None] | None = None,
) -> Report:
    """Run a scenario once and judge it.

    Args:
        hub: makes an empty hub from the seed's chance; None: one of the memory provider.
        load: in place of the scenario's own.
        command: what to tell people who want to see this run again.
        mutate: changes a worker before it starts, for negative controls.
    """
    if load is not None:
        scenario = replace(scenario, load=load)
    report = Report(scenario.name, "", seed, command=command)

    async def main() -> None:
        simulated = hub(Random(f"{seed}/hub")) if hub is not None else _MemoryHub()
        report.hub = simulated.name
        simulation = SimulatedRun(scenario, seed, simulated, report, mutate)
        try:
            await simulation.main()
        finally:
            await simulated.close()
            report.passes, report.hits = simulation.plan.passes, simulation.plan.hits

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed)) as runner:
        try:
            runner.run(main())
        except Exception as error:
            logger.error("simulation failed", exc_info=error)
            report.violations.append(f"the run ended with {innermost(error)!r}")
    return report
