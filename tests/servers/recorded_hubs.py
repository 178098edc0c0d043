"""Recorded task hubs, brought back into a storage account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from durable_host_providers.azure_storage.ports import StorageAccount, TableAction, TableOperation, Value
from tests.azure_recordings import HUB, RecordedMessage, recorded_hub

__all__ = ["MovedHub", "due_at_once", "when_recorded"]

_BLOBS = "http://127.0.0.1:10000/devstoreaccount1/"
"""Where the recorded hubs' blobs were; references to them begin like this."""


def due_at_once(delay_s: int) -> int:
    """Timers fire, scheduled starts start, and what a dead worker held comes back."""
    return 0


def when_recorded(delay_s: int) -> int:
    """As long as it was invisible when it was recorded."""
    return delay_s


class MovedHub:
    """One recording, under the name of a hub.

    Args:
        kind: one of `RECORDINGS`.
        hub: the hub's name in the account; it is put in the place of the recording's own wherever that stands.

    Attributes:
        tables, queues, containers: names in the account and what is in them: rows, texts with the delay that they had
            when they were recorded, and blobs.
    """

    def __init__(self, kind: str, hub: str = HUB) -> None:
        recorded = recorded_hub(kind)
        self.hub = hub
        self.tables = {self._renamed(name): [self._row(row) for row in rows] for name, rows in recorded.tables.items()}
        self.queues = {
            self._renamed(name): [
                (message.text, _delay_s(message)) for message in sorted(messages, key=lambda each: each.inserted)
            ]
            for name, messages in recorded.queues.items()
        }
        self.containers = {
            self._renamed(name): {
                self._renamed(blob) if _is_ours(name) else blob: self._content(name, data)
                for blob, data in blobs.items()
            }
            for name, blobs in recorded.blobs.items()
        }

    async def load(self, account: StorageAccount, delay: Callable[[int], int] = due_at_once) -> None:
        """Write everything into an account that has no such hub.

        Args:
            delay: seconds for which a message stays invisible, by those that it had when it was recorded.
        """
        base = account.blobs("x").url("").removesuffix("x/")
        for name, rows in self.tables.items():
            table = account.table(name)
            await table.create()
            partitions: dict[str, list[TableOperation]] = {}
            for row in rows:
                moved = {column: _moved(value, base, self.hub) for column, value in row.items()}
                operation = TableOperation(TableAction.INSERT, moved)
                partitions.setdefault(str(row["PartitionKey"]), []).append(operation)
            for operations in partitions.values():
                for first in range(0, len(operations), 100):
                    await table.transact(operations[first : first + 100])
        for name, messages in self.queues.items():
            queue = account.queue(name)
            await queue.create()
            for text, delay_s in messages:
                await queue.put(text, visibility_s=delay(delay_s))
        for name, blobs in self.containers.items():
            container = account.blobs(name)
            await container.create()
            for blob, content in blobs.items():
                await container.write(blob, content)

    def _renamed(self, name: str) -> str:
        # The part after the name tells tables, which keep the case, from queues and blobs, which have none.
        return name.replace(f"{HUB}-", f"{self.hub.lower()}-", 1).replace(HUB, self.hub, 1)

    def _row(self, recorded: Mapping[str, Value]) -> Mapping[str, Value]:
        values = {name: value for name, value in recorded.items() if name != "Timestamp"}
        if values.get("TaskHubName") == HUB:
            values["TaskHubName"] = self.hub
        if str(values["RowKey"]).startswith(f"{HUB}-"):
            values["RowKey"] = self._renamed(str(values["RowKey"]))
        return values

    def _content(self, container: str, data: bytes) -> bytes:
        if not _is_ours(container):
            return data
        renamed = data.replace(f'"TaskHubName":"{HUB}"'.encode(), f'"TaskHubName":"{self.hub}"'.encode())
        return renamed.replace(f'"{HUB}-control-'.encode(), f'"{self.hub.lower()}-control-'.encode())


def _is_ours(container: str) -> bool:
    """Whether names and contents of its blobs hold the hub's name; instances' blobs do not."""
    return not container.endswith("-largemessages")


def _moved(value: Value, base: str, hub: str) -> Value:
    """A reference to a blob of the recorded account, as one of this account."""
    if type(value) is str and value.startswith(f"{_BLOBS}{HUB}-"):
        return f"{base}{hub.lower()}-{value.removeprefix(f'{_BLOBS}{HUB}-')}"
    return value


def _delay_s(message: RecordedMessage) -> int:
    visible, inserted = datetime.fromisoformat(message.next_visible), datetime.fromisoformat(message.inserted)
    return max(0, round((visible - inserted).total_seconds()))
