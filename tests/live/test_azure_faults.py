"""Azurite that goes away under running hosts, and wires that break: nothing acknowledged is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hosting import HostProcess
from tests.live.azure_hosts import AzureHosts, Wire
from tests.live.host_app import command_line, wait_until
from tests.live.several_hosts import begun, is_ready
from tests.servers.azurite import Azurite, find_azurite

pytestmark = pytest.mark.live

_RESUMES = 15.0
"""Seconds within which work goes on once the server is back."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Azurite]:
    """An Azurite that the test may stop and start again on the same data."""
    if find_azurite() is None:
        text = "Azurite is not installed; run `make servers`: NOT TESTED on Azure Storage"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    with Azurite(tmp_path / "azurite", in_memory=False) as own:
        yield own


class _Starter:
    """Starts instances through a host until it is told to stop; only what was accepted is expected to end."""

    def __init__(self, hosts: AzureHosts, host: HostProcess) -> None:
        self._hosts, self._host = hosts, host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.accepted = 0

    def __enter__(self) -> _Starter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            with suppress(OSError):
                status = self._hosts.instance(self._host, "chain", f"during-{number}", steps=2, seconds=0.01)
                self.accepted += status == 202

    def wait_for_more(self) -> None:
        before = self.accepted
        wait_until(lambda: self.accepted >= before + 3, "starts are accepted", within=_RESUMES)


def test_work_goes_on_when_the_server_is_back(tmp_path: Path, server: Azurite) -> None:
    with AzureHosts(tmp_path, server) as hosts:
        (host,) = hosts.start()
        hosts.instances(host, "waiter", 3, steps=1)
        hosts.instances(host, "fan", 3, steps=5, seconds=0.3)
        with _Starter(hosts, host) as starter:
            begun(hosts, host, 3)
            starter.wait_for_more()
            server.stop()
            wait_until(lambda: not is_ready(host), "the probe fails")
            told = host.request("GET", "/health/ready").json()["reason"]
            assert host.request("GET", "/health/live").status == 200
            server.start()
            back = time.monotonic()
            wait_until(lambda: is_ready(host), "it is ready", within=_RESUMES)
            starter.wait_for_more()
            assert time.monotonic() - back < 2 * _RESUMES
        for number in range(3):
            assert hosts.raise_event(host, f"waiter-{number}", 0) == 202
        # A get whose answer was lost hides its messages for a minute.
        hosts.check(host, within=75)

        assert "127.0.0.1" in told
        for text in (told, host.printed()):
            assert server.key not in text
            assert "Traceback" not in text, text


def test_a_host_that_cannot_reach_the_server_says_so_and_can_be_stopped(tmp_path: Path, server: Azurite) -> None:
    with AzureHosts(tmp_path, server) as hosts:
        (host,) = hosts.start()
        assert hosts.instance(host, "waiter", "before") == 202
        server.stop()

        begin = time.monotonic()
        answer = host.request("POST", "/runtime/webhooks/durabletask/orchestrators/waiter/during", {"steps": 1})
        ended = command_line("start", hosts.app, "--port", "0", "--storage", "azureStorage", **hosts.settings)
        code = host.stop()

        assert answer.status in {500, 503}
        assert time.monotonic() - begin < 60
        assert (code, ended.returncode) == (0, 1)
        assert "127.0.0.1" in ended.stdout + ended.stderr
        for text in (ended.stdout + ended.stderr, host.printed(), answer.body.decode()):
            assert server.key not in text
            assert "Traceback" not in text, text


def test_cut_connections_lose_nothing(tmp_path: Path, azurite: Azurite) -> None:
    with Wire(azurite) as wire, AzureHosts(tmp_path, azurite, connection=wire.connection) as hosts:
        first, second = hosts.start(2)
        hosts.instances(first, "fan", 4, steps=4, seconds=0.1)
        with _Starter(hosts, first) as starter:
            begun(hosts, first, 1)
            for _ in range(8):
                wire.cut()
                time.sleep(0.4)
            starter.wait_for_more()
        # A get whose answer was lost hides its messages for a minute.
        hosts.check(second, within=75)

        assert wire.cuts > 8
        for host in (first, second):
            assert is_ready(host)
            assert "Traceback" not in host.printed(), host.printed()
