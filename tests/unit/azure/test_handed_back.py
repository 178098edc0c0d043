"""What is handed back is noted for operators, since a queue does not show what it hides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durable_host.environment import Environment
from durable_host.model.history import EventRaised
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.messages import Message
from durable_host.storage.contract import HandedBack
from durable_host.testing.environment import SimulatedClock
from durable_host_providers.azure_storage.handed_back import HandedBackTable
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.mail import Mail
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import QueueMessage
from durable_host_providers.azure_storage.settings import AzureSettings
from durable_host_providers.azure_storage.simulated import SimulatedAccount, SimulatedService
from durable_host_providers.azure_storage.wire.messages import Stamp, pack_message

LAYOUT = Layout("Hub")
QUEUE = LAYOUT.control_queue(0)


class Hub:
    """A hub's mail on a simulated account, with a clock that stands still."""

    def __init__(self) -> None:
        self.clock = SimulatedClock(lambda: 0.0)
        environment = Environment(clock=self.clock)
        self.service = SimulatedService(self.clock.now)
        self.account = SimulatedAccount(self.service)
        self.notes = HandedBackTable(self.account, LAYOUT.handed_back, environment)
        blobs = PayloadBlobs(self.account, LAYOUT.large_messages)
        self.mail = Mail(self.account, AzureSettings(LAYOUT), environment, blobs, self.notes)
        self.queue = self.account.queue(QUEUE)

    async def deliver(self) -> QueueMessage:
        """Fetch the one message, which cannot be read."""
        (stored,) = await self.queue.get(1, visibility_s=300)
        assert await self.mail.read_control(self.queue, stored, 300.0) is None
        return stored

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))


async def new_hub(text: str) -> Hub:
    hub = Hub()
    await hub.queue.create()
    await hub.queue.put(text)
    return hub


def unknown_kind() -> str:
    event = EventRaised(timestamp=datetime(2026, 1, 1, tzinfo=UTC), name="go", input="0")
    message = Message(id=MessageId("m"), target=InstanceId("a"), event=event)
    return pack_message(message, Stamp("0" * 32, 1)).text.replace("EventRaisedEvent", "MuchLaterEvent")


async def test_a_message_of_an_unknown_kind_is_handed_back_later_and_later_and_listed_from_the_second_time_on() -> None:
    hub = await new_hub(unknown_kind())

    await hub.deliver()
    assert await hub.notes.waiting(()) == ()
    for deliveries in range(2, 10):
        hub.pass_time(2 ** (deliveries - 1) + 1)
        await hub.deliver()

        (found,) = await hub.notes.waiting(())
        again_at = hub.clock.now() + timedelta(seconds=2**deliveries)
        assert found == HandedBack("orchestration", InstanceId("a"), "MuchLater", deliveries, again_at)
        assert await hub.queue.get(1, visibility_s=1) == []

    assert await hub.queue.count() == 1
    assert LAYOUT.poison not in hub.service.queues
    assert hub.account.requests["table.create"] == 1


async def test_what_is_due_again_is_listed_while_the_queue_shows_it() -> None:
    hub = await new_hub(unknown_kind())
    await hub.deliver()
    hub.pass_time(3)
    stored = await hub.deliver()

    hub.pass_time(5)

    assert await hub.notes.waiting(()) == ()
    (found,) = await hub.notes.waiting({stored.id})
    assert (found.deliveries, found.visible_at) == (2, None)


async def test_old_notes_are_removed() -> None:
    hub = await new_hub(unknown_kind())
    await hub.deliver()
    hub.pass_time(3)
    await hub.deliver()

    hub.pass_time(3_700)
    assert await hub.notes.waiting(()) == ()

    assert (await hub.account.table(LAYOUT.handed_back).query()).rows == []


async def test_a_text_that_is_no_envelope_is_moved_with_its_reason_the_fifth_time() -> None:
    hub = await new_hub("nothing that we know")

    for deliveries in range(1, 5):
        await hub.deliver()
        assert LAYOUT.poison not in hub.service.queues
        hub.pass_time(2**deliveries + 1)
    await hub.deliver()

    assert await hub.queue.count() == 0
    (moved,) = await hub.account.queue("hub-poison").peek(1)
    assert "nothing that we know" in moved.text
    assert "is no task hub message" in moved.text
    assert LAYOUT.handed_back.lower() not in hub.service.tables
