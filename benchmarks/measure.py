"""Figures of processes, with the standard library only: the peers' venv uses it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cpu_seconds", "family_cpu_seconds", "median", "percentile", "rss_mib"]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two middle ones if their number is even."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rss_mib(pid: int | None = None) -> float:
    """Resident memory of a process in MiB; 0 where the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)


def cpu_seconds(server: int | None = None) -> float:
    """User and system time so far of this process, and of a server and its children.

    Args:
        server: the server's process id.
    """
    times = os.times()
    return times.user + times.system + (family_cpu_seconds(server) if server is not None else 0.0)


def family_cpu_seconds(pid: int) -> float:
    """User and system time so far of a process, its children, and those of them that have ended."""
    return sum(_of_one(each) for each in (pid, *_children(pid)))


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _of_one(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has just ended; its parent counts it from now on
    return sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK")
