"""How this project's tests run.

`async def` tests just work. Plain ones run on a real loop; those marked `@pytest.mark.simulated` run on virtual time
with the order drawn from a seed: the marker's `seed=…`, else the test's own parameter named `seed`, else 0.

A test that needs PostgreSQL asks for `postgres_server` (one for all tests), `postgres_database` (the address of an
empty database on it) or `own_postgres_server` (one to be stopped and killed by the test).
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_host.testing.loop import SimulatedLoop
from tests.lanes import Lanes, lane_of, step_back, turn_of
from tests.servers.azurite import azurite
from tests.servers.postgres import NoPostgresError, PostgresServer

__all__ = ["azurite"]  # a fixture, and used by name only


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "simulated(seed=0): run an async test on virtual time; order drawn from the seed"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    return Lanes(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn_of(item.nodeid))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if hasattr(item.config, "workerinput") and lane_of(item.nodeid) == "computing":
        step_back()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What passing tests have to tell."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_sep("-", report.nodeid)
                terminalreporter.write_line(str(text))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Call it with what shall be read at the end of the run, should the test pass."""
    return lambda text: request.node.user_properties.append(("told", text))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # pyright: ignore[reportPrivateUsage]
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    marker = pyfuncitem.get_closest_marker("simulated")
    if marker is None:
        with asyncio.Runner() as runner:
            runner.run(pyfuncitem.obj(**arguments))
        return True
    seed: int = marker.kwargs.get("seed", arguments.get("seed", 0))
    try:
        with asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed)) as runner:
            runner.run(pyfuncitem.obj(**arguments))
    except Exception as error:
        error.add_note(f"simulated with seed {seed}")
        raise
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real server that all tests share; they make databases of their own and do not stop it."""
    with _server() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database, as `--storage` takes it, with the superuser's name and password."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A real server that the test may stop, restart and kill."""
    with _server() as server:
        yield server


def _server() -> PostgresServer:
    try:
        return PostgresServer()
    except NoPostgresError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"{error}: NOT TESTED on PostgreSQL")
