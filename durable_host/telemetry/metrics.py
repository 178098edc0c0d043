"""Counters, gauges and histograms of one process, cheap enough for every work item.

A series is a name and its labels. Updates come from the event loop, from the lease thread and from a store's writer
thread; each is one dictionary operation or two under a lock that is held for nothing else.

Names are Prometheus names with the unit in them (`durable_episodes_total`, `store_seconds`). Histograms keep count, sum
and cumulative buckets, so that an exporter needs nothing but `prometheus()`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Histogram", "Metrics", "Series"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Histogram:
    """What was observed under one name and label set; `buckets` counts values up to and including each bound."""

    count: int
    sum: float
    buckets: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float:
        """The average, 0.0 before the first observation."""
        return self.sum / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """One row of a snapshot."""

    name: str
    labels: Mapping[str, str]
    value: float | Histogram


class _Distribution:
    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.sum += value

    def freeze(self) -> Histogram:
        total = 0
        buckets: list[tuple[float, int]] = []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            buckets.append((bound, total))
        return Histogram(self.count, self.sum, tuple(buckets))


class Metrics:
    """A set of series. Everything is thread-safe; nothing blocks for longer than a dictionary update."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[_Key, float] = {}
        self._gauges: dict[_Key, float] = {}
        self._histograms: dict[_Key, _Distribution] = {}
        self._followed: dict[tuple[str, str], Callable[[], Mapping[str, int]]] = {}

    def follow(self, name: str, label: str, read: Callable[[], Mapping[str, int]], /) -> None:
        """Export what somebody else counts: a counter for each key of what `read` gives, whenever metrics are read.

        `read` is called from any thread, is fast and does not raise. The same name and label again replace it.
        """
        with self._lock:
            self._followed[name, label] = read

    def count(self, name: str, n: int = 1, /, **labels: str) -> None:
        """Add to a counter. A zero creates the series, so that it is exported before the first event."""
        key = _key(name, labels)
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + n

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a value that goes up and down."""
        with self._lock:
            self._gauges[_key(name, labels)] = value

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Put a value into a histogram: seconds where the name ends in `_seconds`, else a number of things."""
        key = _key(name, labels)
        with self._lock:
            found = self._histograms.get(key)
            if found is None:
                found = self._histograms[key] = _Distribution(_SECONDS if name.endswith("_seconds") else _COUNTS)
            found.add(value)

    def value(self, name: str, /, **labels: str) -> float:
        """A counter or gauge as it stands, the number of observations of a histogram; 0.0 if there is none yet."""
        key = _key(name, labels)
        counters = self._all_counters()
        with self._lock:
            if key in counters:
                return counters[key]
            if key in self._gauges:
                return self._gauges[key]
            found = self._histograms.get(key)
            return float(found.count) if found else 0.0

    def total(self, name: str, /) -> float:
        """The sum of a counter over all its labels."""
        return sum(value for (series, _), value in self._all_counters().items() if series == name)

    def snapshot(self) -> tuple[Series, ...]:
        """Everything, ordered by name and labels."""
        counters = self._all_counters()
        with self._lock:
            rows: list[tuple[_Key, float | Histogram]] = [*counters.items(), *self._gauges.items()]
            rows += [(key, found.freeze()) for key, found in self._histograms.items()]
        rows.sort(key=lambda row: row[0])
        return tuple(Series(name, dict(labels), value) for (name, labels), value in rows)

    def prometheus(self) -> str:
        """The text exposition format, version 0.0.4."""
        counters = sorted(self._all_counters().items())
        with self._lock:
            gauges = sorted(self._gauges.items())
            histograms = [(key, found.freeze()) for key, found in sorted(self._histograms.items())]
        lines: list[str] = []
        for kind, rows in (("counter", counters), ("gauge", gauges)):
            last = ""
            for (name, labels), value in rows:
                if name != last:
                    lines.append(f"# TYPE {name} {kind}")
                    last = name
                lines.append(f"{name}{_labels(labels)} {_number(value)}")
        last = ""
        for (name, labels), found in histograms:
            if name != last:
                lines.append(f"# TYPE {name} histogram")
                last = name
            for bound, count in found.buckets:
                lines.append(f"{name}_bucket{_labels((*labels, ('le', _number(bound))))} {count}")
            lines.append(f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {found.count}")
            lines.append(f"{name}_sum{_labels(labels)} {_number(found.sum)}")
            lines.append(f"{name}_count{_labels(labels)} {found.count}")
        return "\n".join(lines) + "\n" if lines else ""

    def _all_counters(self) -> dict[_Key, float]:
        with self._lock:
            counters, followed = dict(self._counters), list(self._followed.items())
        for (name, label), read in followed:  # asked without the lock, since they have locks of their own
            for value, count in read().items():
                counters[_key(name, {label: value})] = count
        return counters


def _key(name: str, labels: dict[str, str]) -> _Key:
    if not labels:
        return name, ()
    if len(labels) == 1:
        return name, tuple(labels.items())
    return name, tuple(sorted(labels.items()))


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
