"""What is run: names, sizes and what each figure means. Standard library only: the peers' venv uses it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = [
    "AZURE",
    "DATABASES",
    "HOSTED",
    "KIND_OF_REQUEST",
    "PROVIDERS",
    "REPLAY",
    "SERVER_PID",
    "WORKLOADS",
    "Limit",
    "Workload",
]

AZURE = "azureStorage"
PROVIDERS = ("sqlite", "memory", "postgres", AZURE)
DATABASES = ("sqlite", "memory", "postgres")
"""Those on which the long workloads end within minutes."""

REPLAY = "replay"
"""The peer on Azure Storage: the bare requests of the reference library, see `azure_replay`."""

KIND_OF_REQUEST = "requests "
"""What the names of figures begin with that count the requests of one kind; only `--json` shows them."""

SERVER_PID = "BENCHMARK_SERVER_PID"
"""Environment variable with the process id of the database server, whose processor time counts as the run's."""


@dataclass(frozen=True)
class Limit:
    """The most that one of our figures may be, on these providers."""

    figure: str
    most: float
    providers: tuple[str, ...] = PROVIDERS


@dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes:
        name: as given to `--workload`.
        title: one line for people.
        family: the code that runs it; W3 and W6 exist in several sizes.
        size: instances, activities or starts.
        quick: the size under `--quick`.
        figure: key of the figure that is compared.
        unit: of that figure.
        higher_is_better: how a ratio is read.
        ratios: by provider and peer, what the ratio of ours to the peer's has to reach.
        absolute: by provider, what our figure itself has to reach.
        limits: further figures of ours.
        peers: those that have this workload.
        providers: where it makes sense.
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
    ratios: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))
    absolute: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    limits: tuple[Limit, ...] = ()
    peers: tuple[str, ...] = ("dbos", "absurd", REPLAY)
    providers: tuple[str, ...] = DATABASES
    sync: bool = False

    def reaches(self, value: float, goal: float) -> bool:
        """Whether a figure, or a ratio of ours to a peer's, is at least as good as the goal."""
        return value >= goal if self.higher_is_better else value <= goal


_ALL = (
    Workload(
        name="W1",
        title="instances x 5 sequential activities at once",
        family="W1",
        size=500,
        quick=50,
        figure="per_second",
        unit="instances/s",
        higher_is_better=True,
        ratios={(AZURE, REPLAY): 1.8, ("sqlite", "dbos"): 6.0, ("postgres", "absurd"): 1.8},
        absolute={"memory": 1_500},
        sync=True,
        providers=PROVIDERS,
    ),
    Workload(
        name="W2",
        title="one at a time, 5 sequential activities, p50",
        family="W2",
        size=200,
        quick=30,
        figure="p50_ms",
        unit="ms",
        higher_is_better=False,
        ratios={(AZURE, REPLAY): 0.5, ("sqlite", "dbos"): 0.4, ("postgres", "absurd"): 0.45},
        absolute={"memory": 1.0},
        sync=True,
        providers=PROVIDERS,
    ),
    Workload(
        name="W3",
        title="one instance, 1,000 parallel activities",
        family="W3",
        size=1_000,
        quick=100,
        figure="seconds",
        unit="s",
        higher_is_better=False,
        ratios={(AZURE, REPLAY): 0.3, ("sqlite", "dbos"): 0.18, ("postgres", "dbos"): 0.2},
        absolute={"memory": 0.2},
        sync=True,
        providers=PROVIDERS,
    ),
    Workload(
        name="W3L",
        title="one instance, 5,000 parallel activities",
        family="W3",
        size=5_000,
        quick=200,
        figure="seconds",
        unit="s",
        higher_is_better=False,
    ),
    Workload(
        name="W4",
        title="starts accepted, no worker running",
        family="W4",
        size=2_000,
        quick=200,
        figure="per_second",
        unit="starts/s",
        higher_is_better=True,
        ratios={(AZURE, REPLAY): 1.0, ("sqlite", "dbos"): 7.0, ("postgres", "absurd"): 1.4},
        absolute={"memory": 20_000},
        providers=PROVIDERS,
    ),
    Workload(
        name="W5",
        title="memory after W1, processor when idle",
        family="W5",
        size=500,
        quick=50,
        figure="rss_mib",
        unit="MiB",
        higher_is_better=False,
        limits=(
            Limit("rss_mib", 90.0),
            Limit("idle_cpu_percent", 0.5, ("sqlite", "memory")),
            Limit("idle_cpu_percent", 1.0, ("postgres",)),
        ),
        peers=("dbos",),
    ),
    Workload(
        name="W6S",
        title="one instance, 100 sequential activities",
        family="W6",
        size=100,
        quick=20,
        figure="step_ms",
        unit="ms/step",
        higher_is_better=False,
        providers=PROVIDERS,
    ),
    Workload(
        name="W6",
        title="one instance, 1,000 sequential activities",
        family="W6",
        size=1_000,
        quick=100,
        figure="step_ms",
        unit="ms/step",
        higher_is_better=False,
        ratios={("sqlite", "dbos"): 0.5},
        absolute={"memory": 0.2, AZURE: 12.0},
        sync=True,
        providers=PROVIDERS,
    ),
    Workload(
        name="W6L",
        title="one instance, 10,000 sequential activities",
        family="W6",
        size=10_000,
        quick=200,
        figure="step_ms",
        unit="ms/step",
        higher_is_better=False,
    ),
    Workload(
        name="W7",
        title="HTTP start to completion, samples/hello",
        family="hosted",
        size=200,
        quick=20,
        figure="p50_ms",
        unit="ms",
        higher_is_better=False,
        limits=(Limit("ready_seconds", 0.7), Limit("idle_cpu_percent", 1.0, ("postgres",))),
        peers=(),
    ),
    Workload(
        name="W8",
        title="two hosts to one, activities that wait 20 ms",
        family="waiting",
        size=400,
        quick=20,
        figure="two_to_one",
        unit="times",
        higher_is_better=True,
        absolute={"postgres": 1.8},
        peers=(),
        providers=("postgres",),
    ),
    Workload(
        name="W9",
        title="two hosts to one, activities that do nothing",
        family="nothing",
        size=1_000,
        quick=40,
        figure="two_to_one",
        unit="times",
        higher_is_better=True,
        absolute={"postgres": 1.0},
        peers=(),
        providers=("postgres",),
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}

HOSTED = "hosted"
"""The family that is measured through a host process."""
