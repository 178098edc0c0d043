"""What a simulated run did, step by step: a digest to compare runs by, and the commits for the oracle.

`python -m durable_host.testing.simulation … --trace` prints the steps; otherwise only their hash is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from durable_host.model.history import event_type
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    OrchestrationWorkItem,
)
from durable_host.testing.faults import StoreCall
from durable_host.testing.oracle import Commit

__all__ = ["Tape"]


class Tape:
    """Records one run."""

    printer: Callable[[str], None] | None = None
    """Gets every line, when somebody wants to read along."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self._hash = blake2b(digest_size=16)
        self._loop = asyncio.get_running_loop()

    def digest(self, *more: object) -> str:
        """Of everything so far."""
        self._hash.update(repr(more).encode())
        return self._hash.hexdigest()

    def write(self, what: str, process: int, text: str = "") -> None:
        """Note one step."""
        line = f"{self._loop.time():.6f} {process} {what} {text}"
        self._hash.update(line.encode("utf-8", "surrogatepass"))
        if self.printer is not None:
            self.printer(line)

    def record(self, process: int, call: StoreCall) -> None:
        """Note a store call; `process` 0 is the client."""
        if call.error is not None:
            self.write(call.method, process, call.error)
            return
        describe = _DESCRIBE.get(call.method)
        self.write(call.method, process, describe(call.arguments, call.result) if describe is not None else "")
        if call.method == "commit":
            self._commits(call.arguments, call.result)

    def _commits(self, checkpoints: Any, outcomes: Any) -> None:
        for checkpoint, outcome in zip(checkpoints, outcomes, strict=True):
            state = checkpoint.state
            changed = checkpoint.events or checkpoint.amended
            if outcome is CommitOutcome.COMMITTED and changed and state is not None and state.version is not None:
                self.commits.append(Commit(state.instance_id, checkpoint.base, state.version))


def _items(arguments: Any, result: Sequence[OrchestrationWorkItem]) -> str:
    return " ".join(
        f"{item.instance_id}@{_version(item.version)}{'' if item.history is not None else '*'}"
        f"[{','.join(f'{event_type(message.event)}:{message.id[-6:]}' for message in item.inbox)}]"
        for item in result
    )


def _tasks(arguments: Any, result: Sequence[ActivityWorkItem]) -> str:
    return " ".join(f"{item.task.instance_id}#{item.task.task_id}" for item in result)


def _checkpoints(arguments: Sequence[Checkpoint], result: Sequence[CommitOutcome]) -> str:
    return " ".join(_checkpoint(each, outcome) for each, outcome in zip(arguments, result, strict=True))


def _checkpoint(checkpoint: Checkpoint, outcome: CommitOutcome) -> str:
    state = checkpoint.state
    return (
        f"{checkpoint.lease.key}@{_version(checkpoint.base)}→{_version(state.version) if state is not None else '='}"
        f"[{','.join(event_type(event) for event in checkpoint.events)}]"
        f" amended={len(checkpoint.amended)} out={[f'{event_type(m.event)}→{m.target}' for m in checkpoint.messages]}"
        f" run={[task.task_id for task in checkpoint.activities]}"
        f" -{len(checkpoint.consumed)} ~{len(checkpoint.deferred)}"
        f" done={len(checkpoint.completed)}{' hold' if checkpoint.hold else ''} {outcome.value}"
    )


def _completions(arguments: Sequence[ActivityCompletion], result: Sequence[CommitOutcome]) -> str:
    return " ".join(
        f"{each.reply.target}:{each.reply.id[:6]} {outcome.value}"
        for each, outcome in zip(arguments, result, strict=True)
    )


def _version(version: HistoryVersion | None) -> str:
    return "-" if version is None else f"{version.generation}.{version.length}"


def _keys(arguments: Any, result: Any) -> str:
    return " ".join(lease.key for lease in arguments)


def _target(arguments: Any, result: Any) -> str:
    return f"{arguments.target} {result}"


def _targets(arguments: Any, result: Any) -> str:
    return " ".join(f"{message.target}:{event_type(message.event)}" for message in arguments)


def _state(arguments: InstanceId, result: Any) -> str:
    return f"{arguments} {result.status.value if result is not None else None}"


_DESCRIBE: dict[str, Callable[[Any, Any], str]] = {
    "lock_orchestrations": _items,
    "lock_activities": _tasks,
    "commit": _checkpoints,
    "complete_activities": _completions,
    "renew": _keys,
    "abandon": _keys,
    "create_instance": _target,
    "send": _targets,
    "get_instance": _state,
}
