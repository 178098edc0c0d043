"""What a hub's queues may hold: everything twice, in any order, and what nobody can process."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from durable_host.engine.client import TaskHubClient
from durable_host.environment import Environment
from durable_host.model.history import EventRaised
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.messages import ActivityTask, Message
from durable_host.storage.contract import StorageOptions
from durable_host_providers.azure_storage import provider
from durable_host_providers.azure_storage.wire.messages import Stamp, pack_message, pack_task
from tests.live.azure_hosts import AzureHosts, Shuffler
from tests.live.host_app import command_line, wait_until
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live


def test_messages_twice_and_in_another_order_change_nothing(tmp_path: Path, azurite: Azurite) -> None:
    with AzureHosts(tmp_path, azurite) as hosts:
        first, second = hosts.start(2)
        with Shuffler(hosts, seed=1) as shuffler:
            hosts.instances(first, "chain", 6, steps=3)
            # More at once than the hosts run: the rest is in the queue for everybody.
            hosts.instances(second, "fan", 4, steps=5, seconds=0.2)
            names = hosts.instances(first, "waiter", 6, steps=1)
            for name in names:
                assert hosts.raise_event(second, name, 0) == 202
            hosts.check(first, within=60)
        time.sleep(2)

        hosts.check(second)
        assert set(shuffler.doubled) > {hosts.layout.work_items}
        for host in (first, second):
            assert "Traceback" not in host.printed(), host.printed()


_KNOWN = InstanceId("waiter-0")


def _unknown_kind() -> str:
    """An envelope to an instance, of a kind that a later version may bring."""
    event = EventRaised(timestamp=datetime.now(UTC), name="go", input="0")
    message = Message(id=MessageId("later"), target=_KNOWN, event=event)
    return pack_message(message, Stamp("0" * 32, 1)).text.replace("EventRaisedEvent", "MuchLaterEvent")


def _unknown_activity() -> str:
    """A request for an activity that another app has."""
    task = ActivityTask(
        instance_id=_KNOWN,
        execution_id=ExecutionId("1"),
        task_id=0,
        dispatch_id=DispatchId("of-another-app"),
        name="nowhere",
        input="1",
    )
    return pack_task(task, Stamp("1" * 32, 2), at=datetime.now(UTC)).text


async def _start_elsewhere(hosts: AzureHosts) -> None:
    """Start an orchestrator that another app has."""
    options = StorageOptions(hosts.hub, {}, hosts.app, setting=hosts.settings.get, worker=False)
    async with provider.open(options, Environment()).hub as store:
        await TaskHubClient(store).start("elsewhere", instance_id="elsewhere-0")


def test_what_is_no_message_is_moved_and_what_is_unknown_waits(tmp_path: Path, azurite: Azurite) -> None:
    with AzureHosts(tmp_path, azurite) as hosts:
        (host,) = hosts.start()
        hosts.instances(host, "waiter", 1, steps=1)
        layout, poison = hosts.layout, f"{hosts.hub.lower()}-poison"
        control = layout.control_queue_for(_KNOWN)
        assert hosts.count(poison) is None

        hosts.put(control, "no envelope")
        hosts.put(layout.work_items, "{}")
        hosts.put(control, _unknown_kind())
        hosts.put(layout.work_items, _unknown_activity())
        asyncio.run(_start_elsewhere(hosts))
        # Handed back after 2, 4, 8 and 16 seconds; the fifth time it is moved.
        wait_until(lambda: (hosts.count(poison) or 0) >= 2, "the texts are moved", within=60)

        notes = [json.loads(text) for text in hosts.peek(poison)]
        assert {(note["queue"], note["text"]) for note in notes} == {
            (control, "no envelope"),
            (layout.work_items, "{}"),
        }
        assert all("is no task hub message" in note["reason"] for note in notes), notes
        assert sum(hosts.count(name) or 0 for name in layout.control_queues) == 2, "what is unknown waits"
        assert hosts.count(layout.work_items) == 1
        info = command_line("hub", "info", hosts.app, "--storage", "azureStorage", "--json", **hosts.settings)
        assert info.returncode == 0, info
        handed_back = json.loads(info.stdout)["handedBack"]
        found = {(each["kind"], each["instanceId"], each["name"]) for each in handed_back}
        assert found == {
            ("orchestration", _KNOWN, "MuchLater"),
            ("orchestration", "elsewhere-0", "elsewhere"),
            ("activity", _KNOWN, "nowhere"),
        }
        assert all(each["deliveries"] >= 3 for each in handed_back)
        printed = command_line("hub", "info", hosts.app, "--storage", "azureStorage", **hosts.settings).stdout
        assert all(name in printed for name in ("MuchLater", "elsewhere", "nowhere"))

        hosts.instances(host, "chain", 3, steps=2)
        assert hosts.raise_event(host, _KNOWN, 0) == 202
        hosts.check(host)
        assert host.stop() == 0
        deleted = command_line("hub", "delete", hosts.app, "--storage", "azureStorage", "--yes", **hosts.settings)
        assert deleted.returncode == 0, deleted
        assert hosts.count(poison) is None
