"""What is run: names, sizes and what each figure means. Standard library only: the peer's venv uses it too."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HOST_LIMITS", "WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes:
        name: as given to `--workload`.
        title: one line for people.
        family: the code that runs it; W3 and W6 exist in several sizes.
        size: instances, activities or starts.
        quick: the size under `--quick`.
        figure: key of the figure that is compared with the peer.
        unit: of that figure.
        higher_is_better: how a ratio is read.
        goal: on SQLite, the ratio to the peer that has to be reached; None: only reported.
        memory: on the memory provider, what the figure itself has to reach.
        always: further figures of ours with the most that they may be, on every provider.
        sync: whether blocking activities are measured beside the async ones.
    """

    name: str
    title: str
    family: str
    size: int
    quick: int
    figure: str
    unit: str
    higher_is_better: bool
    goal: float | None = None
    memory: float | None = None
    always: tuple[tuple[str, float], ...] = ()
    sync: bool = True

    def reaches(self, value: float, goal: float) -> bool:
        """Whether a figure, or a ratio of ours to the peer's, is at least as good as the goal."""
        return value >= goal if self.higher_is_better else value <= goal


_ALL = (
    Workload(
        "W1",
        "instances x 5 sequential activities at once",
        "W1",
        500,
        50,
        "per_second",
        "instances/s",
        True,
        6.0,
        1_500,
    ),
    Workload("W2", "one at a time, 5 sequential activities, p50", "W2", 200, 30, "p50_ms", "ms", False, 0.4, 1.0),
    Workload("W3", "one instance, 1,000 parallel activities", "W3", 1_000, 100, "seconds", "s", False, 0.18, 0.2),
    Workload("W3L", "one instance, 5,000 parallel activities", "W3", 5_000, 200, "seconds", "s", False, sync=False),
    Workload(
        "W4",
        "starts accepted, no worker running",
        "W4",
        2_000,
        200,
        "per_second",
        "starts/s",
        True,
        7.0,
        20_000,
        sync=False,
    ),
    Workload(
        "W5",
        "memory after W1, processor when idle",
        "W5",
        500,
        50,
        "rss_mib",
        "MiB",
        False,
        always=(("rss_mib", 90.0), ("idle_cpu_percent", 0.5)),
        sync=False,
    ),
    Workload("W6S", "one instance, 100 sequential activities", "W6", 100, 20, "step_ms", "ms/step", False, sync=False),
    Workload(
        "W6", "one instance, 1,000 sequential activities", "W6", 1_000, 100, "step_ms", "ms/step", False, 0.5, 0.2
    ),
    Workload(
        "W6L", "one instance, 10,000 sequential activities", "W6", 10_000, 200, "step_ms", "ms/step", False, sync=False
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}

HOST_LIMITS = (("ready_seconds", 0.7),)
"""W7 and the start of the host: the most that these figures may be."""
