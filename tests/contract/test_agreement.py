"""Providers agree with each other over random sequences of calls; and the comparison notices when they do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from hypothesis import Phase, find, given, settings

from durable_host.testing.store_contract import ContractHub, contract_environment
from durable_host.testing.store_contract.agreement import Call, call_sequences, observe
from durable_host_providers.memory import MemoryHub
from durable_host_providers.memory.hub import HubState
from durable_host_providers.memory.records import InstanceRecord
from durable_host_providers.memory.store import MemoryTaskHubStore


@asynccontextmanager
async def memory() -> AsyncGenerator[ContractHub]:
    environment = contract_environment()
    hub = MemoryHub(environment)
    yield ContractHub(open=hub.open, environment=environment)


class ForgetsHalfOfWhatWasGiven(HubState):
    """A store that is wrong in a way that only some sequences show."""

    def release(self, instance: InstanceRecord, by: object = None) -> None:
        while len(instance.given) > 1:
            instance.given.popitem()
        super().release(instance)


@asynccontextmanager
async def broken() -> AsyncGenerator[ContractHub]:
    environment = contract_environment()
    state = ForgetsHalfOfWhatWasGiven(environment, timedelta(seconds=30))
    yield ContractHub(open=lambda: MemoryTaskHubStore(state), environment=environment)


@settings(max_examples=200, deadline=None)
@given(call_sequences())
def test_memory_agrees_with_itself(calls: list[Call]) -> None:
    assert observe(calls, memory) == observe(calls, memory)


def test_a_store_that_differs_is_found() -> None:
    generate_only = settings(max_examples=500, deadline=None, derandomize=True, phases=[Phase.generate], database=None)

    find(call_sequences(), lambda calls: observe(calls, memory) != observe(calls, broken), settings=generate_only)
