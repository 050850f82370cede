"""The store's file: whose it is, how it is opened, and what becomes of a broken one."""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.store.learned import write_learned
from pgbreaker.sinks.store.live import (
    DAMAGE,
    Live,
    salvage,
    write_difference,
    write_memories,
)
from pgbreaker.sinks.store.schema import APPLICATION, Schema

log = logging.getLogger(__name__)

Connect: TypeAlias = Callable[[str], sqlite3.Connection]
"""Opens a database by its URI, in autocommit."""

BUSY_TIMEOUT: Final[Seconds] = 5.0
"""How long is waited for somebody who looks into the file by other means."""

WAL_LIMIT: Final = 4 * 1024 * 1024
"""Bytes that the write-ahead log is cut back to once its content is in the file."""

_BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_PLACE: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_MISSING: Final = ("no such table", "no such column", "has no column")
_BESIDE: Final = ("-wal", "-shm")
_ASIDE_KEPT: Final = 3  # broken files; each may be as large as the store


class InUseError(PgbreakerError):
    """Another daemon has the store."""


class UnusableError(PgbreakerError):
    """The file is whole, and yet not to be written to: it is left as it is."""


class BrokenError(PgbreakerError):
    """The file is a whole database, and cannot be the store."""


def connect(uri: str) -> sqlite3.Connection:
    """Open a database by its URI."""
    connection = sqlite3.connect(
        uri, timeout=BUSY_TIMEOUT, isolation_level=None, uri=True
    )
    # A damaged file may hold anything; what is no text is shown as such.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def uri_of(path: Path, mode: str) -> str:
    """The URI of the database at *path*, with what is asked of it."""
    return f"{path.absolute().as_uri()}?{mode}"


