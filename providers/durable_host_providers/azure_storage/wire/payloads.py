"""What is too large for a queue message or a column goes to a gzipped blob: the decision, the form and the way back.

Reading and writing the blobs is the caller's. Source: azure-storage-task-hub.md 3.6.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Mapping
from urllib.parse import unquote

import msgspec

from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.wire.errors import WireError
from durable_host_providers.azure_storage.wire.keys import history_blob_name

__all__ = [
    "LARGE_COLUMNS",
    "MAX_COLUMN_BYTES",
    "MAX_MESSAGE_BYTES",
    "Offload",
    "blob_of_url",
    "compress",
    "decompress",
    "is_large",
    "offload",
    "offloaded",
]

MAX_MESSAGE_BYTES = 46_080
"""Longest envelope that goes into the queue itself, in UTF-8 bytes."""

MAX_COLUMN_BYTES = 61_440
"""Longest text that stays in its column, in UTF-16 bytes."""

LARGE_COLUMNS = (
    "Name",
    "Input",
    "Result",
    "Output",
    "Reason",
    "Details",
    "Correlation",
    "FailureDetails",
    "Tags",
    "CustomStatus",
    "Data",
    "DurableHost",
)
"""Columns that may move to a blob. The last three do so here only: .NET fails where these are too large."""

_SUFFIX = "BlobName"


class Offload(msgspec.Struct, frozen=True):
    """A column's text that has to be written to a blob before its row."""

    column: str
    blob_name: str
    data: bytes


def compress(data: bytes) -> bytes:
    """The content of a blob: gzip without a time, so that the same text gives the same bytes."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def decompress(data: bytes) -> bytes:
    """What a blob holds.

    Raises:
        WireError: it is not gzip, or was cut short.
    """
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise WireError(f"A blob of the hub cannot be unzipped: {error}.") from error


def is_large(text: str) -> bool:
    """Whether a text has to leave its column."""
    count = len(text)
    if count <= MAX_COLUMN_BYTES // 4:
        return False
    return count > MAX_COLUMN_BYTES // 2 or len(text.encode("utf-16-le", "surrogatepass")) > MAX_COLUMN_BYTES


def offload(
    values: dict[str, Value], instance_id: str, row: str, kind: str | None, token: str
) -> tuple[dict[str, Value], list[Offload]]:
    """Move what is too large out of a row.

    Args:
        row: the row key; empty for a row of Instances.
        kind: the row's event type; None for a row of Instances.
        token: 8 upper-case hex digits, random.

    Returns:
        The row to be written, the same object where nothing is too large, and what to write before.
    """
    moved: list[Offload] = []
    for column in LARGE_COLUMNS:
        text = values.get(column)
        if not isinstance(text, str) or not is_large(text):
            continue
        if not moved:
            values = dict(values)
        name = history_blob_name(instance_id, row, kind or column, token, column)
        moved.append(Offload(column, name, compress(text.encode("utf-8", "surrogatepass"))))
        values[column] = ""
        values[column + _SUFFIX] = name
    return values, moved


def offloaded(values: Mapping[str, Value]) -> dict[str, str]:
    """The columns of a row whose text lies in a blob: column → name of the blob. Most rows have none."""
    found: dict[str, str] = {}
    for name, value in values.items():
        # A merge cannot take the name away again; an empty one says that the text is back in its column.
        if name.endswith(_SUFFIX) and isinstance(value, str) and value:
            found[name.removesuffix(_SUFFIX)] = value
    return found


def blob_of_url(text: str, container_url: str) -> str | None:
    """The blob that a text of Instances points to; None: it is a text like any other.

    Args:
        container_url: of the hub's container for large messages, without a slash at its end.

    Source: azure-storage-task-hub.md 9.1 item 8.
    """
    prefix = f"{container_url}/"
    if not text.startswith(prefix) or any(each in text for each in _NO_URL):
        return None
    return unquote(text[len(prefix) :]) or None


_NO_URL: Collection[str] = (" ", '"', "\n", "?", "#")
