"""A host as a process of its own, and requests to it, for tests of samples, packaging and faults."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ROOT", "Answer", "HostProcess", "free_port", "source_environment"]

ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """What a host answered; a redirect or an error status is an answer, too."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


# Below those that the system gives to connections, and in an order of each process's own: between the question and its
# use nobody else takes the port.
_PORTS = random.Random(os.getpid()).sample(range(20_000, 32_000), 12_000)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    for _ in range(len(_PORTS)):
        port = _PORTS.pop(0)
        _PORTS.append(port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port of the loopback address is free")


_TALKATIVE = frozenset({"CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER", "RUN_ID"})


def source_environment(**more: str) -> dict[str, str]:
    """The environment for a process that runs the code of this checkout, installed or not."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "providers")])
    # A CI environment makes the host talk more (functions-host.md 12.3); these tests read what a user sees.
    inherited = {name: value for name, value in os.environ.items() if name not in _TALKATIVE}
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


class HostProcess:
    """A host over an app folder, on a free port; entered: ready, left: stopped.

    What it prints is in `log`. `command` replaces `python -m durable_host start FOLDER`; `--port` is appended.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder.parent / f"{folder.name}-{self.port}.log"
        self._command = [
            *(command or (sys.executable, "-m", "durable_host", "start", str(folder))),
            *("--port", str(self.port)),
            *arguments,
        ]
        self._environment = dict(environment) if environment is not None else source_environment()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self.folder,
                start_new_session=True,
            )
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the host ended with {self.process.returncode}:\n{self.printed()}")
            try:
                if self.request("GET", "/health/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the host was not ready after {_READY_SECONDS} s:\n{self.printed()}")

    def stop(self) -> int:
        """Ask for a clean end; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it at once, as a power cut would."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process = self.process
        if process is None:
            return 0
        self.process = None
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"the host did not stop:\n{self.printed()}") from None

    def printed(self) -> str:
        """Everything that was printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def request(
        self, method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None, timeout: float = 30
    ) -> Answer:
        """Send one request; `url` may be a path, `body` any JSON value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url if url.startswith("http") else self.address + url,
            data=data if data is not None or method == "GET" else b"",
            method=method,
            headers={**({"Content-Type": "application/json"} if data else {}), **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def complete(self, status_url: str, *, within: float = 30) -> Any:
        """Follow a status address until the instance has ended; returns the status document."""
        end = time.monotonic() + within
        while True:
            answer = self.request("GET", status_url)
            if answer.status != 202:
                assert answer.status == 200, (answer, self.printed())
                return answer.json()
            if time.monotonic() > end:
                raise AssertionError(f"not done after {within} s: {answer.json()}\n{self.printed()}")
            time.sleep(0.05)
