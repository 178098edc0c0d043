"""Runtime status of an instance."""

from __future__ import annotations

from enum import Enum

__all__ = ["TERMINAL", "RuntimeStatus"]


class RuntimeStatus(Enum):
    """Where an instance stands; values are names on the wire. `ContinuedAsNew` and `Canceled` are only read."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    CONTINUED_AS_NEW = "ContinuedAsNew"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    CANCELED = "Canceled"

    __hash__ = object.__hash__  # that of Enum is written in Python, and asked for in every step

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen any more short of a rewind or a restart."""
        return self in TERMINAL


TERMINAL = frozenset({RuntimeStatus.COMPLETED, RuntimeStatus.FAILED, RuntimeStatus.TERMINATED, RuntimeStatus.CANCELED})
