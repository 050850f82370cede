"""Of what it is warned, how long before, and when a warning begins and ends.

One table for metrics, alerts, page, `explain` and `backtest`: what is told to people is
what is counted in the record.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.units import Seconds, Share

_HOUR: Final[Seconds] = 3600.0
_DAY: Final[Seconds] = 86_400.0

CONNECTIONS: Final = "connections"
FAILURE: Final = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that is warned of.

    How soon slots are taken is judged where their course is known, in `filling`.

    Attributes:
        of: Its name, as in the label ``of``.
        says: What runs out, for people.
        within: Seconds before its end from which it is warned of.
        holds: Times in a row that it must be seen, so that one odd sample warns nobody.
        lingers: Seconds for which a warning stands though its reason is gone: one that
            comes and goes is read by nobody.
        needs: What it takes to be able to tell.
        is_scored: Whether what came of its warnings is counted. Not where people have
            days to avert it: that they did would count against it.
    """

    of: str
    says: str
    within: Seconds
    holds: int = 2
    lingers: Seconds = 600.0
    needs: str
    is_scored: bool = False

    @property
    def is_runway(self) -> bool:
        """Whether it runs out, so that one can tell when."""
        return self.of != FAILURE


def _slow(of: str, says: str, needs: str) -> Kind:
    # What is known a week before is mended by day. The rate is that of the last day, and
    # weekends are slower: what takes ten days by that takes seven at least.
    return Kind(of=of, says=says, within=10 * _DAY, lingers=_HOUR, needs=needs)


KINDS: Final = MappingProxyType(
    {
        kind.of: kind
        for kind in (
            Kind(
                of=CONNECTIONS,
                says="connection slots",
                within=3600.0,
                holds=1,
                needs="the probe saturation, and two in five of the slots taken",
                is_scored=True,
            ),
            Kind(
                of="pool",
                says="server connections of a pool",
                within=1800.0,
                needs="the probe pgbouncer",
                is_scored=True,
            ),
            Kind(
                of="lag",
                says="how far a replica may be behind",
                within=1800.0,
                needs="the probe replication with a limit",
                is_scored=True,
            ),
            _slow("xid", "transaction ids", "the probe database"),
            _slow("multixact", "multixact ids", "the probe database"),
            _slow("sequence", "a sequence", "the probe maintenance"),
            _slow(
                "slot",
                "WAL that a slot may hold back",
                "the probe slots, and max_slot_wal_keep_size",
            ),
            _slow(
                "archiver",
                "disk, by WAL that is not archived",
                "the probe size with its capacity",
            ),
            _slow(
                "disk",
                "disk, by all that is on it",
                "the probe size with its capacity",
            ),
            Kind(
                of=FAILURE,
                says="a breaker that opens",
                within=900.0,
                needs="five openings to learn from",
                is_scored=True,
            ),
        )
    }
)
"""Name -> what is warned of."""

LIKELY: Final[Share] = 0.8
"""Probability of a failure from which it is warned of."""

_FAITH: Final = 1.5
"""A trend of some minutes speaks for half as many more: what slows down for an hour comes
back mostly. The longer it has gone on, the more it is believed: that of half a day for six."""


_LOOKS: Final = 3  # that a warning outlasts without its reason, or without any


@dataclass(frozen=True, slots=True, kw_only=True)
class Forewarning:
    """A warning that stands.

    Attributes:
        of: Name of its kind.
        since: Moment at which it began.
        left: What is left. None: not a question of time.
        probability: How likely it is. None: not a question of that.
        reason: One sentence, with its numbers.
        is_over: Whether that is so no more: it stands for a while yet.
    """

    of: str
    since: Seconds
    left: Left | None = None
    probability: Share | None = None
    reason: str
    is_over: bool = False

    @property
    def said(self) -> str:
        """The reason, and whether it is so no more."""
        return f"not so any more: {self.reason}" if self.is_over else self.reason


def is_short(kind: Kind, left: Left | None) -> bool:
    """Whether so little is left that people should know."""
    return (
        left is not None
        and left.seconds < kind.within
        and left.seconds <= max(_FAITH, 24 * left.seen / _DAY) * left.seen
    )


class Standing:
    """Whether one kind of warning stands: begins late enough, and ends slowly.

    Attributes:
        since: Moment at which the warning that stands began. None: none does.
    """

    __slots__ = ("_gap", "_held", "_kind", "_last", "since")

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._held = 0  # times in a row
        self._last: Seconds = 0.0  # when it was last seen
        self._gap: Seconds = 0.0  # between the last two of them
        self.since: Seconds | None = None

    def look(self, at: Seconds, is_seen: bool) -> bool:
        """Take whether there is reason to warn now; returns whether one stands."""
        if is_seen:
            self._gap = at - self._last if self._held else 0.0
            self._held += 1
            self._last = at
            if self.since is None and self._held >= self._kind.holds:
                self.since = at
            return self.since is not None
        self._held = 0
        return self.lingers(at)

    def lingers(self, at: Seconds) -> bool:
        """Whether it still stands though nobody has looked since: what is not looked at
        is not known for ever. Dear probes may look more seldom than a warning lingers."""
        lingers = max(self._kind.lingers, _LOOKS * self._gap)
        if self.since is not None and at - self._last >= lingers:
            self.since = None
        return self.since is not None

    def end(self) -> None:
        """It does not stand any more."""
        self.since, self._held = None, 0
