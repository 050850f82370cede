"""What goes when it is old, or when there is too much: the oldest first.

A chunk at a time, so that a decision never waits for long.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

CHUNK: Final = 200
"""Rows, or pages, that go at once."""

_DAY: Final = 86_400
_MINUTES_FOR: Final = 14 * _DAY
_HOURS_FOR: Final = 400 * _DAY
_MEMORIES_FOR: Final = 30 * _DAY  # of breakers, and targets, that nobody has any more
_LAST: Final = 200  # entries, and lines of the audit log, that stay in any case

_OF_AGE: Final = (
    ("ping_1m", "start, target", _MINUTES_FOR),
    ("shut_1m", "start, breaker", _MINUTES_FOR),
    ("ping_1h", "start, target", _HOURS_FOR),
    ("shut_1h", "start, breaker", _HOURS_FOR),
)


def prune(connection: sqlite3.Connection, wall: float, budget: int) -> bool:
    """Take out a chunk of what is to go.

    Args:
        wall: Wall time, in seconds since the epoch.
        budget: Bytes that the file may have.

    Returns:
        Whether there may be more.
    """
    for table, key, age in _OF_AGE:
        if _cut(connection, table, key, f"start < {wall - age:.0f}"):
            return True
    for table in ("memory", "forecast"):
        connection.execute(f"DELETE FROM {table} WHERE at < ?", (wall - _MEMORIES_FOR,))
    page, pages, free = (
        int(connection.execute(f"PRAGMA {of}").fetchone()[0])
        for of in ("page_size", "page_count", "freelist_count")
    )
    if (pages - free) * page > budget:
        return any(cut(connection) for cut in _by_age(connection))
    if pages * page > budget and free:
        connection.execute(f"PRAGMA incremental_vacuum({CHUNK})").fetchall()
        return True
    return False


def _by_age(
    connection: sqlite3.Connection,
) -> list[Callable[[sqlite3.Connection], bool]]:
    """What may go where there is too much, the oldest of it first; the audit log last."""
    (entry,) = connection.execute("SELECT min(id) / 1000 FROM entry").fetchone()
    (minute,) = connection.execute("SELECT min(start) FROM ping_1m").fetchone()
    first = [_cut_entries, _cut_minutes]
    if minute is not None and (entry is None or minute < entry):
        first.reverse()
    return [*first, _cut_hours, _cut_audit]


def _cut_entries(connection: sqlite3.Connection) -> bool:
    kept = f"SELECT id FROM entry ORDER BY id DESC LIMIT {_LAST}"
    gone = f"id < (SELECT min(id) FROM ({kept}))"
    are_gone = _cut(connection, "entry", "id", gone)
    if are_gone:
        oldest = "(SELECT min(id) FROM entry)"
        connection.execute(f"DELETE FROM note WHERE id < {oldest}")
    return are_gone


def _cut_minutes(connection: sqlite3.Connection) -> bool:
    return _cut(connection, "ping_1m", "start, target", "1") or _cut(
        connection, "shut_1m", "start, breaker", "1"
    )


def _cut_hours(connection: sqlite3.Connection) -> bool:
    return _cut(connection, "ping_1h", "start, target", "1") or _cut(
        connection, "shut_1h", "start, breaker", "1"
    )


def _cut_audit(connection: sqlite3.Connection) -> bool:
    last = f"number <= (SELECT max(number) FROM audit) - {_LAST}"
    return _cut(connection, "audit", "number", last)


def _cut(connection: sqlite3.Connection, table: str, key: str, where: str) -> bool:
    """Delete the first chunk of a table. Whether any was there to delete."""
    chunk = f"SELECT {key} FROM {table} WHERE {where} ORDER BY {key} LIMIT {CHUNK}"
    return bool(
        connection.execute(f"DELETE FROM {table} WHERE ({key}) IN ({chunk})").rowcount
    )
