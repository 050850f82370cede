"""Since when a signal is above what is usual, and not just for a moment.

A forecast warns and never opens a breaker.
"""

from math import isfinite
from typing import Final

from pgbreaker.core.remembered import number, number_or_none, reading, several, whole
from pgbreaker.core.units import Seconds

_MOST: Final = 2.0  # thresholds, beyond which nothing is added up: it has to come back

# What noise is taken to be at first, and half of what it was a day ago counts no more.
_CORRELATION: Final = 0.5
_STRAY: Final = (1 + _CORRELATION) / (1 - _CORRELATION)  # s^2 of such noise
_MOST_ALIKE: Final = 0.97
_ORDINARY: Final = 3.0  # spreads beyond which a deviation is not of the noise
_DAY: Final = 1 - 0.5 ** (1 / 1440)  # per sample


class Cusum:
    """One-sided upward CUSUM (Page, "Continuous inspection schemes", 1954).

    It adds up by how much deviations, in spreads of what is usual, exceed *drift*; the
    sum never falls below 0. From *threshold* on there is a change. It stands until lately
    *back* deviations more were at or below *drift* than above it: because the value has
    come back, or because the baseline has learnt what is usual now.

    How often noise alone gets there is the average run length. For normal noise of
    standard deviation 1 with autocorrelation r the sum does as one of independent noise
    with s^2 = (1 + r) / (1 - r), for which Siegmund's approximation has

        (exp(2 d b) - 2 d b - 1) / (2 d^2) samples, d = drift / s, b = threshold / s + 1.166

    With r = 0.5, drift 0.75 and threshold 15 these are 13,000, and in simulations more
    than 36,000: at a sample a minute one false change in 9 days or more, where one a
    week was allowed. Without autocorrelation there is none in a hundred years. A change
    by n spreads is seen after about 15 / (n - 0.75) minutes.

    Run lengths go by drift * threshold / s^2. So of a signal that strays for longer, as a
    pool does that grows and shrinks within an hour, the threshold is the higher: by as
    much as its s^2, found from its own deviations, is above that of r = 0.5.

    Args:
        drift: Spreads that a deviation may have without adding to the sum.
        threshold: Sum that is a change, where noise is no more like itself than at r = 0.5.
        most: Spreads at which a deviation counts no more than it did: one sample alone
            is never a change.
        back: Samples after which a value has come back, if each is at or below *drift*.

    Attributes:
        level: The sum as a multiple of the threshold, 0 to 2; from 1 on it is a change.
        since: When the change that stands began: when the sum was 0 last. None: there
            is none.
    """

    __slots__ = (
        "_back",
        "_calm",
        "_drift",
        "_last",
        "_like",
        "_most",
        "_size",
        "_sum",
        "_threshold",
        "_zero",
        "since",
    )

    def __init__(
        self,
        *,
        drift: float = 0.75,
        threshold: float = 15.0,
        most: float = 9.0,
        back: int = 5,
    ) -> None:
        self._drift = drift
        self._threshold = threshold
        self._most = most
        self._back = back
        self._size, self._like = 1.0, _CORRELATION  # means of squares, of neighbours
        self._last = 0.0
        self._sum = 0.0
        self._zero: Seconds | None = None  # when the sum was 0 last
        self._calm = 0  # by how many more samples were at or below the drift
        self.since: Seconds | None = None

    @property
    def level(self) -> float:
        return self._sum / self._enough()

    def _enough(self) -> float:
        """The sum that is a change, as much as noise strays."""
        size = self._size
        like = min(self._like, _MOST_ALIKE * size)
        if like <= 0:
            return self._threshold
        stray = size * (size + like) / (size - like)
        return self._threshold * max(stray / _STRAY, 1.0)

    def _hear(self, deviation: float) -> None:
        """Learn what the noise is like."""
        ordinary = min(max(deviation, -_ORDINARY), _ORDINARY)
        self._size += _DAY * (ordinary * ordinary - self._size)
        self._like += _DAY * (ordinary * self._last - self._like)
        self._last = ordinary

    def take(self, at: Seconds, deviation: float) -> None:
        """Take a deviation, in spreads.

        Args:
            at: Its moment, of whatever clock: it only says when a change began.
        """
        if not isfinite(deviation):
            return
        if self.since is None:
            self._hear(deviation)
        exceeds = min(deviation, self._most) - self._drift
        total = self._sum + exceeds
        if self.since is None and total <= 0:  # as nearly always
            self._sum, self._zero = 0.0, at
            return
        enough = self._enough()
        self._sum = min(max(total, 0.0), _MOST * enough)
        if self._zero is None:
            self._zero = at  # it began with this very sample, for all that is known
        if self.since is None:
            if self._sum >= enough:
                self.since, self._calm = self._zero, 0
            return
        self._calm = self._calm + 1 if exceeds <= 0 else max(self._calm - 1, 0)
        if self._calm >= self._back:
            self._sum, self._zero = 0.0, at
            self.since = None

    def memory(self) -> list[float | None]:
        """What is remembered of it, fit for JSON; its moments are those it was given."""
        numbers = (self._sum, self._size, self._like, self._last)
        moments = (self._zero, self.since)
        return [
            self._calm,
            *(round(number, 3) for number in numbers),
            *(None if moment is None else round(moment) for moment in moments),
        ]

    @reading("memory of a change")
    def recall(self, memory: object) -> None:
        """Be what is remembered.

        Raises:
            ValueError: `memory` did not write this; nothing has changed then.
        """
        calm, total, size, like, last, zero, since = several(memory, "memory", 7)
        calm = whole(calm, "calm", 0, self._back)
        total = number(total, "sum", 0.0)
        size = number(size, "size", 0.0, _ORDINARY**2)
        like = number(like, "like", -size, size)
        last = number(last, "last", -_ORDINARY, _ORDINARY)
        zero, since = number_or_none(zero, "zero"), number_or_none(since, "since")
        self._calm, self._size, self._like, self._last = calm, size, like, last
        self._sum = min(total, _MOST * self._enough())
        self._zero, self.since = zero, since
