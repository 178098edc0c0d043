"""The contract suite: what every provider of `storage/contract.py` must do.

A provider's test module inherits it and says how to make a hub:

    class TestMine(StoreContract):
        @asynccontextmanager
        async def new_hub(self) -> AsyncGenerator[ContractHub]:
            environment = contract_environment()
            with TemporaryDirectory() as folder:
                hub = MyHub(folder, environment)
                yield ContractHub(open=hub.open, environment=environment, host_state=hub.host_state)

Each test makes a hub of its own and runs on virtual time (`simulated = False` for providers that need a real loop). It
is marked with the numbers of the promises that it checks. `agreement` compares a provider with the memory provider over
random sequences of calls.
"""

from __future__ import annotations

from durable_host.testing.store_contract.clients import (
    CreateContract,
    LifeCycleContract,
    PurgeContract,
    QuarantineContract,
    WatchContract,
)
from durable_host.testing.store_contract.commits import CommitContract, FenceContract, ProjectionContract
from durable_host.testing.store_contract.delivery import ActivityContract, DeliveryContract, LeaseContract
from durable_host.testing.store_contract.eligibility import CancellationContract, EligibilityContract, WaitingContract
from durable_host.testing.store_contract.handed_activities import HandedActivityContract
from durable_host.testing.store_contract.handover import HandOverContract
from durable_host.testing.store_contract.harness import (
    ContractBase,
    ContractHub,
    contract_environment,
    promise,
    promised_tests,
    promises_of,
)
from durable_host.testing.store_contract.holding import HoldContract
from durable_host.testing.store_contract.host_state import HostStateContract
from durable_host.testing.store_contract.payloads import PayloadContract
from durable_host.testing.store_contract.queries import QueryContract, StatisticsContract
from durable_host.testing.store_contract.receiving import ReceivingContract

__all__ = [
    "ContractBase",
    "ContractHub",
    "StoreContract",
    "contract_environment",
    "promise",
    "promised_tests",
    "promises_of",
]


class StoreContract(
    EligibilityContract,
    WaitingContract,
    CancellationContract,
    HoldContract,
    CommitContract,
    FenceContract,
    ProjectionContract,
    DeliveryContract,
    ActivityContract,
    LeaseContract,
    CreateContract,
    PurgeContract,
    HandOverContract,
    HandedActivityContract,
    ReceivingContract,
    QuarantineContract,
    QueryContract,
    StatisticsContract,
    WatchContract,
    LifeCycleContract,
    PayloadContract,
    HostStateContract,
):
    """All of the suite."""
