"""Values that the host hands to functions beside their bindings: `Context` and `Out`, in Azure's shapes."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Context", "Out", "RetryContext", "RetryFailure", "TraceContext", "current_context"]

T = TypeVar("T")

_storage = threading.local()


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context of the caller; empty texts when there was none."""

    trace_parent: str = ""
    trace_state: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RetryFailure:
    """The failure of the previous attempt; empty texts when there was none."""

    source: str = ""
    stack_trace: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RetryContext:
    """Where an invocation stands in its function's retry policy: 0 of 0 without one."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: RetryFailure = RetryFailure()

    @property
    def rpc_exception(self) -> RetryFailure:
        """The same as `exception`, under the name that Azure's worker uses."""
        return self.exception


@dataclass(frozen=True, slots=True)
class Context:
    """One invocation of a function; given to a parameter named `context` that no binding has.

    Attributes:
        invocation_id: the GUID of the `Executing` log line.
        function_directory: the app folder.
    """

    invocation_id: str
    function_name: str
    function_directory: str
    trace_context: TraceContext = TraceContext()
    retry_context: RetryContext = RetryContext()

    @property
    def thread_local_storage(self) -> threading.local:
        """Set `invocation_id` on this in a thread of your own, so that its log lines name the invocation."""
        return _storage


class Out(Generic[T]):
    """An output binding as a parameter: what is `set` is written after the function succeeded."""

    __slots__ = ("_is_set", "_value")

    def __init__(self) -> None:
        self._value: T | None = None
        self._is_set = False

    def set(self, val: T) -> None:
        """Choose the value to write; the last one counts."""
        self._value = val
        self._is_set = True

    def get(self) -> T | None:
        """The value chosen so far, or None."""
        return self._value

    @property
    def is_set(self) -> bool:
        """Whether there is anything to write."""
        return self._is_set


current_context: ContextVar[Context | None] = ContextVar("durable_host_invocation", default=None)
"""The running invocation of the current task or pool thread; tasks started by a function inherit it."""
