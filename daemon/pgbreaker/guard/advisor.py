"""What a daemon advises, passed on to the breakers of this process.

Everything here is done by one thread; only the breakers themselves are everybody's.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.advice import LONGEST_LEASE, Advice, Opinion, read
from pgbreaker.core.units import Seconds
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.living import living

LEAST: Final = "read"
"""The daemon's breaker that stands for work of a kind it does not know: whatever it is,
it reads."""

# Breakers have been told how long it is, and not when it ends: by the rounding of that,
# their end may come a little later than ours.
_SLACK: Final[Seconds] = 0.001
_LONGEST_SPREAD: Final[Seconds] = 60.0
_MOST: Final = 10_000  # breakers that are spoken of

_Known: TypeAlias = tuple[Advice, Seconds | None]
"""What was said last, and the moment at which the word of its operator ends."""


class Advisor:
    """Takes what is said, and has the breakers of the process know it.

    A breaker hears what is said of the one that has its name. One of a target's work that
    the daemon does not know, of whatever name, goes by ``TARGET/read``; the one above them
    all, ``TARGET/connect``, by none: who has a connection is served, also while new ones
    are refused.

    Attributes:
        until: Moment at which the lease ends.
        seen: What was last heard, to come back with; empty: nothing was.
        unread: Messages that were none.

    Args:
        breakers: Name of a breaker here -> that of the daemon's whose advice it takes,
            where they differ.
        every: Seconds between two calls that find out, while advice alone refuses them.
        spread: Seconds over which the fleet comes back; None: as the daemon says, who
            knows how many follow.
    """

    def __init__(
        self,
        clock: Clock,
        breakers: Mapping[str, str],
        every: Seconds,
        spread: Seconds | None,
    ) -> None:
        self.until: Seconds = clock.now()
        self.seen = ""
        self.unread = 0
        self._clock = clock
        self._named = dict(breakers)
        self._every = every
        self._spread = spread
        self._told_spread: Seconds = 1.0
        self._known: dict[str, _Known] = {}
        self._advised = False

    @property
    def known(self) -> Mapping[str, Advice]:
        """The daemon's breaker -> what was last said of it."""
        return {name: advice for name, (advice, _) in self._known.items()}

    def take(self, kind: str, text: str) -> bool:
        """Take a message of the stream: its kind, and its JSON.

        Returns:
            Whether something was missed, and all has to be asked for anew.
        """
        if kind not in ("advice", "heartbeat"):
            return False
        try:
            said = json.loads(text)
            return self._take(kind, said)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # Not of a daemon that we know. What it has said before ends with its lease.
            self.unread += 1
            return False

    def _take(self, kind: str, said: Mapping[str, Any]) -> bool:
        version = said["version"]
        seen = f"{version['epoch']}-{version['seq']}"
        lease = min(float(said["lease_seconds"]), LONGEST_LEASE)
        spread = min(max(float(said["spread_seconds"]), 0.0), _LONGEST_SPREAD)
        if not (lease > 0 and math.isfinite(spread)):
            raise ValueError("a lease of no time, or a spread that is no number")
        if kind == "heartbeat" and seen != self.seen:
            return True
        now = self._clock.now()
        if kind == "advice":
            heard = [read(one) for one in said["advice"][:_MOST]]
            before = dict(self._theirs()) if said["complete"] else {}
            known = {} if said["complete"] else self._known
            for advice in heard:
                ends = None if advice.word is None else now + advice.word.left
                known[advice.breaker] = advice, ends
            self._known = known
            self._take_back(before)
        self.seen = seen
        self.until = now + lease
        self._told_spread = spread
        self.pass_on()
        return False

    def _take_back(self, before: Mapping[PostgreSQLCircuitBreaker, _Known]) -> None:
        """Have breakers go by themselves of which the daemon knows nothing any more: the
        word of its operator would hold for a month, and nobody could end it."""
        for breaker, (advice, _) in before.items():
            if self._name_of(breaker) not in self._known:
                over = replace(advice, opinion=Opinion.UNKNOWN, lease=0.0, word=None)
                breaker.advise(over, self._every, 0.0)

    def pass_on(self) -> None:
        """Have every breaker know what holds, for as long as it does."""
        now = self._clock.now()
        lease = self.until - now
        if lease <= 0:
            return
        spread = self._told_spread if self._spread is None else self._spread
        self._advised = True
        for breaker, (advice, ends) in self._theirs():
            word = advice.word
            if word is not None and ends is not None:
                word = replace(word, left=ends - now) if ends > now else None
            breaker.advise(replace(advice, lease=lease, word=word), self._every, spread)

    def _theirs(self) -> Iterator[tuple[PostgreSQLCircuitBreaker, _Known]]:
        for breaker in _breakers():
            known = self._known.get(self._name_of(breaker))
            if known is not None:
                yield breaker, known

    def _name_of(self, breaker: PostgreSQLCircuitBreaker) -> str:
        """The daemon's breaker that one here listens to; empty: none."""
        named = self._named.get(breaker.name)
        if named is not None:
            return named
        if breaker.operation == "connect":
            return ""
        if breaker.target is None or breaker.name in self._known:
            return breaker.name
        return f"{breaker.target}/{LEAST}"

    @property
    def left(self) -> Seconds:
        """Seconds until breakers have to go by themselves; 0: they do."""
        if not self._advised:
            return 0.0
        return max(0.0, self.until + _SLACK - self._clock.now())

    def lapse(self) -> bool:
        """Have breakers go by themselves, if the lease is over. Returns whether it has
        just ended."""
        if not self._advised or self.left > 0:
            return False
        self._advised = False
        self.seen = ""  # whoever says something next says all of it
        for breaker in _breakers():
            breaker.lapse()
        return True


def _breakers() -> Iterator[PostgreSQLCircuitBreaker]:
    """Every one there is, also where several have one name."""
    return (one for one in living() if isinstance(one, PostgreSQLCircuitBreaker))
