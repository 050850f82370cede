"""What a breaker makes of advice: the table, and what is remembered for it.

A breaker's own evidence goes first. Advice shuts only a breaker that knows nothing better
itself, and even then one call now and then finds out; it never closes one that its own
calls have opened, but has it try sooner. Once the lease is over, nothing is left of it.
"""

from enum import Enum, auto
from typing import Final

from pgbreaker.core.advice import Advice, Opinion
from pgbreaker.core.units import Seconds, Share, lasting


class Local(Enum):
    """What a breaker knows itself."""

    PROVEN = auto()  # closed: calls made since the advice have gone well
    SURE = auto()  # closed: enough calls of late, and hardly one has failed
    UNSURE = auto()  # closed: too few calls to tell, or too many have failed
    OPEN = auto()  # its own calls have opened it
    TRYING = auto()  # half-open: its own trials decide


class Effect(Enum):
    """What becomes of it."""

    NONE = auto()  # it goes by its own evidence
    SHUT = auto()  # closed, but calls are refused, but for one now and then
    DISAGREE = auto()  # it stays closed, and says that others think otherwise
    HASTEN = auto()  # the next trial comes soon


# The whole of it; a test walks the table.
MERGE: Final = {
    (Opinion.OPEN, Local.PROVEN): Effect.DISAGREE,
    (Opinion.OPEN, Local.SURE): Effect.DISAGREE,
    (Opinion.OPEN, Local.UNSURE): Effect.SHUT,
    (Opinion.OPEN, Local.OPEN): Effect.NONE,
    (Opinion.OPEN, Local.TRYING): Effect.NONE,
    (Opinion.HEALTHY, Local.PROVEN): Effect.NONE,
    (Opinion.HEALTHY, Local.SURE): Effect.NONE,
    (Opinion.HEALTHY, Local.UNSURE): Effect.NONE,
    (Opinion.HEALTHY, Local.OPEN): Effect.HASTEN,
    (Opinion.HEALTHY, Local.TRYING): Effect.NONE,
    (Opinion.UNKNOWN, Local.PROVEN): Effect.NONE,
    (Opinion.UNKNOWN, Local.SURE): Effect.NONE,
    (Opinion.UNKNOWN, Local.UNSURE): Effect.NONE,
    (Opinion.UNKNOWN, Local.OPEN): Effect.NONE,
    (Opinion.UNKNOWN, Local.TRYING): Effect.NONE,
}


def merge(advice: Advice, local: Local) -> Effect:
    """Say what becomes of advice that still holds."""
    if advice.is_definite and local is Local.SURE:
        # Calls that went well until a moment ago say nothing of a failover.
        local = Local.UNSURE
    return MERGE[advice.opinion, local]


class Counsel:
    """What one breaker was advised, and what its own calls have found of it since.

    Attributes:
        advice: The last that was said. None: nothing was yet.
        until: Moment at which it is over.
        every: Seconds between two calls that find out, while it is shut.
        spread: Seconds over which the breakers of a fleet come back.
        try_at: Moment of the next such call.
        since: Moment at which it was last shut by advice.
        because: Why, in one sentence.
        is_shut: Whether it shuts the breaker.
        is_hastened: Whether this opinion has had it try sooner already.
    """

    __slots__ = (
        "_good",
        "_proven_until",
        "_release_at",
        "_tried",
        "advice",
        "because",
        "every",
        "is_hastened",
        "is_shut",
        "since",
        "spread",
        "try_at",
        "until",
    )

    def __init__(self, now: Seconds) -> None:
        self.every = self.spread = 1.0
        self.advice: Advice | None = None
        self.until = self.try_at = self.since = self._release_at = now
        self.because = ""
        self.is_hastened = self.is_shut = False
        self._good = 0  # calls in a row that found it well
        self._tried: int | None = None  # successes ever, when the last was let out
        self._proven_until = now

    def take(self, advice: Advice, now: Seconds, turn: Seconds) -> bool:
        """Take what was said at *now*. Returns whether it is news, or what was said
        before once more; what is older than what holds is neither.

        That another daemon says the same is no news: what own calls have found against
        it stands, and so does their turn to come back.

        Args:
            turn: Seconds after which it is this breaker's turn to come back: if a whole
                fleet did at once, it would be too much for a server that has just come
                back itself.
        """
        known = self.advice
        is_fresh = known is not None and now < self.until
        if known is not None and is_fresh and advice.place < known.place:
            return False
        if known is None or advice.term != known.term:
            is_news = known is None or not (is_fresh and advice.says_as(known))
        else:
            is_news = advice.version != known.version
        if is_news:
            self.is_hastened = False
            self._good, self._tried = 0, None
            self._proven_until = now
            self._release_at = now + turn
        self.advice = advice
        self.until = now + advice.lease
        return True

    def holding(self, now: Seconds) -> Advice | None:
        """The advice, while it holds."""
        return self.advice if now < self.until else None

    # Shut by it.

    def shut(self, now: Seconds, draw: Share) -> str:
        """Note that it shuts the breaker from *now* on; returns why.

        Args:
            draw: Where in the fleet's turn the first call is that finds out, 0 to 1.
        """
        assert self.advice is not None
        self.is_shut = True
        self.since = now
        self.try_at = now + self.every * draw
        self._good, self._tried = 0, None
        self.because = f"advised: {self.advice.breaker} is open"
        if self.advice.reason:
            self.because += f" ({self.advice.reason})"
        return self.because

    def keeps_shut(self, now: Seconds) -> bool:
        """Whether it is shut, and not yet its turn to come back."""
        return self.is_shut and now < min(self._release_at, self.until)

    def unshut(self, effect: Effect, now: Seconds) -> str:
        """Note that it no longer shuts it; returns why."""
        self.is_shut = False
        if self.holding(now) is None:
            return f"nobody says so any more, for {lasting(now - self.until)}"
        if effect is Effect.DISAGREE:
            return f"own calls went well, against what {self._whose()} says"
        return f"{self._whose()} says so no longer"

    def _whose(self) -> str:
        return "nobody" if self.advice is None else self.advice.breaker

    # The calls that find out.

    def lets_out(self, successes: int, now: Seconds) -> bool:
        """Whether a call may be made now to find out; if so, it is.

        Args:
            successes: Calls that went well, since the beginning.
        """
        if now < self.try_at:
            return False
        self.try_at = now + self.every
        self._tried = successes
        return True

    def hear(self, successes: int, run: int, enough: int, lasts: Seconds) -> None:
        """Take note of what became of those.

        Args:
            run: Failures in a row, just now.
            enough: Calls that have to find it well, one after the other.
            lasts: Moment until which that is proof.
        """
        if run:
            self._good, self._tried = 0, None
            self._proven_until = -1.0
        elif self._tried is not None and successes > self._tried:
            self._tried = None
            self._good += 1
            if self._good >= enough:
                self.prove(lasts)

    def prove(self, until: Seconds) -> None:
        """Have what its own calls have found stand against the advice until *until*."""
        self._proven_until = until

    def is_proven(self, now: Seconds) -> bool:
        """Whether its own calls have found otherwise since it was said."""
        return now < self._proven_until
