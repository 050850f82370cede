"""What happened, filtered, and as lines."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import State
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.web.page.breakers import path_of, target_path
from pgbreaker.web.page.timeline import SPANS
from pgbreaker.web.page.words import FORCED_CLOSED, STATES, Look

PAGE: Final = 50
"""Lines of a page of the feed."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted.

    Attributes:
        kinds: Of these kinds. Empty: of any.
        target: Of this target. None: of any.
        breaker: Of this breaker. None: of any.
        text: That hold this text. Empty: whatever they hold.
        before: Older than the entry of this id. None: up to the newest.
    """

    kinds: tuple[Kind, ...] = ()
    target: str | None = None
    breaker: str | None = None
    text: str = ""
    before: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str], kinds: Iterable[str]) -> Self:
        """Read a filter from an address; what it has no word for is left out."""
        known = {kind.value for kind in Kind}
        before = query.get("before", "")
        return cls(
            kinds=tuple(Kind(kind) for kind in kinds if kind in known),
            target=query.get("target") or None,
            breaker=query.get("breaker") or None,
            text=query.get("q", "")[:200],
            before=int(before) if before.isdecimal() and len(before) < 18 else None,
        )

    def address(self, **other: Any) -> str:  # noqa: ANN401 - of any of the attributes
        """The query of an address that leads to this filter, with *other* in it."""
        said: dict[str, Any] = {
            "kind": [kind.value for kind in self.kinds],
            "target": self.target,
            "breaker": self.breaker,
            "q": self.text,
            "before": self.before,
        } | other
        query = urlencode({k: v for k, v in said.items() if v}, doseq=True)
        return f"?{query}" if query else "?"


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote to an entry."""

    at: float
    author: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """An entry as a line.

    Attributes:
        link: Page of what it is of, below the root. None: of nothing that has one.
        before: State that a breaker left. None: it is no move.
        after: State that it took.
        notes: What was written to it.
    """

    id: int
    at: float
    kind: Kind
    about: str | None
    link: str | None
    text: str
    author: str | None
    before: Look | None
    after: Look | None
    notes: tuple[Note, ...]


async def entries(
    history: History, chosen: Filter, *, limit: int, since: float | None = None
) -> list[Entry]:
    """The newest *limit* entries that are wanted, the oldest first.

    Args:
        since: Wall time from which on. None: as far back as there are any.
    """
    return await history.page(
        since=since,
        before=chosen.before,
        limit=limit,
        kinds=chosen.kinds or None,
        target=chosen.target,
        breaker=chosen.breaker,
        text=chosen.text or None,
    )


def told(entries: Iterable[Entry], board: Board) -> list[Told]:
    """Write *entries* as lines, the newest first, each with the notes among them."""
    notes: dict[int, list[Note]] = {}
    lines = []
    for entry in entries:
        of = entry.details.get("of")
        if entry.kind is Kind.NOTE and isinstance(of, int):
            notes.setdefault(of, []).append(Note(entry.at, entry.author, entry.text))
        lines.append(entry)
    return [_told(e, board, tuple(notes.get(e.id, ()))) for e in reversed(lines)]


def _told(entry: Entry, board: Board, notes: tuple[Note, ...]) -> Told:
    before, after = _states(entry)
    return Told(
        id=entry.id,
        at=entry.at,
        kind=entry.kind,
        about=entry.breaker or entry.target,
        link=_link(entry, board),
        text=entry.text,
        author=entry.author,
        before=before,
        after=after,
        notes=notes,
    )


def _states(entry: Entry) -> tuple[Look | None, Look | None]:
    details = entry.details
    if entry.kind is Kind.TRANSITION and "from" in details and "to" in details:
        return STATES[State(details["from"])], STATES[State(details["to"])]
    if entry.kind is Kind.OVERRIDE and details.get("state"):
        state = State(details["state"])
        return None, FORCED_CLOSED if state is State.CLOSED else STATES[state]
    return None, None


def _link(entry: Entry, board: Board) -> str | None:
    """Where an entry leads: targets may have gone since."""
    if entry.breaker is not None:
        try:
            return path_of(*board.home(entry.breaker))
        except KeyError:
            return None
    if entry.target in board.targets:
        return target_path(str(entry.target))
    return None


def exports(chosen: Filter) -> list[tuple[str, str]]:
    """Word and address, below the root, of what can be taken away."""
    query = chosen.address(before=None).removeprefix("?")
    more = f"&{query}" if query else ""
    return [
        ("events CSV", f"api/v1/events?format=csv{more}"),
        ("events Markdown", f"api/v1/events?format=md{more}"),
        ("incidents CSV", "api/v1/incidents?format=csv"),
        ("incidents Markdown", "api/v1/incidents?format=md"),
    ]


def span_of(query: Mapping[str, str]) -> str:
    """The span that an address asks for; the shortest when it asks for none."""
    span = query.get("span", "")
    return span if span in SPANS else next(iter(SPANS))


def anchor(entry: int) -> str:
    """Where an entry is found, below the root."""
    return f"events?before={quote(str(entry + 1))}#e{entry}"
