"""What holds now, by what was written down: overrides, and windows of maintenance.

The writer has it in memory, too, so that a file which has to be begun anew begins with
what holds.
"""

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.sinks.store.learned import Learned, read_learned
from pgbreaker.sinks.store.rows import ENTRY, entries_of, row_of

# SQLite's words on a damaged file may quote from it, and be no text.
DAMAGE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What may be raised by a file that was damaged."""


@dataclass(slots=True)
class Live:
    """What holds now.

    Attributes:
        overrides: Breaker -> the entry of the word that stands before its own.
        windows: Id -> the entry that a window began with which nobody has ended.
        memories: Breaker -> wall time, and what is remembered of it.
        learned: Target -> what forecasts have learned of it, on its way from a broken
            file to a new one; else it is with those who learn.
    """

    overrides: dict[str, Entry] = field(default_factory=dict)
    windows: dict[int, Entry] = field(default_factory=dict)
    memories: dict[str, tuple[float, str]] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> "Live":
        """Read what holds.

        Raises:
            sqlite3.Error: It cannot be read.
        """
        live = cls()
        _read_overrides(connection, live)
        _read_windows(connection, live)
        _read_memories(connection, live)
        return live

    def copy(self) -> "Live":
        """As it is now, whatever comes after."""
        return replace(
            self,
            overrides=dict(self.overrides),
            windows=dict(self.windows),
            memories=dict(self.memories),
        )

    def take(self, entry: Entry) -> None:
        """Take what *entry* decides."""
        if entry.kind is Kind.OVERRIDE and entry.breaker is not None:
            if entry.details.get("state") is None:
                self.overrides.pop(entry.breaker, None)
            else:
                self.overrides[entry.breaker] = entry
        elif entry.kind is Kind.MAINTENANCE:
            if "targets" in entry.details:
                self.windows[entry.id] = entry
            ended = entry.details.get("ended")
            if isinstance(ended, int):
                self.windows.pop(ended, None)


def write_difference(connection: sqlite3.Connection, before: Live, after: Live) -> None:
    """Write what holds after and did not before, and take out what holds no more."""
    for breaker in before.overrides.keys() - after.overrides.keys():
        connection.execute("DELETE FROM override WHERE breaker = ?", (breaker,))
    for breaker, entry in after.overrides.items():
        if before.overrides.get(breaker) is not entry:
            connection.execute(
                f"INSERT OR REPLACE INTO override ({ENTRY}) VALUES (?,?,?,?,?,?,?,?)",
                row_of(entry),
            )
    for window in before.windows.keys() - after.windows.keys():
        connection.execute("DELETE FROM maintenance WHERE id = ?", (window,))
    for window, entry in after.windows.items():
        if before.windows.get(window) is not entry:
            connection.execute(
                f"INSERT OR REPLACE INTO maintenance ({ENTRY}) VALUES (?,?,?,?,?,?,?,?)",
                row_of(entry),
            )


def write_memories(
    connection: sqlite3.Connection, memories: Mapping[str, tuple[float, str]]
) -> None:
    """Write what breakers remember, in the place of what they did."""
    connection.executemany(
        "INSERT OR REPLACE INTO memory (breaker, at, memory) VALUES (?, ?, ?)",
        [(breaker, at, memory) for breaker, (at, memory) in memories.items()],
    )


def salvage(connection: sqlite3.Connection) -> Live:
    """Read as much of what holds as a damaged file still tells."""
    live = Live()
    for read in (_read_overrides, _read_windows, _read_memories, _read_learned):
        with contextlib.suppress(*DAMAGE):
            read(connection, live)
    return live


def _read_overrides(connection: sqlite3.Connection, live: Live) -> None:
    rows = connection.execute(f"SELECT {ENTRY} FROM override")
    for entry in entries_of(rows):
        if entry.breaker is not None:
            live.overrides[entry.breaker] = entry


def _read_windows(connection: sqlite3.Connection, live: Live) -> None:
    rows = connection.execute(f"SELECT {ENTRY} FROM maintenance ORDER BY id")
    live.windows.update((entry.id, entry) for entry in entries_of(rows))


def _read_memories(connection: sqlite3.Connection, live: Live) -> None:
    rows = connection.execute("SELECT breaker, at, memory FROM memory")
    for breaker, at, memory in rows:
        if isinstance(breaker, str) and isinstance(at, float):
            live.memories[breaker] = (at, memory)


def _read_learned(connection: sqlite3.Connection, live: Live) -> None:
    live.learned = read_learned(connection)


def remembered(memory: object) -> dict[str, Any] | None:
    """Read what was written of a breaker. None: it was damaged."""
    try:
        read = json.loads(memory) if isinstance(memory, str) else None
    except ValueError:
        return None
    return read if isinstance(read, dict) else None
