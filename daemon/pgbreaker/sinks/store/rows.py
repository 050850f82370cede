"""Entries as rows, and back."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pgbreaker.core.audit import Audited, spelt
from pgbreaker.core.entry import Entry, Kind

log = logging.getLogger(__name__)

Row: TypeAlias = Sequence[Any]

ENTRY: Final = "id, at, kind, text, target, breaker, author, details"
"""Columns of an entry, in the order that rows have here."""

AUDIT: Final = "number, before, seal, entry, at, kind, text, target, breaker, author, details"  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """A reading that came back with bad news.

    Attributes:
        at: Wall time, in seconds since the epoch.
        took: Seconds until it ended.
        sqlstate: What the server said. None: it said nothing.
        text: One sentence. None: there is none.
    """

    target: str
    at: float
    probe: str
    finding: str
    took: float
    sqlstate: str | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pings of a target in some minute, or hour.

    Attributes:
        start: Wall time at which it began, in seconds since the epoch.
        count: Pings that were answered.
        total: Seconds that they took in all.
        most: Seconds that the slowest took.
        bad: Pings that were not answered.
    """

    start: int
    count: int
    total: float
    most: float
    bad: int

    def with_more(self, other: "Bucket") -> "Bucket":
        """With what another saw of the same time."""
        return Bucket(
            self.start,
            self.count + other.count,
            self.total + other.total,
            max(self.most, other.most),
            self.bad + other.bad,
        )


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a target from some moment until now.

    Attributes:
        since: That moment: wall time, in seconds since the epoch.
        until: Now, likewise.
        seen: Seconds of it in which the target was asked; of the others nothing is known.
        count: Pings that were answered.
        total: Seconds that they took in all.
        most: Seconds that the slowest took.
        bad: Pings that were not answered.
        shut: Breaker -> seconds in which it let no calls pass.
    """

    since: float
    until: float
    seen: float
    count: int
    total: float
    most: float
    bad: int
    shut: Mapping[str, float]

    def with_later(self, later: "Past") -> "Past":
        """With what another tells of the time from *until* on."""
        breakers = self.shut.keys() | later.shut.keys()
        return Past(
            self.since,
            later.until,
            min(self.seen + later.seen, later.until - self.since),
            self.count + later.count,
            self.total + later.total,
            max(self.most, later.most),
            self.bad + later.bad,
            {b: self.shut.get(b, 0.0) + later.shut.get(b, 0.0) for b in breakers},
        )

    @property
    def mean(self) -> float | None:
        """Seconds that an answer took on average. None: there was none."""
        return self.total / self.count if self.count else None

    def passed(self, breaker: str) -> float | None:
        """Share of the time seen in which *breaker* let calls pass, 0 to 1. None: none
        was seen."""
        if not self.seen:
            return None
        return max(0.0, 1.0 - self.shut.get(breaker, 0.0) / self.seen)


def row_of(entry: Entry) -> tuple[Any, ...]:
    """Write an entry as a row.

    Raises:
        TypeError: Its details are not fit for JSON.
        ValueError: A number in them is none.
    """
    return (
        *(entry.id, entry.at, entry.kind.value, fit(entry.text)),
        *(fit(entry.target), fit(entry.breaker), fit(entry.author)),
        spelt(entry.details),
    )


def fit(text: str | None) -> str | None:
    """The text as a file takes it: a server's words may hold half a character."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def entry_of(row: Row) -> Entry:
    """Read an entry.

    Raises:
        ValueError: The row holds none: the file was damaged.
    """
    id_, at, kind, text, target, breaker, author, details = row
    read = json.loads(details) if isinstance(details, str) else None
    words = (target, breaker, author)
    are_words = isinstance(text, str) and all(isinstance(w, str | None) for w in words)
    are_numbers = isinstance(id_, int) and isinstance(at, int | float)
    if not (are_numbers and are_words and isinstance(read, dict)):
        raise ValueError(f"row {id_!r} holds no entry")
    return Entry(
        id=id_,
        at=float(at),
        kind=Kind(kind),
        text=text,
        target=target,
        breaker=breaker,
        author=author,
        details=read,
    )


def audited_of(row: Row) -> Audited:
    """Read a line of the audit log.

    Raises:
        ValueError: The row holds none: the file was damaged.
    """
    number, before, seal, *entry = row
    return Audited(entry_of(entry), number, before, seal)


def entries_of(rows: Iterable[Row]) -> Iterator[Entry]:
    """Read entries; those that were damaged are left out, and logged."""
    for row in rows:
        try:
            yield entry_of(row)
        except ValueError as error:
            log.warning("an entry of the store cannot be read: %s", error)
