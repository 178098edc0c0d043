"""Several hosts on one hub on Azurite: work and partitions spread, and a host that dies or stops harms nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.azure_hosts import VISIBILITY_SECONDS, AzureHosts, override
from tests.live.host_app import command_line, wait_until
from tests.live.several_hosts import LEASE_SECONDS, begun, processes
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live

_LOOK_SECONDS = 10
"""How often a host looks which partitions are free."""

_MOMENTS = 15
"""What a busy machine may take beside the leases."""


@pytest.fixture
def hosts(tmp_path: Path, azurite: Azurite) -> Iterator[AzureHosts]:
    with AzureHosts(tmp_path, azurite) as several:
        yield several


def shared(hosts: AzureHosts) -> bool:
    """Whether two hosts have two partitions each."""
    return sorted(hosts.owners().values()) == [2, 2]


def test_two_hosts_share_partitions_and_work(hosts: AzureHosts) -> None:
    first, second = hosts.start(2)
    wait_until(lambda: shared(hosts), "two partitions each", within=2 * _LOOK_SECONDS + _MOMENTS)

    hosts.instances(first, "fan", 8, steps=6, seconds=0.1)
    names = hosts.instances(first, "waiter", 8, steps=1)
    for name in names:
        wait_until(lambda name=name: hosts.status(second, name)["runtimeStatus"] == "Running", f"{name} waits")
        assert hosts.raise_event(second, name, 0) == 202
    used = hosts.check(second)

    assert set(used) == set(processes([first, second]))
    assert min(used.values()) >= 5, used


def test_a_host_that_stops_gives_its_partitions_and_work_back(hosts: AzureHosts) -> None:
    first, second = hosts.start(2)
    wait_until(lambda: shared(hosts), "two partitions each", within=2 * _LOOK_SECONDS + _MOMENTS)
    hosts.instances(first, "chain", 8, steps=3, seconds=0.3)
    begun(hosts, first, 1)

    assert first.stop() == 0
    begin = time.monotonic()
    hosts.check(second, within=_LOOK_SECONDS + _MOMENTS)

    assert time.monotonic() - begin < _LOOK_SECONDS + _MOMENTS
    assert list(hosts.owners().values()) == [4]
    assert "Traceback" not in first.printed() + second.printed()


def test_a_killed_hosts_work_is_taken_over(hosts: AzureHosts) -> None:
    first, second = hosts.start(2)
    wait_until(lambda: shared(hosts), "two partitions each", within=2 * _LOOK_SECONDS + _MOMENTS)
    hosts.instances(first, "chain", 8, steps=3, seconds=0.5)
    hosts.instances(second, "waiter", 4, steps=1)
    begun(hosts, first, 2)
    begun(hosts, second, 2)

    (killed,) = processes([first])
    first.kill()
    taken_over = time.monotonic() + LEASE_SECONDS + _LOOK_SECONDS + _MOMENTS
    wait_until(lambda: list(hosts.owners().values()) == [4], "all partitions", within=60)
    assert time.monotonic() < taken_over
    for number in range(4):
        assert hosts.raise_event(second, f"waiter-{number}", 0) == 202
    used = hosts.check(second, within=VISIBILITY_SECONDS + _MOMENTS)

    lost = [run for run in hosts.runs() if int(run.split()[1]) == killed]
    assert len(lost) > used[killed], "the kill struck while an activity ran"
    assert "Traceback" not in second.printed()


@pytest.mark.parametrize("manager", ["safe", "legacy"])
def test_hosts_may_share_a_hub_by_blob_leases(tmp_path: Path, azurite: Azurite, manager: str) -> None:
    settings = {override("storageProvider__useTablePartitionManagement"): "false"}
    if manager == "legacy":
        settings[override("storageProvider__useLegacyPartitionManagement")] = "true"
    with AzureHosts(tmp_path, azurite, **settings) as hosts:
        first, second = hosts.start(2)
        hosts.instances(first, "chain", 6, steps=2, seconds=0.1)
        hosts.instances(first, "waiter", 6, steps=1)
        for number in range(6):
            second.complete(f"/runtime/webhooks/durabletask/instances/chain-{number}")

        table = {**hosts.settings, override("storageProvider__useTablePartitionManagement"): "true"}
        table.pop(override("storageProvider__useLegacyPartitionManagement"), None)
        refused = command_line("start", hosts.app, "--port", "0", "--storage", "azureStorage", **table)
        assert (refused.returncode, "is in use by" in refused.stdout + refused.stderr) == (1, True), refused

        assert first.stop() == 0
        for number in range(6):
            assert hosts.raise_event(second, f"waiter-{number}", 0) == 202
        hosts.check(second, within=2 * _LOOK_SECONDS + _MOMENTS)
        assert "Traceback" not in first.printed() + second.printed()


def test_a_hub_with_another_number_of_partitions_is_refused_with_the_fix(hosts: AzureHosts) -> None:
    (host,) = hosts.start()
    hosts.instances(host, "waiter", 1, steps=1)

    other = {**hosts.settings, override("storageProvider__partitionCount"): "8"}
    refused = command_line("start", hosts.app, "--port", "0", "--storage", "azureStorage", **other)

    assert refused.returncode == 1
    said = refused.stdout + refused.stderr
    assert f"Task hub '{hosts.hub}' has 4 partitions, but" in said
    assert "partitionCount is 8" in said
    assert "set it to 4, or choose another hubName" in said
    assert "Traceback" not in said
    assert hosts.raise_event(host, "waiter-0", 0) == 202
    hosts.check(host)
    assert hosts.count(hosts.layout.control_queue(7)) is None, "nothing was made"


def test_of_two_apps_one_processes_a_hub_and_the_other_follows(tmp_path: Path, azurite: Azurite) -> None:
    with AzureHosts(tmp_path, azurite, **{override("appLeaseOptions__acquireInterval"): "00:00:01"}) as hosts:
        red, blue = hosts.start_of("red"), hosts.start_of("blue")
        wait_until(lambda: "processes this task hub" in blue.printed(), "the other app says why it waits")
        hosts.instances(blue, "chain", 4, steps=2, seconds=0.2)
        hosts.instances(red, "waiter", 2, steps=1)
        for number in range(4):
            blue.complete(f"/runtime/webhooks/durabletask/instances/chain-{number}")
        assert hosts.running_in().keys() == set(processes([red]))

        assert red.stop() == 0
        for number in range(2):
            assert hosts.raise_event(blue, f"waiter-{number}", 0) == 202
        hosts.check(blue, within=_LOOK_SECONDS + _MOMENTS)

        assert set(processes([blue])) < hosts.running_in().keys()
        assert len(hosts.running_in()) == 2
        assert blue.printed().count("processes this task hub") == 1
