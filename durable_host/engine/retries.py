"""Calls that are tried again.

Every attempt and every delay takes an action id while the event that causes it is applied, before user code goes on;
after the last allowed attempt one more timer, due at once, precedes the failure. These are the reference's habits and
stored for ever. Failures that the policy does not want to retry, or whose time is up, are raised at once.
Source: azure-storage-task-hub.md 6.7; python-sdk-protocol.md 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeVar

from durable_host.engine.execution import CallWaiter, Execution
from durable_host.engine.tasks import CallTask
from durable_host.engine.timers import TimerChain
from durable_host.errors import TaskFailedError
from durable_host.model.failure import Failure
from durable_host.model.retry import RetryOptions

__all__ = ["RetryingCall"]

T = TypeVar("T")


class RetryingCall(CallTask[T]):
    """A call under a retry policy.

    Args:
        ask: asks for one attempt and returns its action id.
    """

    __slots__ = ("_ask", "_attempt", "_begun_at", "_failed", "_id", "_policy")

    def __init__(
        self, execution: Execution, name: str, type: Any, policy: RetryOptions, ask: Callable[[CallWaiter], int]
    ) -> None:
        super().__init__(execution, name, type)
        self._policy = policy
        self._ask = ask
        self._begun_at: datetime = execution.now
        self._attempt = 1
        self._failed: TaskFailedError | None = None
        self._id = ask(self)

    def on_failure(self, error: TaskFailedError) -> None:
        """An attempt failed."""
        execution, policy = self._execution, self._policy
        assert execution is not None
        failure = error.failure or Failure(type="", message=error.reason)
        try:
            allowed = policy.allows(failure)
        except Exception as broken:  # the user's predicate: its own failure is what the orchestrator shall see
            self.fail(broken)
            return
        now = execution.now
        last = self._attempt >= policy.max_number_of_attempts
        delay = timedelta(0) if last else policy.delay(self._attempt, _chance(execution.execution_id, self._id))
        if not allowed or self._is_too_late(now, delay):
            self.fail(error)
            return
        self._failed = error if last else None
        TimerChain(execution, now + delay, self)

    def _is_too_late(self, now: datetime, delay: timedelta) -> bool:
        limit = self._policy.retry_timeout
        if limit is None:
            return False
        passed = now - self._begun_at
        return passed >= limit or passed + delay > limit

    def on_due(self) -> None:
        """The delay is over."""
        if self._failed is not None:
            self.fail(self._failed)
            return
        self._attempt += 1
        self._id = self._ask(self)


def _chance(execution_id: str, action_id: int) -> float:
    """A number in [0, 1) that replay finds again."""
    digest = blake2b(f"{execution_id}:{action_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)
