"""What is run: names, sizes and what each figure means. Standard library only: the peer's venv uses it too."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WORKLOADS", "Workload"]


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
        goal: the ratio to the peer that has to be reached; None: only reported.
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
    sync: bool = True

    def meets(self, ratio: float) -> bool | None:
        """Whether the ratio (ours divided by the peer's) reaches the goal; None without a goal."""
        if self.goal is None:
            return None
        return ratio >= self.goal if self.higher_is_better else ratio <= self.goal


_ALL = (
    Workload(
        "W1", "instances x 5 sequential activities at once", "W1", 500, 50, "per_second", "instances/s", True, 6.0
    ),
    Workload("W2", "one at a time, 5 sequential activities, p50", "W2", 200, 30, "p50_ms", "ms", False, 0.4),
    Workload("W3", "one instance, 1,000 parallel activities", "W3", 1_000, 100, "seconds", "s", False, 0.18),
    Workload("W3L", "one instance, 5,000 parallel activities", "W3", 5_000, 200, "seconds", "s", False, sync=False),
    Workload(
        "W4", "starts accepted, no worker running", "W4", 2_000, 200, "per_second", "starts/s", True, 7.0, sync=False
    ),
    Workload("W5", "memory after W1, processor when idle", "W5", 500, 50, "rss_mib", "MiB", False, sync=False),
    Workload("W6S", "one instance, 100 sequential activities", "W6", 100, 20, "step_ms", "ms/step", False, sync=False),
    Workload("W6", "one instance, 1,000 sequential activities", "W6", 1_000, 100, "step_ms", "ms/step", False, 0.5),
    Workload(
        "W6L", "one instance, 10,000 sequential activities", "W6", 10_000, 200, "step_ms", "ms/step", False, sync=False
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}
