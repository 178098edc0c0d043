"""The finished instances of the recordings, run here: same orchestrators, same ids, same steps of their clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from durable_host.engine.client import TaskHubClient
from durable_host.engine.context import DurableOrchestrationContext
from durable_host.environment import Environment
from durable_host.errors import ActivityFailedError
from durable_host.executors.native import FunctionRegistry
from durable_host.model.instance import InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host.testing.environment import simulated_environment
from durable_host.worker import TaskHubWorker
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from tests.azure_recordings import HUB
from tests.contract.azure_shared import SharedPartitions, SharedStore
from tests.histories import orchestrators

__all__ = ["BY_CLIENTS", "BY_WORKERS", "LARGE", "SCENARIOS", "Ran", "running"]

LARGE = '"' + "x" * 100_000 + '"'
"""As large as the recorded input; its text does not matter."""

_LONG = timedelta(days=2)


class Ran:
    """A hub in which scenarios run."""

    def __init__(self, client: TaskHubClient, service: SimulatedService, environment: Environment) -> None:
        self.client = client
        self.service = service
        self.environment = environment
        self._account = SimulatedAccount(service)

    async def rows(self, table: str, key: str) -> list[dict[str, Value]]:
        """The rows of a partition, without the service's own column."""
        page = await self._account.table(table).query(f"PartitionKey eq '{key}'")
        assert page.continuation is None
        return [{name: value for name, value in row.values.items() if name != "Timestamp"} for row in page.rows]

    def texts(self, instance_id: str) -> list[str]:
        """All messages to an instance, visible or not, and its requests for activities."""
        texts = [message.text for queue in self.service.queues.values() for message in queue.messages.values()]
        return [text for text in texts if f'"InstanceId":"{instance_id}"' in text.partition('"Sender"')[0]]

    async def ended(self, instance_id: str) -> InstanceState:
        return await self.client.wait_for_completion(instance_id, timeout=_LONG)

    async def is_(self, instance_id: str, status: RuntimeStatus) -> None:
        """Until its status is that."""
        await self.until(instance_id, lambda state, _: state.status is status)

    async def until(self, instance_id: str, reached: Callable[[InstanceState, int], bool]) -> None:
        """Until its projection and the length of its history are as wanted."""
        state = await self.client.require(instance_id)
        while not reached(state, len(await self.client.history(instance_id))):
            await asyncio.sleep(1)
            state = await self.client.require(instance_id)

    async def waits(self, instance_id: str) -> None:
        """Until it has done what it does without anybody's help."""
        await self.is_(instance_id, RuntimeStatus.RUNNING)
        await asyncio.sleep(1)


@asynccontextmanager
async def running(*, idle: bool = False, after: Ran | None = None) -> AsyncGenerator[Ran]:
    """A hub, and a worker on it.

    Args:
        idle: the worker processes nothing, so that messages stay.
        after: whose hub it is; None: an empty one. `gate` is open in a hub that had a worker before.
    """
    environment = simulated_environment() if after is None else after.environment
    service = SimulatedService(environment.clock.now) if after is None else after.service
    settings = AzureSettings(Layout(HUB, 4), max_polling=timedelta(seconds=1))
    store = SharedStore(SimulatedAccount(service), settings, environment, SharedPartitions())
    functions = FunctionRegistry()
    for name, orchestrator in _ORCHESTRATORS.items():
        functions.add_orchestrator(orchestrator, name=name)
    tries: dict[str, int] = {}

    async def say_hello(name: str) -> str:
        return f"Hello {name}!"

    async def square(n: int) -> int:
        return n * n

    async def echo(value: Any) -> Any:
        return value

    async def fail(value: Any) -> None:
        raise ValueError(f"boom {value}")

    async def flaky(key: str) -> str:
        tries[key] = tries.get(key, 0) + 1
        if tries[key] <= 2 and after is None:
            raise ValueError(f"attempt {tries[key]} failed")
        return f"attempt {tries[key]} succeeded"

    async def gate(value: Any) -> str:
        if after is None:
            await asyncio.Event().wait()
        return f"passed {value}"

    for activity in (say_hello, square, echo, fail, flaky, gate):
        functions.add_activity(activity, name=activity.__name__)
    worker = TaskHubWorker(store, environment=environment, registry=functions, lease_thread=False)
    if idle:
        await store.create()
        async with store:
            yield Ran(worker.client, service, environment)
        return
    async with worker:
        yield Ran(worker.client, service, environment)


