"""Runtime status of an instance."""

from __future__ import annotations

from enum import Enum

__all__ = ["TERMINAL", "RuntimeStatus"]


class RuntimeStatus(Enum):
    """Where an instance stands; values are names on the wire. `ContinuedAsNew` and `Canceled` are only read.

    Attributes:
        is_terminal: whether nothing can happen any more short of a rewind or a restart.
    """

    is_terminal: bool

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    CONTINUED_AS_NEW = "ContinuedAsNew"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    CANCELED = "Canceled"

    __hash__ = object.__hash__  # that of Enum is written in Python, and asked for in every step


TERMINAL = frozenset({RuntimeStatus.COMPLETED, RuntimeStatus.FAILED, RuntimeStatus.TERMINATED, RuntimeStatus.CANCELED})

for _status in RuntimeStatus:
    _status.is_terminal = _status in TERMINAL
