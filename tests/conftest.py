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
from collections.abc import Iterator

import pytest

from durable_host.testing.loop import SimulatedLoop
from tests.servers.azurite import azurite
from tests.servers.postgres import NoPostgresError, PostgresServer

__all__ = ["azurite"]  # a fixture, and used by name only


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "simulated(seed=0): run an async test on virtual time; order drawn from the seed"
    )


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
