"""What a provider gives the suite, and how the suite's tests run.

A test is an `async def` marked with `@promise(numbers)`. The mark turns it into a plain method that makes a fresh hub,
opens one store object on it and runs the test on a loop of its own, so that the suite needs no plugin for async tests
and can be called by a program: `tests/contract/test_broken_stores.py` runs the tests of a promise on stores that break
it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

from durable_host.environment import Environment, SystemThreads
from durable_host.storage.contract import HostStateStore, TaskHubStore
from durable_host.testing.environment import SeededIds, SimulatedClock, simulated_environment
from durable_host.testing.loop import SimulatedLoop, run_simulated

__all__ = ["ContractBase", "ContractHub", "contract_environment", "promise", "promised_tests", "promises_of"]

Suite = TypeVar("Suite", bound="ContractBase")


def contract_environment() -> Environment:
    """The environment to open a provider with: virtual on a `SimulatedLoop`, else real time that tests can move on."""
    if isinstance(asyncio.get_running_loop(), SimulatedLoop):
        return simulated_environment()
    return Environment(clock=SimulatedClock(), ids=SeededIds(), threads=SystemThreads(4))


async def _default_pass_time(environment: Environment, by: timedelta) -> None:
    if isinstance(asyncio.get_running_loop(), SimulatedLoop):
        await asyncio.sleep(by.total_seconds())
        return
    clock = environment.clock
    if not isinstance(clock, SimulatedClock):
        raise TypeError("give ContractHub a pass_time of its own, or open the provider with contract_environment()")
    clock.advance(by)


@dataclass(slots=True)
class ContractHub:
    """A fresh, empty hub of the provider under test.

    Attributes:
        open: makes another store object on this hub; not entered.
        environment: what the stores were opened with.
        lease: length of a lease on this hub.
        host_state: makes the host state of this hub; None: the provider's is tested elsewhere.
        pass_time: lets time pass for the store; only for providers that do not go by `environment.clock`.
    """

    open: Callable[[], TaskHubStore]
    environment: Environment
    lease: timedelta = timedelta(seconds=30)
    host_state: Callable[[], HostStateStore] | None = None
    pass_time: Callable[[timedelta], Awaitable[None]] | None = None
    counter: int = field(default=0, init=False)

    def now(self) -> datetime:
        """The store's time."""
        return self.environment.clock.now()

    async def wait(self, seconds: float) -> None:
        """Let time pass for the store."""
        by = timedelta(seconds=seconds)
        await (self.pass_time(by) if self.pass_time else _default_pass_time(self.environment, by))

    async def outlive_lease(self) -> None:
        """Wait until every lease that is not renewed has ended."""
        await self.wait(self.lease.total_seconds() + 1)

    def number(self) -> int:
        """1, 2, 3, … for ids."""
        self.counter += 1
        return self.counter


class ContractBase(ABC):
    """How the suite's tests are run. A provider's test class says how to make a hub.

    Attributes:
        simulated: run on virtual time. False for providers that have threads or sockets of their own; time then passes
            by moving the clock, and the few tests that wait long inside a call do nothing.
        seeds: orders of callbacks to try, each a full run of the test.
    """

    simulated: ClassVar[bool] = True
    seeds: ClassVar[tuple[int, ...]] = (0,)

    @abstractmethod
    def new_hub(self) -> AbstractAsyncContextManager[ContractHub]:
        """A fresh, empty hub, removed afterwards. Entered on the loop that runs the test."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one test."""
        if not self.simulated:
            asyncio.run(main())
            return
        for seed in self.seeds:
            try:
                run_simulated(main(), seed=seed)
            except Exception as error:
                error.add_note(f"order of callbacks drawn from seed {seed}")
                raise


def promise(
    *numbers: int,
) -> Callable[[Callable[[Suite, ContractHub, TaskHubStore], Coroutine[Any, Any, None]]], Callable[[Suite], None]]:
    """Mark a test with the promises of the contract that it checks."""

    def mark(
        test: Callable[[Suite, ContractHub, TaskHubStore], Coroutine[Any, Any, None]],
    ) -> Callable[[Suite], None]:
        def run(self: Suite) -> None:
            async def main() -> None:
                async with self.new_hub() as hub:
                    store = hub.open()
                    await store.create()
                    async with store:
                        await test(self, hub, store)

            self.run(main)

        run.__name__ = test.__name__
        run.__qualname__ = test.__qualname__
        run.__module__ = test.__module__
        run.__doc__ = test.__doc__
        vars(run)["promises"] = numbers
        return run

    return mark


def promises_of(test: object) -> tuple[int, ...]:
    """Which promises a test of the suite checks."""
    found: tuple[int, ...] = getattr(test, "promises", ())
    return found


def promised_tests(suite: type, number: int) -> list[str]:
    """Names of the suite's tests of one promise."""
    return [name for name in dir(suite) if name.startswith("test_") and number in promises_of(getattr(suite, name))]
