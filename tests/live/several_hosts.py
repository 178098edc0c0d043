"""Several hosts on one hub: an app that says which process ran what, and checks of what came out."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.hosting import HostProcess, source_environment
from tests.live.host_app import make_app, wait_until

__all__ = ["LEASE_SECONDS", "SeveralHosts", "begun", "is_ready", "paused", "processes"]

LEASE_SECONDS = 5
"""The shortest that host.json takes."""

_WEBHOOK = "/runtime/webhooks/durabletask"

_APP = """
import os
import time
import uuid

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)


@app.activity_trigger(input_name="task")
def step(task: dict) -> str:
    token = f"{task['name']} {os.getpid()} {uuid.uuid4().hex}"
    runs = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(runs, f"{token}\\n".encode())
    finally:
        os.close(runs)
    time.sleep(task["seconds"])
    return token


def call(context, number, given):
    return context.call_activity(step, {"name": f"{context.instance_id}/{number}", "seconds": given["seconds"]})


@app.orchestration_trigger(context_name="context")
async def chain(context: df.DurableOrchestrationContext) -> list:
    given = context.get_input()
    return [await call(context, number, given) for number in range(given["steps"])]


@app.orchestration_trigger(context_name="context")
def fan(context: df.DurableOrchestrationContext):
    given = context.get_input()
    return (yield context.task_all([call(context, number, given) for number in range(given["steps"])]))


@app.orchestration_trigger(context_name="context")
async def waiter(context: df.DurableOrchestrationContext) -> list:
    value = await context.wait_for_external_event("go")
    return [await call(context, value, {"seconds": 0})]
"""

_HOST_JSON = """{
    "version": "2.0",
    "extensions": {"durableTask": {
        "hubName": "Hub",
        "maxConcurrentActivityFunctions": 4,
        "storageProvider": {"leaseInterval": "00:00:05"}
    }}
}"""


class SeveralHosts:
    """Hosts over one app folder and one hub; entered: none runs yet, left: all are killed.

    Args:
        storage: the hub's address for `--storage`.
    """

    def __init__(self, folder: Path, storage: str, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        self.app = make_app(folder / "app", _APP, host_json=_HOST_JSON)
        self.storage = storage
        self._runs = folder / "runs.log"
        self._arguments = arguments
        self._settings = dict(settings or {})
        self._hosts: list[HostProcess] = []
        self._started: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for host in self._hosts:
            if host.process is not None:
                host.kill()

    def start(self, count: int = 1) -> list[HostProcess]:
        """Start further hosts; returns them, ready."""
        started: list[HostProcess] = []
        for _ in range(count):
            environment = source_environment(RUNS=str(self._runs), **self._settings)
            host = HostProcess(self.app, "--storage", self.storage, *self._arguments, environment=environment)
            self._hosts.append(host)
            host.start()
            started.append(host)
        return started

    def instance(self, host: HostProcess, kind: str, instance_id: str, *, steps: int = 1, seconds: float = 0) -> int:
        """Ask a host for an instance; returns the answer's status. One that was accepted is checked at the end."""
        given = {"steps": steps, "seconds": seconds}
        status = host.request("POST", f"{_WEBHOOK}/orchestrators/{kind}/{instance_id}", given).status
        if status == 202:
            self._started[instance_id] = steps
        return status

    def instances(
        self, host: HostProcess, kind: str, count: int, *, steps: int, seconds: float = 0, prefix: str = ""
    ) -> list[str]:
        """Ask a host for several instances, all of which it has to accept."""
        names = [f"{prefix or kind}-{number}" for number in range(count)]
        for name in names:
            assert self.instance(host, kind, name, steps=steps, seconds=seconds) == 202, host.printed()
        return names

    def raise_event(self, host: HostProcess, instance_id: str, value: object) -> int:
        """Send `go` to a waiter; returns the answer's status."""
        return host.request("POST", f"{_WEBHOOK}/instances/{instance_id}/raiseEvent/go", value).status

    def status(self, host: HostProcess, instance_id: str) -> Any:
        """The instance's status document."""
        return host.request("GET", f"{_WEBHOOK}/instances/{instance_id}").json()

    def runs(self) -> Counter[str]:
        """How often each run of an activity was noted: `instance/number pid token`, once each."""
        return Counter(self._runs.read_text(encoding="ascii").splitlines() if self._runs.exists() else ())

    def running_in(self) -> Counter[int]:
        """How many activities each process has begun."""
        return Counter(int(run.split()[1]) for run in self.runs())

    def check(self, host: HostProcess, *, within: float = 30) -> Counter[int]:
        """Wait until everything that was accepted has completed, each step's result used once.

        Returns:
            How many of the results that were used came from each process.
        """
        used: list[str] = []
        for instance_id, steps in self._started.items():
            document = host.complete(f"{_WEBHOOK}/instances/{instance_id}", within=within)
            assert document["runtimeStatus"] == "Completed", document
            tokens: list[str] = document["output"]
            names = [token.split()[0] for token in tokens]
            assert len(names) == steps, document
            assert names == sorted(set(names), key=lambda name: int(name.rpartition("/")[2])), document
            used += tokens
        runs = self.runs()
        assert [token for token in used if runs[token] != 1] == [], "a result that no run of the activity returned"
        assert len(set(used)) == len(used), "a result was used twice"
        return Counter(int(token.split()[1]) for token in used)


@contextmanager
def paused(host: HostProcess) -> Generator[None]:
    """Inside, the process stands still; afterwards it goes on."""
    assert host.process is not None
    os.killpg(host.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(host.process.pid, signal.SIGCONT)


def is_ready(host: HostProcess) -> bool:
    """Whether the host says that it can take work."""
    return host.request("GET", "/health/ready").status == 200


def processes(hosts: Sequence[HostProcess]) -> list[int]:
    """The hosts' process ids."""
    return [host.process.pid for host in hosts if host.process is not None]


def begun(hosts: SeveralHosts, host: HostProcess, count: int = 1) -> None:
    """Wait until the process has begun so many activities."""
    (pid,) = processes([host])
    wait_until(lambda: hosts.running_in()[pid] >= count, f"process {pid} runs {count} activities")
