"""A sample, copied to a folder of its own so that nothing is left in the repository, and run by a real host.

On SQLite, where a sample is at home, and unchanged on PostgreSQL and on Azure Storage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosting import ROOT, HostProcess, source_environment
from tests.servers.azurite import Azurite

RunSample = Callable[..., HostProcess]

_DURABLE_TASK = "AzureFunctionsJobHost__extensions__durableTask__"


@pytest.fixture(params=["sqlite", "postgres", "azureStorage"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that choose the store; none: the default."""
    if request.param == "sqlite":
        return []
    # A killed host's leases have to end there before another one takes over.
    monkeypatch.setenv(f"{_DURABLE_TASK}storageProvider__leaseInterval", "00:00:05")
    if request.param == "postgres":
        return ["--storage", request.getfixturevalue("postgres_database")]
    server: Azurite = request.getfixturevalue("azurite")
    for queue in ("controlQueue", "workItemQueue"):
        monkeypatch.setenv(f"{_DURABLE_TASK}storageProvider__{queue}VisibilityTimeout", "00:01:00")
    monkeypatch.setenv("AzureWebJobsStorage", server.connection_string)
    monkeypatch.setenv(f"{_DURABLE_TASK}hubName", server.new_name())
    return ["--storage", request.param]


@pytest.fixture
def run_sample(tmp_path: Path, storage: list[str]) -> Iterator[RunSample]:
    """Call it with the sample's name, host arguments and `settings` for the environment."""
    running: list[HostProcess] = []

    def run(name: str, *arguments: str, settings: dict[str, str] | None = None) -> HostProcess:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(ROOT / "samples" / name, folder, ignore=shutil.ignore_patterns(".durable", "__pycache__"))
        host = HostProcess(folder, *storage, *arguments, environment=source_environment(**(settings or {})))
        running.append(host)
        host.start()
        return host

    yield run
    for host in running:
        host.stop()
