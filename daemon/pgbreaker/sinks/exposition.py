"""Prometheus' text formats, written by ourselves and cheaply.

`prometheus_client` takes 26 to 40 us a series, which freezes the loop for more than a
second at 50,000 of them. Here a line is one f-string: the name, labels that were
escaped beforehand, the number. Labels are handed about without their closing brace, so
that more can follow: ``{target="main"``.

https://prometheus.io/docs/instrumenting/exposition_formats/
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Final, TypeAlias

from pgbreaker.core.metric import Family, Shown
from pgbreaker.core.reading import Seen
from pgbreaker.core.units import Seconds

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

SpanIds: TypeAlias = tuple[str, str]
"""A trace and a span of it, as OpenTelemetry writes them: in hexadecimal digits."""

_NUMBER: Final = (int, float)  # bool, too, which is written as 0 or 1

# No label can hold this: the quote would be written with a backslash before it.
_EXEMPLAR: Final = ' # {trace_id="'


def head(family: Family, *, openmetrics: bool) -> str:
    """Write the HELP and TYPE lines of a family."""
    # A counter's family has no suffix in OpenMetrics, and has it in the other.
    is_stem = openmetrics and family.kind == "counter"
    name = family.name.removesuffix("_total") if is_stem else family.name
    says = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        says = says.replace('"', r"\"")
    return f"# HELP {name} {says}\n# TYPE {name} {family.kind}\n"


def check_stems(names: Collection[str]) -> None:
    """Refuse families that OpenMetrics cannot tell apart.

    Raises:
        ValueError: A counter is called as another family, but for its suffix.
    """
    for name in names:
        stem = name.removesuffix("_total")
        if stem != name and stem in names:
            raise ValueError(f"{name} and {stem} are one name in OpenMetrics")


def escape(value: str) -> str:
    """Make a label's value fit between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def more(labels: Mapping[str, str]) -> str:
    """Write labels that follow others: ``,a="1",b="2"``."""
    return "".join(f',{name}="{escape(value)}"' for name, value in labels.items())


def opened(**labels: str) -> str:
    """Write labels that others follow: ``{a="1",b="2"``."""
    return "{" + more(labels)[1:]


def exemplar(span: SpanIds | None, value: float, at: float) -> str:
    """Write what leads from a sample to a span; it follows the sample's number.

    Args:
        span: None: it leads nowhere, and nothing is written.
        value: What was observed.
        at: Wall time of it, in seconds since the epoch.
    """
    if span is None:
        return ""
    trace_id, span_id = span
    return f'{_EXEMPLAR}{trace_id}",span_id="{span_id}"}} {value} {at:.3f}'


def without_exemplars(lines: list[str]) -> list[str]:
    """The same samples for a format that knows no exemplars."""
    return [
        line.partition(_EXEMPLAR)[0] + "\n" if _EXEMPLAR in line else line
        for line in lines
    ]


