"""The history: what happened, in order; on disk before anybody is told of it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from pgbreaker.clock import Clock
from pgbreaker.core.audit import Audited, is_audited
from pgbreaker.core.entry import BY_OPERATORS, Entry, Kind, of_transition
from pgbreaker.core.incident import MOST, Excerpt, Incident, Incidents, incidents
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.core.wanted import Wanted
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event, Notice

log = logging.getLogger(__name__)

KEPT: Final = 2_000
"""Entries that are held in memory."""

PATIENCE: Final[Seconds] = 0.05
"""How long it is waited for the disk before what came about is told all the same."""

Told = Callable[[Entry], None]
"""Who is told of each entry, once it is written down. Must not block."""


class NotKeptError(PgbreakerError):
    """What somebody decided could not be written down, and so is not done.

    Attributes:
        why: What is wrong with the store, in one line.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"cannot be written down: {self.why}"


class NotReadError(PgbreakerError):
    """What was written down cannot be read."""


class Ledger(Protocol):
    """Where entries are written down; the store is one."""

    async def record(self, entries: Iterable[Entry]) -> None:
        """Write *entries* down, in one piece and in their order.

        Those without an author came about, and are owed: they are written as soon as
        that can be, also where this says that they are not yet.

        Raises:
            NotKeptError: They are not on disk; those with an author will not be, either.
        """


class Archive(Protocol):
    """Where entries are read that memory does not reach back to; the store is one."""

    async def entries(self, wanted: Wanted) -> list[Entry]:
        """Read entries, the oldest first.

        Raises:
            NotReadError: They cannot be read.
        """

    async def course(self, since: float, before: int | None, limit: int) -> Excerpt:
        """Read what the newest *limit* incidents are read out of that went on at *since*
        or later, and began before the entry *before*.

        Raises:
            NotReadError: They cannot be read.
        """

    async def audit(self, limit: int, before: int | None) -> list[Audited]:
        """Read the last *limit* lines of the audit log before number *before*, the
        oldest first.

        Raises:
            NotReadError: They cannot be read.
        """