def is_broken(error: Exception) -> bool:
    """Whether *error* says that the file is no whole database."""
    if isinstance(error, BrokenError | UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    # What is asked is right, so a table that is not there was damaged.
    text, code = str(error), getattr(error, "sqlite_errorcode", 0)
    return (code & 0xFF) in _BROKEN or any(words in text for words in _MISSING)


def open_to_read(path: Path, connect: Connect = connect) -> sqlite3.Connection:
    """Open the store to read, also where nothing can be written.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    connection = connect(uri_of(path, "mode=ro"))
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        # On a file system that is read-only there is no place for the index of the log;
        # where no log is left, none is needed, and nobody writes.
        code = error.sqlite_errorcode & 0xFF
        if code not in _NO_PLACE or Path(f"{path}-wal").exists():
            raise
        connection = connect(uri_of(path, "immutable=1"))
    connection.execute("PRAGMA query_only = ON")
    return connection


def damage(connection: sqlite3.Connection) -> str | None:
    """Look the whole file through.

    Returns:
        What is broken first. None: nothing is.

    Raises:
        sqlite3.Error: It cannot be looked at.
    """
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except DAMAGE as error:
        if not is_broken(error):
            raise
        return str(error)
    return None if found == "ok" else str(found)


class File:
    """The file that the writer writes to.

    Attributes:
        quarantined: Where the last broken file was put. None: none was broken.
        live: What holds, by what is written down in it.
    """

    def __init__(self, path: Path, schema: Schema, connect: Connect = connect) -> None:
        self.path = path
        self.quarantined: Path | None = None
        self.live = Live()
        self._schema = schema
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._places: dict[Path, tuple[int, int]] = {}
        self._lock: int | None = None
        self._knows = False  # what holds: from the file that was open, or is broken

    @property
    def connection(self) -> sqlite3.Connection:
        """What it is written to by, while it is open."""
        assert self._connection is not None, "the store is not open"
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether it can be written to, as far as is known."""
        return self._connection is not None

    def open(self) -> None:
        """Open it; one that is missing is begun, a broken one put aside.

        Raises:
            InUseError: Another daemon has it.
            UnusableError: It is not one of ours, or one of a later version.
            OSError: It cannot be reached.
            sqlite3.Error: It cannot be opened, or written to.
        """
        if self._lock is None:
            self._lock = _lock(self.path)
        try:
            self._open()
        except (*DAMAGE, BrokenError) as error:
            if not is_broken(error):
                raise
            self.put_aside(str(error))
            self._open()

    def _open(self) -> None:
        try:
            self._make()
            version = self._look()
            self._connection = self._connect(uri_of(self.path, "mode=rw"))
            begin(self._connection, is_new=version == 0)
            if version < self._schema.version:
                self._migrate(version)
            self._settle_live()
            self._note_places()
        except BaseException:
            self._drop()
            raise
        self._knows = True

    def _make(self) -> None:
        """See to it that there is a file, which nobody else may read."""
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
        is_new = not self.path.exists()
        if is_new:
            for suffix in _BESIDE:  # of a file that somebody took away
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        # Never while it is open: to close any handle of a file gives up all the locks
        # that the process has on it.
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(self.path.parent)

    def _look(self) -> int:
        """Read the version of the tables, 0 where there are none, and change nothing.

        Raises:
            UnusableError: They are somebody else's, or of a later version.
            BrokenError: They are ours, and of no version.
        """
        if self.path.stat().st_size == 0:
            return 0
        # Without a log there is nothing to share, and so nothing is left beside it.
        has_log = Path(f"{self.path}-wal").exists()
        mode = "mode=ro" if has_log else "immutable=1"
        looking = self._connect(uri_of(self.path, mode))
        try:
            (application,) = looking.execute("PRAGMA application_id").fetchone()
            (version,) = looking.execute("PRAGMA user_version").fetchone()
            (tables,) = looking.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            looking.close()
        if tables == 0:
            return 0
        if application != APPLICATION:
            raise UnusableError(
                f"{self.path} is a database of something else; give the store its own"
            )
        if version > self._schema.version:
            raise UnusableError(
                f"{self.path} was written by a later version of pgbreaker (its schema is"
                f" {version}, this one knows {self._schema.version}): run that one, or"
                f" put the copy {self.path}.bak-v{self._schema.version} in its place"
            )
        if version < 1:
            raise BrokenError(f"its schema is {version}")
        return int(version)

    def _migrate(self, version: int) -> None:
        if version:
            self._back_up(version)
        begun = time.monotonic()
        with transaction(self.connection, durable=True):
            for statement in _statements(self._schema.after(version)):
                self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {self._schema.version}")
        if version:
            log.info(
                "the store %s is of version %d now, not %d; it took %.1f s",
                *(self.path, self._schema.version, version),
                time.monotonic() - begun,
            )

    def _back_up(self, version: int) -> None:
        """Copy the file as it is beside itself."""
        copy = Path(f"{self.path}.bak-v{version}")
        part = Path(f"{copy}.part")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            self.connection.execute("VACUUM INTO ?", (str(part),))
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)
        _sync_directory(copy.parent)
        log.info("a copy of the store as it was is %s", copy)

    def _settle_live(self) -> None:
        """Have what holds in the file and here be the same.

        What the process has known since it had a file stands above what is found in one
        that has come into its place.
        """
        there = Live.read(self.connection)
        if self._knows:
            with transaction(self.connection, durable=True):
                write_difference(self.connection, there, self.live)
                write_memories(self.connection, self.live.memories)
                write_learned(self.connection, self.live.learned)
            self.live.learned = {}
        else:
            self.live = there

    # While it is open.

    def _note_places(self) -> None:
        files = (self.path, Path(f"{self.path}-wal"))
        self._places = {file: _place(file) for file in files if file.exists()}

    def is_in_place(self) -> bool:
        """Whether what is open is what stands at the path: a file that was deleted takes
        whatever is written, and keeps nothing."""
        with contextlib.suppress(FileNotFoundError):
            return all(_place(file) == at for file, at in self._places.items())
        return False

    def damage(self) -> str | None:
        """Look the whole file through, as it is on disk. None: it is whole.

        Raises:
            sqlite3.Error: It cannot be looked at.
        """
        try:
            opened = open_to_read(self.path, self._connect)
        except DAMAGE as error:
            if not is_broken(error):
                raise
            return str(error)
        with contextlib.closing(opened) as connection:
            return damage(connection)

    def size(self) -> int:
        """Bytes that it takes on disk, with its log."""
        total = 0
        for suffix in ("", *_BESIDE):
            with contextlib.suppress(OSError):
                total += os.stat(f"{self.path}{suffix}").st_size
        return total

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is written was written; a broken file cannot even be closed well.
            with contextlib.suppress(*DAMAGE):
                connection.close()

    def let_go(self) -> None:
        """Close it, to be opened anew: something is wrong with what is open."""
        self._drop()

    def reopen(self) -> None:
        """Close it, and open what stands at the path now. Raises: as `open`."""
        if self._connection is not None:
            # Of a log that was deleted all is moved to the file by whoever closes that
            # last; somebody who reads may have it open for longer than we do.
            with contextlib.suppress(*DAMAGE):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._drop()
        self.open()

    def put_aside(self, why: str) -> None:
        """Put a broken file out of the way, with what it still tells of what holds.

        Raises:
            OSError: It cannot be moved.
        """
        self._drop()
        found = self._salvaged()
        if self._knows:
            self.live.learned = found.learned
        else:
            self.live, self._knows = found, True
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside, number = Path(f"{self.path}.corrupt-{stamp}"), 1
        while aside.exists():
            number += 1
            aside = Path(f"{self.path}.corrupt-{stamp}-{number}")
        for suffix in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        self.path.replace(aside)
        _sync_directory(aside.parent)
        self.quarantined = aside
        log.error(
            "the store %s is broken (%s): it was put aside as %s, and a new one is begun",
            *(self.path, why, aside),
        )
        self._clear_old()

    def _salvaged(self) -> Live:
        try:
            with contextlib.closing(
                open_to_read(self.path, self._connect)
            ) as connection:
                return salvage(connection)
        except DAMAGE:
            return Live()

    def _clear_old(self) -> None:
        """Take away all but the last broken files: they would fill the disk."""
        names = self.path.parent.glob(f"{self.path.name}.corrupt-*")
        asides = [n for n in names if not n.name.endswith(_BESIDE)]
        asides.sort(key=lambda aside: (aside.stat().st_mtime, aside.name))
        for aside in asides[:-_ASIDE_KEPT]:
            for suffix in ("", *_BESIDE):
                Path(f"{aside}{suffix}").unlink(missing_ok=True)
            log.info("%s is gone: there are %d later ones", aside, _ASIDE_KEPT)

    def close(self) -> None:
        """Close it, and let others have it."""
        self._drop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def begin(connection: sqlite3.Connection, *, is_new: bool) -> None:
    """Set a connection up to write by."""
    if is_new:
        # Before there is any table: later it would take a copy of the whole file.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"no write-ahead log is to be had: {mode}")
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT * 1000:.0f}",
        f"journal_size_limit = {WAL_LIMIT}",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "temp_store = MEMORY",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool) -> Iterator[None]:
    """Write all that the block does, or nothing.

    Args:
        durable: Whether it is on disk, and not only on its way there, once the block has
            ended.
    """
    level = "FULL" if durable else "NORMAL"
    connection.execute(f"PRAGMA synchronous = {level}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(*DAMAGE):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, each alone: `executescript` would end the
    transaction first."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += f"{piece};"  # which may stand within a text, or a comment
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _place(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Have the store for this process alone, until the handle is closed.

    Raises:
        InUseError: Another process has it.
        OSError: The lock cannot be reached.
    """
    # A file of its own: SQLite's locks are on the database, and would go with a handle.
    beside = f"{path}.lock"
    descriptor = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Writing fails where the disk is full; the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    except OSError as error:
        other = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise InUseError(
            f"the store {path} is in use by another daemon, process {other or 'unknown'}"
        ) from None
    return descriptor
