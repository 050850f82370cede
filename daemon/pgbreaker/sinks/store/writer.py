"""The one thread that writes to the store."""

import logging
import math
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
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.store.books import (
    Counts,
    write_counts,
    write_entries,
    write_fact,
)
from pgbreaker.sinks.store.file import File, InUseError, is_broken, transaction
from pgbreaker.sinks.store.learned import Learned, write_learned
from pgbreaker.sinks.store.live import DAMAGE, write_difference, write_memories
from pgbreaker.sinks.store.pruning import prune
from pgbreaker.sinks.store.rows import Row, entry_of, row_of

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
_OF_FORECASTS: Final = 0.25  # of the size, at most: the rest is for what happened
_TIDIES: Final[Seconds] = 60.0  # between two looks at what is old
_TRIES_AGAIN: Final[Seconds] = 1.0  # where somebody who read kept the file from it
_TIDIES_AFTER: Final = 1_000  # entries, too
_CHUNKS: Final = 10  # taken out in one go, or what is written would outrun it

_ASIDES_APART: Final[Seconds] = 1.0  # or a disk that breaks all would be filled up

_FAILURES: Final = (*DAMAGE, OSError, PgbreakerError)

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
        tell: Told once what became of it; None after that.
        is_done: Whether it is not to be tried again.
    """

    entries: tuple[Entry, ...]
    owed: bool
    tell: Tell | None
    rows: list[Row] = field(init=False)
    is_done: bool = False

    def __post_init__(self) -> None:
        # As they will be read again: that is what is sealed.
        self.entries = tuple(entry_of(row_of(entry)) for entry in self.entries)
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
        self,
        file: File,
        clock: Clock,
        budget: int,
        rests: tuple[Seconds, Seconds],
        patience: Seconds,
    ) -> None:
        self.lost = 0
        self.why: str | None = None
        self._file = file
        self._clock = clock
        self._budget = budget
        self._rests = rests
        self._patience = patience
        self._rest = rests[0]
        self._again = 0.0  # when to try anew, while something is wrong
        self._put_aside_at = -math.inf
        self._tidy_at = 0.0
        self._since_tidied = 0
        self._is_held = False  # the file, at the size that it had
        self._has_no_room = False  # for all that was learned, which was told
        self._busy_since: Seconds | None = None
        # Shared with those who give it work: only under this.
        self._work = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._owed = self._decisions = 0  # entries, and jobs, of those that wait
        self._memories: dict[str, tuple[float, str]] = {}
        self._learned: dict[str, Learned] = {}
        self._counts = Counts()
        self._suspicion: str | None = None
        self._closing = False
        self._ended = False  # as it should
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
        stuck = self.stuck
        if stuck is not None:
            return (
                f"the disk of {self._file.path} has not answered for {lasting(stuck)}"
            )
        if self.why is not None:
            return self.why
        has_ended = self._thread.ident is not None and not self._thread.is_alive()
        if has_ended and not self._ended:
            return "the store's writer has failed; the log says how"
        return None

    @property
    def stuck(self) -> Seconds | None:
        """How long the disk has not answered. None: it does, or it is too early to
        tell."""
        since = self._busy_since
        took = 0.0 if since is None else time.monotonic() - since
        return took if took > self._patience else None

    def put(self, job: Job) -> None:
        """Have *job* written."""
        with self._work:
            if self._closing or (not job.owed and self._decisions >= DECISIONS):
                why = "it is closed" if self._closing else "too much waits already"
                job.settle(why)
                return
            if job.owed and self.why is not None:
                job.settle(self.why)  # it is tried again soon enough
            self._jobs.append(job)
            self._weigh(job, 1)
            self._make_room()
            self._work.notify()

    def _weigh(self, job: Job, sign: int) -> None:
        if job.owed:
            self._owed += sign * len(job.entries)
        else:
            self._decisions += sign

    def _make_room(self) -> None:
        while self._owed > OWED:
            oldest = next(job for job in self._jobs if job.owed)
            self._jobs.remove(oldest)
            self._weigh(oldest, -1)
            self.lost += len(oldest.entries)
            oldest.settle("too much waits already")

    def take_back(self, job: Job) -> bool:
        """Do not write *job*. False: it is being written, or was."""
        with self._work:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self._weigh(job, -1)
            return True

    def keep(self, memories: Mapping[str, tuple[float, str]]) -> None:
        """Have *memories* written, in the place of those before them."""
        with self._work:
            self._memories.update(memories)
            self._work.notify()

    def learn(self, learned: Mapping[str, Learned]) -> None:
        """Have what was *learned* written, in the place of what was before."""
        with self._work:
            self._learned.update(learned)
            self._work.notify()

    def count(self, counts: Counts) -> None:
        """Have *counts* written. They must not be changed any more."""
        with self._work:
            known = self._counts
            if len(known) + len(counts) > COUNTED:
                log.warning("the store left out %d minutes of counts", len(known))
                known = self._counts = Counts()
            known.add(counts)
            self._work.notify()

    def suspect(self, why: str) -> None:
        """Have it looked whether the file is broken: somebody who read found it so."""
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
            if self._begin():
                while self._wait():
                    with self._busy():
                        self._turn()
                self._end()
            self._ended = True
        finally:
            self._file.close()
            with self._work:
                self._closing = True
                jobs = list(self._jobs)
                self._jobs.clear()
            for job in jobs:
                self.lost += len(job.entries) if job.owed else 0
                job.settle(self.why or "it is closed")

    def _end(self) -> None:
        """Do all that is left; once more where the file was put aside meanwhile."""
        with self._busy():
            self._turn(last=True)
            while self._jobs and self.why is None:
                self._turn(last=True)

    def _begin(self) -> bool:
        """Open the file. False: it is another's."""
        failed: Exception | None = None
        with self._busy():
            try:
                self._file.open()
            except InUseError as error:
                self._tell_opened(error)
                return False
            except _FAILURES as error:
                failed = error
                self._fail(error)
        self._tell_opened(failed)
        return True

    def _tell_opened(self, failed: Exception | None) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(failed)

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
        if self._decisions or self._suspicion:
            return True
        now = time.monotonic()
        if self.why is not None:
            return now >= self._again
        if not self._file.is_open:
            return True  # it was put aside: what holds is to be written to a new one
        waiting = (self._jobs, self._memories, self._learned, len(self._counts))
        has_work = any(waiting)
        return has_work or now >= self._tidy_at

    def _due_in(self) -> Seconds:
        at = self._tidy_at if self.why is None else self._again
        return max(0.0, at - time.monotonic())

    def _turn(self, *, last: bool = False) -> None:
        """Do the next piece of what there is to do; the *last* time, all of it."""
        jobs: list[Job] = []
        try:
            self._make_ready()
            while jobs := self._take():
                self._write(jobs)
                for job in jobs:
                    job.settle(None)
                jobs = []  # so that nothing of it is given back
                if not last:
                    break
            if self.why is not None:
                self._recover()
            self._write_rest()
            if not last:
                self._tidy()
        except _FAILURES as error:
            if self._is_put_aside(error):
                self._put_back(jobs)
            else:
                self._refuse(jobs, self._fail(error))

    def _is_put_aside(self, error: Exception) -> bool:
        """Put the file aside if it is broken, and was not just begun: then what there is
        to do goes to a new one."""
        now = time.monotonic()
        if not is_broken(error) or now - self._put_aside_at < _ASIDES_APART:
            return False
        self._put_aside_at = now
        try:
            self._file.put_aside(str(error))
        except OSError as failed:
            log.warning("a broken store cannot be put aside: %s", failed)
            return False
        return True

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Put *jobs* back to where they were taken."""
        with self._work:
            for job in reversed([job for job in jobs if not job.is_done]):
                self._jobs.appendleft(job)
                self._weigh(job, 1)

    def _take(self) -> list[Job]:
        with self._work:
            taken: list[Job] = []
            count = 0
            while self._jobs and count < _AT_ONCE:
                taken.append(self._jobs.popleft())
                self._weigh(taken[-1], -1)
                count += len(taken[-1].entries)
            return taken

    def _refuse(self, jobs: Sequence[Job], why: str) -> None:
        """Put what is owed back to its place, and tell why nothing was written."""
        with self._work:
            # Decisions that came meanwhile wait for nothing: they would fail, too.
            open_ = [job for job in (*jobs, *self._jobs) if not job.is_done]
            failed = [job for job in open_ if not job.owed]
            owed = [job for job in open_ if job.owed]
            self._jobs = deque(owed)
            self._owed, self._decisions = sum(len(job.entries) for job in owed), 0
        for job in (*failed, *owed):
            job.settle(why)

    def _make_ready(self) -> None:
        with self._work:
            suspicion, self._suspicion = self._suspicion, None
        if suspicion is not None and self._file.is_open:
            self._look_into()
        if not self._file.is_open:
            self._file.open()
        elif not self._file.is_in_place():
            self._begin_anew()

    def _look_into(self) -> None:
        """Put the file aside, if it is as somebody said: he may have read the one before
        it."""
        found = self._file.damage()
        if found is not None:
            self._file.put_aside(found)

    def _begin_anew(self) -> None:
        log.error("the store %s was deleted: a new one is begun", self._file.path)
        self._file.reopen()

    def _write(self, jobs: Sequence[Job]) -> None:
        try:
            self._write_jobs(jobs)
        except sqlite3.IntegrityError as error:
            self._write_each(jobs, error)
        if not self._file.is_in_place():
            # It went while this was written, to where nobody will find it; or its log
            # alone did, of which all is in the file once that was closed.
            self._begin_anew()
            if not self._is_there(jobs[-1]):
                self._write_jobs(jobs)

    def _is_there(self, job: Job) -> bool:
        last = job.entries[-1].id
        found = self._file.connection.execute(
            "SELECT 1 FROM entry WHERE id = ?", (last,)
        )
        return found.fetchone() is not None

    def _write_jobs(self, jobs: Sequence[Job]) -> None:
        entries = [entry for job in jobs for entry in job.entries]
        before = self._file.live
        after = before.copy()
        for entry in entries:
            after.take(entry)
        # A breaker's memory goes with its move: a kill between them would have it move
        # a second time.
        with (
            self._taken_memories() as memories,
            transaction(self._file.connection, durable=True),
        ):
            rows: Iterable[Row] = (row for job in jobs for row in job.rows)
            write_entries(self._file.connection, entries, rows)
            write_difference(self._file.connection, before, after)
            write_memories(self._file.connection, memories)
        after.memories.update(memories)
        self._file.live = after
        self._since_tidied += len(entries)

    def _write_each(self, jobs: Sequence[Job], error: Exception) -> None:
        """Write what can be, where something is in the way of some: an entry has an id
        that is taken, as after the wall clock went back while the file was away."""
        for job in jobs:
            try:
                self._write_jobs([job])
                job.settle(None)
            except sqlite3.IntegrityError:
                log.warning("no place for entry %d: %s", job.entries[0].id, error)
                self.lost += len(job.entries) if job.owed else 0
                job.settle(f"the store has no place for it: {error}")
            job.is_done = True

    def _write_rest(self) -> None:
        """Write what nobody waits for."""
        with self._work:
            counts, self._counts = self._counts, Counts()
            learned, self._learned = self._learned, {}
        room = int(self._budget * _OF_FORECASTS)
        with self._taken_memories() as memories:
            if not memories and not learned and not len(counts):
                return
            try:
                with transaction(self._file.connection, durable=False):
                    write_memories(self._file.connection, memories)
                    write_counts(self._file.connection, counts)
                    left_out = write_learned(self._file.connection, learned, room)
            except _FAILURES:
                self.count(counts)
                with self._work:
                    self._learned = learned | self._learned
                raise
        self._file.live.memories.update(memories)
        self._tell_left_out(left_out)

    def _tell_left_out(self, targets: Sequence[str]) -> None:
        """Tell once that there is no room for all that was learned."""
        if targets and not self._has_no_room:
            log.warning(
                "the store has no room for what forecasts learned of %s, and maybe of"
                " others: raise max_size, or they begin anew with each start",
                targets[0],
            )
        self._has_no_room = self._has_no_room or bool(targets)

    @contextmanager
    def _taken_memories(self) -> Iterator[dict[str, tuple[float, str]]]:
        """The memories that wait, to be written; when they cannot be, they wait on."""
        with self._work:
            memories, self._memories = self._memories, {}
        try:
            yield memories
        except _FAILURES:
            with self._work:
                self._memories = memories | self._memories
            raise

    def _tidy(self) -> None:
        """Take out some of what is old, where it is time to; a decision goes before."""
        is_due = time.monotonic() >= self._tidy_at
        if not is_due and self._since_tidied < _TIDIES_AFTER:
            return
        self._since_tidied = 0
        more, chunks = True, 0
        while more and chunks < _CHUNKS and not self._decisions:
            with transaction(self._file.connection, durable=False):
                more = prune(self._file.connection, self._clock.wall(), self._budget)
            chunks += 1
        if not more and (chunks > 1 or self._is_held):
            # Only by that does the file itself get smaller; it waits for no reader, and
            # goes no further than who reads meanwhile lets it.
            checkpoint = "PRAGMA wal_checkpoint(PASSIVE)"
            _, pages, moved = self._file.connection.execute(checkpoint).fetchone()
            self._is_held = moved < pages
        rest = _TIDIES if not self._is_held else _TRIES_AGAIN
        self._tidy_at = time.monotonic() + (0.0 if more else rest)

    # What is wrong.

    def _fail(self, error: Exception) -> str:
        """Note that nothing can be written, and when to try anew. Returns why."""
        if isinstance(error, sqlite3.Error) and not _is_passing(error):
            self._file.let_go()
        why = _told(error, self._file)
        if why != self.why:
            log.error("the store cannot be written: %s", why)
        else:
            self._rest = min(self._rest * 2, self._rests[1])
        self.why = why
        self._again = time.monotonic() + self._rest
        return why

    def _recover(self) -> None:
        """Note that it can be written again, once it was."""
        with transaction(self._file.connection, durable=True):
            write_fact(self._file.connection, "recovered", f"{self._clock.wall():.3f}")
        with self._work:
            owed = self._owed
        log.warning("the store is written again; entries to go: %d", owed)
        self.why, self._rest = None, self._rests[0]


def _is_passing(error: sqlite3.Error) -> bool:
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