class History:
    """What happened; a sink.

    What is told was written down before, with one exception: what came about by itself is
    told after `PATIENCE` all the same, and written once that can be. A decision that
    took longer than that to write may be told after what came about meanwhile.

    Attributes:
        entries: The last ones that were told, by their ids.

    Args:
        ledger: Where it is written down. None: nowhere, it is gone with the process.
        archive: Where it is read that memory does not reach back to. None: nowhere.
        last: The largest id that was ever given.
        entries: What was told before the process began, the oldest first.
    """

    def __init__(
        self,
        board: Board,
        clock: Clock,
        ledger: Ledger | None = None,
        *,
        archive: Archive | None = None,
        last: int = 0,
        entries: Iterable[Entry] = (),
    ) -> None:
        self._board = board
        self._clock = clock
        self._ledger = ledger
        self._archive = archive
        self._last = last
        self.entries: deque[Entry] = deque(entries, KEPT)
        self._told: list[Told] = []
        # Came about, and was not told: by id, so in order.
        self._untold: dict[int, tuple[Entry, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, told: Told) -> Callable[[], None]:
        """Have *told* told of every entry from now on; returns what ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Transition() if self._is_news(event):
                target, _ = self._board.home(event.breaker)
                entry = self._entry(
                    Kind.TRANSITION,
                    event.reason,
                    at=self._clock.wall_of(event.at),
                    target=target,
                    breaker=event.breaker,
                    details=of_transition(event),
                )
                self._bring(entry)
            case Notice():
                entry = self._entry(
                    Kind.NOTICE,
                    event.text,
                    at=self._clock.wall_of(event.at),
                    target=event.target,
                    details={"code": event.code},
                )
                self._bring(entry)

    def _is_news(self, move: Transition) -> bool:
        # What operators do is told by whoever asked for it; what a target does that was
        # removed, by nobody.
        is_ours = self._board.breaker(move.breaker) is not None
        return is_ours and move.cause not in BY_OPERATORS

    def copy(
        self,
        kind: Kind,
        text: str,
        *,
        at: float,
        breaker: str,
        details: Mapping[str, Any],
    ) -> None:
        """Take what another daemon saw, with its moment; it came about as what is seen
        here does.

        Raises:
            KeyError: There is no such breaker.
        """
        target, _ = self._board.home(breaker)
        entry = self._entry(
            kind, text, at=at, target=target, breaker=breaker, details=details
        )
        self._bring(entry)

    async def decide(self, kind: Kind, text: str, **more: Any) -> Entry:  # noqa: ANN401 - Entry's
        """Write down what somebody decided, and only then tell of it.

        What has no author came about: it is told in any case, soon, and written once that
        can be.

        Raises:
            NotKeptError: It is not on disk; nobody was told.
        """
        entry = self._entry(kind, text, **more)
        if self._ledger is None:
            self._tell(entry)
        elif entry.author is None:
            await self._bring(entry).wait()
        else:
            # As a task, so that it stands behind what came about before.
            await asyncio.create_task(self._write(self._ledger, entry))
            self._tell_until(entry.id)
            self._tell(entry)
        return entry

    def _bring(self, entry: Entry) -> asyncio.Event:
        """Tell what came about once it is written down, or soon. Returns what is set
        when it was told."""
        told = asyncio.Event()
        if self._ledger is None:
            self._tell(entry)
            told.set()
            return told
        self._untold[entry.id] = entry, told
        writing = asyncio.create_task(self._write_owed(self._ledger, entry))
        self._tasks.add(writing)
        writing.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        waiting = loop.call_later(PATIENCE, self._tell_until, entry.id)
        writing.add_done_callback(lambda _: waiting.cancel())
        return told

    async def _write_owed(self, ledger: Ledger, entry: Entry) -> None:
        try:
            await self._write(ledger, entry)
        except NotKeptError as error:
            # That the store is ill is for the store to say, once; moves are many.
            if entry.kind not in (Kind.TRANSITION, Kind.NOTICE):
                log.warning("%s (%s)", entry.text, error)
        finally:
            self._tell_until(entry.id)

    async def _write(self, ledger: Ledger, entry: Entry) -> None:
        await ledger.record((entry,))

    def _tell_until(self, last: int) -> None:
        """Tell all that came about until the entry *last*, in its order."""
        for id_ in [id_ for id_ in self._untold if id_ <= last]:
            entry, told = self._untold.pop(id_)
            self._tell(entry)
            told.set()

    async def close(self, within: Seconds = 2.0) -> None:
        """Wait until what came about is written down, for *within* seconds at most; to
        be called before the ledger ends."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within)

    # What is read.

    async def page(
        self,
        *,
        since: float | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 200,
        kinds: Iterable[Kind] | None = None,
        target: str | None = None,
        breaker: str | None = None,
        text: str | None = None,
    ) -> list[Entry]:
        """Read entries, the oldest first; by the arguments as `Wanted` has them.

        Where what is written down cannot be read, it goes as far back as memory does.
        """
        wanted = Wanted(
            since=since,
            before=before,
            after=after,
            limit=limit,
            kinds=None if kinds is None else frozenset(kinds),
            target=target,
            breaker=breaker,
            text=text,
        )
        known = [entry for entry in self.entries if wanted.matches(entry)]
        if self._archive is None or self._remembers(wanted, known):
            return wanted.cut(known)
        try:
            written = await self._archive.entries(wanted)
        except NotReadError as error:
            log.warning("the history is shown as far as memory goes: %s", error)
            return wanted.cut(known)
        # What was told may not be written yet, and the other way round.
        both = {entry.id: entry for entry in (*written, *known)}
        return wanted.cut([both[id_] for id_ in sorted(both)])

    def _remembers(self, wanted: Wanted, known: list[Entry]) -> bool:
        """Whether memory has all of what is *wanted*, of which it has *known*."""
        oldest = self.entries[0] if self.entries else None
        if oldest is None:
            return False
        if wanted.after is not None:
            return wanted.after >= oldest.id
        reaches = wanted.since is not None and int(wanted.since * 1000) > oldest.id
        return reaches or len(known) >= wanted.limit

    async def incidents(
        self, since: float, *, before: int | None = None, limit: int = MOST
    ) -> Incidents:
        """Read the newest *limit* incidents that went on at *since*, in wall time, or
        later, and began before the entry *before*."""
        told, cut = list(self.entries), None
        if self._archive is not None:
            try:
                # One more than is told, or nobody would know whether there are.
                written = await self._archive.course(since, before, limit + 1)
            except NotReadError as error:
                log.warning("incidents are shown as far as memory goes: %s", error)
            else:
                both = {entry.id: entry for entry in (*written.entries, *told)}
                told, cut = [both[id_] for id_ in sorted(both)], written.before
        found = [
            one
            for one in (self._as_it_is(known, told) for known in incidents(told))
            if (one.ended is None or one.ended >= since)
            and (before is None or one.id < before)
            # What begins further back is read with those of then.
            and (cut is None or one.id >= cut)
        ]
        if len(found) > limit:
            found = found[-limit:]
            cut = found[0].id
        return Incidents(found, cut)

    def _as_it_is(self, incident: Incident, told: Iterable[Entry]) -> Incident:
        """An incident that nobody saw end is over where the breaker is closed now, as
        after a restart that forgot; by the last that was told of it."""
        breaker = self._board.breaker(incident.breaker)
        goes_on = breaker is not None and not breaker.passes
        if incident.ended is not None or goes_on or self._untold:
            return incident
        # A note may be written days later, and ends nothing.
        moved = (e for e in told if e.breaker == incident.breaker)
        last = max(e.at for e in moved if e.kind is not Kind.NOTE)
        return replace(incident, ended=last)

    async def audit(self, limit: int = 200, before: int | None = None) -> list[Audited]:
        """Read the last *limit* lines of the audit log before number *before*, the oldest
        first. Without a store they have no numbers, and go as far back as memory does."""
        if self._archive is not None:
            try:
                return await self._archive.audit(limit, before)
            except NotReadError as error:
                log.warning("the audit log is shown as far as memory goes: %s", error)
        lines = [Audited(entry) for entry in self.entries if is_audited(entry)]
        return lines[max(0, len(lines) - limit) :]

    def _entry(
        self,
        kind: Kind,
        text: str,
        *,
        at: float | None = None,
        target: str | None = None,
        breaker: str | None = None,
        author: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        wall = self._clock.wall() if at is None else at
        self._last = max(self._last + 1, int(wall * 1000))
        return Entry(
            id=self._last,
            at=wall,
            kind=kind,
            text=text,
            target=target,
            breaker=breaker,
            author=author,
            details=details or {},
        )

    def _tell(self, entry: Entry) -> None:
        self._remember(entry)
        for told in self._told:
            told(entry)

    def _remember(self, entry: Entry) -> None:
        if not self.entries or self.entries[-1].id < entry.id:
            self.entries.append(entry)
            return
        # A decision that took its time: others were told meanwhile.
        both = sorted((*self.entries, entry), key=lambda known: known.id)
        self.entries.clear()
        self.entries.extend(both)
