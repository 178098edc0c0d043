"""Where what we write differs on purpose from what the reference wrote, and which line allows it.

A difference that is not in the table fails the golden tests, and so does an entry that they do not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from durable_host_providers.azure_storage.ports import EdmDateTime

__all__ = ["ALLOWED", "Difference", "differences"]


@dataclass(frozen=True)
class Difference:
    """One member or column. `place`: `message`, `task`, `sentinel`, `instance` or the event type of a History row."""

    place: str
    member: str
    change: str

    def __str__(self) -> str:
        return f"{self.place}: {self.member} is {self.change}"


ALLOWED: Mapping[Difference, str] = {
    Difference("message", "MessageId", "added"): "design 3.5, message ids: an envelope member",
    Difference("ExecutionStarted", "MessageId", "added"): "azure-storage-task-hub.md 9.3 item 21: a second delivery",
    Difference("sentinel", "HistoryVersion", "added"): "design 3.5, fence: generation and length",
    Difference("sentinel", "HistoryStamp", "added"): "design 3.5, fence: the companion",
    Difference("instance", "HistoryVersion", "added"): "design 3.5, fence: generation and length",
    Difference("instance", "HistoryStamp", "added"): "design 3.5, fence: the companion",
    Difference("instance", "DurableHost", "added"): "design 3.5, one mode: what is ours alone; of suspended instances",
    Difference("entity: ExecutionStarted", "IsPlayed", "False instead of True"): (
        "azure-storage-task-hub.md 3.4: of an entity's rows all are false under Core"
    ),
    Difference("entity: OrchestratorCompleted", "IsPlayed", "False instead of True"): (
        "azure-storage-task-hub.md 3.4: of an entity's rows all are false under Core"
    ),
    Difference("SubOrchestrationInstanceCreated", "Reason", "missing"): (
        "azure-storage-task-hub.md 6.11: the row's type is unchanged, its reason is read by nobody"
    ),
}


def differences(place: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterable[Difference]:
    """Members that differ in presence, type or value. Of times the seventh digit does not count."""
    for member in sorted({*theirs, *ours}):
        if member not in ours:
            yield Difference(place, member, "missing")
        elif member not in theirs:
            yield Difference(place, member, "added")
        elif type(theirs[member]) is not type(ours[member]):
            yield Difference(place, member, f"{ours[member]!r} instead of {theirs[member]!r}")
        elif isinstance(theirs[member], EdmDateTime):
            if theirs[member][:26] != ours[member][:26] or len(theirs[member]) != len(ours[member]):
                yield Difference(place, member, f"{ours[member]} instead of {theirs[member]}")
        elif theirs[member] != ours[member]:
            yield Difference(place, member, f"{ours[member]!r} instead of {theirs[member]!r}")
