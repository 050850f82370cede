"""Questions of the user's own: what their rows say becomes metrics.

Typed by what comes: a column of numbers is a gauge, or a counter when its name ends in
``_total``; columns of text tell the rows apart and make the label ``key``. Budgeted: 20
rows and 10 columns of numbers; the answer's time is the plan's, on a connection of its
own, in a read-only session; a query that takes long is asked less often.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from pgbreaker.core.metric import counter, gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Row, Seen
from pgbreaker.probes.probe import Place, Probe, Rows

_ROWS: Final = 20
_COLUMNS: Final = 10
_KEY: Final = 64  # characters

_BY: Final = ("query", "column", "key")


class ShapeError(Exception):
    """What came back is not what a metric can be made of."""

    sqlstate = "42804"  # datatype_mismatch


@lru_cache(maxsize=1024)
def custom(name: str) -> Probe:
    """The probe ``custom.<query>``."""
    query = name.partition(".")[2]
    return Probe(
        name=name,
        says="a query of your own, whose numbers become metrics",
        needs="SELECT on what it reads",
        plan=ProbePlan(interval=30.0, timeout=1.0),
        reads=lambda rows: _values(name, query, rows),
        shows=(
            gauge(
                "pgbreaker_custom_value",
                "What a query of the user's own says in a column of numbers.",
                "value",
                rows=name,
                by=_BY,
            ),
            counter(
                "pgbreaker_custom_count_total",
                "What a query of the user's own counts up, in a column called *_total.",
                "value",
                rows=_totals(name),
                by=_BY,
            ),
        ),
        place=Place.FRESH,
        is_dear=True,
        is_usual=False,
    )


def _values(name: str, query: str, rows: Rows) -> Seen:
    """Take the numbers out of the rows.

    Raises:
        ShapeError: There are too many rows or columns, or ones of another type.
    """
    if len(rows) > _ROWS:
        raise ShapeError(f"{len(rows)} rows; a query may come to {_ROWS}")
    found = [value for row in rows for value in _of_row(query, row)]
    totals = tuple(v for v in found if str(v["column"]).endswith("_total"))
    gauges = tuple(v for v in found if v not in totals)
    return {name: gauges, _totals(name): totals}


def _totals(name: str) -> str:
    """What the rows of counters are called: as no query can be, for want of a dot."""
    return f"{name}.total"


def _of_row(query: str, row: Mapping[str, Any]) -> Iterator[Row]:
    texts = [value for value in row.values() if isinstance(value, str)]
    numbers = {c: v for c, v in row.items() if isinstance(v, bool | int | float)}
    for column, value in row.items():
        if value is not None and not isinstance(value, str | bool | int | float):
            raise ShapeError(f"the column {column!r} is neither a number nor a text")
    if len(numbers) > _COLUMNS:
        raise ShapeError(f"{len(numbers)} columns of numbers; at most {_COLUMNS}")
    key = "/".join(texts)[:_KEY]
    for column, value in numbers.items():
        yield {"query": query, "column": column, "key": key, "value": float(value)}


CUSTOM: Final = custom("custom.*")
"""What stands for all of them in the references."""
