"""Prometheus' text formats, written by ourselves and cheaply.

`prometheus_client` takes 26 to 40 us a series, which freezes the loop for more than a
second at 50,000 of them. Here a target's lines are made once and joined until one of
its numbers changes.

https://prometheus.io/docs/instrumenting/exposition_formats/
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, its type, what it says.

    Attributes:
        name: Name as in queries, with ``_total`` for a counter.
        kind: ``gauge``, ``counter`` or ``histogram``.
        help: What it says, and in which unit.
        labels: Its labels, for the reference.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    def head(self, *, openmetrics: bool) -> str:
        """Its HELP and TYPE lines."""
        # A counter's family has no suffix in OpenMetrics, and has it in the other.
        is_stem = openmetrics and self.kind == "counter"
        name = self.name.removesuffix("_total") if is_stem else self.name
        return f"# HELP {name} {self.help}\n# TYPE {name} {self.kind}\n"


def escape(value: str) -> str:
    """Make a label's value fit between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def label(**labels: str) -> str:
    """Write labels: ``{a="1",b="2"}``."""
    return "{" + ",".join(f'{k}="{escape(v)}"' for k, v in labels.items()) + "}"


def within(labels: str, **more: str) -> str:
    """Add labels to ones already written by `label`."""
    return labels[:-1] + "," + label(**more)[1:]


def line(name: str, labels: str, value: float) -> str:
    """One sample; whole numbers, and facts, as whole numbers."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    number = int(value) if is_whole or isinstance(value, bool) else value
    return f"{name}{labels} {number}\n"


class Histogram:
    """Counts of durations below each of a few bounds.

    Attributes:
        bounds: Upper bounds in seconds, ascending.
        count: Durations seen.
        sum: Their sum in seconds.
    """

    __slots__ = ("_buckets", "bounds", "count", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._buckets = [0] * len(bounds)
        self.count = 0
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.count += 1
        self.sum += seconds
        for index, bound in enumerate(self.bounds):
            if seconds <= bound:
                self._buckets[index] += 1
                return

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Its samples: the buckets add up, as Prometheus wants them."""
        below = 0
        for bound, count in zip(self.bounds, self._buckets, strict=True):
            below += count
            yield line(f"{name}_bucket", within(labels, le=repr(bound)), below)
        yield line(f"{name}_bucket", within(labels, le="+Inf"), self.count)
        yield line(f"{name}_sum", labels, self.sum)
        yield line(f"{name}_count", labels, self.count)


def reference(families: Mapping[str, Family]) -> str:
    """A Markdown table of *families*, for the documentation."""
    rows = [
        f"| `{f.name}` | {f.kind} | {', '.join(f'`{name}`' for name in f.labels) or '-'} | {f.help} |"
        for f in families.values()
    ]
    return (
        "\n".join(["| metric | type | labels | says |", "|---|---|---|---|", *rows])
        + "\n"
    )
