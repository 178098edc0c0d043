"""The same seed gives the same run, to the last step, in any process on any supported Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.hubs import HUBS
from tests.simulation.suites import run_seed

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys
sys.path[:0] = {path!r}
from tests.simulation.suites import run_seed
for hub in sys.argv[1:]:
    for scenario in ("chain", "events", "children", "eternal"):
        print(hub, scenario, run_seed(hub, scenario, 5).digest)
"""


@pytest.mark.parametrize("hub", sorted(HUBS))
def test_same_seed_gives_the_same_run(hub: str) -> None:
    first = run_seed(hub, "children", 11)
    second = run_seed(hub, "children", 11)

    assert first.digest == second.digest
    assert first.digest != run_seed(hub, "children", 12).digest


def test_runs_do_not_depend_on_the_order_of_hashes() -> None:
    outputs = {_run(sys.executable, seed) for seed in ("0", "1", "77")}

    assert len(outputs) == 1


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_runs_are_the_same_on_every_python(version: str) -> None:
    python = f"python{version}"
    try:
        subprocess.run([python, "-c", "import msgspec"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{python} with msgspec is not installed")

    assert _run(python, "0") == _run(sys.executable, "0")


def _run(python: str, hash_seed: str) -> str:
    program = _PROGRAM.format(
        path=[path for path in sys.path if "site-packages" not in path and "lib/python" not in path]
    )
    return subprocess.run(
        [python, "-c", program, *sorted(HUBS)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    ).stdout
