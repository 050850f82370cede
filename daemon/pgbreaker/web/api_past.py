"""What happened, as it is asked for: pages of the history, and what it comes to."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.history import History

DECISIONS: Final = (Kind.OVERRIDE, Kind.MAINTENANCE, Kind.RELOAD, Kind.NOTE)
"""Kinds of entries that tell what people did."""

_PAGE: Final = 1000


@dataclass(slots=True)
class Incident:
    """A breaker's time from leaving closed until it was closed again.

    It is the machine's time: what operators put before it is told beside.

    Attributes:
        id: The entry that it began with.
        began: Wall time, in seconds since the epoch.
        ended: Likewise. None: it goes on.
        cause: The rule that opened it.
        sqlstate: What the server said. None: nothing.
        reason: One sentence with its numbers.
        entries: Ids of its moves.
        notes: What people wrote to any of them.
    """

    id: int
    breaker: str
    target: str
    began: float
    cause: str | None
    sqlstate: str | None
    reason: str
    ended: float | None = None
    entries: list[int] = field(default_factory=list)
    notes: list[Entry] = field(default_factory=list)

    def seconds(self, now: float) -> Seconds:
        """How long it lasted, up to *now* where it goes on."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)


async def page(
    history: History,
    *,
    since: float | None = None,
    before: int | None = None,
    after: int | None = None,
    limit: int = 200,
    kinds: Collection[Kind] = (),
    target: str | None = None,
    breaker: str | None = None,
    text: str | None = None,
) -> list[Entry]:
    """Entries, the oldest first: the first ones from *since* or *after* on, else the last.

    Args:
        since: Wall time, in seconds since the epoch.
        before: An id that all are smaller than.
        after: An id that all are larger than.
        kinds: Empty: all.
        text: What is in their text or author, whatever the case.
    """
    needle = None if text is None else text.casefold()

    def is_wanted(entry: Entry) -> bool:
        return (
            (since is None or entry.at >= since)
            and (before is None or entry.id < before)
            and (after is None or entry.id > after)
            and (not kinds or entry.kind in kinds)
            and (target is None or entry.target == target)
            and (breaker is None or entry.breaker == breaker)
            and (needle is None or needle in _words(entry))
        )

    is_upward = before is None and (since is not None or after is not None)
    found: list[Entry] = []
    entries = history.entries
    for entry in entries if is_upward else reversed(entries):
        if is_wanted(entry):
            found.append(entry)
            if len(found) == limit:
                break
    return found if is_upward else found[::-1]


def _words(entry: Entry) -> str:
    return f"{entry.text} {entry.author or ''} {entry.breaker or ''}".casefold()


async def incidents(history: History, since: float) -> list[Incident]:
    """Incidents that were not over at *since*, the oldest first."""
    found = incidents_of(history.entries)
    return [one for one in found if one.ended is None or one.ended >= since]


def incidents_of(entries: Iterable[Entry]) -> list[Incident]:
    """What *entries*, the oldest first, come to.

    One that had begun before them counts from the first that is known of it.
    """
    found: list[Incident] = []
    open_: dict[str, Incident] = {}
    by_entry: dict[int, Incident] = {}
    for entry in entries:
        if entry.kind is Kind.NOTE:
            noted = by_entry.get(entry.details.get("of", -1))
            if noted is not None:
                noted.notes.append(entry)
        elif entry.kind is Kind.TRANSITION and entry.breaker is not None:
            one = open_.get(entry.breaker)
            is_closed = entry.details.get("to") == State.CLOSED.value
            if one is None:
                if is_closed:
                    continue
                one = open_[entry.breaker] = _begun(entry)
                found.append(one)
            one.entries.append(entry.id)
            by_entry[entry.id] = one
            if is_closed:
                one.ended = entry.at
                del open_[entry.breaker]
    return found


def _begun(entry: Entry) -> Incident:
    seen = entry.details.get("evidence") or {}
    return Incident(
        id=entry.id,
        breaker=entry.breaker or "",
        target=entry.target or "",
        began=entry.at,
        cause=entry.details.get("cause"),
        sqlstate=seen.get("sqlstate"),
        reason=entry.text,
    )


async def audit(history: History, limit: int, before: int | None) -> list[Entry]:
    """What people did, the oldest first: the last *limit* of it."""
    return await page(history, limit=limit, before=before, kinds=DECISIONS)


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


_MOVES: Final = (Kind.TRANSITION, Kind.OVERRIDE)


async def timeline(
    history: History, breaker: Breaker, since: float, now: float
) -> list[Span]:
    """The spans of a breaker from *since* on, without gaps, as far back as is known."""
    moves = await _moves(history, breaker.name, since)
    before = [
        entry
        for kind in _MOVES
        for entry in await page(
            history,
            before=int(since * 1000),
            limit=1,
            kinds=(kind,),
            breaker=breaker.name,
        )
        if entry.at < since
    ]
    return spans_of(sorted(before, key=lambda e: e.id), moves, breaker, since)


async def _moves(history: History, breaker: str, since: float) -> list[Entry]:
    """All of a breaker's moves from *since* on."""
    found: list[Entry] = []
    after: int | None = None
    while True:
        more = await page(
            history,
            since=since,
            after=after,
            limit=_PAGE,
            kinds=_MOVES,
            breaker=breaker,
        )
        found += more
        if len(more) < _PAGE:
            return found
        after = more[-1].id


def spans_of(
    before: Iterable[Entry], moves: Iterable[Entry], breaker: Breaker, since: float
) -> list[Span]:
    """What the moves of a breaker come to.

    Args:
        before: The last of each kind before *since*: what was so then.
    """
    told, known = list(moves), list(before)
    computed, override = _first(known, told, breaker)
    spans: list[Span] = []
    began = since
    if not known:  # nothing is known of the time before the first
        began = max(since, told[0].at if told else since)
    last = known[-1] if known else None
    for entry in (None, *told):
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
    known: Sequence[Entry], told: Sequence[Entry], breaker: Breaker
) -> tuple[State, State | None]:
    """The machine's state and the operator's before the first of *told*."""
    computed, override = State.CLOSED, None
    first = next((e for e in told if e.kind is Kind.TRANSITION), None)
    if first is not None:
        computed = State(first.details["from"])
    else:
        computed = breaker.computed_state  # it has not moved since
    if not known and not told and breaker.override is not None:
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
        return after, None if hidden is None else State(hidden)
    asked = entry.details.get("state")
    return computed, None if asked is None else State(asked)
