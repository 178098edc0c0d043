from __future__ import annotations

import threading

from durable_host.telemetry.metrics import Histogram, Metrics


def test_counters_are_kept_apart_by_labels_in_any_order() -> None:
    metrics = Metrics()

    metrics.count("calls_total", a="1", b="2")
    metrics.count("calls_total", 4, b="2", a="1")
    metrics.count("calls_total", a="1", b="3")

    assert metrics.value("calls_total", b="2", a="1") == 5
    assert metrics.total("calls_total") == 6


def test_a_series_that_does_not_exist_is_zero() -> None:
    assert Metrics().value("nothing") == 0.0


def test_gauges_keep_the_last_value() -> None:
    metrics = Metrics()

    metrics.gauge("held", 3)
    metrics.gauge("held", 1)

    assert metrics.value("held") == 1


def test_histogram_buckets_are_cumulative_and_include_their_bound() -> None:
    metrics = Metrics()

    for value in (1, 2, 2, 5000):
        metrics.observe("batch_size", value)

    (row,) = metrics.snapshot()
    assert isinstance(row.value, Histogram)
    assert (row.value.count, row.value.sum) == (4, 5005)
    assert row.value.buckets[:3] == ((1.0, 1), (2.0, 3), (4.0, 3))
    assert row.value.mean == 5005 / 4
    assert metrics.value("batch_size") == 4


def test_prometheus_text_escapes_labels_and_ends_histograms_with_infinity() -> None:
    metrics = Metrics()
    metrics.count("calls_total", name='a"b\\c\n')
    metrics.gauge("held", 1.5)
    metrics.observe("call_seconds", 0.001, op="x")

    lines = metrics.prometheus().splitlines()

    assert lines[:4] == [
        "# TYPE calls_total counter",
        'calls_total{name="a\\"b\\\\c\\n"} 1',
        "# TYPE held gauge",
        "held 1.5",
    ]
    assert 'call_seconds_bucket{op="x",le="0.0005"} 0' in lines
    assert 'call_seconds_bucket{op="x",le="0.001"} 1' in lines
    assert lines[-3:] == [
        'call_seconds_bucket{op="x",le="+Inf"} 1',
        'call_seconds_sum{op="x"} 0.001',
        'call_seconds_count{op="x"} 1',
    ]


def test_counts_from_several_threads_add_up() -> None:
    metrics = Metrics()
    threads = [threading.Thread(target=lambda: [metrics.count("n") for _ in range(2000)]) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert metrics.value("n") == 8000


def test_what_somebody_else_counts_is_asked_whenever_metrics_are_read() -> None:
    metrics = Metrics()
    counts = {"queue.get": 1}
    metrics.follow("requests_total", "kind", lambda: counts)
    assert metrics.value("requests_total", kind="queue.get") == 1

    counts.update({"queue.get": 5, "table.query": 2})

    assert metrics.total("requests_total") == 7
    assert [(row.labels, row.value) for row in metrics.snapshot()] == [
        ({"kind": "queue.get"}, 5),
        ({"kind": "table.query"}, 2),
    ]
    assert 'requests_total{kind="table.query"} 2' in metrics.prometheus()
