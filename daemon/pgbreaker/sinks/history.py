"""The history: what happened, in order; on disk before anybody is told of it."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from pgbreaker.clock import Clock
from pgbreaker.core.entry import BY_OPERATORS, Entry, Kind, of_transition
from pgbreaker.core.states import Transition
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event, Notice

log = logging.getLogger(__name__)

KEPT: Final = 2_000
"""Entries that are held in memory."""

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


class Ledger(Protocol):
    """Where entries are written down; the store is one."""

    async def record(self, entries: Iterable[Entry]) -> None:
        """Write *entries* down, in one piece and in their order.

        Raises:
            NotKeptError: They are not on disk.
        """


class History:
    """What happened, as far back as memory reaches; a sink.

    Args:
        ledger: Where it is written down. None: nowhere, it is gone with the process.
        last: The largest id that was ever given.
    """

    def __init__(
        self,
        board: Board,
        clock: Clock,
        ledger: Ledger | None = None,
        *,
        last: int = 0,
        entries: Iterable[Entry] = (),
    ) -> None:
        self._board = board
        self._clock = clock
        self._ledger = ledger
        self._last = last
        self.entries: deque[Entry] = deque(entries, KEPT)
        self._told: list[Told] = []

    def follow(self, told: Told) -> Callable[[], None]:
        """Have *told* told of every entry from now on; returns what ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Transition() if event.cause not in BY_OPERATORS:
                target, _ = self._board.home(event.breaker)
                entry = self._entry(
                    Kind.TRANSITION,
                    event.reason,
                    at=self._clock.wall_of(event.at),
                    target=target,
                    breaker=event.breaker,
                    details=of_transition(event),
                )
                self._tell(entry)
            case Notice():
                entry = self._entry(
                    Kind.NOTICE,
                    event.text,
                    at=self._clock.wall_of(event.at),
                    target=event.target,
                    details={"code": event.code},
                )
                self._tell(entry)

    async def decide(self, kind: Kind, text: str, **more: Any) -> Entry:  # noqa: ANN401 - Entry's
        """Write down what somebody decided, and only then tell of it.

        Raises:
            NotKeptError: It is not on disk; nobody was told.
        """
        entry = self._entry(kind, text, **more)
        if self._ledger is not None:
            await self._ledger.record((entry,))
        self._tell(entry)
        return entry

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
        self.entries.append(entry)
        for told in self._told:
            told(entry)
