"""What a hub holds after the recorded scenarios were run here has the members, columns, types and forms recorded.

Times and generated ids are not compared; where results may come in any order, neither is how they fall into episodes.
What differs otherwise stands in `ALLOWED` with the line that allows it; an entry that is not needed fails.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import pytest

from durable_host.testing.loop import SimulatedLoop
from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.keys import SENTINEL, escape_key
from tests.azure_recordings import HUB, recorded_hub
from tests.unit.azure_wire.differences import Difference, differences
from tests.unit.azure_wire.scenarios import SCENARIOS, running

OURS = "design 3.5, one mode: what is ours alone goes into extra columns"
NO_VERSION = "azure-storage-task-hub.md 3.9: starts without a version have none, as under the extension"
DETAILS = "azure-storage-task-hub.md 3.3: details, where the host turns them on"
FAILURES = "azure-storage-task-hub.md 3.3: FailureDetails, as in the mode UseFailureDetails"
WORDING = "azure-storage-task-hub.md 3.9: the extension's wording of failures"
REWOUND = "azure-storage-task-hub.md 6.11: reasons of rewound rows are read by nobody, the type is"
REPEATED = "azure-storage-task-hub.md 9.3 item 21: a second delivery is recognised"

ALLOWED: Mapping[Difference, str] = {
    Difference(place, member, change): line
    for line, change, members in (
        (
            NO_VERSION,
            "missing",
            {
                "ExecutionStarted": "Version ParentInstance.Version",
                "SubOrchestrationInstanceCreated": "Version",
                "instance": "Version",
            },
        ),
        (
            OURS,
            "added",
            {
                "TaskScheduled": "DispatchId",
                "TaskCompleted": "DispatchId MessageId",
                "TaskFailed": "DispatchId MessageId",
                "SubOrchestrationInstanceCreated": "DispatchId",
                "SubOrchestrationInstanceCompleted": "DispatchId MessageId",
                "SubOrchestrationInstanceFailed": "DispatchId MessageId",
                "TimerCreated": "DispatchId",
                "TimerFired": "DispatchId MessageId",
                "GenericEvent": "DispatchId MessageId DurableHost",
                "ExecutionStarted": "DurableHost ParentInstance.DispatchId",
                "sentinel": "HistoryVersion HistoryStamp",
                "instance": "HistoryVersion HistoryStamp FailureDetails StartMessageId DurableHost ParentInstanceId",
            },
        ),
        (
            REPEATED,
            "added",
            {
                "ExecutionStarted": "MessageId",
                "EventRaised": "MessageId",
                "ExecutionSuspended": "MessageId",
                "ExecutionResumed": "MessageId",
                "ExecutionTerminated": "MessageId",
            },
        ),
        (
            DETAILS,
            "added",
            {"TaskFailed": "Details", "SubOrchestrationInstanceFailed": "Details", "GenericEvent": "Details"},
        ),
        (
            FAILURES,
            "another text",
            {
                "TaskFailed": "FailureDetails",
                "SubOrchestrationInstanceFailed": "FailureDetails",
                "ExecutionCompleted": "FailureDetails",
                "GenericEvent": "FailureDetails",
            },
        ),
        (
            WORDING,
            "another text",
            {
                "TaskFailed": "Reason",
                "SubOrchestrationInstanceFailed": "Reason",
                "ExecutionCompleted": "Result",
                "GenericEvent": "Result",
                "instance": "Output",
            },
        ),
    )
    for place, names in members.items()
    for member in names.split()
} | {
    Difference("GenericEvent", "Reason", "that of the first rewind"): REWOUND,
    Difference("SubOrchestrationInstanceCreated", "Reason", "missing"): REWOUND,
}

ANY_ORDER = {"fanout-done", "child-explicit", "wide-done", "event-early-done"}
"""Scenarios whose results and events may come in any order."""

CHILDREN = {
    "rewound-parent-done": "rewound-child",
    "started-by-orchestrator": "starter-done",
    "child-id-done": "child-explicit",
    "child-failed": "child-of-failed",
}

Rows = Sequence[Mapping[str, Value]]


@cache
def ran(name: str) -> tuple[Mapping[str, Rows], Mapping[str, Rows]]:
    """The rows of History and of Instances that a scenario has left here, by instance id."""

    async def run() -> tuple[Mapping[str, Rows], Mapping[str, Rows]]:
        async with running() as hub:
            await SCENARIOS[name][1](hub, name)
            await asyncio.sleep(5)  # rows may follow a moment later
            ids = [each for each in (name, CHILDREN.get(name)) if each is not None]
            return (
                {each: await hub.rows(f"{HUB}History", escape_key(each)) for each in ids},
                {each: await hub.rows(f"{HUB}Instances", escape_key(each)) for each in ids},
            )

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(0)) as runner:
        return runner.run(run())


def found(name: str) -> Iterable[Difference]:
    """All differences of a scenario."""
    recorded = recorded_hub(SCENARIOS[name][0])
    histories, instances = ran(name)
    for instance_id, ours in histories.items():
        theirs = recorded.history[escape_key(instance_id)]
        executions = {str(theirs[-1]["ExecutionId"]): "<execution>", str(ours[-1]["ExecutionId"]): "<execution>"}
        pairs = list(zip(*(_comparable(rows, executions, instance_id) for rows in (theirs, ours)), strict=True))
        assert pairs
        for their_row, our_row in pairs:
            assert their_row.get("EventType") == our_row.get("EventType")
            yield from _of_row(str(our_row.get("EventType", SENTINEL)), their_row, our_row)
        (their_instance,) = [row for row in recorded.instances if row["PartitionKey"] == escape_key(instance_id)]
        (our_instance,) = instances[instance_id]
        yield from _of_row("instance", _plain(their_instance, executions), _plain(our_instance, executions))


def _of_row(place: str, theirs: Mapping[str, Value], ours: Mapping[str, Value]) -> Iterable[Difference]:
    for each in differences(place, theirs, ours):
        if each.change in ("added", "missing"):
            yield each
        elif (theirs[each.member], ours[each.member]) == ("Rewound: GenericEvent", "Rewound: ExecutionCompleted"):
            yield Difference(place, each.member, "that of the first rewind")
        else:
            assert type(theirs[each.member]) is type(ours[each.member])
            yield Difference(place, each.member, "another text")


def _comparable(rows: Rows, executions: Mapping[str, str], instance_id: str) -> list[Mapping[str, Value]]:
    plain = [_plain(row, executions) for row in rows]
    if instance_id not in ANY_ORDER:
        return list(plain)
    facts = [row for row in plain if row.get("EventType") not in ("OrchestratorStarted", "OrchestratorCompleted")]
    return sorted(({**row, "RowKey": ""} for row in facts), key=_place)


def _place(row: Mapping[str, Value]) -> tuple[str, int, int]:
    return str(row.get("EventType")), int(row.get("TaskScheduledId", -1)), int(row.get("EventId", -1))


def _plain(row: Mapping[str, Value], executions: Mapping[str, str]) -> dict[str, Value]:
    """The row without times, generated ids and what differs from one account to the next."""
    plain: dict[str, Value] = {}
    for name, value in row.items():
        if name == "ParentInstance" and value != "null":
            for member, inner in json.loads(str(value)).items():
                if inner is not None:
                    plain[f"{name}.{member}"] = _word(str(inner), executions)
        elif name == "Timestamp":
            continue
        elif isinstance(value, EdmDateTime):
            plain[name] = EdmDateTime(_DIGIT.sub("0", value))
        else:
            plain[name] = _word(value, executions) if isinstance(value, str) else value
    return plain


def _word(text: str, executions: Mapping[str, str]) -> str:
    for execution, word in executions.items():
        text = text.replace(execution, word)
    return _ADDRESS.sub("", _TOKEN.sub("-token-", _ID.sub("<id>", text)))


_DIGIT = re.compile(r"\d")
_ID = re.compile(r"[0-9a-f]{32}")
_TOKEN = re.compile(r"-[0-9A-F]{8}-")
_ADDRESS = re.compile(r"^https?://[^/]*(/devstoreaccount1)?/(?=recorded-largemessages/)")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_leaves_what_was_recorded(name: str) -> None:
    assert [str(each) for each in found(name) if each not in ALLOWED] == []


def test_no_allowed_difference_is_one_too_many() -> None:
    assert {str(each) for each in ALLOWED} - {str(each) for name in SCENARIOS for each in found(name)} == set()
