"""The desk: where people put their word before a breaker's, and plan maintenance.

What is asked here is written down first, then done, then told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import OVERRIDES, Override, State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.core.units import lasting as lasting_of
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub

LASTS: Final[Seconds] = 3600.0
"""How long an override holds unless it is said otherwise."""

LONGEST: Final[Seconds] = 7 * 24 * 3600.0
"""How long one may hold at most: a forgotten one is worse than one that ran out."""

ALL: Final = "*"
"""Stands for every target."""

REASON: Final = (5, 500)
"""Characters that a reason has, at least and at most."""


class RefusedError(PgbreakerError):
    """What was asked is not done: it is not one thing or another, as the text says.

    Attributes:
        field: What of the question is wrong, such as ``reason``.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)
        self.field = field
        self.text = text

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time in which work is done on targets: their alerts are not told.

    Attributes:
        id: The entry that it began with, for `Desk.end`.
        targets: Names of the targets; ``*`` stands for all of them.
        reason: Why.
        author: Who.
        starts: Wall time, in seconds since the epoch.
        ends: Wall time, in seconds since the epoch.
    """

    id: int
    targets: tuple[str, ...]
    reason: str
    author: str
    starts: float
    ends: float


class Desk:
    """Takes orders.

    Attributes:
        windows: Id -> window, of those that are not over.
    """

    def __init__(self, board: Board, hub: Hub, history: History, clock: Clock) -> None:
        self._board = board
        self._hub = hub
        self._history = history
        self._clock = clock
        self.windows: dict[int, Window] = {}

    @property
    def overrides(self) -> Mapping[str, Override]:
        """Breaker -> the word that stands before its own, where one does."""
        return {
            breaker.name: breaker.override
            for target in self._board.targets.values()
            for breaker in target.breakers.values()
            if breaker.override is not None
        }

    async def override(
        self,
        breaker: Breaker,
        state: State,
        *,
        reason: str,
        author: str,
        lasting: Seconds = LASTS,
    ) -> Transition:
        """Put *state* before the breaker's own for *lasting* seconds.

        Raises:
            RefusedError: One of the arguments is not to be had.
            NotKeptError: It could not be written down, and so is not done.
        """
        if state not in OVERRIDES:
            there_are = ", ".join(state.value for state in OVERRIDES)
            raise RefusedError(
                "state",
                f"a breaker cannot be forced {state.value}; it can be {there_are}",
            )
        if not 0 < lasting <= LONGEST:
            raise RefusedError(
                "for", f"{lasting:g} s is not between 0 and {lasting_of(LONGEST)}"
            )
        reason = self._reason(reason)
        target, _ = self._board.home(breaker.name)
        until = self._clock.wall() + lasting
        await self._history.decide(
            Kind.OVERRIDE,
            f"{breaker.name} is {state.value} for {lasting_of(lasting)}: {reason}",
            target=target,
            breaker=breaker.name,
            author=author,
            details={"state": state.value, "reason": reason, "until": until},
        )
        # While that was written down the world went on: `force` goes by what is now.
        now = self._clock.now()
        override = Override(state, reason, author, now + until - self._clock.wall())
        move = breaker.force(override, now)
        self._hub.publish(move)
        return move

    async def hand_back(
        self, breaker: Breaker, *, reason: str, author: str
    ) -> Transition | None:
        """Let the breaker decide by itself again. None when it already does.

        Raises:
            RefusedError: The reason is none.
            NotKeptError: It could not be written down, and so is not done.
        """
        if breaker.override is None:
            return None
        reason = self._reason(reason)
        target, _ = self._board.home(breaker.name)
        await self._history.decide(
            Kind.OVERRIDE,
            f"{breaker.name} decides by itself again: {reason}",
            target=target,
            breaker=breaker.name,
            author=author,
            details={"state": None, "reason": reason, "until": None},
        )
        move = breaker.resume(self._clock.now(), f"handed back by {author} ({reason})")
        if move is not None:
            self._hub.publish(move)
        return move

    async def begin(
        self,
        targets: Sequence[str],
        *,
        reason: str,
        author: str,
        ends: float,
        starts: float | None = None,
    ) -> Window:
        """Plan maintenance of *targets*; None starts it now.

        Raises:
            RefusedError: There is no such target, or the times are none.
            NotKeptError: It could not be written down, and so is not done.
        """
        unknown = [t for t in targets if t != ALL and t not in self._board.targets]
        if unknown or not targets:
            there_are = ", ".join((*self._board.targets, repr(ALL)))
            named = ", ".join(map(repr, unknown)) or "none"
            raise RefusedError("targets", f"no target {named}; there are {there_are}")
        reason = self._reason(reason)
        now = self._clock.wall()
        begins = now if starts is None else starts
        if ends <= max(begins, now):
            raise RefusedError("ends", "a window ends after it starts, and after now")
        entry = await self._history.decide(
            Kind.MAINTENANCE,
            f"maintenance of {', '.join(targets)}: {reason}",
            author=author,
            details={
                "targets": list(targets),
                "reason": reason,
                "starts": begins,
                "ends": ends,
            },
        )
        window = Window(
            id=entry.id,
            targets=tuple(targets),
            reason=reason,
            author=author,
            starts=begins,
            ends=ends,
        )
        self.windows[window.id] = window
        return window

    async def end(self, window: int, *, author: str) -> Window:
        """End a window, or call it off.

        Raises:
            RefusedError: There is none of this id.
            NotKeptError: It could not be written down, and so is not done.
        """
        if window not in self.windows:
            raise RefusedError("id", f"no window of maintenance has the id {window}")
        known = self.windows[window]
        await self._history.decide(
            Kind.MAINTENANCE,
            f"maintenance of {', '.join(known.targets)} has ended: {known.reason}",
            author=author,
            details={"ended": window},
        )
        self.windows.pop(window, None)
        return known

    async def note(self, entry: int, text: str, *, author: str) -> Entry:
        """Write something to an entry of the history.

        Raises:
            RefusedError: There is no such entry, or the text is none.
            NotKeptError: It could not be written down.
        """
        text = self._reason(text, "text")
        known = {known.id: known for known in self._history.entries}
        if entry not in known:
            raise RefusedError("id", f"no event has the id {entry}")
        return await self._history.decide(
            Kind.NOTE,
            text,
            target=known[entry].target,
            breaker=known[entry].breaker,
            author=author,
            details={"of": entry},
        )

    @staticmethod
    def _reason(text: str, field: str = "reason") -> str:
        text = " ".join(text.split())
        least, most = REASON
        if not least <= len(text) <= most:
            raise RefusedError(
                field, f"{len(text)} characters are not {least} to {most}"
            )
        return text

    def window_of(self, target: str) -> Window | None:
        """The window that *target* is in now, None when it is in none."""
        now = self._clock.wall()
        for window in self.windows.values():
            is_meant = target in window.targets or ALL in window.targets
            if is_meant and window.starts <= now < window.ends:
                return window
        return None
