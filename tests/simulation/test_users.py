"""What users of the simulation and of the replay check do with them."""

from __future__ import annotations

from typing import Any

import pytest

from durable_host.engine.context import DurableOrchestrationContext
from durable_host.model.status import RuntimeStatus
from durable_host.testing import simulation
from durable_host.testing.environment import simulated_environment
from durable_host.testing.replaying import ReplayError, replay_problems
from durable_host.worker import TaskHubWorker
from durable_host_providers.memory.provider import MemoryHub


async def double(number: int) -> int:
    return 2 * number


async def twice(context: DurableOrchestrationContext) -> Any:
    return await context.call_activity("double", await context.call_activity("double", 10))


async def changed(context: DurableOrchestrationContext) -> Any:
    return await context.call_activity("double", 11)


def test_own_orchestrators_run_under_everything_that_can_go_wrong() -> None:
    scenario = simulation.Scenario("mine", orchestrators=[twice], activities=[double])

    digests = {simulation.run(scenario, seed).require().digest for seed in range(5)}

    assert len(digests) == 5


def test_wrong_expectation_names_the_seed_and_the_command() -> None:
    async def drive(world: simulation.World) -> None:
        world.notes["id"] = await world.start(twice)

    def check(world: simulation.World, final: simulation.Final) -> Any:
        if final.output(world.notes["id"]) != 41:
            yield "it is not 41"

    scenario = simulation.Scenario("mine", [twice], [double], drive, check)

    with pytest.raises(simulation.SimulationFailedError, match=r"(?s)seed 3.*it is not 41.*run-it --seed 3"):
        simulation.run(scenario, 3, command="run-it --seed 3").require()


@pytest.mark.simulated
async def test_history_replays_with_the_code_that_made_it_and_not_with_other_code() -> None:
    environment = simulated_environment()
    store = MemoryHub(environment).open()
    worker = TaskHubWorker(store, environment=environment, lease_thread=False)
    worker.orchestrator(twice)
    worker.activity(double)
    async with worker:
        instance_id = await worker.client.start(twice)
        state = await worker.client.wait_for_completion(instance_id)
        history = await worker.client.history(instance_id)

    assert state.status is RuntimeStatus.COMPLETED
    assert await replay_problems(history, twice) == []
    assert await replay_problems(history, changed) != []
    assert issubclass(ReplayError, AssertionError)
