"""The recorded task hubs of `tests/data/azure_storage`, as values of the ports."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from durable_host_providers.azure_storage.ports import EdmDateTime, Value

__all__ = ["EXTENSION_RECORDINGS", "HUB", "RECORDINGS", "RecordedHub", "RecordedMessage", "recorded_hub"]

FOLDER = Path(__file__).parent / "data" / "azure_storage"

RECORDINGS = ("table", "safe", "legacy", "more")
"""Names of the recordings."""

EXTENSION_RECORDINGS = ("functions-extension/hub", "functions-extension/worker-hub")
"""Names of those that the Durable Functions extension left."""

HUB = "recorded"
"""The name of the hub in each of `RECORDINGS`."""


@dataclass(frozen=True)
class RecordedMessage:
    """A message as it stood in its queue; times are texts of the recording."""

    text: str
    inserted: str
    next_visible: str
    dequeue_count: int


@dataclass(frozen=True)
class RecordedHub:
    """Everything that was stored.

    Attributes:
        hub: the hub's name.
        tables: rows by table, in key order; `Timestamp` included.
        queues: messages by queue.
        blobs: contents by container and name.
    """

    name: str
    hub: str
    tables: Mapping[str, Sequence[Mapping[str, Value]]]
    queues: Mapping[str, Sequence[RecordedMessage]]
    blobs: Mapping[str, Mapping[str, bytes]]

    @property
    def history(self) -> Mapping[str, Sequence[Mapping[str, Value]]]:
        """The rows of History by partition key, the sentinel last."""
        found: dict[str, list[Mapping[str, Value]]] = {}
        for row in self.tables[f"{self.hub}History"]:
            found.setdefault(str(row["PartitionKey"]), []).append(row)
        return found

    @property
    def instances(self) -> Sequence[Mapping[str, Value]]:
        """The rows of Instances."""
        return self.tables[f"{self.hub}Instances"]

    @property
    def large_messages(self) -> Mapping[str, bytes]:
        """The blobs of what was too large."""
        return self.blobs.get(f"{self.hub}-largemessages", {})


@cache
def recorded_hub(name: str) -> RecordedHub:
    """One of `RECORDINGS` or `EXTENSION_RECORDINGS`."""
    stored: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return RecordedHub(
        name,
        next(table for table in stored["tables"] if table.endswith("History")).removesuffix("History"),
        {table: [_row(entity) for entity in entities] for table, entities in stored["tables"].items()},
        {queue: [RecordedMessage(**message) for message in messages] for queue, messages in stored["queues"].items()},
        {
            container: {blob: base64.b64decode(content["base64"]) for blob, content in blobs.items()}
            for container, blobs in stored["blobs"].items()
        },
    )


def _row(entity: dict[str, Any]) -> dict[str, Value]:
    row: dict[str, Value] = {}
    for name, value in entity.items():
        if "@" in name:
            continue
        kind = entity.get(f"{name}@odata.type")
        assert kind in (None, "Edm.DateTime"), f"{name}: {kind}"
        row[name] = EdmDateTime(value) if kind == "Edm.DateTime" else value
    return row
