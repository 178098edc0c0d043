"""What must be true when a chaos run has come to rest: the oracle's rules, and those that the run log allows.

1. the oracle finds nothing (`durable_host/testing/oracle.py`): ends, answers, events, replay, projections, commits;
2. every instance that the client knows has ended as it had to, with the output that it had to have;
3. every result that was recorded comes from exactly one run of the activity, which answered that very request;
4. no result is used twice, neither in histories nor in outputs, where those of earlier executions are;
5. no instance is in quarantine;
6. no host has written a traceback or a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from durable_host.executors.native import FunctionRegistry, NativeOrchestrations
from durable_host.model.history import HistoryEvent, TaskCompleted, TaskScheduled
from durable_host.model.status import RuntimeStatus
from durable_host.testing.oracle import Final, violations
from tests.chaos.app import ACTIVITIES, ORCHESTRATORS, task_of
from tests.chaos.kinds import Expected

__all__ = ["Evidence", "judge", "log_problems", "used_results"]

_SHOWN = 40
_STAMP = re.compile(r"\[[-0-9T:.]+Z\] ")
_TRACEBACK = "Traceback (most recent call last)"
_WANTED = re.compile(
    r"ValueError: .* is not ready"
    r"|asyncio\.exceptions\.CancelledError"  # an activity outlasted the drain of a host that stops
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known at the end.

    Attributes:
        final: what is stored.
        expected: what must have become of which instance.
        runs: how often each token stands in the run log.
    """

    final: Final
    expected: Mapping[str, Expected]
    runs: Counter[str]


async def judge(evidence: Evidence) -> list[str]:
    """Everything that is not as it must be, as sentences."""
    registry = FunctionRegistry()
    for orchestrator in ORCHESTRATORS:
        registry.add_orchestrator(orchestrator)
    for activity in ACTIVITIES:
        registry.add_activity(activity)
    found = await violations(evidence.final, NativeOrchestrations(registry))
    found += _ends(evidence)
    found += _results(evidence)
    found += [
        f"{state.instance_id}: is in quarantine: {state.quarantined}"
        for state in evidence.final.states.values()
        if state.quarantined is not None
    ]
    return found


def _ends(evidence: Evidence) -> Iterator[str]:
    final = evidence.final
    for instance_id, expected in evidence.expected.items():
        status = final.status(instance_id)
        if status is not expected.status:
            yield f"{instance_id}: is {_named(status)}, not {_named(expected.status)}"
            continue
        output = _plain(final.output(instance_id))
        if expected.outputs and output not in expected.outputs:
            yield f"{instance_id}: {output!r} instead of {' or '.join(map(repr, expected.outputs))}"


def _named(status: RuntimeStatus | None) -> str:
    return "gone" if status is None else status.value


def _results(evidence: Evidence) -> Iterator[str]:
    for instance_id, history in evidence.final.histories.items():
        for task, result in _recorded(history):
            if task_of(result) != task:
                yield f"{instance_id}: {task!r} was answered with {result!r}"
    for result, count in used_results(evidence.final).items():
        if count > 1:
            yield f"{result!r} was used {count} times"
        if evidence.runs[result] != 1:
            yield f"{result!r} was used; {evidence.runs[result]} runs of the activity returned it"


def used_results(final: Final) -> Counter[str]:
    """How often each result was recorded in a history or, where that history is gone, stands in an output."""
    recorded: Counter[str] = Counter()
    put_out: Counter[str] = Counter()
    for instance_id, state in final.states.items():
        recorded.update(result for _, result in _recorded(final.histories[instance_id]))
        if state.parent is None:  # a child's output is in its parent's
            put_out.update(_tokens(final.output(instance_id)))
    return recorded | put_out


def _recorded(history: Sequence[HistoryEvent]) -> Iterator[tuple[str, str]]:
    """Tasks, and the results that were recorded for them."""
    asked = {event.event_id: event for event in history if isinstance(event, TaskScheduled)}
    for event in history:
        if isinstance(event, TaskCompleted):
            request = asked.get(event.task_id)
            task: Any = msgspec.json.decode(request.input) if request is not None and request.input else None
            yield str(task), str(None if event.result is None else msgspec.json.decode(event.result))


def _plain(value: Any) -> object:
    return [task_of(each) for each in value] if isinstance(value, list) else value  # type: ignore[misc]


def _tokens(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (each for each in value if "#" in each)  # type: ignore[misc]


def log_problems(logs: Iterable[Path], secrets: Iterable[str]) -> Iterator[str]:
    """Tracebacks and secrets in what hosts have written; the app's activities may fail as they were told to."""
    for log in logs:
        lines = [_STAMP.sub("", line) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        found = [at for at, line in enumerate(lines) if line.startswith(_TRACEBACK) and not _is_wanted(lines, at)]
        if found:
            sample = "\n    ".join(lines[max(0, found[0] - 2) : found[0] + _SHOWN])
            yield f"{log.name}: {len(found)} tracebacks, the first one:\n    {sample}"
        for secret in secrets:
            for number, line in enumerate(lines, 1):
                if secret in line:
                    yield f"{log.name}: line {number} tells a secret"
                    break


def _is_wanted(lines: Sequence[str], at: int) -> bool:
    end = next((line for line in lines[at + 1 :] if not line.startswith(" ")), "")
    return _WANTED.fullmatch(end) is not None
