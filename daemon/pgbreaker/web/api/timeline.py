"""Which states a breaker was in, and when, as its moves tell."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import BY_DAEMONS, State
from pgbreaker.sinks.history import History

MOST: Final = 10_000
"""Moves that are told at most, the newest: a server that is away for weeks makes more."""

_PAGE: Final = 1000
_MOVES: Final = (Kind.TRANSITION, Kind.OVERRIDE)


def from_then(since: float) -> int:
    """The id to read on from so that nothing since a moment is left out.

    Ids are times, or later than that: none is smaller than its entry's.
    """
    return int(since * 1000) - 1


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a breaker was in one state.

    Attributes:
        state: What callers felt.
        computed_state: What the machine had decided.
        began: Wall time, in seconds since the epoch.
        ended: Likewise. None: it goes on.
        cause: The rule that moved the machine. None: it did not move then.
        reason: What was told as it began. None: nothing that is known.
        entry: Id of the entry that it began with. None: of none that is known.
    """

    state: State
    computed_state: State
    began: float
    ended: float | None
    cause: str | None
    reason: str | None
    entry: int | None


def unwatched(entries: Iterable[Entry]) -> Iterator[tuple[float, float]]:
    """The times in which no daemon ran, in wall time: before each start, as far as it
    told until when the daemon before it is known to have watched."""
    for entry in entries:
        until = entry.details.get("watched_until")
        if entry.kind is not Kind.DAEMON or not isinstance(until, int | float):
            continue
        if until < entry.at:  # else the wall clock went back
            yield float(until), entry.at


async def timeline(
    history: History, breaker: Breaker, since: float, moved: float
) -> list[Span]:
    """The spans of a breaker from *since* on, without gaps, as far back as is known, and
    `MOST` moves at most.

    Args:
        moved: Wall time of its last move, or from when on it was watched.
    """
    moves = await _moves(history, breaker.name, since)
    begins, first = since, from_then(since) + 1
    if len(moves) >= MOST:
        begins, first = moves[0].at, moves[0].id
    before = []
    for kind in _MOVES:
        before += await history.page(
            before=first, limit=1, kinds=(kind,), breaker=breaker.name
        )
    known = sorted(before, key=lambda entry: entry.id)
    if not known:  # nothing is known of the time before the first
        begins = moves[0].at if moves else max(since, moved)
    return spans_of(known, moves, breaker, begins)


async def _moves(history: History, breaker: str, since: float) -> list[Entry]:
    """A breaker's moves from *since* on, the newest `MOST` of them."""
    found: deque[Entry] = deque()
    before: int | None = None
    while len(found) < MOST:
        more = await history.page(
            since=since, before=before, limit=_PAGE, kinds=_MOVES, breaker=breaker
        )
        found.extendleft(reversed(more))
        if len(more) < _PAGE:
            break
        before = more[0].id
    return list(found)


def spans_of(
    known: Sequence[Entry], moves: Sequence[Entry], breaker: Breaker, begins: float
) -> list[Span]:
    """What the moves of a breaker come to.

    Args:
        known: The last of each kind before *begins*: what was so then.
    """
    computed, override = _first(known, moves, breaker)
    spans: list[Span] = []
    began, last = begins, known[-1] if known else None
    for entry in (None, *moves):
        if entry is not None:
            computed, override = _after(entry, computed, override)
            began, last = entry.at, entry
        state = computed if override is None else override
        if spans:
            spans[-1] = replace(spans[-1], ended=began)
        spans.append(_span(state, computed, began, last))
    return [span for span in spans if span.ended is None or span.ended > span.began]


def _span(state: State, computed: State, began: float, entry: Entry | None) -> Span:
    if entry is None:
        return Span(state, computed, began, None, None, None, None)
    cause = entry.details.get("cause")
    return Span(state, computed, began, None, cause, entry.text, entry.id)


def _first(
    known: Sequence[Entry], moves: Sequence[Entry], breaker: Breaker
) -> tuple[State, State | None]:
    """The machine's state and the operator's before the first of *moves*."""
    first = next((move for move in moves if move.kind is Kind.TRANSITION), None)
    # Where the machine has not moved since, it is now as it was.
    computed = breaker.computed_state if first is None else State(first.details["from"])
    override = None
    if not known and not moves and breaker.override is not None:
        override = breaker.override.state
    for entry in known:
        computed, override = _after(entry, computed, override)
    return computed, override


def _after(
    entry: Entry, computed: State, override: State | None
) -> tuple[State, State | None]:
    if entry.kind is Kind.TRANSITION:
        hidden = entry.details.get("override")
        after = State(entry.details["to"])
        if entry.details.get("cause") in BY_DAEMONS:  # the machine has not moved
            return computed, after
        return after, None if hidden is None else State(hidden)
    asked = entry.details.get("state")
    return computed, None if asked is None else State(asked)
