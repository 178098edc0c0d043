"""Take from a recorded task hub what the golden tests need: the rows of its History and the ends of its Instances.

    python tests/histories/distil.py <hub.json> ... <folder>

A recorded hub holds every table, queue and blob (shape: {"tables", "queues", "blobs"}). What remains is one line per
instance: the events in order, status, output and custom status. Large values stay in their blobs (gzip in base64).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DROPPED = {
    "PartitionKey", "RowKey", "Timestamp", "ExecutionId", "IsPlayed", "GenerateNewTrace", "ParentTraceContext",
    "Version", "Generation", "CheckpointCompletedTimestamp", "IsCheckpointComplete",
}  # fmt: skip


def main(hubs: list[Path], folder: Path) -> None:
    for hub in hubs:
        recorded = json.loads(hub.read_text(encoding="utf-8"))
        history = next(rows for name, rows in recorded["tables"].items() if name.endswith("History"))
        states = next(rows for name, rows in recorded["tables"].items() if name.endswith("Instances"))
        blobs = {name: blob["base64"] for each in recorded["blobs"].values() for name, blob in each.items()}
        instances: dict[str, dict[str, Any]] = {}
        used: dict[str, str] = {}
        for row in sorted(history, key=lambda row: (row["PartitionKey"], row["RowKey"])):
            if row["RowKey"] == "sentinel" or row["PartitionKey"].startswith("@"):  # entities come later
                continue
            kept = {
                name: value
                for name, value in row.items()
                if name not in DROPPED and "@" not in name and value != "null"
            }
            used.update({value: blobs[value] for name, value in kept.items() if name.endswith("BlobName")})
            instances.setdefault(row["PartitionKey"], {"events": []})["events"].append(kept)
        for row in states:
            if row["PartitionKey"] in instances:
                instances[row["PartitionKey"]].update(
                    status=row["RuntimeStatus"], output=row.get("Output"), custom_status=row.get("CustomStatus")
                )
        with (folder / hub.name).open("w", encoding="utf-8") as out:
            out.write('{"instances": {\n')
            out.write(",\n".join(f"{_text(name)}: {_text(instance)}" for name, instance in sorted(instances.items())))
            out.write('\n},\n"blobs": {\n')
            out.write(",\n".join(f"{_text(name)}: {_text(value)}" for name, value in sorted(used.items())))
            out.write("\n}}\n")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:-1]], Path(sys.argv[-1]))
