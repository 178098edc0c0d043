"""What a host of a chaos run writes down about its store calls, line by line, so that it outlives the host.

A host that is killed between a commit and its line leaves the line out; the verdict can do without some.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import (
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.testing.faults import FaultPlan, FaultyStore, StoreCall
from durable_host.testing.oracle import Commit

__all__ = ["Entry", "Journal", "read_journals"]


class Entry(msgspec.Struct, omit_defaults=True):
    """One store call.

    Attributes:
        commits: instance, base and version of the checkpoints that changed history.
        counts: what else happened, by name.
    """

    commits: list[tuple[InstanceId, HistoryVersion | None, HistoryVersion]] = []
    counts: dict[str, int] = {}


class Journal:
    """The journal of one process."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._encoder = msgspec.json.Encoder()

    def watch(self, store: TaskHubStore) -> TaskHubStore:
        """The store, with its calls written down."""
        return FaultyStore(store, FaultPlan(Random(0)), observe=self._note)

    def _note(self, call: StoreCall) -> None:
        entry = _entry(call)
        if entry.commits or entry.counts:
            os.write(self._file, self._encoder.encode(entry) + b"\n")


def _entry(call: StoreCall) -> Entry:
    found: Any = call.result
    entry = Entry(commits=[], counts={})
    if call.error is not None:
        entry.counts["store errors"] = 1
        return entry
    match call.method:
        case "lock_orchestrations":
            items: Sequence[OrchestrationWorkItem] = found
            again = sum(message.deliveries > 1 for item in items for message in item.inbox)
            _count(entry, "messages delivered again", again)
        case "lock_activities":
            tasks: Sequence[ActivityWorkItem] = found
            _count(entry, "activities delivered again", sum(item.deliveries > 1 for item in tasks))
        case "commit":
            outcomes: Sequence[CommitOutcome] = found
            checkpoints: Any = call.arguments
            _commits(entry, checkpoints, outcomes)
        case "complete_activities":
            _count(entry, "results refused", sum(each is CommitOutcome.LEASE_LOST for each in found))
        case "renew":
            _count(entry, "leases lost", sum(each is None for each in found))
        case _:
            pass
    return entry


def _commits(entry: Entry, checkpoints: Sequence[Checkpoint], outcomes: Sequence[CommitOutcome]) -> None:
    _count(entry, "checkpoints refused", sum(each is CommitOutcome.LEASE_LOST for each in outcomes))
    for checkpoint, outcome in zip(checkpoints, outcomes, strict=True):
        state = checkpoint.state
        changed = checkpoint.events or checkpoint.amended
        if outcome is CommitOutcome.COMMITTED and changed and state is not None and state.version is not None:
            entry.commits.append((state.instance_id, checkpoint.base, state.version))


def _count(entry: Entry, name: str, number: int) -> None:
    if number:
        entry.counts[name] = number


def read_journals(files: Iterable[Path]) -> tuple[list[Commit], Counter[str]]:
    """All commits and counts of all hosts."""
    decoder = msgspec.json.Decoder(Entry)
    commits: list[Commit] = []
    counts: Counter[str] = Counter()
    for file in files:
        for line in file.read_bytes().splitlines():
            entry = decoder.decode(line)
            commits += [Commit(*each) for each in entry.commits]
            counts.update(entry.counts)
    return commits, counts
