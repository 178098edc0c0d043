"""A hub whose rows and messages lack everything that is ours goes on: so it looks when others have written it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace

from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.simulated import SimulatedService
from tests.unit.azure_wire.scenarios import Ran, running

pytestmark = pytest.mark.simulated

Then = Callable[[Ran, str], Awaitable[None]]

_OURS = frozenset(
    {
        "MessageId",
        "DispatchId",
        "VisibleAt",
        "DurableHost",
        "HistoryVersion",
        "HistoryStamp",
        "StartMessageId",
        "FailureDetails",
        "ParentInstanceId",
    }
)


def strip(service: SimulatedService) -> int:
    """Take away what is ours; says how much there was."""
    taken = 0
    for name, table in service.tables.items():
        for partition in table.partitions.values():
            for key, row in partition.items():
                ours = {each for each in row.values if each in _OURS}
                if name.endswith("history"):
                    ours -= {"FailureDetails"}  # the reference has it there
                values = {each: value for each, value in row.values.items() if each not in ours}
                if "DispatchId" in str(values.get("ParentInstance", "")):
                    values["ParentInstance"] = json.dumps(_without_ours(json.loads(str(values["ParentInstance"]))))
                    taken += 1
                partition[key] = replace(row, values=values)
                taken += len(ours)
    for queue in service.queues.values():
        for message in queue.messages.values():
            before = json.loads(message.text)
            after = _without_ours(before)
            message.text = json.dumps(after)
            taken += before != after
    return taken


def _without_ours(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, Any]", value)
    return {
        name: _without_ours(member)
        for name, member in members.items()
        if name not in ("MessageId", "DispatchId", "VisibleAt", "DurableHost")
    }


def _raise(name: str, data_json: str, target: str | None = None) -> Then:
    async def then(ran: Ran, instance_id: str) -> None:
        await ran.client.raise_event(target or instance_id, name, data_json=data_json)

    return then


async def _nothing(ran: Ran, instance_id: str) -> None:
    return None


async def _resume(ran: Ran, instance_id: str) -> None:
    await ran.client.resume(instance_id)


async def _suspend(ran: Ran, instance_id: str) -> None:
    await ran.client.suspend(instance_id, "wait")
    await ran.is_(instance_id, RuntimeStatus.SUSPENDED)
    await ran.client.raise_event(instance_id, "Approval", data_json='"while suspended"')
    await ran.until(instance_id, lambda state, length: length >= 8)


CASES: Mapping[str, tuple[str, str | None, Then, Then, str]] = {
    "timer": ("Sleep", "30", _nothing, _nothing, '"awake"'),
    "race, timer": ("ApprovalOrTimeout", "30", _nothing, _nothing, '"timeout"'),
    "race, event": ("ApprovalOrTimeout", "30", _nothing, _raise("Approval", "1"), '{"approved":1}'),
    "event": ("Approval", None, _nothing, _raise("Approval", '"resumed"'), '"resumed"'),
    "activity": ("GatedSequence", None, _nothing, _nothing, '["Hello Tokyo!","passed Seattle","Hello London!"]'),
    "child": (
        "Parent",
        '{"child":"Approval","input":null,"id":"the child"}',
        _nothing,
        _raise("Approval", '"resumed"', "the child"),
        '{"child":"resumed"}',
    ),
    "retry": (
        "Retrying",
        '{"first":30,"attempts":3,"key":"waiting"}',
        _nothing,
        _nothing,
        '"attempt 1 succeeded"',
    ),
    "continued": ("Eternal", "1", _nothing, _raise("stop", '"resumed"'), '[3,"resumed"]'),
    "suspended": ("Approval", None, _suspend, _resume, '"while suspended"'),
}
"""Orchestrator, input, what happens before, what happens after, output."""


@pytest.mark.parametrize("case", CASES)
async def test_an_instance_goes_on_without_what_is_ours(case: str) -> None:
    orchestrator, given, first, then, output = CASES[case]
    async with running() as before:
        await before.client.start(orchestrator, instance_id=case, input_json=given)
        await before.waits(case)
        await first(before, case)

    assert strip(before.service) > 0

    async with running(after=before) as ran:
        await then(ran, case)
        state = await ran.client.wait_for_completion(case, timeout=timedelta(hours=1))
    assert (state.status, state.output) == (RuntimeStatus.COMPLETED, output)


async def test_a_failed_instance_is_rewound_without_what_is_ours() -> None:
    async with running() as before:
        await before.client.start("Flaky", instance_id="f", input_json='"k"')
        await before.ended("f")
    strip(before.service)

    async with running(after=before) as ran:
        assert (await ran.client.require("f")).status is RuntimeStatus.FAILED
        await ran.client.rewind("f", "again")
        await ran.is_("f", RuntimeStatus.COMPLETED)
        assert (await ran.client.require("f")).output == '"attempt 1 succeeded"'


async def test_a_start_that_waits_is_taken_without_what_is_ours() -> None:
    async with running(idle=True) as before:
        await before.client.start("Sequence", instance_id="s", start_at=timedelta(seconds=30))
        await before.client.start("Approval", instance_id="e")
        await before.client.raise_event("e", "Approval", data_json='"before the start"')
    strip(before.service)

    async with running(after=before) as ran:
        assert (await ran.ended("e")).output == '"before the start"'
        assert (await ran.ended("s")).output == '["Hello Tokyo!","Hello Seattle!","Hello London!"]'
