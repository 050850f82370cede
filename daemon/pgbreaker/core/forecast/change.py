"""Since when a signal is above what is usual, and not just for a moment.

A forecast warns and never opens a breaker.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from pgbreaker.core.units import Seconds

_MOST: Final = 2.0  # thresholds, beyond which nothing is added up: it has to come back


class Cusum:
    """One-sided upward CUSUM (Page, "Continuous inspection schemes", 1954).

    It adds up by how much deviations, in spreads of what is usual, exceed *drift*; the
    sum never falls below 0. Above *threshold* there is a change, which stands until no
    deviation was above *drift* for *back* seconds: because the value has come back, or
    because the baseline has learnt what is usual now.

    How often noise alone gets there is the average run length. For normal noise of
    standard deviation 1 with autocorrelation r the sum does as one of independent noise
    with s^2 = (1 + r) / (1 - r), for which Siegmund's approximation has

        (exp(2 d b) - 2 d b - 1) / (2 d^2) samples, d = drift / s, b = threshold / s + 1.166

    With r = 0.5, drift 1 and threshold 12 these are 17,000: at a sample a minute one
    false change in 12 days, where one a week was allowed. Without autocorrelation it is
    one in 10,000 years. A change by n spreads is seen after about 12 / (n - 1) minutes.

    Args:
        drift: Spreads that a deviation may have without adding to the sum.
        threshold: Sum that is a change.
        most: Spreads at which a deviation counts no more than it did: one sample alone
            is never a change.
        back: Seconds after which a value has come back.

    Attributes:
        level: The sum as a multiple of the threshold, 0 to 2; from 1 on it is a change.
        since: When the change that stands began: when the sum was 0 last. None: there
            is none.
    """

    __slots__ = (
        "_back",
        "_calm",
        "_drift",
        "_most",
        "_sum",
        "_threshold",
        "_zero",
        "since",
    )

    def __init__(
        self,
        *,
        drift: float = 1.0,
        threshold: float = 12.0,
        most: float = 8.0,
        back: Seconds = 300.0,
    ) -> None:
        self._drift = drift
        self._threshold = threshold
        self._most = most
        self._back = back
        self._sum = 0.0
        self._zero: Seconds | None = None  # when the sum was 0 last
        self._calm: Seconds | None = None  # since when no deviation was above the drift
        self.since: Seconds | None = None

    @property
    def level(self) -> float:
        return self._sum / self._threshold

    def take(self, at: Seconds, deviation: float) -> None:
        """Take a deviation, in spreads.

        Args:
            at: Its moment, of whatever clock; one that goes back delays the end of a
                change at most by *back*.
        """
        if not isfinite(deviation):
            return
        exceeds = min(deviation, self._most) - self._drift
        total = self._sum + exceeds
        if self.since is None and total <= 0:  # as nearly always
            self._sum, self._zero = 0.0, at
            return
        self._sum = min(max(total, 0.0), _MOST * self._threshold)
        if self.since is not None:
            self._end(at, is_calm=exceeds <= 0)
        elif self._sum >= self._threshold:
            self.since, self._calm = at if self._zero is None else self._zero, None

    def _end(self, at: Seconds, *, is_calm: bool) -> None:
        if not is_calm:
            self._calm = None
        elif self._calm is None or at < self._calm:
            self._calm = at
        elif at - self._calm >= self._back:
            self._sum, self._zero = 0.0, at
            self._calm = self.since = None

    def memory(self) -> list[float | None]:
        """What is remembered of it, fit for JSON; its moments are those it was given."""
        moments = (self._zero, self.since, self._calm)
        return [
            round(self._sum, 3),
            *(None if moment is None else round(moment, 1) for moment in moments),
        ]

    def recall(self, memory: object) -> None:
        """Be what is remembered.

        Raises:
            ValueError: `memory` did not write this; nothing has changed then.
        """
        if not isinstance(memory, list) or len(memory) != 4:
            raise ValueError(f"no memory of a change: {memory!r}")
        total, zero, since, calm = (_moment(number) for number in memory)
        if total is None or not 0 <= total <= _MOST * self._threshold:
            raise ValueError(f"no memory of a change: the sum is {total!r}")
        self._sum, self._zero, self.since, self._calm = total, zero, since, calm


def _moment(number: object) -> float | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"no memory of a change: {number!r} is no number")
    if not isfinite(number):
        raise ValueError(f"no memory of a change: {number!r} is no number")
    return float(number)
