"""How this project's tests run.

`async def` tests just work. Plain ones run on a real loop; those marked `@pytest.mark.simulated` run on virtual time
with the order drawn from a seed: the marker's `seed=…`, else the test's own parameter named `seed`, else 0.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest

from durable_host.testing.loop import SimulatedLoop


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
