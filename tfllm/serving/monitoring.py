"""Counters, gauges and histograms of this process, and their page for Prometheus.

A metric is made once, where it is counted, and is on the page from then on. The stock server's
names begin with a colon; prometheus_client would append `_total` to those of its counters.

Source:
    https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4) and
    tensorflow_serving/util/prometheus_exporter.cc, read for how a name is spelled.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_metrics: dict[str, Metric] = {}


class Metric:
    """Something counted for each combination of label values; threads may count at once.

    Args:
        name: As `/tensorflow/serving/request_count`; on the page slashes are colons.
        labels: The names of the labels, in the order of the values that `add` is given.

    Raises:
        ValueError: the name is taken.
    """

    kind: str

    def __init__(self, name: str, *labels: str):
        if name in _metrics:
            raise ValueError(f"there is a metric {name} already.")
        self.name = name.replace("/", ":")
        self._labels = labels
        self._lock = threading.Lock()
        _metrics[name] = self

    def lines(self) -> Iterator[str]:
        """What the page says of it."""
        raise NotImplementedError

    def _labelled(self, values: Sequence[str], *more: tuple[str, str]) -> str:
        pairs = [*zip(self._labels, values, strict=True), *more]
        return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, *labels: str):
        super().__init__(name, *labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *label_values: str, count: int = 1) -> None:
        with self._lock:
            self._counts[label_values] = self._counts.get(label_values, 0) + count

    def value(self, *label_values: str) -> int:
        """What was counted under these labels."""
        with self._lock:
            return self._counts.get(label_values, 0)

    def lines(self) -> Iterator[str]:
        with self._lock:
            counts = dict(self._counts)
        for values, count in counts.items():
            yield f"{self.name}{self._labelled(values)} {count}"


class Gauge(Metric):
    """A number that is set to what is so now."""

    kind = "gauge"

    def __init__(self, name: str, *labels: str):
        super().__init__(name, *labels)
        self._values: dict[tuple[str, ...], float] = {}

    def set(self, *label_values: str, value: float) -> None:
        with self._lock:
            self._values[label_values] = value

    def lines(self) -> Iterator[str]:
        with self._lock:
            now = dict(self._values)
        for values, value in now.items():
            yield f"{self.name}{self._labelled(values)} {value:g}"


class Histogram(Metric):
    """How often a value fell into which bucket.

    Args:
        name: As `Metric`.
        labels: As `Metric`.
        limits: The upper ends of the buckets, ascending; above the last one is one more bucket.
    """

    kind = "histogram"

    def __init__(self, name: str, *labels: str, limits: Sequence[float]):
        super().__init__(name, *labels)
        self._limits = tuple(limits)
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def add(self, *label_values: str, value: float) -> None:
        at = bisect.bisect_left(self._limits, value)
        with self._lock:
            if label_values not in self._cells:
                self._cells[label_values] = ([0] * (len(self._limits) + 1), [0.0])
            counts, total = self._cells[label_values]
            counts[at] += 1
            total[0] += value

    def count(self, *label_values: str) -> int:
        """How many values were added under these labels."""
        with self._lock:
            return sum(self._cells[label_values][0]) if label_values in self._cells else 0

    def lines(self) -> Iterator[str]:
        with self._lock:
            cells = {k: (list(counts), total[0]) for k, (counts, total) in self._cells.items()}
        limits = [f"{limit:g}" for limit in self._limits] + ["+Inf"]
        for values, (counts, total) in cells.items():
            for limit, count in zip(limits, itertools.accumulate(counts), strict=True):
                yield f"{self.name}_bucket{self._labelled(values, ('le', limit))} {count}"
            yield f"{self.name}_sum{self._labelled(values)} {total:.17g}"
            yield f"{self.name}_count{self._labelled(values)} {sum(counts)}"


def exponential(first: float, factor: float, count: int) -> list[float]:
    """`count` limits of buckets, each `factor` times the one before."""
    return [first * factor**i for i in range(count)]


def page() -> str:
    """Every metric of the process in Prometheus' text format."""
    lines = []
    for _, metric in sorted(_metrics.items()):
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines.extend(metric.lines())
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
