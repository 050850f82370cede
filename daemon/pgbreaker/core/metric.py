"""What a metric is called and says, and how a value that a probe saw becomes one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final


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


def _shown(
    kind: str,
    name: str,
    says: str,
    value: str,
    *,
    rows: str | None = None,
    by: tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
) -> Shown:
    fixed = labels or {}
    family = Family(name, kind, says, ("target", *by, *fixed))
    return Shown(family=family, value=value, rows=rows, by=by, labels=fixed)


gauge: Final = partial(_shown, "gauge")
"""Show ``value`` as the gauge ``name``, which ``says`` what it means."""

counter: Final = partial(_shown, "counter")
"""Show ``value``, which the server counts up, as the counter ``name``."""
