"""What a daemon advises, passed on to the breakers of this process.

Everything here is done by one thread; only the breakers themselves are everybody's.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.advice import (
    LONGEST_LEASE,
    Advice,
    Opinion,
    Version,
    read,
    version_of,
)
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

# Of the whole process: two who follow may speak to one breaker.
_TERMS: Final = itertools.count(1)

_Known: TypeAlias = tuple[Advice, Seconds | None]
"""What was said last, and the moment at which the word of its operator ends."""


class Advisor:
    """Takes what is said, and has the breakers of the process know it.

    A breaker hears what is said of the one that has its name. One of a target's work that
    the daemon does not know, of whatever name, goes by ``TARGET/read``; the one above them
    all, ``TARGET/connect``, by none: who has a connection is served, also while new ones
    are refused.

    What is said has versions, and what is older is not taken. They are those of one run
    of one daemon: another that is listened to, or the same one when it was started again,
    begins with all that it says, whatever its versions are, and with that a new term.

    Attributes:
        until: Moment at which the lease ends.
        told_lease: Seconds for which what was said last holds, from then on.
        told_spread: Seconds over which all who follow the daemon do what they do at
            once.
        heard: Messages that were taken.
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
        self.told_lease: Seconds = 0.0
        self.heard = self.unread = 0
        self._clock = clock
        self._named = dict(breakers)
        self._every = every
        self._spread = spread
        self.told_spread: Seconds = 1.0
        self._known: dict[str, _Known] = {}
        self._advised = False
        self._daemon = ""  # who is listened to
        self._said_by = ""  # who has said what is known
        self._version: Version | None = None  # of that
        self._is_whole = False  # whether nothing was missed since
        self._term = 0
        self._is_beginning = False

    @property
    def known(self) -> Mapping[str, Advice]:
        """The daemon's breaker -> what was last said of it."""
        return {name: advice for name, (advice, _) in self._known.items()}

    @property
    def seen(self) -> str:
        """What was last heard of who is listened to, to come back with; empty: nothing."""
        version = self._version
        if version is None or self._said_by != self._daemon or not self._is_whole:
            return ""
        return f"{version.epoch}-{version.seq}"

    def listen(self, daemon: str) -> None:
        """Begin to listen to a daemon, or to the same one anew.

        Args:
            daemon: What it is called.
        """
        self._daemon, self._is_beginning = daemon, True

    def forget(self) -> None:
        """Have all asked for anew; what was said goes on to hold."""
        self._is_whole = False

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
        version = version_of(said["version"])
        lease = min(float(said["lease_seconds"]), LONGEST_LEASE)
        spread = min(max(float(said["spread_seconds"]), 0.0), _LONGEST_SPREAD)
        if not (lease > 0 and math.isfinite(spread)):
            raise ValueError("a lease of no time, or a spread that is no number")
        known = self._version
        is_same = (
            self._said_by == self._daemon
            and known is not None
            and version.epoch == known.epoch
        )
        if is_same and known is not None and version < known:
            raise ValueError("it is older than what it has said")
        is_all = kind == "advice" and said["complete"] is True
        if not (is_all or (is_same and self._is_whole)):
            return True
        if kind == "heartbeat" and version != known:
            return True
        now = self._clock.now()
        if kind == "advice":
            term = self._term
            if self._is_beginning and not is_same:
                term = next(_TERMS)
            self._learn(said["advice"][:_MOST], now, term, is_all=is_all)
            self._term = term
        self._is_beginning, self._is_whole = False, True
        self._said_by, self._version = self._daemon, version
        self.until, self.told_lease = now + lease, lease
        self.told_spread = spread
        self.heard += 1
        self.pass_on()
        return False

    def _learn(
        self, said: Iterable[object], now: Seconds, term: int, *, is_all: bool
    ) -> None:
        heard = [replace(read(one), daemon=self._daemon, term=term) for one in said]
        before = dict(self._theirs()) if is_all else {}
        known = {} if is_all else self._known
        for advice in heard:
            ends = None if advice.word is None else now + advice.word.left
            known[advice.breaker] = advice, ends
        self._known = known
        self._take_back(before)

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
        spread = self.told_spread if self._spread is None else self._spread
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

    def follows(self, breaker: PostgreSQLCircuitBreaker) -> str | None:
        """The daemon's breaker whose advice one here takes. None: none."""
        name = self._name_of(breaker)
        return name if name in self._known else None

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
        for breaker in _breakers():
            breaker.lapse()
        return True


def _breakers() -> Iterator[PostgreSQLCircuitBreaker]:
    """Every one there is, also where several have one name."""
    return (one for one in living() if isinstance(one, PostgreSQLCircuitBreaker))