async def _compensating(context: DurableOrchestrationContext) -> list[Any]:
    try:
        await context.call_activity("fail", context.get_input())
    except ActivityFailedError as error:
        return ["compensated", str(error.reason), await context.call_activity("say_hello", "undo")]
    raise AssertionError("fail did not fail")


_ORCHESTRATORS: Mapping[str, Callable[..., Any]] = {
    "Sequence": orchestrators.sequence,
    "GatedSequence": orchestrators.gated_sequence,
    "FanOut": orchestrators.fan_out,
    "Sleep": orchestrators.sleep,
    "Approval": orchestrators.approval,
    "ApprovalOrTimeout": orchestrators.approval_or_timeout,
    "EarlyEvent": orchestrators.early_event,
    "Parent": orchestrators.parent,
    "Failing": orchestrators.failing,
    "Compensating": _compensating,
    "Retrying": orchestrators.retrying,
    "Eternal": orchestrators.eternal,
    "Large": orchestrators.large,
    "Flaky": orchestrators.flaky,
    "Starter": orchestrators.starter,
}


Steps = Callable[[Ran, str], Awaitable[object]]


def _simply(orchestrator: str, input_json: str | None = None, **more: Any) -> Steps:
    async def steps(ran: Ran, instance_id: str) -> None:
        await ran.client.start(orchestrator, instance_id=instance_id, input_json=input_json, **more)
        await ran.ended(instance_id)

    return steps


def _with_event(orchestrator: str, name: str, data: str, input_json: str | None = None) -> Steps:
    async def steps(ran: Ran, instance_id: str) -> None:
        await ran.client.start(orchestrator, instance_id=instance_id, input_json=input_json)
        await ran.waits(instance_id)
        await ran.client.raise_event(instance_id, name, data_json=data)
        await ran.ended(instance_id)

    return steps


async def _terminated(ran: Ran, instance_id: str) -> None:
    await ran.client.start("Approval", instance_id=instance_id)
    await ran.waits(instance_id)
    await ran.client.terminate(instance_id, "no longer needed")
    await ran.ended(instance_id)


async def _resumed(ran: Ran, instance_id: str) -> None:
    await ran.client.start("Approval", instance_id=instance_id)
    await ran.waits(instance_id)
    await ran.client.suspend(instance_id, "wait")
    await ran.is_(instance_id, RuntimeStatus.SUSPENDED)
    before = await ran.client.require(instance_id)
    await ran.client.raise_event(instance_id, "Approval", data_json='"held back"')
    await ran.client.store.wait_for_change(before.instance_id, after=before, timeout=_LONG)
    await ran.client.resume(instance_id, "go on")
    await ran.ended(instance_id)


def _rewound_twice(orchestrator: str, input_json: str, first: str) -> Steps:
    async def steps(ran: Ran, instance_id: str) -> None:
        await ran.client.start(orchestrator, instance_id=instance_id, input_json=input_json)
        await ran.ended(instance_id)
        for reason in (first, "rewind 2"):
            before = len(await ran.client.history(instance_id))
            await ran.client.rewind(instance_id, reason)
            await ran.until(instance_id, lambda state, length, at=before: length > at and state.status.is_terminal)

    return steps


async def _rewound(ran: Ran, instance_id: str) -> None:
    await ran.client.start("Failing", instance_id=instance_id, input_json='"r"')
    await ran.ended(instance_id)
    before = len(await ran.client.history(instance_id))
    await ran.client.rewind(instance_id, "try again")
    await ran.until(instance_id, lambda state, length: length == before + 8 and state.status.is_terminal)


