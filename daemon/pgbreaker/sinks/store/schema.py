"""The store's tables, and how those of an earlier version become these.

A version that was released stays as it is: what changes is a step to the next one. Each
step is SQL, and all that are needed are one transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

APPLICATION: Final = 0x70676272  # "pgbr": whose file it is, in its header

_FIRST: Final = """
-- What happened.
CREATE TABLE entry (
    id      INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    text    TEXT NOT NULL,
    target  TEXT,
    breaker TEXT,
    author  TEXT,
    details TEXT NOT NULL
);
CREATE INDEX entry_breaker ON entry (breaker, id) WHERE breaker IS NOT NULL;

-- Who decided what: a copy of the entry, which outlives it, and its seal.
CREATE TABLE audit (
    number  INTEGER PRIMARY KEY,
    entry   INTEGER NOT NULL,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    text    TEXT NOT NULL,
    target  TEXT,
    breaker TEXT,
    author  TEXT,
    details TEXT NOT NULL,
    before  TEXT NOT NULL,
    seal    TEXT NOT NULL
);

-- What holds now, written with the entry that it came about by, and kept when that goes.
CREATE TABLE override (
    breaker TEXT PRIMARY KEY,
    id      INTEGER NOT NULL,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    text    TEXT NOT NULL,
    target  TEXT,
    author  TEXT,
    details TEXT NOT NULL
);
CREATE TABLE maintenance (
    id      INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    text    TEXT NOT NULL,
    target  TEXT,
    breaker TEXT,
    author  TEXT,
    details TEXT NOT NULL
);
CREATE TABLE note (
    id INTEGER PRIMARY KEY, -- its entry
    of INTEGER NOT NULL     -- the entry that it was written to
);
CREATE INDEX note_of ON note (of);

-- What breakers remember while no process has them.
CREATE TABLE memory (
    breaker TEXT PRIMARY KEY,
    at      REAL NOT NULL,
    memory  TEXT NOT NULL
);

-- The last readings of each target that came back with bad news.
CREATE TABLE failure (
    id       INTEGER PRIMARY KEY,
    target   TEXT NOT NULL,
    at       REAL NOT NULL,
    probe    TEXT NOT NULL,
    finding  TEXT NOT NULL,
    took     REAL NOT NULL,
    sqlstate TEXT,
    text     TEXT
);
CREATE INDEX failure_target ON failure (target, id);

-- Pings of a target: how many were answered, their seconds in all and at most, and how
-- many were not. By time first: what is new stands together, and so does what goes.
CREATE TABLE ping_1m (
    start  INTEGER NOT NULL,
    target TEXT NOT NULL,
    count  INTEGER NOT NULL,
    total  REAL NOT NULL,
    most   REAL NOT NULL,
    bad    INTEGER NOT NULL,
    PRIMARY KEY (start, target)
) WITHOUT ROWID;
CREATE TABLE ping_1h (
    start  INTEGER NOT NULL,
    target TEXT NOT NULL,
    count  INTEGER NOT NULL,
    total  REAL NOT NULL,
    most   REAL NOT NULL,
    bad    INTEGER NOT NULL,
    PRIMARY KEY (start, target)
) WITHOUT ROWID;

-- Seconds in which a breaker let no calls pass; nothing where it always did.
CREATE TABLE shut_1m (
    start   INTEGER NOT NULL,
    breaker TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (start, breaker)
) WITHOUT ROWID;
CREATE TABLE shut_1h (
    start   INTEGER NOT NULL,
    breaker TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (start, breaker)
) WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""


_SECOND: Final = """
-- What forecasts have learned of a target, while no process has them; as JSON, deflated.
CREATE TABLE forecast (
    target TEXT PRIMARY KEY,
    at     REAL NOT NULL,
    memory BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables, and how they came to be.

    Attributes:
        version: Of the tables that this program reads and writes.
        steps: Version -> what makes it of the one before; of 1, what begins it.
    """

    version: int
    steps: Mapping[int, str]

    def after(self, version: int) -> str:
        """What makes these tables of those of *version*; 0 is an empty file."""
        wanted = range(version + 1, self.version + 1)
        return "\n".join(self.steps[step] for step in wanted)


SCHEMA: Final = Schema(2, {1: _FIRST, 2: _SECOND})
