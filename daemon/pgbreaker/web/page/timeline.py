"""Which state each breaker was in, and when: bands of time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board
from pgbreaker.web.api.timeline import unwatched
from pgbreaker.web.page.breakers import look_of, path_of
from pgbreaker.web.page.words import FORCED_CLOSED, STATES, Look

SPANS: Final[Mapping[str, Seconds]] = {"1h": 3600.0, "24h": 86400.0, "7d": 604800.0}
"""What can be looked back on."""

WIDE: Final = 1000
"""Units of a band's width: the whole span."""

MOVES: Final = (Kind.TRANSITION, Kind.OVERRIDE)
"""Kinds of entries that change what callers feel."""

_LEAST: Final = 2.0  # units: what lasted a moment is to be seen all the same
_SHOWN: Final = 30  # breakers; the others have to be looked at one by one
_FEW: Final = 12  # breakers that are shown though nothing happened to them


@dataclass(frozen=True, slots=True)
class Band:
    """A time in one state.

    Attributes:
        x: Where it begins, in units of `WIDE`.
        width: How wide it is.
        look: The state.
        began: Wall time.
        ended: Wall time. None: it goes on.
        cause: Why it began, in a sentence.
        entry: Id of the entry that it began with. None: with the first that is known.
        lasted: Seconds.
    """

    x: float
    width: float
    look: Look
    began: float
    ended: float | None
    cause: str
    entry: int | None
    lasted: Seconds


@dataclass(frozen=True, slots=True)
class Track:
    """The bands of one breaker.

    Attributes:
        breaker: Its name.
        path: Its page, below the root.
        bands: In order of time.
        openings: How often it left closed.
    """

    breaker: str
    path: str
    bands: tuple[Band, ...]
    openings: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which no daemon ran, and so nobody watched.

    Attributes:
        x: Where it begins, in units of `WIDE`.
        width: How wide it is.
        began: Wall time.
        lasted: Seconds.
    """

    x: float
    width: float
    began: float
    lasted: Seconds


@dataclass(frozen=True, slots=True)
class Timeline:
    """The tracks of some breakers.

    Attributes:
        span: One of `SPANS`.
        tracks: Those that something happened to, and others where they are few.
        quiet: Breakers that are left out because nothing happened to them.
        more: Breakers that are left out because they are too many.
        began: Wall time of the left end.
        ended: Wall time of the right end.
        gaps: Times in which nobody watched, in order.
    """

    span: str
    tracks: tuple[Track, ...]
    gaps: tuple[Gap, ...]
    quiet: int
    more: int
    began: float
    ended: float


def timeline(
    board: Board,
    entries: Iterable[Entry],
    *,
    span: str,
    now: float,
    watched: float,
    only: Sequence[str] = (),
) -> Timeline:
    """Draw what *entries* tell of, up to *now*.

    Args:
        entries: Those of the span, the oldest first.
        watched: Wall time from which on somebody watched; before that is nothing.
        only: Names of the breakers wanted. Empty: all.
    """
    began = now - SPANS[span]
    moves: dict[str, list[Entry]] = {}
    known = tuple(entries)
    for entry in known:
        if entry.breaker is not None and entry.kind in MOVES and entry.at >= began:
            moves.setdefault(entry.breaker, []).append(entry)
    wanted = {
        breaker.name: (target.plan.name, operation, breaker)
        for target in board.targets.values()
        for operation, breaker in target.breakers.items()
        if not only or breaker.name in only
    }
    # Of thousands of breakers few have anything to tell.
    eventful = [name for name, found in wanted.items() if moves.get(name) or _is_odd(found[2])]  # fmt: skip
    named = list(wanted) if len(wanted) <= _FEW else eventful
    tracks = []
    for name in named[:_SHOWN]:
        target_name, operation, breaker = wanted[name]
        said = moves.get(name, [])
        # Nothing happened: then it is as it was when it last moved, which may have been
        # before this process began.
        oldest = said[0].at if said else board.targets[target_name].moved[operation]
        first = min(watched, oldest)
        bands = _bands(said, look_of(breaker), max(began, first), began, now)
        opened = sum(_opens(entry) for entry in said)
        tracks.append(Track(name, path_of(target_name, operation), bands, opened))
    return Timeline(
        span=span,
        tracks=tuple(tracks),
        gaps=tuple(_gaps(known, began, now)),
        quiet=len(wanted) - len(named),
        more=max(0, len(named) - _SHOWN),
        began=began,
        ended=now,
    )


def _gaps(entries: Iterable[Entry], began: float, now: float) -> Iterator[Gap]:
    scale = WIDE / (now - began)
    for first, last in unwatched(entries):
        if last > began:
            left, right = max(began, first), min(now, last)
            x, width = (left - began) * scale, max(_LEAST, (right - left) * scale)
            yield Gap(round(x, 2), round(width, 2), first, last - first)


def _is_odd(breaker: Breaker) -> bool:
    return look_of(breaker) is not STATES[State.CLOSED]


def _opens(entry: Entry) -> bool:
    return entry.details.get("from") == "closed" and entry.details.get("to") == "open"


def _bands(
    said: Sequence[Entry], look: Look, first: float, began: float, now: float
) -> tuple[Band, ...]:
    """The bands from *first* on, of a breaker that looks like *look* now."""
    if not said:
        return (_band(look, first, None, "no change in this time", None, began, now),)
    felt = _Felt(said[0])
    bands, at, cause, entry_id = [], first, "as it was before", None
    for entry in said:
        before = felt.look
        felt.take(entry)
        if felt.look is not before:
            bands.append(_band(before, at, entry.at, cause, entry_id, began, now))
            at, cause, entry_id = entry.at, _cause(entry), entry.id
    bands.append(_band(felt.look, at, None, cause, entry_id, began, now))
    return tuple(band for band in bands if band.width > 0)


def _cause(entry: Entry) -> str:
    return f"{entry.text} ({entry.author})" if entry.author else entry.text


def _band(
    look: Look,
    at: float,
    ended: float | None,
    cause: str,
    entry: int | None,
    began: float,
    now: float,
) -> Band:
    until = now if ended is None else ended
    scale = WIDE / (now - began)
    x = max(0.0, (at - began) * scale)
    width = max(_LEAST, (until - at) * scale) if until > at or entry else 0.0
    width = min(width, WIDE - min(x, WIDE - _LEAST))
    x = min(x, WIDE - _LEAST)
    lasted = max(0.0, until - at)
    return Band(round(x, 2), round(width, 2), look, at, ended, cause, entry, lasted)


class _Felt:
    """What callers felt, entry by entry."""

    def __init__(self, first: Entry) -> None:
        details = first.details
        self._machine = State(details.get("from", "closed"))
        self._word: State | None = None
        if details.get("override"):
            self._word = State(details["override"])

    @property
    def look(self) -> Look:
        if self._word is State.CLOSED:
            return FORCED_CLOSED
        return STATES[self._word or self._machine]

    def take(self, entry: Entry) -> None:
        details = entry.details
        if entry.kind is Kind.TRANSITION and "to" in details:
            self._machine = State(details["to"])
        elif entry.kind is Kind.OVERRIDE:
            state = details.get("state")
            self._word = None if state is None else State(state)
