"""What the writer writes, each within a transaction of the writer's."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pgbreaker.core.audit import BEGINNING, is_audited, seal
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.sinks.store.rows import AUDIT, ENTRY, Bucket, Failure, Row, row_of

FAILURES: Final = 50
"""Failed readings that are kept of a target."""

HEAD: Final = "audit_head"
"""Where it stands how far the audit log goes: a last line that is missing is missed."""

_MINUTE: Final = 60
_HOUR: Final = 3600


@dataclass(slots=True)
class Counts:
    """What was counted in some minutes, and not written yet.

    Attributes:
        pings: Target, start of the minute -> its pings.
        shut: Breaker, start of the minute -> seconds in which it let no calls pass.
        failures: Readings that came back with bad news, the oldest first.
    """

    pings: dict[tuple[str, int], Bucket] = field(default_factory=dict)
    shut: dict[tuple[str, int], float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pings) + len(self.shut) + len(self.failures)

    def add(self, more: "Counts") -> None:
        """Count what *more* has, too."""
        for key, bucket in more.pings.items():
            known = self.pings.get(key)
            self.pings[key] = bucket if known is None else known.with_more(bucket)
        for place, seconds in more.shut.items():
            self.shut[place] = self.shut.get(place, 0.0) + seconds
        self.failures += more.failures


def write_entries(
    connection: sqlite3.Connection, entries: Iterable[Entry], rows: Iterable[Row]
) -> None:
    """Write *entries*, which are *rows*, with their lines of the audit log and the links
    of notes."""
    entries = tuple(entries)
    connection.executemany(
        f"INSERT INTO entry ({ENTRY}) VALUES (?,?,?,?,?,?,?,?)", rows
    )
    decided = [entry for entry in entries if is_audited(entry)]
    if decided:
        _write_audit(connection, decided)
    for entry in entries:
        of = entry.details.get("of")
        if entry.kind is Kind.NOTE and isinstance(of, int):
            connection.execute("INSERT INTO note VALUES (?, ?)", (entry.id, of))


def _write_audit(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    last = connection.execute(
        "SELECT number, seal FROM audit ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, before = last or (0, BEGINNING)
    for entry in entries:
        number += 1
        sealed = seal(before, number, entry)
        connection.execute(
            f"INSERT INTO audit ({AUDIT}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (number, before, sealed, *row_of(entry)),
        )
        before = sealed
    write_fact(connection, HEAD, f"{number} {before}")


def write_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Write something of the store itself, in the place of what it was."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def write_counts(connection: sqlite3.Connection, counts: Counts) -> None:
    """Add what was counted to its minutes and to their hours."""
    for table, width in (("ping_1m", _MINUTE), ("ping_1h", _HOUR)):
        connection.executemany(
            f"INSERT INTO {table} (start, target, count, total, most, bad)"
            " VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
            " count = count + excluded.count, total = total + excluded.total,"
            " most = max(most, excluded.most), bad = bad + excluded.bad",
            [
                (start // width * width, target, b.count, b.total, b.most, b.bad)
                for (target, start), b in counts.pings.items()
            ],
        )
    for table, width in (("shut_1m", _MINUTE), ("shut_1h", _HOUR)):
        connection.executemany(
            f"INSERT INTO {table} (start, breaker, seconds) VALUES (?,?,?)"
            " ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds",
            [
                (start // width * width, breaker, seconds)
                for (breaker, start), seconds in counts.shut.items()
            ],
        )
    _write_failures(connection, counts.failures)


def _write_failures(
    connection: sqlite3.Connection, failures: Sequence[Failure]
) -> None:
    connection.executemany(
        "INSERT INTO failure (target, at, probe, finding, took, sqlstate, text)"
        " VALUES (?,?,?,?,?,?,?)",
        [
            (f.target, f.at, f.probe, f.finding, f.took, f.sqlstate, f.text)
            for f in failures
        ],
    )
    for target in {failure.target for failure in failures}:
        connection.execute(
            "DELETE FROM failure WHERE target = ?1 AND id <= (SELECT id FROM failure"
            f" WHERE target = ?1 ORDER BY id DESC LIMIT 1 OFFSET {FAILURES})",
            (target,),
        )
