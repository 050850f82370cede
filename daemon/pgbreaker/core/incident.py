"""Incidents: the times in which calls did not pass, read out of the history."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any, Final

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import SHUT, State
from pgbreaker.core.units import Seconds

MOST: Final = 1000
"""Incidents that are read at a time."""

TELLING: Final = (Kind.TRANSITION, Kind.OVERRIDE, Kind.NOTE)
"""Kinds of entries that incidents are read out of."""


_READ: Final = ("from", "to", "override", "state", "cause", "reason")
"""Details that incidents are read out of, beside the evidence; words that come often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A time in which a breaker let calls pass no more as a matter of course.

    Attributes:
        id: The entry that it began with.
        target: Name of the target. None: the entry names none.
        breaker: Name of the breaker.
        began: Wall time, in seconds since the epoch.
        ended: Wall time. None: it goes on.
        cause: The rule that opened the breaker; ``overridden`` where somebody did.
        sqlstate: What the server said. None: it said nothing.
        reason: One sentence with its numbers.
        notes: What people wrote to one of its entries, the oldest first.
    """

    id: int
    target: str | None
    breaker: str
    began: float
    ended: float | None
    cause: str
    sqlstate: str | None
    reason: str
    notes: tuple[Entry, ...] = ()

    def seconds(self, wall: float) -> Seconds:
        """How long it lasted, or has lasted until *wall*."""
        return max(0.0, (wall if self.ended is None else self.ended) - self.began)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What some incidents are read out of.

    Attributes:
        entries: In their order.
        before: The entry before which there may be more. None: that is all.
    """

    entries: list[Entry]
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Incidents:
    """Some incidents.

    Attributes:
        told: The oldest first.
        before: The entry before which others may have begun. None: those are all.
    """

    told: list[Incident]
    before: int | None = None


@dataclass(slots=True)
class _Course:
    """What is known of one breaker on the way through the history."""

    own: str = State.CLOSED.value  # as the machine has it
    word: str | None = None  # the operator's
    first: Entry | None = None  # that the incident under way began with
    entries: list[int] = field(default_factory=list)  # of the incident under way

    @property
    def passes(self) -> bool:
        felt = self.word or self.own
        return felt not in {state.value for state in SHUT}


def incidents(entries: Iterable[Entry]) -> list[Incident]:
    """Read incidents out of *entries*, which are in their order; the oldest first.

    A breaker counts as closed before the first that is known of it.
    """
    courses: dict[str, _Course] = {}
    notes: dict[int, list[Entry]] = {}
    found: list[tuple[Incident, list[int]]] = []
    for entry in entries:
        if entry.kind is Kind.NOTE:
            of = entry.details.get("of")
            if isinstance(of, int):
                notes.setdefault(of, []).append(entry)
        elif entry.breaker is not None and entry.kind in TELLING:
            course = courses.setdefault(entry.breaker, _Course())
            found.extend(_follow(course, entry))
    found.extend(
        (_incident(course, None), course.entries)
        for course in courses.values()
        if course.first is not None
    )
    told = [
        _noted(incident, [note for id_ in ids for note in notes.get(id_, ())])
        for incident, ids in found
    ]
    return sorted(told, key=lambda incident: incident.id)


def _follow(course: _Course, entry: Entry) -> Iterator[tuple[Incident, list[int]]]:
    """Take the next entry of a breaker; an incident that ends by it is yielded."""
    if entry.kind is Kind.TRANSITION:
        course.own = _text(entry.details, "to") or course.own
        course.word = _text(entry.details, "override")
    else:
        course.word = _text(entry.details, "state")
    if course.first is not None:
        course.entries.append(entry.id)
        if course.passes:
            yield _incident(course, entry.at), course.entries
            course.first, course.entries = None, []
    elif not course.passes:
        course.first, course.entries = entry, [entry.id]


def _incident(course: _Course, ended: float | None) -> Incident:
    first = course.first
    assert first is not None
    assert first.breaker is not None
    seen = first.details.get("evidence")
    return Incident(
        id=first.id,
        target=first.target,
        breaker=first.breaker,
        began=first.at,
        ended=ended,
        cause=_text(first.details, "cause") or "overridden",
        sqlstate=_text(seen, "sqlstate") if isinstance(seen, dict) else None,
        reason=_text(first.details, "reason") or first.text,
    )


def _noted(incident: Incident, notes: list[Entry]) -> Incident:
    in_order = sorted(notes, key=lambda note: note.id)
    return replace(incident, notes=tuple(in_order)) if notes else incident


def _text(of: Any, name: str) -> str | None:  # noqa: ANN401 - out of JSON
    text = of.get(name)
    return text if isinstance(text, str) else None


def bare(entry: Entry) -> Entry:
    """*entry* with no more than incidents are read out of: of twenty thousand, all else
    would be tens of megabytes."""
    if entry.kind is Kind.NOTE:
        return entry
    details: dict[str, Any] = {
        name: intern(text)
        for name in _READ
        if (text := _text(entry.details, name)) is not None
    }
    evidence = entry.details.get("evidence")
    if isinstance(evidence, dict) and (code := _text(evidence, "sqlstate")):
        details["evidence"] = {"sqlstate": intern(code)}
    return replace(
        entry,
        text=intern(entry.text),
        target=None if entry.target is None else intern(entry.target),
        breaker=None if entry.breaker is None else intern(entry.breaker),
        details=details,
    )


def begins(entry: Entry) -> bool:
    """Whether an incident may begin with *entry*."""
    shut = {state.value for state in SHUT}
    if entry.kind is Kind.OVERRIDE:
        return entry.details.get("state") in shut
    ends = entry.details.get("from"), entry.details.get("to")
    return ends[0] not in shut and ends[1] in shut


def starts(entry: Entry) -> bool:
    """Whether what is known of a breaker may begin with *entry*: what it did before does
    not matter."""
    ends = (entry.details.get("from"), entry.details.get("to"))
    return entry.kind is Kind.TRANSITION and State.CLOSED.value in ends
