"""The store: what outlives the process."""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar

from pgbreaker.clock import Clock
from pgbreaker.core.audit import Audited
from pgbreaker.core.entry import Entry
from pgbreaker.core.incident import MOST, Excerpt
from pgbreaker.core.plan import StorePlan
from pgbreaker.core.units import Seconds
from pgbreaker.core.wanted import Wanted
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.history import KEPT, NotKeptError, NotReadError
from pgbreaker.sinks.store import reading
from pgbreaker.sinks.store.books import Counts
from pgbreaker.sinks.store.file import (
    WAL_LIMIT,
    Connect,
    File,
    InUseError,
    connect,
    damage,
    is_broken,
    open_to_read,
)
from pgbreaker.sinks.store.learned import Learned, read_learned
from pgbreaker.sinks.store.live import DAMAGE, Live, remembered, salvage
from pgbreaker.sinks.store.rows import Bucket, Failure, Past
from pgbreaker.sinks.store.schema import SCHEMA, Schema
from pgbreaker.sinks.store.writer import RESTS, STUCK, Job, Writer

log = logging.getLogger(__name__)

_READERS: Final = 2  # at once; the others wait
_OPENS_WITHIN: Final[Seconds] = 20.0  # a migration takes some; a disk may hang for good
_CLOSES_WITHIN: Final[Seconds] = 4.0
_READ_WITHIN: Final[Seconds] = 1.0  # of that: what is read ends then, done or not
_STEPS: Final = 10_000  # of SQLite, between two looks whether it is to end
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What the store held when the process began.

    Attributes:
        last_id: The largest id that an entry was given; 0: none was.
        entries: The last entries, the oldest first.
        overrides: Breaker -> what was written down of the word that stands before its
            own: state, reason, author, and since when and until when in wall time.
        windows: The entries that windows of maintenance began with which nobody ended.
        memories: Breaker -> wall time at which it was written, and what is remembered.
        learned: Target -> what forecasts have learned of it. Whoever goes on by one takes
            it out: nobody needs it any more.
    """

    last_id: int = 0
    entries: tuple[Entry, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    windows: tuple[Entry, ...] = ()
    memories: Mapping[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)


class Store:
    """Keeps what happened, what was decided, what breakers remember and what forecasts
    have learned; a ledger.

    Whatever becomes of the file, the daemon goes on: then `degraded` says what is wrong,
    decisions are refused, and the rest is written once it can be.

    Attributes:
        path: The file.
        audit_fault: Where the audit log is not as it was written, by the last look at
            it. None: nowhere, or nobody has looked yet.
    """

    def __init__(
        self,
        plan: StorePlan,
        clock: Clock,
        *,
        connect: Connect = connect,
        schema: Schema = SCHEMA,
        rests: tuple[Seconds, Seconds] = RESTS,
        patience: Seconds = STUCK,
    ) -> None:
        self.path: Path = plan.path
        self.audit_fault: str | None = None
        self._clock = clock
        self._connect = connect
        self._restored = Restored()
        self._file = File(plan.path, schema, connect)
        budget = _budget(plan.max_size)
        self._writer = Writer(self._file, clock, budget, rests, patience)
        self._patience = patience
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        self._reads: set[Future[Any]] = set()
        self._is_ending = False
        self._check: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        plan: StorePlan,
        clock: Clock,
        *,
        connect: Connect = connect,
        schema: Schema = SCHEMA,
        rests: tuple[Seconds, Seconds] = RESTS,
        patience: Seconds = STUCK,
    ) -> "Store":
        """Open the store that *plan* names; a broken one is put aside.

        Args:
            connect: Opens a database by its URI, in autocommit.
            schema: Its tables.
            rests: Seconds between two tries while nothing can be written: at first, and
                at most.
            patience: Seconds within one write after which the disk does not answer.

        Raises:
            InUseError: Another daemon has it. Nothing else: `degraded` tells.
        """
        store = cls(
            plan,
            clock,
            connect=connect,
            schema=schema,
            rests=rests,
            patience=patience,
        )
        await store._begin()
        return store

    async def _begin(self) -> None:
        opened: asyncio.Future[Exception | None]
        opened = asyncio.get_running_loop().create_future()
        self._writer.start(_calling(opened))
        failed: Exception | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPENS_WITHIN):
                failed = await opened
        if isinstance(failed, InUseError):
            self._readers.shutdown(wait=False)
            raise failed
        if not opened.done() or isinstance(failed, PgbreakerError):
            return  # what hangs, or is not ours, is not read
        try:
            self._restored = await self._read(self._restore)
        except NotReadError as error:
            log.warning("the store %s cannot be read: %s", self.path, error)
        if failed is None:
            self._check = asyncio.create_task(self._look_through())

    def _restore(self, connection: sqlite3.Connection) -> Restored:
        try:
            live = Live.read(connection)
            live.learned = read_learned(connection)
            last_id = reading.last_id(connection)
            entries = tuple(reading.entries(connection, Wanted(limit=KEPT)))
        except DAMAGE as error:
            if not is_broken(error):
                raise
            # What holds may well be there, where what happened is not.
            log.warning("of the store %s not all can be read: %s", self.path, error)
            self._writer.suspect(str(error))
            live, last_id, entries = salvage(connection), 0, ()
        return Restored(
            last_id=last_id,
            entries=entries,
            overrides={
                breaker: {**entry.details, "author": entry.author, "at": entry.at}
                for breaker, entry in live.overrides.items()
            },
            windows=tuple(live.windows.values()),
            memories={
                breaker: (at, read)
                for breaker, (at, memory) in live.memories.items()
                if (read := remembered(memory)) is not None
            },
            learned=live.learned,
        )

    async def _look_through(self) -> None:
        """Look for damage in what nobody happens to read, and for what somebody changed
        of the audit log."""
        with contextlib.suppress(NotReadError):
            found = await self._read(damage)
            if found is not None:
                self._writer.suspect(found)
            elif (fault := await self.verify_audit()) is not None:
                log.error(
                    "the audit log in %s is not as it was written: %s",
                    *(self.path, fault),
                )

    async def looked_through(self) -> str | None:
        """Wait until all of it was looked through once, after it was opened.

        Returns:
            Where the audit log is not as it was written. None: nowhere, or it could not
            be looked at.
        """
        if self._check is not None:
            await asyncio.wait([self._check])
        return self.audit_fault

    # How it is.

    @property
    def degraded(self) -> str | None:
        """Why nothing can be written, in one line; None: it can be."""
        return self._writer.degraded

    @property
    def quarantined(self) -> Path | None:
        """Where a broken file was put, by this process. None: there was none."""
        return self._file.quarantined

    @property
    def lost(self) -> int:
        """Entries that were told and will not be written: too many waited."""
        return self._writer.lost

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes on disk, with its log; 0 where it cannot be seen."""
        return self._file.size()

    def restored(self) -> Restored:
        """What it held when the process began."""
        return self._restored

    # What is written.

    async def record(self, entries: Iterable[Entry]) -> None:
        """Write *entries* down, in one piece and in their order.

        Those without an author came about, and are owed: they are written as soon as
        that can be, also where this says that they are not yet.

        Raises:
            NotKeptError: They are not on disk; those with an author will not be, either.
            TypeError: The details of one are not fit for JSON.
            ValueError: A number in them is none.
        """
        written: asyncio.Future[str | None]
        written = asyncio.get_running_loop().create_future()
        entries = tuple(entries)
        if not entries:
            return
        is_owed = all(entry.author is None for entry in entries)
        job = Job(entries, is_owed, _calling(written))
        if self._writer.stuck is not None and not is_owed:
            raise NotKeptError(str(self.degraded))
        self._writer.put(job)
        try:
            while not written.done():
                await asyncio.wait((written,), timeout=self._patience)
                # One that is being written is waited for: only its end tells.
                if written.done() or is_owed or not self._writer.take_back(job):
                    continue
                raise NotKeptError(self.degraded or "the disk does not answer")
        except asyncio.CancelledError:
            if not is_owed:
                self._writer.take_back(job)
            raise
        why = written.result()
        if why is not None:
            raise NotKeptError(why)

    def keep(self, memories: Mapping[str, Mapping[str, Any]]) -> None:
        """Have it written what breakers remember: breaker -> that, fit for JSON.

        Raises:
            TypeError: It is not fit for JSON.
        """
        wall = self._clock.wall()
        self._writer.keep(
            {
                breaker: (wall, json.dumps(memory, separators=(",", ":")))
                for breaker, memory in memories.items()
            }
        )

    def learn(self, learned: Mapping[str, Learned]) -> None:
        """Have it written what forecasts have *learned*: target -> that."""
        self._writer.learn(learned)

    def count(self, counts: Counts) -> None:
        """Have *counts* written. They must not be changed any more."""
        self._writer.count(counts)

    # What is read.

    async def entries(self, wanted: Wanted) -> list[Entry]:
        """Read entries, the oldest first.

        Raises:
            NotReadError: They cannot be read.
        """
        return await self._read(partial(reading.entries, wanted=wanted))

    async def course(
        self, since: float, before: int | None = None, limit: int = MOST
    ) -> Excerpt:
        """Read what the newest *limit* incidents are read out of that went on at *since*
        or later, and began before the entry *before*.

        Raises:
            NotReadError: They cannot be read.
        """
        return await self._read(
            partial(reading.course, since=since, before=before, limit=limit)
        )

    async def audit(self, limit: int = 200, before: int | None = None) -> list[Audited]:
        """Read the last *limit* lines of the audit log before number *before*, the
        oldest first.

        Raises:
            NotReadError: They cannot be read.
        """
        return await self._read(partial(reading.audit, limit=limit, before=before))

    async def verify_audit(self) -> str | None:
        """Look for a line of the audit log that was changed, dropped or slipped in.

        Returns:
            Where the first is that is not as it was written. None: there is none.

        Raises:
            NotReadError: It cannot be read.
        """
        self.audit_fault = await self._read(reading.audit_fault)
        return self.audit_fault

    async def buckets(
        self, target: str, since: float, until: float = inf, *, hours: bool = False
    ) -> list[Bucket]:
        """Read the pings of a target, a minute each, the oldest first.

        Args:
            since: Wall time, in seconds since the epoch.
            until: Likewise: those that began before.
            hours: Whether by the hour: minutes go back 14 days, hours 400.

        Raises:
            NotReadError: They cannot be read.
        """
        read = partial(
            reading.buckets, target=target, since=since, until=until, hours=hours
        )
        return await self._read(read)

    async def shut(
        self, breaker: str, since: float, until: float = inf, *, hours: bool = False
    ) -> list[tuple[int, float]]:
        """Read in which minutes a breaker let no calls pass, and for how many seconds of
        each; those in which it always did are missing. Otherwise as `buckets`."""
        read = partial(
            reading.shut, breaker=breaker, since=since, until=until, hours=hours
        )
        return await self._read(read)

    async def past(
        self,
        target: str,
        breakers: Collection[str],
        lasting: Collection[Seconds],
        every: Seconds,
    ) -> list[Past]:
        """Reckon what became of a target in the last so many seconds, for each of
        *lasting*.

        Args:
            breakers: Names of those that it has.
            every: Seconds between two pings.

        Raises:
            NotReadError: It cannot be read.
        """
        now = self._clock.wall()

        def read(connection: sqlite3.Connection) -> list[Past]:
            return [
                reading.past(connection, target, breakers, now - span, now, every)
                for span in lasting
            ]

        return await self._read(read)

    async def failures(self, target: str) -> list[Failure]:
        """Read the last readings of a target that came back with bad news, the oldest
        first.

        Raises:
            NotReadError: They cannot be read.
        """
        return await self._read(partial(reading.failures, target=target))

    async def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._is_ending:
            raise NotReadError("it is closed")
        under_way = self._readers.submit(self._read_now, read)
        self._reads.add(under_way)
        under_way.add_done_callback(self._reads.discard)
        return await asyncio.wrap_future(under_way)

    def _read_now(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            opened = open_to_read(self.path, self._connect)
            with contextlib.closing(opened) as connection:
                connection.set_progress_handler(lambda: self._is_ending, _STEPS)
                return read(connection)
        except (*DAMAGE, ValueError) as error:
            if is_broken(error):
                self._writer.suspect(str(error))
            raise NotReadError(str(error)) from error

    async def close(self, within: Seconds = _CLOSES_WITHIN) -> None:
        """Write what there is to write, for *within* seconds at most, and end."""
        # Who still has the file open when the writer leaves it leaves its log behind.
        self._is_ending = True
        await asyncio.to_thread(wait, tuple(self._reads), min(within, _READ_WITHIN))
        if self._check is not None:
            self._check.cancel()
        ended = await asyncio.to_thread(self._writer.close, within)
        if not ended:
            log.error("the store was not closed: %s", self.degraded)
        self._readers.shutdown(wait=False, cancel_futures=True)


def _budget(max_size: int) -> int:
    """Bytes for the file itself: its log, and a minute's growth, come on top."""
    return max(max_size - 2 * WAL_LIMIT, max_size // 2)


def _calling(future: "asyncio.Future[_T]") -> Callable[[_T], None]:
    """What settles *future* from another thread."""
    loop = future.get_loop()

    def settle(result: _T) -> None:
        if not future.done():
            future.set_result(result)

    def call(result: _T) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result)

    return call
