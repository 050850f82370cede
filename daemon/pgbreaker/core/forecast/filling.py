"""Connection slots that fill up: slowly, by a leak, or in a hurry, by work that piles up.

Samples are averaged by the ten seconds: every two seconds there is one, and a slope over
them all would cost more than it tells.
"""

from array import array
from typing import Final

from pgbreaker.core.forecast.runway import NOTHING_LEFT, Left, left_at, trend
from pgbreaker.core.units import Seconds, Share

_BIN: Final[Seconds] = 10.0
_KEPT: Final = 90  # bins: a quarter of an hour

# A leak fills the slots within minutes to hours, and what the day was like does not
# matter. Below half the slots the waves of everyday look like leaks.
_LEAK_FROM: Final[Share] = 0.5
_LEAK_STEP: Final = 3  # bins to a point: thirty points of half a minute

# Work that piles up doubles within a minute.
_SURGE_FROM: Final[Share] = 0.5
_SURGE_BINS: Final = 12


class Filling:
    """How soon all slots are taken."""

    __slots__ = ("_bins", "_count", "_ends", "_left", "_moments", "_sum", "_usable")

    def __init__(self) -> None:
        self._moments = array("d")  # middles of bins
        self._bins = array("d")
        self._ends: Seconds = 0.0  # the bin that is being filled
        self._sum = 0.0
        self._count = 0
        self._usable = 0.0
        self._left: Left | None = None

    def take(
        self, at: Seconds, used: float, usable: float, active: float | None = None
    ) -> Left | None:
        """Take a sample; returns what is left, None while it cannot be told."""
        if usable != self._usable:
            self._usable = usable
            self._forget()
        if at >= self._ends:
            self._close()
            self._ends = at + _BIN
        self._sum += used
        self._count += 1
        return NOTHING_LEFT if used >= usable else self._left

    def _forget(self) -> None:
        del self._moments[:], self._bins[:]
        self._sum, self._count, self._left = 0.0, 0, None

    def _close(self) -> None:
        if not self._count:
            return
        self._moments.append(self._ends - _BIN / 2)
        self._bins.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._bins) > _KEPT:
            del self._moments[0], self._bins[0]
        self._left = self._leak()

    def _leak(self) -> Left | None:
        bins, moments = self._bins, self._moments
        if bins[-1] < _LEAK_FROM * self._usable:
            return None
        first = len(bins) % _LEAK_STEP
        values = [
            sum(bins[i : i + _LEAK_STEP]) / _LEAK_STEP
            for i in range(first, len(bins), _LEAK_STEP)
        ]
        middles = moments[first + 1 :: _LEAK_STEP]
        found = trend(middles, values)
        if found is None:
            return None
        ahead = max(self._usable - bins[-1], 0.0)
        return left_at(found, ahead, moments[-1] - moments[0])
