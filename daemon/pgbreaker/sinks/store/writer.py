"""The one thread that writes to the store."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry
from pgbreaker.core.units import Seconds, counted, lasting
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.store.books import Counts, write_counts, write_entries
from pgbreaker.sinks.store.file import File, InUseError, is_broken, transaction
from pgbreaker.sinks.store.live import write_difference, write_memories
from pgbreaker.sinks.store.pruning import prune
from pgbreaker.sinks.store.rows import Row, row_of

log = logging.getLogger(__name__)

OWED: Final = 10_000
"""Entries that are kept to be written later, while the disk takes none."""

DECISIONS: Final = 500
"""Decisions that may wait to be written; people do not make more at once."""

COUNTED: Final = 20_000
"""Rows of counts that are kept to be written later."""

STUCK: Final[Seconds] = 5.0
"""After so long within one write, the disk counts as not answering."""

RESTS: Final[tuple[Seconds, Seconds]] = (1.0, 60.0)
"""Between two tries to write what could not be written: at first, and at most."""

_AT_ONCE: Final = 500  # entries of one transaction
_TIDIES: Final[Seconds] = 60.0  # between two looks at what is old
_TIDIES_AFTER: Final = 1_000  # entries, too

_FAILURES: Final = (sqlite3.Error, OSError, PgbreakerError)

Tell = Callable[[str | None], None]
"""Is told why something could not be written. None: it is on disk. Called on the
writer's thread."""


@dataclass(eq=False, slots=True)
class Job:
    """Entries to be written in one piece.

    Attributes:
        entries: In their order.
        owed: Whether they are written whenever that can be: they came about, and nobody
            can take them back.
        tell: Told once what became of it, None once it was.
    """

    entries: tuple[Entry, ...]
    owed: bool
    tell: Tell | None
    rows: list[Row] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [row_of(entry) for entry in self.entries]

    def settle(self, why: str | None) -> None:
        """Tell what became of it, if it was not told."""
        tell, self.tell = self.tell, None
        if tell is not None:
            tell(why)


