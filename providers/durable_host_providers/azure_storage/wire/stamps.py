"""Our version of a history in a row that others write, too: valid only as long as nobody else has written it.

`HistoryVersion` holds generation and length, `HistoryStamp` copies the execution and the time that every writer of the
row sets. A writer of another kind leaves both as they are; then they no longer match. Source: design 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from durable_host.model.instance import HistoryVersion
from durable_host_providers.azure_storage.ports import EdmDateTime, Value

__all__ = ["VERSION_COLUMNS", "VersionStamp", "read_stamp", "stamp_columns"]

VERSION_COLUMNS = ("HistoryVersion", "HistoryStamp")
"""The two columns."""

_NO_TIME = "-"


class VersionStamp(msgspec.Struct, frozen=True):
    """What a row tells of the version.

    Attributes:
        generation: at least 1; one more than we last knew where others have begun an execution since.
        length: None: it is not known.
        same_execution: the row was last written by us, or by others for the same execution.
        valid: the row was last written by us.
    """

    generation: int = 1
    length: int | None = None
    same_execution: bool = False
    valid: bool = False


def stamp_columns(execution_id: str, time: EdmDateTime | None, version: HistoryVersion | None) -> dict[str, Value]:
    """The two columns. `time`: the copy; None where the row is not final and gets none."""
    return {
        "HistoryVersion": "" if version is None else f"{version.generation}.{version.length}",
        "HistoryStamp": f"{execution_id} {_NO_TIME if time is None else time}",
    }


def read_stamp(values: Mapping[str, Value], execution_id: str, time: str | None) -> VersionStamp:
    """What the two columns say, given what the row says. `time` None: there is none to compare with."""
    version, stamp = values.get("HistoryVersion"), values.get("HistoryStamp")
    if not isinstance(version, str) or not isinstance(stamp, str):
        return VersionStamp()
    execution, _, copy = stamp.rpartition(" ")
    same = execution == execution_id
    valid = same and time is not None and copy == time
    generation, _, length = version.partition(".")
    if not (generation.isdecimal() and length.isdecimal()):
        return VersionStamp(same_execution=same, valid=valid)
    if not same:
        return VersionStamp(int(generation) + 1)
    return VersionStamp(int(generation), int(length) if valid else None, True, valid)
