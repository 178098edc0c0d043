"""The host processes of a chaos run: started, struck, started again, and ended by their process ids."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import aiohttp
import msgspec

from tests.chaos.host import READY, VARIABLE, HostSettings
from tests.hosting import ROOT, free_port, source_environment

__all__ = ["HostSlot"]

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0  # the drain takes 10, the machine may be busy
_LAST_LINES = 15


class HostSlot:
    """One host, and when it has gone, another.

    Args:
        number: from 1; names its files.
        whole: `durable-host start` rather than a TaskHubWorker.
        counts: gets what was done to it.
        problems: gets what must not be.
        down: whether the store is out of reach, so that a host that starts may end.
    """

    def __init__(
        self,
        number: int,
        settings: HostSettings,
        *,
        whole: bool,
        random: Random,
        counts: Counter[str],
        problems: list[str],
        down: asyncio.Event,
    ) -> None:
        self.number = number
        self.log = Path(settings.folder) / f"host-{number}.log"
        self._settings = msgspec.structs.replace(settings, journal=f"host-{number}.journal")
        if whole:
            self._settings = msgspec.structs.replace(self._settings, app=str(_make_app(settings)))
        self._random = random
        self._counts = counts
        self._problems = problems
        self._down = down
        self._process: asyncio.subprocess.Process | None = None
        self._expected: set[int] = set()
        self._port = 0
        self._is_ready = False
        self._over = False
        self._pauses = 0
        self._began_down = False

    @property
    def is_ready(self) -> bool:
        """Whether it has started and not ended."""
        return self._is_ready and self._process is not None and self._process.returncode is None

    @property
    def is_able(self) -> bool:
        """Whether it is ready and not paused."""
        return self.is_ready and not self._pauses

    async def run(self) -> None:
        """Keep a host running until `stop` or cancellation."""
        while not self._over:
            process = await self._spawn()
            if await self._became_ready(process):
                self._is_ready = True
                self._counts["hosts started"] += 1
            code = await process.wait()
            if code not in self._expected:
                self._ended(code)
            self._is_ready = False
            self._expected.clear()
            if not self._over:
                await asyncio.sleep(self._random.random() * 2)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._began_down = self._down.is_set()
        settings = msgspec.structs.replace(self._settings, port=free_port())
        environment = source_environment(**{VARIABLE: msgspec.json.encode(settings).decode()})
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.host"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if settings.app is None else log,
                stderr=log,
                env=environment,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the run, which then ends its hosts
            )
        self._port = settings.port
        return self._process

    async def _became_ready(self, process: asyncio.subprocess.Process) -> bool:
        try:
            async with asyncio.timeout(_START_SECONDS):
                if process.stdout is not None:
                    return (await process.stdout.readline()).decode().strip() == READY
                return await self._answers(process)
        except TimeoutError:
            if not (self._began_down or self._down.is_set() or self._over):
                self._problems.append(f"host {self.number} was not ready after {_START_SECONDS:.0f} s{self._tail()}")
            self._strike(signal.SIGKILL, expected=-signal.SIGKILL)
            return False

    async def _answers(self, process: asyncio.subprocess.Process) -> bool:
        url = f"http://127.0.0.1:{self._port}/health/ready"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while process.returncode is None:
                try:
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return True
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.1)
        return False

    def _ended(self, code: int) -> None:
        if not self._is_ready and (self._began_down or self._down.is_set()):
            self._counts["starts without a store"] += 1
            return
        self._problems.append(f"host {self.number} ended by itself with exit code {code}{self._tail()}")

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return "".join(f"\n    {line}" for line in lines)

    # Strikes.

    def _strike(self, number: signal.Signals, *, expected: int | None = None) -> bool:
        process = self._process
        if process is None or process.returncode is not None:
            return False
        if expected is not None:
            self._expected.add(expected)
        process.send_signal(number)
        return True

    def kill(self) -> None:
        """kill -9."""
        if self._strike(signal.SIGKILL, expected=-signal.SIGKILL):
            self._counts["kills"] += 1

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        process = self._process
        if process is None or not self._strike(signal.SIGSTOP):
            return
        self._counts["pauses"] += 1
        self._pauses += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pauses -= 1
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)

    async def stop(self, *, last: bool = False) -> None:
        """Ask it to end in good order; `last`: no other takes its place."""
        self._over = self._over or last
        process = self._process
        if process is None or process.returncode is not None or not (self._is_ready or last):
            return
        self._strike(signal.SIGTERM, expected=0)
        if not self._is_ready:
            self._expected |= {1, 130, 143, -signal.SIGTERM}  # it had not installed its handlers
        self._counts["stops"] += 1
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            self._problems.append(f"host {self.number} did not stop within {_STOP_SECONDS:.0f} s{self._tail()}")
            self._strike(signal.SIGKILL, expected=-signal.SIGKILL)

    def end(self) -> None:
        """End it now, whatever it does."""
        self._over = True
        self._strike(signal.SIGKILL, expected=-signal.SIGKILL)


_APP = """\
import durable_host as df
from tests.chaos.app import ACTIVITIES, ORCHESTRATORS

app = df.FunctionApp()
for each in ORCHESTRATORS:
    app.orchestration_trigger(context_name="context")(each)
for each in ACTIVITIES:
    app.activity_trigger(input_name="task")(each)
"""


def _make_app(settings: HostSettings) -> Path:
    """An app folder with the same functions; hosts of one app share it."""
    folder = Path(settings.folder) / "app"
    folder.mkdir(exist_ok=True)
    (folder / "function_app.py").write_text(_APP, encoding="utf-8")
    minutes, seconds = divmod(settings.lease, 60)
    durable = {
        "hubName": settings.hub,
        "storeInputsInOrchestrationHistory": True,
        "storageProvider": {"leaseInterval": f"00:{int(minutes):02}:{seconds:06.3f}"},
    }
    host_json = {"version": "2.0", "extensions": {"durableTask": durable}}
    (folder / "host.json").write_bytes(msgspec.json.encode(host_json))
    return folder