class Histogram:
    """Counts of durations below each of a few bounds.

    Attributes:
        bounds: Upper bounds in seconds, ascending, without the infinite one.
        count: Durations seen.
        sum: Their sum in seconds.
    """

    __slots__ = ("_buckets", "_exemplars", "bounds", "count", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._exemplars: list[str] | None = None  # until one is traced
        self.count = 0
        self.sum = 0.0

    def observe(self, seconds: Seconds, exemplar: str = "") -> None:
        """Count one duration.

        Args:
            exemplar: What leads to its trace, as `exemplar` writes it; empty where it
                has none, and the one before stays.
        """
        bucket = bisect_left(self.bounds, seconds)
        self.count += 1
        self.sum += seconds
        self._buckets[bucket] += 1
        if exemplar:
            if self._exemplars is None:
                self._exemplars = [""] * len(self._buckets)
            self._exemplars[bucket] = exemplar

    def lines(self, name: str, labels: str) -> list[str]:
        """Its samples: the buckets add up, as Prometheus wants them. They have their
        exemplars with them, if there are any.

        Args:
            labels: As `opened` writes them.
        """
        below, lines = 0, []
        for most, count in zip(_most(self.bounds), self._buckets, strict=True):
            below += count
            lines.append(f"{name}_bucket{labels}{most} {below}\n")
        if self._exemplars is not None:
            led = zip(lines, self._exemplars, strict=True)
            lines = [f"{line[:-1]}{exemplar}\n" for line, exemplar in led]
        lines.append(f"{name}_sum{labels}}} {self.sum}\n")
        lines.append(f"{name}_count{labels}}} {self.count}\n")
        return lines

    def bare_lines(self, name: str) -> list[str]:
        """Its samples, without any label."""
        # `le` is the first label then, and the two others have no braces at all.
        return [
            line.replace("{,", "{").replace("{}", "") for line in self.lines(name, "{")
        ]


@cache  # there are a handful of bounds in all
def _most(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f',le="{bound}"}}' for bound in (*map(repr, bounds), "+Inf"))


class Showing:
    """Writes one family of what probes saw.

    Attributes:
        family: The family, with the labels of all of its series.
    """

    __slots__ = ("_columns", "_values", "family")

    def __init__(self, family: Family, shown: Iterable[Shown]) -> None:
        self.family = family
        self._values: list[tuple[str, str]] = []  # name, labels
        self._columns: list[tuple[str, str, tuple[str, ...], str]] = []
        for one in shown:
            labels = more(one.labels) + "}"
            if one.rows is None:
                self._values.append((one.value, labels))
            else:
                self._columns.append((one.rows, one.value, one.by, labels))

    def lines(self, labels: str, facts: Seen) -> list[str]:
        """Its samples for one target.

        Args:
            labels: Those of the target, as `opened` writes them.
        """
        name = self.family.name
        lines = []
        for value_name, rest in self._values:
            value = facts.get(value_name)
            if isinstance(value, _NUMBER):
                lines.append(f"{name}{labels}{rest} {+value}\n")
        if self._columns:
            lines += self._rows(labels, facts)
        return lines

    def _rows(self, labels: str, facts: Seen) -> Iterable[str]:
        # Two standbys may have one name. A series that came twice would cost the
        # whole scrape its meaning, so the first of them is shown.
        unique: dict[str, float] = {}
        for rows_name, column, by, rest in self._columns:
            rows = facts.get(rows_name)
            if not isinstance(rows, tuple):
                continue
            for row in rows:
                value = row.get(column)
                if isinstance(value, _NUMBER):
                    texts = [f',{label}="{_text(row.get(label))}"' for label in by]
                    unique.setdefault(f"{''.join(texts)}{rest}", +value)
        name = self.family.name
        return [f"{name}{labels}{rest} {value}\n" for rest, value in unique.items()]


def _text(value: object) -> str:
    if isinstance(value, str):
        return escape(value)
    return "" if value is None else str(value)


def showings(shown: Iterable[Shown]) -> dict[str, Showing]:
    """Gather what is shown by family, in the order of its first mention.

    Raises:
        ValueError: Two that share a name are of different kinds, a counter's name does
            not say that it is one, or is another's but for saying so.
    """
    families: dict[str, Family] = {}
    gathered: dict[str, list[Shown]] = {}
    for one in shown:
        name, kind = one.family.name, one.family.kind
        family = families.setdefault(name, one.family)
        if kind != family.kind:
            raise ValueError(f"{name} is shown as a {family.kind} and as a {kind}")
        if (kind == "counter") is not name.endswith("_total"):
            raise ValueError(
                f"{name} is a {kind}: counters, and they alone, end _total"
            )
        labels = tuple(dict.fromkeys((*family.labels, *one.family.labels)))
        families[name] = replace(family, labels=labels)
        gathered.setdefault(name, []).append(one)
    check_stems(families)
    return {name: Showing(families[name], gathered[name]) for name in families}


def shown_families(shown: Iterable[Shown]) -> dict[str, Family]:
    """Name the families of what is shown, for the documentation.

    Raises:
        ValueError: As `showings`.
    """
    return {name: showing.family for name, showing in showings(shown).items()}


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
