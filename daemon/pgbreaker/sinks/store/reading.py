"""What is read from the store, by connections that cannot write."""

import math
import sqlite3
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, Final

from pgbreaker.core.audit import BEGINNING, Audited, seal
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.incident import TELLING, Excerpt, bare, begins, starts
from pgbreaker.core.units import Seconds
from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.store.books import HEAD
from pgbreaker.sinks.store.rows import (
    AUDIT,
    ENTRY,
    Bucket,
    Failure,
    Past,
    audited_of,
    entries_of,
)

FURTHEST_BACK: Final = 1_000
"""Entries of a breaker that are gone through, for how it was at some moment, or when that
ended."""

MOST: Final = 20_000
"""Entries that incidents are read out of at a time; the newest."""

_LAST_ID: Final = 2**62
_OF_BREAKERS: Final = (Kind.TRANSITION.value, Kind.OVERRIDE.value)


def entries(connection: sqlite3.Connection, wanted: Wanted) -> list[Entry]:
    """Read entries, the oldest first."""
    conditions, values = ["1"], []
    for condition, value in (
        ("at >= ?", wanted.since),
        ("id >= ?", None if wanted.since is None else _first_id(wanted.since)),
        ("id < ?", wanted.before),
        ("id > ?", wanted.after),
        ("target = ?", wanted.target),
        ("breaker = ?", wanted.breaker),
        ("holds(text, ?)", None if wanted.text is None else wanted.text.lower()),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.kinds is not None:
        marks = ", ".join("?" * len(wanted.kinds))
        conditions.append(f"kind IN ({marks})")
        values.extend(kind.value for kind in wanted.kinds)
    connection.create_function("holds", 2, _holds, deterministic=True)
    order = "ASC" if wanted.after is not None else "DESC"
    rows = connection.execute(
        f"SELECT {ENTRY} FROM entry WHERE {' AND '.join(conditions)}"
        f" ORDER BY id {order} LIMIT ?",
        (*values, wanted.limit),
    )
    return sorted(entries_of(rows), key=lambda entry: entry.id)


def _holds(text: Any, words: str) -> bool:  # noqa: ANN401 - a damaged row may hold any
    return isinstance(text, str) and words in text.lower()


def course(
    connection: sqlite3.Connection, since: float, before: int | None, limit: int
) -> Excerpt:
    """Read what incidents are read out of, of those that went on at *since* or later and
    began before the entry *before*: of the newest *limit*, with as much before and after
    them as tells how each breaker was then, and when that ended."""
    kinds = tuple(kind.value for kind in TELLING)
    marks = ", ".join("?" * len(kinds))
    rows = connection.execute(
        f"SELECT {ENTRY} FROM entry"
        f" WHERE id >= ? AND id < ? AND at >= ? AND kind IN ({marks})"
        f" ORDER BY id DESC LIMIT {MOST}",
        (_first_id(since), _LAST_ID if before is None else before, since, *kinds),
    )
    found: dict[int, Entry] = {}
    left, cut = limit, None
    # One at a time: of all that there may be, only what is told stays in memory.
    for entry in entries_of(rows):
        found[entry.id] = bare(entry)
        left -= begins(entry)
        if left == 0 or len(found) == MOST:
            cut = entry.id
            break
    for breaker in _breakers(connection):
        around = [_leading_to(connection, breaker, since, cut)]
        if before is not None:
            around.append(_ending(connection, breaker, before))
        for entry in chain(*around):
            found[entry.id] = bare(entry)
    for entry in _notes(connection, found.keys()):
        found[entry.id] = entry
    return Excerpt([found[id_] for id_ in sorted(found)], cut)


def _first_id(since: float) -> int:
    """An id that no entry of *since* or later is below: ids follow the wall clock, or
    stand above it where that went back."""
    return max(0, int(since * 1000) - 1)


def _breakers(connection: sqlite3.Connection) -> list[str]:
    """Every breaker that there is an entry of; by leaps through the index."""
    rows = connection.execute(
        "WITH RECURSIVE found (name) AS ("
        " SELECT min(breaker) FROM entry WHERE breaker IS NOT NULL"
        " UNION ALL SELECT (SELECT min(breaker) FROM entry WHERE breaker > name)"
        " FROM found WHERE name IS NOT NULL)"
        " SELECT name FROM found WHERE name IS NOT NULL"
    )
    return [name for (name,) in rows]


def _leading_to(
    connection: sqlite3.Connection, breaker: str, since: float, cut: int | None
) -> Iterator[Entry]:
    """The entries of a breaker before *since*, or before the entry *cut* where there is
    one, back to one that says how it was."""
    condition, value = ("at < ?", since) if cut is None else ("id < ?", cut)
    rows = connection.execute(
        f"SELECT {ENTRY} FROM entry WHERE breaker = ? AND {condition}"
        f" AND kind IN (?, ?) ORDER BY id DESC LIMIT {FURTHEST_BACK}",
        (breaker, value, *_OF_BREAKERS),
    )
    for entry in entries_of(rows):
        yield entry
        if starts(entry):
            return


def _ending(
    connection: sqlite3.Connection, breaker: str, first: int
) -> Iterator[Entry]:
    """The entries of a breaker from *first* on, up to one before or after which calls
    passed for sure: what was under way is over by then."""
    rows = connection.execute(
        f"SELECT {ENTRY} FROM entry WHERE breaker = ? AND id >= ?"
        f" AND kind IN (?, ?) ORDER BY id LIMIT {FURTHEST_BACK}",
        (breaker, first, *_OF_BREAKERS),
    )
    for entry in entries_of(rows):
        yield entry
        if starts(entry) and entry.details.get("override") is None:
            return


def _notes(connection: sqlite3.Connection, ids: Collection[int]) -> Iterator[Entry]:
    (noted,) = connection.execute("SELECT count(*) FROM note").fetchone()
    if not noted or not ids:
        return
    rows = connection.execute(
        f"SELECT {ENTRY} FROM entry WHERE id IN"
        " (SELECT id FROM note WHERE of >= ? AND of <= ?)",
        (min(ids), max(ids)),
    )
    yield from entries_of(rows)


def audit(
    connection: sqlite3.Connection, limit: int, before: int | None
) -> list[Audited]:
    """Read the last *limit* lines of the audit log before number *before*, the oldest
    first."""
    rows = connection.execute(
        f"SELECT {AUDIT} FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?",
        (_LAST_ID if before is None else before, limit),
    )
    return [audited_of(row) for row in reversed(rows.fetchall())]


def audit_fault(connection: sqlite3.Connection) -> str | None:
    """Look for a line of the audit log that was changed, dropped or slipped in.

    Returns:
        Where the first is that is not as it was written. None: there is none.
    """
    number, before = 0, ""
    for row in connection.execute(f"SELECT {AUDIT} FROM audit ORDER BY number"):
        if number and row[0] != number + 1:
            return f"line {number + 1} of the audit log is missing"
        try:
            line = audited_of(row)
        except ValueError as error:
            return f"line {row[0]} of the audit log was changed: {error}"
        if line.number == 1:
            before = BEGINNING
        if before and line.before != before:
            return f"line {line.number} of the audit log does not follow the one before"
        if seal(str(line.before), row[0], line.entry) != line.seal:
            return f"line {line.number} of the audit log was changed"
        number, before = row[0], str(line.seal)
    return _head_fault(connection, number, before) or _copy_fault(connection)


def _head_fault(connection: sqlite3.Connection, number: int, sealed: str) -> str | None:
    head = connection.execute(
        "SELECT value FROM meta WHERE name = ?", (HEAD,)
    ).fetchone()
    if head == (f"{number} {sealed}",) or (head is None and number == 0):
        return None
    return f"the audit log does not end with line {number}, by what was noted of it"


def _copy_fault(connection: sqlite3.Connection) -> str | None:
    """Where an entry says another thing than its line of the audit log."""
    columns = ("at", "kind", "text", "target", "breaker", "author", "details")
    differs = " OR ".join(f"e.{c} IS NOT a.{c}" for c in columns)
    row = connection.execute(
        f"SELECT a.number FROM audit a JOIN entry e ON e.id = a.entry WHERE {differs}"
        " ORDER BY a.number LIMIT 1"
    ).fetchone()
    return (
        None if row is None else f"the entry of line {row[0]} of the audit was changed"
    )


_MINUTE: Final = 60
_HOUR: Final = 3600
_LEAPS: Final = (
    30_000  # 14 days of minutes, 400 of hours, and some; a damaged file lies
)

# Rows of all targets stand by their time. Those of one are found by a leap to each minute
# that there may be: of five hundred targets a look at every row would take seconds.
_SLOTS: Final = f"""
WITH RECURSIVE slot (start) AS (
 SELECT :first WHERE :first < :until
 UNION ALL SELECT start + :width FROM slot WHERE start + :width < :until
 LIMIT {_LEAPS}
)"""


def buckets(
    connection: sqlite3.Connection,
    target: str,
    since: float,
    *,
    hours: bool,
    until: float = math.inf,
) -> list[Bucket]:
    """Read the pings of a target that began before *until*, the oldest first."""
    table = "ping_1h" if hours else "ping_1m"
    begins, ends = _reach(connection, table)
    width = _HOUR if hours else _MINUTE
    rows = connection.execute(
        f"{_SLOTS} SELECT p.start, p.count, p.total, p.most, p.bad"
        f" FROM slot CROSS JOIN {table} p"
        " WHERE p.start = slot.start AND p.target = :target ORDER BY p.start",
        {
            "first": max(begins, math.ceil(since / width) * width),
            "until": min(ends, until),
            "width": width,
            "target": target,
        },
    )
    return [Bucket(*row) for row in rows]


def _reach(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """Where a table of counts begins, and where it has ended; the same where it is
    empty."""
    (begins,) = connection.execute(f"SELECT min(start) FROM {table}").fetchone()
    (last,) = connection.execute(f"SELECT max(start) FROM {table}").fetchone()
    return (0, 0) if begins is None else (begins, last + 1)


def shut(
    connection: sqlite3.Connection,
    breaker: str,
    since: float,
    *,
    hours: bool,
    until: float = math.inf,
) -> list[tuple[int, float]]:
    """Read in which minutes, or hours, that began before *until* a breaker let no calls
    pass, and for how many seconds of each."""
    rows = connection.execute(
        f"SELECT start, seconds FROM {'shut_1h' if hours else 'shut_1m'}"
        " WHERE start >= ? AND start < ? AND breaker = ? ORDER BY start",
        (since, min(until, 2**62), breaker),
    )
    return [(start, seconds) for start, seconds in rows]


def past(
    connection: sqlite3.Connection,
    target: str,
    breakers: Collection[str],
    since: float,
    now: float,
    every: Seconds,
) -> Past:
    """Reckon what became of a target from *since* until *now*.

    As far as there are minutes, each counts as seen that stands among others; of the
    first and the last before a gap, as much as its pings come to: a daemon that ran for a
    part of it saw that part. Of an hour that has only its sum, likewise; or as much as a
    breaker is known to have been shut.

    Args:
        every: Seconds between two pings.

    Raises:
        ValueError: The file was damaged.
    """
    try:
        turn = min(max(since, _minutes_from(connection, now)), now)
        old = _by_hours(connection, target, breakers, since, turn, every)
        return old.with_later(
            _by_minutes(connection, target, breakers, turn, now, every)
        )
    except TypeError as error:
        raise ValueError(f"what was counted is no number: {error}") from None


def _minutes_from(connection: sqlite3.Connection, now: float) -> float:
    """From when on there are all minutes: an hour's beginning, or now."""
    first, ended = _reach(connection, "ping_1m")
    oldest, _ = _reach(connection, "ping_1h")
    if first == ended:
        return now
    hour = first // _HOUR * _HOUR
    # Nothing is older, so none of this hour's are gone.
    return hour if oldest == hour else hour + _HOUR


def _by_hours(
    connection: sqlite3.Connection,
    target: str,
    breakers: Collection[str],
    since: float,
    until: float,
    every: Seconds,
) -> Past:
    found = buckets(connection, target, since, hours=True, until=until)
    seen = {b.start: (b.count + b.bad) * every for b in found}
    sums = {}
    for breaker in breakers:
        pieces = shut(connection, breaker, since, hours=True, until=until)
        sums[breaker] = sum(seconds for _, seconds in pieces)
        for start, seconds in pieces:
            seen[start] = max(seen.get(start, 0.0), seconds)
    return Past(
        since,
        until,
        sum(min(seconds, _HOUR) for seconds in seen.values()),
        sum(b.count for b in found),
        sum(b.total for b in found),
        max((b.most for b in found), default=0.0),
        sum(b.bad for b in found),
        sums,
    )


def _by_minutes(
    connection: sqlite3.Connection,
    target: str,
    breakers: Collection[str],
    since: float,
    now: float,
    every: Seconds,
) -> Past:
    first = math.ceil(since / _MINUTE) * _MINUTE
    marks = ", ".join(f":b{number}" for number in range(len(breakers)))
    seen, count, total, most, bad = connection.execute(
        f"""{_SLOTS}, asked AS (
 SELECT p.*, lag(p.start, 1, 0) OVER (ORDER BY p.start) AS before,
  lead(p.start, 1, :until) OVER (ORDER BY p.start) AS next
 FROM slot CROSS JOIN ping_1m p WHERE p.start = slot.start AND p.target = :target
), shut AS (
 SELECT start, max(seconds) AS seconds FROM shut_1m
 WHERE start >= :first AND start < :until AND breaker IN ({marks}) GROUP BY start
)
SELECT
 coalesce(sum(CASE WHEN a.start - before <= :cover AND next - a.start <= :cover
  THEN next - a.start
  ELSE min(next - a.start, :cover, max((count + bad + 1) * :every, coalesce(seconds, 0)))
  END), 0.0),
 coalesce(sum(count), 0), coalesce(sum(total), 0.0), coalesce(max(most), 0.0),
 coalesce(sum(bad), 0)
FROM asked a LEFT JOIN shut s ON s.start = a.start""",
        {
            "first": first,
            "until": now,
            "width": _MINUTE,
            "target": target,
            # Who is asked every five minutes has been seen in the four between, too.
            "cover": max(1, math.ceil(every / _MINUTE)) * _MINUTE,
            "every": every,
            **{f"b{number}": breaker for number, breaker in enumerate(breakers)},
        },
    ).fetchone()
    sums = {
        breaker: sum(
            seconds
            for _, seconds in shut(connection, breaker, first, hours=False, until=now)
        )
        for breaker in breakers
    }
    return Past(since, now, seen, count, total, most, bad, sums)


def failures(connection: sqlite3.Connection, target: str) -> list[Failure]:
    """Read the last readings of a target that came back with bad news, the oldest
    first."""
    rows = connection.execute(
        "SELECT target, at, probe, finding, took, sqlstate, text FROM failure"
        " WHERE target = ? ORDER BY id",
        (target,),
    )
    return [Failure(*row) for row in rows]


def last_id(connection: sqlite3.Connection) -> int:
    """The largest id that an entry was ever given, as far as the store tells."""
    (entry,) = connection.execute("SELECT max(id) FROM entry").fetchone()
    (line,) = connection.execute("SELECT max(entry) FROM audit").fetchone()
    return max(entry or 0, line or 0)
