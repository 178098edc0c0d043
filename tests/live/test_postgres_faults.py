"""A PostgreSQL server that goes away under running hosts: they say so, and go on by themselves when it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hosting import HostProcess
from tests.live.host_app import command_line, wait_until
from tests.live.several_hosts import SeveralHosts, begun, is_ready
from tests.servers.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.live

_RESUMES = 5.0
"""Seconds within which work goes on once the server is back."""


@pytest.fixture
def server(own_postgres_server: PostgresServer) -> PostgresServer:
    return own_postgres_server


@pytest.fixture
def hosts(tmp_path: Path, server: PostgresServer) -> Iterator[SeveralHosts]:
    with SeveralHosts(tmp_path, server.url(server.create_database())) as several:
        yield several


class _Starter:
    """Starts instances through a host, one after another, until it is told to stop; counts what was refused."""

    def __init__(self, hosts: SeveralHosts, host: HostProcess, prefix: str) -> None:
        self._hosts, self._host, self._prefix = hosts, host, prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.accepted = 0
        self.refused = 0

    def __enter__(self) -> _Starter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            status = 0
            with suppress(OSError):
                status = self._hosts.instance(self._host, "chain", f"{self._prefix}-{number}", steps=3, seconds=0.01)
            if status == 202:
                self.accepted += 1
            else:
                self.refused += 1
                self._stop.wait(0.02)


def _restarted(server: PostgresServer) -> None:
    server.restart("fast")


def _restarted_at_once(server: PostgresServer) -> None:
    server.restart("immediate")


def _killed(server: PostgresServer) -> None:
    server.kill()
    server.start()


def _away(server: PostgresServer) -> None:
    server.stop("fast")
    time.sleep(4)
    server.start()


def _cut(server: PostgresServer) -> None:
    for (name,) in server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test%'"):
        server.cut_connections(name)


@pytest.mark.parametrize(
    "fault", [_restarted, _restarted_at_once, _killed, _away, _cut], ids=lambda fault: fault.__name__
)
def test_nothing_acknowledged_is_lost_or_done_twice(
    hosts: SeveralHosts, server: PostgresServer, fault: Callable[[PostgresServer], None]
) -> None:
    first, second = hosts.start(2)
    hosts.instances(first, "fan", 4, steps=5, seconds=0.2)

    with _Starter(hosts, first, "a") as one, _Starter(hosts, second, "b") as two:
        begun(hosts, first, 3)
        begun(hosts, second, 3)
        for _ in range(2):
            before = one.accepted, two.accepted
            fault(server)
            back = time.monotonic()
            wait_until(
                lambda before=before: one.accepted > before[0] + 3 and two.accepted > before[1] + 3,
                "starts are accepted",
            )
            wait_until(lambda: is_ready(first) and is_ready(second), "both are ready")
            assert time.monotonic() - back < _RESUMES
    hosts.check(first, within=30)

    for host in (first, second):
        assert PASSWORD not in host.printed()
        assert "Traceback" not in host.printed(), host.printed()


def test_work_goes_on_within_seconds_of_the_servers_return(hosts: SeveralHosts, server: PostgresServer) -> None:
    (host,) = hosts.start()
    hosts.instances(host, "waiter", 5, steps=1)
    for number in range(5):
        wait_until(lambda n=number: hosts.status(host, f"waiter-{n}")["runtimeStatus"] == "Running", "they wait")

    server.stop("immediate")
    wait_until(lambda: not is_ready(host), "the probe fails")
    time.sleep(3)
    server.start()
    back = time.monotonic()
    for number in range(5):
        wait_until(lambda n=number: hosts.raise_event(host, f"waiter-{n}", 0) == 202, "the event is taken", within=5)
    hosts.check(host)

    assert time.monotonic() - back < _RESUMES


def test_a_server_that_is_gone_is_told_without_its_password(hosts: SeveralHosts, server: PostgresServer) -> None:
    (host,) = hosts.start()
    assert hosts.instance(host, "waiter", "before") == 202

    server.stop("immediate")
    answer = host.request("POST", "/runtime/webhooks/durabletask/orchestrators/waiter/during", {"steps": 1})
    wait_until(lambda: not is_ready(host), "the probe fails")
    ready = host.request("GET", "/health/ready")
    command = command_line("instances", "list", hosts.app, "--storage", hosts.storage)

    assert answer.status in {500, 503}
    assert ready.status == 503
    reason = ready.json()["reason"]
    assert f"127.0.0.1:{server.port}" in reason or (str(server.port) in reason and "127.0.0.1" in reason), reason
    assert host.request("GET", "/health/live").status == 200
    assert command.returncode == 1
    assert str(server.port) in command.stderr
    for text in (host.printed(), reason, answer.body.decode(), command.stderr, command.stdout):
        assert PASSWORD not in text
        assert "secret%20of" not in text
        assert "Traceback" not in text, text


def test_a_host_whose_server_is_gone_can_be_stopped(hosts: SeveralHosts, server: PostgresServer) -> None:
    (host,) = hosts.start()
    hosts.instances(host, "chain", 6, steps=3, seconds=0.5)
    begun(hosts, host, 2)

    server.stop("immediate")
    begin = time.monotonic()
    code = host.stop()

    assert code == 0
    assert time.monotonic() - begin < 20
    assert "Traceback" not in host.printed(), host.printed()


def test_a_host_that_cannot_reach_the_server_does_not_start(hosts: SeveralHosts, server: PostgresServer) -> None:
    server.stop()

    ended = command_line("start", hosts.app, "--port", "0", "--storage", hosts.storage)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr, ended
    assert str(server.port) in ended.stderr, ended
    assert PASSWORD not in ended.stdout + ended.stderr


def test_a_connection_that_hangs_is_noticed(hosts: SeveralHosts, server: PostgresServer) -> None:
    (host,) = hosts.start()
    hosts.instances(host, "chain", 4, steps=2, seconds=0.1)
    hosts.check(host)

    with server.paused():
        wait_until(lambda: host.request("GET", "/health/ready", timeout=30).status == 503, "the probe fails")
    back = time.monotonic()
    wait_until(lambda: is_ready(host), "it recovers")
    hosts.instances(host, "chain", 4, steps=2, seconds=0.1, prefix="after")
    hosts.check(host)

    assert time.monotonic() - back < 2 * _RESUMES


def test_hosts_follow_to_the_server_that_takes_over(tmp_path: Path, server: PostgresServer) -> None:
    name = server.create_database()
    with PostgresServer(standby_of=server) as standby:
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        both = server.url(name).replace(f"127.0.0.1:{server.port}", f"127.0.0.1:{server.port},127.0.0.1:{standby.port}")
        with SeveralHosts(tmp_path, f"{both}?target_session_attrs=read-write") as hosts:
            first, second = hosts.start(2)
            hosts.instances(first, "fan", 4, steps=5, seconds=0.2)
            with _Starter(hosts, first, "a") as starter:
                begun(hosts, first, 3)
                server.kill()
                before = starter.accepted
                standby.promote()
                back = time.monotonic()
                wait_until(lambda: starter.accepted > before + 3, "starts are accepted")
                wait_until(lambda: is_ready(first) and is_ready(second), "both are ready")
                assert time.monotonic() - back < _RESUMES
            hosts.check(second)