async def _detached(ran: Ran, instance_id: str) -> None:
    await ran.client.start("Starter", instance_id="starter-done", input_json=f'"{instance_id}"')
    await ran.ended("starter-done")
    await ran.ended(instance_id)


SCENARIOS: Mapping[str, tuple[str, Steps]] = {
    "sequence-done": ("table", _simply("Sequence")),
    "fanout-done": ("table", _simply("FanOut", "10")),
    "timer-done": ("table", _simply("Sleep", "1")),
    "child-id-done": ("table", _simply("Parent", '{"child":"FanOut","input":3,"id":"child-explicit"}')),
    "failed": ("table", _simply("Failing", '"f"')),
    "child-failed": ("table", _simply("Parent", '{"child":"Failing","input":"c","id":"child-of-failed"}')),
    "compensated": ("table", _simply("Compensating", '"s"')),
    "retry-done": ("table", _simply("Retrying", '{"first":0.2,"attempts":3,"key":"done"}')),
    "retry-exhausted": ("table", _simply("Retrying", '{"first":0.2,"attempts":2,"key":"exhausted"}')),
    "event-done": ("table", _with_event("Approval", "Approval", '{"by":"anna"}')),
    "race-event-done": ("table", _with_event("ApprovalOrTimeout", "Approval", "true", "3600")),
    "race-timeout-done": ("table", _simply("ApprovalOrTimeout", "1")),
    "event-early-done": ("table", _with_event("EarlyEvent", "Approval", '"early bird"')),
    "eternal-done": ("table", _with_event("Eternal", "stop", '"enough"', "1")),
    "large-done": ("table", _with_event("Large", "Payload", LARGE, LARGE)),
    "tags-done": ("table", _simply("Sequence", tags={"team": "red", "日本": "語"})),
    "odd id ^ % äß 日本": ("table", _simply("Sequence", '"text with \\"quotes\\" and 日本語"')),
    "rewound": ("table", _rewound),
    "terminated-done": ("table", _terminated),
    "resumed-done": ("more", _resumed),
    "started-by-orchestrator": ("functions-extension/hub", _detached),
    "rewound-done": ("more", _rewound_twice("Flaky", '"rewound"', "rewind 1")),
    "rewound-parent-done": (
        "more",
        _rewound_twice("Parent", '{"child":"Flaky","input":"rewound-child","id":"rewound-child"}', "rewind 1"),
    ),
    "wide-done": ("more", _simply("FanOut", "150")),
}
"""By instance id: the recording that has it, and what its client does."""


def _client(orchestrator: str, then: Callable[[TaskHubClient, str], Awaitable[object]] | None, **more: Any) -> Steps:
    async def steps(ran: Ran, instance_id: str) -> None:
        await ran.client.start(orchestrator, instance_id=instance_id, **more)
        if then is not None:
            await then(ran.client, instance_id)

    return steps


BY_CLIENTS: Mapping[str, Steps] = {
    "start-queued": _client("Sequence", None, tags={"team": "blue"}),
    "start-scheduled": _client("Sequence", None, start_at=timedelta(hours=1)),
    "start-and-event-queued": _client(
        "Approval", lambda client, id: client.raise_event(id, "Approval", data_json='"before the start"')
    ),
    "event-queued": _client("Approval", lambda client, id: client.raise_event(id, "Approval", {"by": "queue"})),
    "terminate-queued": _client("Approval", lambda client, id: client.terminate(id, "queued end")),
    "suspend-queued": _client("Approval", lambda client, id: client.suspend(id, "queued hold")),
}
"""By instance id: what a client posts to a hub that nobody processes."""


def _left(orchestrator: str, input_json: str | None = None) -> Steps:
    async def steps(ran: Ran, instance_id: str) -> None:
        await ran.client.start(orchestrator, instance_id=instance_id, input_json=input_json)
        await ran.waits(instance_id)

    return steps


BY_WORKERS: Mapping[str, Steps] = {
    "race-waiting": _left("ApprovalOrTimeout", "3600"),
    "timer-waiting": _left("Sleep", "3600"),
    "activity-running": _left("GatedSequence"),
}
"""By instance id: what waits in the queues for an instance that runs."""
