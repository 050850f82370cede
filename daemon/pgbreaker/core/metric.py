"""What a metric is called and says, and how a value that a probe saw becomes one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How a value that a probe saw becomes series of a metric.

    A value that was never seen, or is None, makes no series.

    Attributes:
        family: The metric; ``target`` is the first of its labels.
        value: Name of the value; with *rows*, the column that holds it.
        rows: Name of the rows to look for it in. None: it is one of its own.
        by: Columns of the rows that become labels of the same name.
        labels: Label -> text that is the same for each of its series.
    """

    family: Family
    value: str
    rows: str | None = None
    by: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def gauge(
    name: str,
    says: str,
    value: str,
    *,
    rows: str | None = None,
    by: tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
) -> Shown:
    """Show *value* as the gauge *name*, which *says* what it means."""
    return _shown("gauge", name, says, value, rows, by, labels or {})


def counter(
    name: str,
    says: str,
    value: str,
    *,
    rows: str | None = None,
    by: tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
) -> Shown:
    """Show *value*, which the server counts up, as the counter *name*."""
    return _shown("counter", name, says, value, rows, by, labels or {})


def _shown(
    kind: str,
    name: str,
    says: str,
    value: str,
    rows: str | None,
    by: tuple[str, ...],
    labels: Mapping[str, str],
) -> Shown:
    family = Family(name, kind, says, ("target", *by, *labels))
    return Shown(family=family, value=value, rows=rows, by=by, labels=labels)
