"""Where a run happens: a fresh file or database, and processes that are given its address."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.workloads import AZURE, REPLAY, SERVER_PID

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

__all__ = ["PEERS", "PEER_PYTHON", "ROOT", "Figures", "Places", "run_ours", "run_peer"]

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ROOT / ".venv-peer" / "bin" / "python"
PEERS = {"dbos": "dbos", "absurd": "absurd-sdk"}
"""Peers, and the distribution whose version is printed."""

_TIMEOUT_SECONDS = 400

Figures = dict[str, float]


class Places:
    """Fresh places for a provider, one for each run; entered once for the whole command.

    Attributes:
        provider: ours.
        server: the PostgreSQL server of this command, when the provider needs one.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.server: PostgresServer | None = None
        self._connection: str | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Places:
        if self.provider == "postgres":
            from benchmarks.postgres import running_server  # the driver is installed for tests only

            self.server = self._stack.enter_context(running_server())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def fresh(self) -> Generator[str, None, None]:
        """The address of an empty file or database."""
        if self.server is not None:
            from benchmarks.postgres import fresh_database

            with fresh_database(self.server) as url:
                yield url
            return
        if self.provider == AZURE:
            from benchmarks.azurite import fresh_azurite  # the client libraries are installed for tests only

            with fresh_azurite() as server:
                self._connection = server.connection_string
                yield "azureStorage:"
            return
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'hub.db'}"

    def environment(self) -> dict[str, str]:
        """For processes: where our code is, and which server's time counts as theirs."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "providers")])
        environment = {**os.environ, "PYTHONPATH": path}
        if self.server is not None:
            environment[SERVER_PID] = str(self.server.pid)
        if self._connection is not None:
            environment["AzureWebJobsStorage"] = self._connection
        return environment

    def call(self, command: Sequence[str]) -> Figures:
        """Run a process to its end: the JSON object on its last line.

        Raises:
            SystemExit: it failed.
        """
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command[:4])}: exit code {done.returncode}")
        figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
        return figures


def run_ours(places: Places, family: str, size: int, kind: str) -> Figures:
    """One run of ours in a fresh place; another process reads the results back where they outlive the first."""
    with places.fresh() as url:
        tail = [family, str(size), kind, places.provider, url]
        figures = places.call([sys.executable, "-m", "benchmarks.ours", "run", *tail])
        if places.provider != "memory":
            places.call([sys.executable, "-m", "benchmarks.ours", "check", *tail])
    return figures


def run_peer(places: Places, peer: str, family: str, size: int, kind: str) -> Figures:
    """One run of a peer in a fresh place; another process reads the results back."""
    with places.fresh() as url:
        if peer == REPLAY:
            return places.call([sys.executable, "-m", "benchmarks.azure_replay", family, str(size)])
        tail = [family, str(size), kind, url]
        script = str(ROOT / "benchmarks" / f"peer_{peer}.py")
        figures = places.call([str(PEER_PYTHON), script, "run", *tail])
        places.call([str(PEER_PYTHON), script, "check", *tail])
    return figures