class Writer:
    """Writes, on a thread of its own, what it is given.

    Attributes:
        lost: Entries that were owed and are not written: there were too many.
        why: What is wrong, in one line. None: nothing, as far as is known.
    """

    def __init__(
        self, file: File, clock: Clock, budget: int, rests: tuple[Seconds, Seconds]
    ) -> None:
        self.lost = 0
        self.why: str | None = None
        self._file = file
        self._clock = clock
        self._budget = budget
        self._rests = rests
        self._rest = rests[0]
        self._again = 0.0  # when to try anew, while something is wrong
        self._tidy_at = 0.0
        self._since_tidied = 0
        self._busy_since: Seconds | None = None
        # Shared with those who give it work: only under this.
        self._work = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._memories: dict[str, tuple[float, str]] = {}
        self._counts = Counts()
        self._suspicion: str | None = None
        self._closing = False
        self._opened: Callable[[Exception | None], None] | None = None
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    # What others ask of it.

    def start(self, opened: Callable[[Exception | None], None]) -> None:
        """Begin; *opened* is told once how opening the file went."""
        self._opened = opened
        self._thread.start()

    @property
    def degraded(self) -> str | None:
        """Why nothing can be written, in one line; None: it can be."""
        if self.why is not None:
            return self.why
        since = self._busy_since
        if since is not None and time.monotonic() - since > STUCK:
            stuck = lasting(time.monotonic() - since)
            return f"the disk of {self._file.path} has not answered for {stuck}"
        if not self._closing and not self._thread.is_alive():
            return "the store's writer has ended; the log says why"
        return None

    def put(self, job: Job) -> None:
        """Have *job* written."""
        with self._work:
            waiting = sum(not job.owed for job in self._jobs)
            if self._closing or (not job.owed and waiting >= DECISIONS):
                why = "it is closed" if self._closing else "too much waits already"
                job.settle(why)
                return
            self._jobs.append(job)
            self._make_room()
            self._work.notify()

    def _make_room(self) -> None:
        over = sum(len(job.entries) for job in self._jobs if job.owed) - OWED
        for job in [job for job in self._jobs if job.owed]:
            if over <= 0:
                return
            self._jobs.remove(job)
            self.lost += len(job.entries)
            over -= len(job.entries)
            job.settle("too much waits already")

    def take_back(self, job: Job) -> bool:
        """Do not write *job*. False: it is being written, or was."""
        with self._work:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def keep(self, memories: Mapping[str, tuple[float, str]]) -> None:
        """Have *memories* written, in the place of those before them."""
        with self._work:
            self._memories.update(memories)
            self._work.notify()

    def count(self, counts: Counts) -> None:
        """Have *counts* written. They must not be changed any more."""
        with self._work:
            known = self._counts
            if len(known) + len(counts) > COUNTED:
                log.warning("the store left out %d minutes of counts", len(known))
                known = self._counts = Counts()
            for key, bucket in counts.pings.items():
                known.pings[key] = bucket
            for place, seconds in counts.shut.items():
                known.shut[place] = known.shut.get(place, 0.0) + seconds
            known.failures += counts.failures
            self._work.notify()

    def suspect(self, why: str) -> None:
        """Have the file put aside: somebody who read found it broken."""
        with self._work:
            self._suspicion = why
            self._work.notify()

    def close(self, within: Seconds) -> bool:
        """Write what there is, and end. False: it could not within *within* seconds."""
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join(within)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        try:
            self._begin()
            while self._wait():
                with self._busy():
                    self._turn()
            with self._busy():
                self._turn(last=True)
        finally:
            self._file.close()
            with self._work:
                self._closing = True
                jobs = list(self._jobs)
                self._jobs.clear()
            for job in jobs:
                self.lost += len(job.entries) if job.owed else 0
                job.settle(self.why or "it is closed")

    def _begin(self) -> None:
        failed: Exception | None = None
        with self._busy():
            try:
                self._file.open()
            except _FAILURES as error:
                failed = error
                self._fail(error)
        assert self._opened is not None
        self._opened(failed)
        if isinstance(failed, InUseError):
            self._closing = True

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    def _wait(self) -> bool:
        """Wait until there is something to do. False: it is to end."""
        with self._work:
            while not self._closing and not self._is_due():
                self._work.wait(self._due_in())
            return not self._closing

    def _is_due(self) -> bool:
        if any(not job.owed for job in self._jobs) or self._suspicion:
            return True
        now = time.monotonic()
        if self.why is not None:
            return now >= self._again
        has_work = bool(self._jobs or self._memories or len(self._counts))
        return has_work or now >= self._tidy_at

    def _due_in(self) -> Seconds:
        at = self._tidy_at if self.why is None else self._again
        return max(0.0, at - time.monotonic())

    def _turn(self, *, last: bool = False) -> None:
        """Do the next piece of what there is to do."""
        jobs: list[Job] = []
        try:
            self._make_ready()
            while jobs := self._take():
                self._write(jobs)
                for job in jobs:
                    job.settle(None)
                if not last:
                    break
            jobs = []
            self._write_rest()
            if self.why is not None:
                self._recover()
            if not last and not jobs:
                self._tidy()
        except _FAILURES as error:
            self._give_back(jobs, self._fail(error))

    def _take(self) -> list[Job]:
        with self._work:
            taken: list[Job] = []
            count = 0
            while self._jobs and count < _AT_ONCE:
                taken.append(self._jobs.popleft())
                count += len(taken[-1].entries)
            return taken

    def _give_back(self, jobs: Sequence[Job], why: str) -> None:
        """Put what is owed back to its place, and tell why nothing was written."""
        with self._work:
            # Decisions that came meanwhile wait for nothing: they would fail, too.
            failed = [job for job in (*jobs, *self._jobs) if not job.owed]
            owed = [job for job in (*jobs, *self._jobs) if job.owed]
            self._jobs = deque(owed)
        for job in (*failed, *owed):
            job.settle(why)

    def _make_ready(self) -> None:
        with self._work:
            suspicion, self._suspicion = self._suspicion, None
        if suspicion is not None and self._file.is_open:
            self._file.put_aside(suspicion)
        if not self._file.is_open:
            self._file.open()
        elif not self._file.is_in_place():
            self._begin_anew()

    def _begin_anew(self) -> None:
        log.error("the store %s was deleted: a new one is begun", self._file.path)
        self._file.reopen()

    def _write(self, jobs: Sequence[Job]) -> None:
        try:
            self._write_jobs(jobs)
        except sqlite3.IntegrityError as error:
            self._write_each(jobs, error)
        except sqlite3.Error as error:
            if not is_broken(error):
                raise
            self._file.put_aside(str(error))
            self._file.open()
            self._write_jobs(jobs)
        if not self._file.is_in_place():
            # It went while this was written, to where nobody will find it.
            self._begin_anew()
            self._write_jobs(jobs)

    def _write_jobs(self, jobs: Sequence[Job]) -> None:
        entries = [entry for job in jobs for entry in job.entries]
        before = self._file.live
        after = before.copy()
        for entry in entries:
            after.take(entry)
        with transaction(self._file.connection, durable=True):
            rows: Iterable[Row] = (row for job in jobs for row in job.rows)
            write_entries(self._file.connection, entries, rows)
            write_difference(self._file.connection, before, after)
        self._file.live = after
        self._since_tidied += len(entries)

    def _write_each(self, jobs: Sequence[Job], error: Exception) -> None:
        """Write what can be, where something is in the way of some: an entry has an id
        that is taken, as after the wall clock went back while the file was away."""
        for job in jobs:
            try:
                self._write_jobs([job])
            except sqlite3.IntegrityError:
                log.exception("the store has no place for %d", job.entries[0].id)
                self.lost += len(job.entries) if job.owed else 0
                job.settle(f"the store has no place for it: {error}")

    def _write_rest(self) -> None:
        """Write what nobody waits for."""
        with self._work:
            memories, self._memories = self._memories, {}
            counts, self._counts = self._counts, Counts()
        if not memories and not len(counts):
            return
        try:
            with transaction(self._file.connection, durable=False):
                write_memories(self._file.connection, memories)
                write_counts(self._file.connection, counts)
        except _FAILURES:
            self.count(counts)
            with self._work:
                self._memories = memories | self._memories
            raise
        self._file.live.memories.update(memories)

    def _tidy(self) -> None:
        """Take out a chunk of what is old, where it is time to."""
        is_due = time.monotonic() >= self._tidy_at
        if not is_due and self._since_tidied < _TIDIES_AFTER:
            return
        self._since_tidied = 0
        with transaction(self._file.connection, durable=False):
            more = prune(self._file.connection, self._clock.wall(), self._budget)
        self._tidy_at = time.monotonic() + (0.0 if more else _TIDIES)

    # What is wrong.

    def _fail(self, error: Exception) -> str:
        """Note that nothing can be written, and when to try anew. Returns why."""
        if is_broken(error):
            with self._work:
                self._suspicion = None
            self._try_aside(error)
        elif isinstance(error, sqlite3.Error) and not _is_full(error):
            self._file.let_go()
        why = _told(error, self._file)
        if why != self.why:
            log.error("the store cannot be written: %s", why)
        else:
            self._rest = min(self._rest * 2, self._rests[1])
        self.why = why
        self._again = time.monotonic() + self._rest
        return why

    def _try_aside(self, error: Exception) -> None:
        try:
            self._file.put_aside(str(error))
        except OSError as failed:
            log.warning("a broken store cannot be put aside: %s", failed)

    def _recover(self) -> None:
        with self._work:
            owed = sum(len(job.entries) for job in self._jobs)
        log.warning("the store is written again; %s to go", counted(owed, "entry"))
        self.why, self._rest = None, self._rests[0]


def _is_full(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


_PLAIN: Final = {
    sqlite3.SQLITE_FULL: "no space is left on the disk of {path}",
    sqlite3.SQLITE_READONLY: "{path} is read-only",
    sqlite3.SQLITE_BUSY: "somebody else holds {path}",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk of {path} gives an error",
}


def _told(error: Exception, file: File) -> str:
    """What is wrong, in one line."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        plain = _PLAIN.get(code)
        name = getattr(error, "sqlite_errorname", None) or str(error)
        if plain is not None:
            return f"{plain.format(path=file.path)} ({name})"
        return f"{file.path}: {error}"
    if isinstance(error, OSError):
        return f"{error.filename or file.path}: {error.strerror or error}"
    return " ".join(str(error).split())
