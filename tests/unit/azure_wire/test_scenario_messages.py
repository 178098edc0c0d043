"""Messages that wait in the queues after the recorded scenarios have the members and forms of the recorded ones.

Ids and times are not compared. The table of differences is checked as in `test_scenarios`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import pytest

from durable_host.testing.loop import SimulatedLoop
from tests.azure_recordings import recorded_hub
from tests.unit.azure_wire.differences import Difference
from tests.unit.azure_wire.scenarios import BY_CLIENTS, BY_WORKERS, Ran, Steps, running

OURS = "design 3.5: message ids and dispatch ids in members of the envelope"
NO_VERSION = "azure-storage-task-hub.md 3.9: starts without a version have none, as under the extension"

ALLOWED: Mapping[Difference, str] = {
    Difference("ExecutionStarted", "MessageId", "added"): OURS,
    Difference("ExecutionStarted", "DurableHost", "added"): OURS,
    Difference("ExecutionStarted", "TaskMessage.Event.Version", "null instead of text"): NO_VERSION,
    Difference("EventRaised", "MessageId", "added"): OURS,
    Difference("ExecutionTerminated", "MessageId", "added"): OURS,
    Difference("ExecutionSuspended", "MessageId", "added"): OURS,
    Difference("TimerFired", "MessageId", "added"): OURS,
    Difference("TimerFired", "DispatchId", "added"): OURS,
    Difference("TaskScheduled", "DispatchId", "added"): OURS,
}

_IDS = frozenset({"ActivityId", "ExecutionId", "MessageId", "DispatchId"})
_TIMES = frozenset({"Timestamp", "FireAt", "ScheduledStartTime"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z")


@cache
def posted(name: str) -> Sequence[str]:
    """The texts that a scenario has left in the queues here."""

    async def run(steps: Steps, idle: bool) -> Sequence[str]:
        async with running(idle=idle) as hub:
            await steps(hub, name)
            return _kept(hub, name)

    steps = BY_CLIENTS.get(name) or BY_WORKERS[name]
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(0)) as runner:
        return runner.run(run(steps, name in BY_CLIENTS))


def _kept(hub: Ran, name: str) -> Sequence[str]:
    """Of an instance that ran when it was recorded, not the start."""
    texts = hub.texts(name)
    return texts if name.startswith("start-") else [text for text in texts if "ExecutionStarted" not in text]


def recorded(name: str) -> Sequence[str]:
    """The texts recorded for it."""
    return [
        message.text
        for messages in recorded_hub("table").queues.values()
        for message in messages
        if f'"InstanceId":"{name}"' in message.text.partition('"Sender"')[0]
    ]


def found(name: str) -> Iterable[Difference]:
    """All differences of a scenario."""
    theirs, ours = (sorted((_parsed(text) for text in texts), key=_kind) for texts in (recorded(name), posted(name)))
    assert theirs
    assert [_kind(each) for each in ours] == [_kind(each) for each in theirs]
    for before, after in zip(theirs, ours, strict=True):
        yield from _of_members(_kind(before), "", before, after)


def _of_members(kind: str, path: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterable[Difference]:
    common = [name for name in ours if name in theirs]
    assert common == [name for name in theirs if name in ours], f"{path}: members stand in another order"
    for name in {*theirs, *ours}:
        place = f"{path}{name}"
        if name not in theirs or name not in ours:
            yield Difference(kind, place, "added" if name in ours else "missing")
        elif isinstance(theirs[name], dict) and isinstance(ours[name], dict):
            yield from _of_members(kind, f"{place}.", theirs[name], ours[name])
        elif type(theirs[name]) is not type(ours[name]):
            words = {type(None): "null", str: "text"}
            yield Difference(
                kind,
                place,
                f"{words.get(cast('Any', type(ours[name])))} instead of {words.get(cast('Any', type(theirs[name])))}",
            )
        elif not _is_alike(name, theirs[name], ours[name]):
            yield Difference(kind, place, "another text" if isinstance(ours[name], str) else "another value")


def _is_alike(name: str, theirs: object, ours: object) -> bool:
    if name in _IDS:
        return _shape(theirs) == _shape(ours)
    if name in _TIMES:
        return theirs is None or all(_TIME.fullmatch(str(each)) for each in (theirs, ours))
    return name == "SequenceNumber" or theirs == ours


def _shape(id: object) -> str:
    return re.sub("[0-9a-f]", "0", str(id))


def _parsed(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _kind(parsed: Mapping[str, Any]) -> str:
    return str(parsed["TaskMessage"]["Event"]["$type"]).rpartition(".")[2].removesuffix("Event")


@pytest.mark.parametrize("name", [*BY_CLIENTS, *BY_WORKERS])
def test_the_messages_of_a_scenario_are_those_recorded(name: str) -> None:
    assert [str(each) for each in found(name) if each not in ALLOWED] == []


def test_no_allowed_difference_is_one_too_many() -> None:
    needed = {str(each) for name in (*BY_CLIENTS, *BY_WORKERS) for each in found(name)}

    assert {str(each) for each in ALLOWED} - needed == set()
