"""A disk that loses power: of what was not synced it keeps what it likes.

A virtual file system below SQLite notes what each file held when it was last synced. At a
moment of its choice it makes an image of the disk as the power would leave it: of each
sector that was written since, the old content or the new one, by lot.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw

SECTOR = 512


class Rows:
    """What a statement came to, as `sqlite3` has it."""

    def __init__(self, cursor: apsw.Cursor, changes: int) -> None:
        self._rows = cursor.fetchall()
        self.rowcount = changes

    def fetchall(self):
        return self._rows

    def fetchone(self):
        return self._rows[0] if self._rows else None

    def __iter__(self):
        return iter(self._rows)


class Connection:
    """As much of a connection as the store uses, over `apsw`."""

    def __init__(self, uri: str, vfs: str) -> None:
        # All of the process goes through this one library: two, each with its own idea
        # of which locks the process has, would break the file.
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        self._connection = apsw.Connection(uri, flags=flags, vfs=vfs)
        self._connection.set_busy_timeout(5000)
        # Often, so that the power goes in the middle of one.
        self._connection.wal_autocheckpoint(40)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement, values=()):
        before = self._connection.total_changes()
        cursor = self._connection.execute(statement, values)
        rows = Rows(cursor, 0)
        rows.rowcount = self._connection.total_changes() - before
        return rows

    def create_function(self, name, count, function, **_):
        self._connection.create_scalar_function(name, function, count)

    def set_progress_handler(self, handler, steps: int) -> None:
        self._connection.set_progress_handler(handler, steps)

    def executemany(self, statement, rows):
        self._connection.executemany(statement, list(rows))

    def close(self):
        self._connection.close()


class Careless(Connection):
    """One that leaves it to the disk when it syncs."""

    def execute(self, statement, values=()):
        less = statement.replace("synchronous = FULL", "synchronous = NORMAL")
        return super().execute(less, values)


class Power(apsw.VFS):
    """The file system.

    Attributes:
        cut: Is called before each write and each sync, on the writer's thread; may call
            `image`.
    """

    def __init__(self, name: str) -> None:
        self.vfs, self.base = name, ""
        self.cut: Callable[[], None] = lambda: None
        self.synced: dict[str, bytes] = {}
        super().__init__(name, self.base)

    def connect(self, uri: str) -> Connection:
        """Open a database on it."""
        return Connection(uri, self.vfs)

    def connect_careless(self, uri: str) -> Connection:
        """Open a database on it, and do not wait for it."""
        return Careless(uri, self.vfs)

    def xOpen(self, name, flags):
        return _File(self, name, flags)

    def xDelete(self, filename, syncdir):
        super().xDelete(filename, syncdir)
        self.synced.pop(filename, None)

    def image(self, directory: Path, luck: random.Random) -> None:
        """Write to *directory* what the power would leave if it went now."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, synced in self.synced.items():
            written = Path(name).read_bytes() if Path(name).exists() else b""
            mixed = _mix(synced, written, luck)
            (directory / Path(name).name).write_bytes(mixed)


class _File(apsw.VFSFile):
    def __init__(self, power: Power, name, flags) -> None:
        super().__init__(power.base, name, flags)
        self._power = power
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        kept = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL
        self._is_kept = bool(flags[0] & kept)
        if self._is_kept and self._name not in power.synced:
            power.synced[self._name] = Path(self._name).read_bytes()

    def xWrite(self, data, offset):
        self._power.cut()
        super().xWrite(data, offset)

    def xSync(self, flags):
        self._power.cut()
        super().xSync(flags)
        if self._is_kept:
            self._power.synced[self._name] = Path(self._name).read_bytes()


def _mix(synced: bytes, written: bytes, luck: random.Random) -> bytes:
    mixed = bytearray()
    for start in range(0, max(len(synced), len(written)), SECTOR):
        old, new = (b[start : start + SECTOR] for b in (synced, written))
        mixed += old if old == new or luck.random() < 0.5 else new
        if len(mixed) < start + min(SECTOR, max(len(old), len(new))):
            # Neither cut off nor written: it was made longer, and nothing came.
            mixed += bytes(max(len(old), len(new)) - (len(mixed) - start))
    return bytes(mixed)
