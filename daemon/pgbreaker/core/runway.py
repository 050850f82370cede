"""How long until something is used up, at the rate at which it goes now.

A forecast warns and never opens a breaker: it is a straight line through what was seen,
and says nothing where what was seen is no line.
"""

import math
from array import array
from statistics import median
from typing import Final

from pgbreaker.core.units import Seconds, Share

_MOST_POINTS: Final = 64
_FEWEST_POINTS: Final = 5
_RISING: Final[Share] = 0.7

# Five points that rise by chance are no rarity. So the more rises than falls there are
# between pairs, the better, in standard deviations of what chance does (Mann-Kendall):
# of five points all pairs have to rise, of ten 80 %, of fifty the share above decides.
_SURE: Final = 2.4

_REMEMBERED_FALLS: Final = 4


class Runway:
    """The course of one value that must not reach a limit.

    Takes samples and keeps at most 64 of them, closely spaced lately and the wider the
    longer ago, so that both a leak of minutes and a trend of a day show. A value that
    stays as it is takes two places.

    A value that falls starts anew: the server was restarted, frozen rows were
    vacuumed, a slot was read. One that has fallen twice is known to do that, and
    nothing is foretold of it until it is higher than it was before it fell.

    Args:
        span: Seconds for which samples and falls are remembered.
        fall: Share of a value that it may lose without starting anew; 0 where it falls
            for a reason only.
    """

    __slots__ = ("_at", "_fall", "_falls", "_span", "_value")

    def __init__(self, *, span: Seconds = 86_400.0, fall: Share = 0.0) -> None:
        self._span = span
        self._fall = fall
        self._at = array("d")
        self._value = array("d")
        self._falls: tuple[tuple[Seconds, float], ...] = ()  # when, and from where

    def take(self, at: Seconds, value: float) -> None:
        """Take a sample; moments only go up, others are ignored."""
        moments, values = self._at, self._value
        if moments and at <= moments[-1]:
            return
        if values and value < values[-1] - self._fall * abs(values[-1]):
            self._falls = (*self._falls, (at, max(values)))[-_REMEMBERED_FALLS:]
            del moments[:], values[:]
        if len(values) > 1 and value == values[-1] == values[-2]:
            moments[-1] = at
        else:
            moments.append(at)
            values.append(value)
        self._forget(at - self._span)

    def left(self, limit: float) -> Seconds | None:
        """Seconds after the last sample until the value reaches *limit*.

        None: it does not grow, or not so that one could tell when.
        """
        if not self._value:
            return None
        ahead = limit - self._value[-1]
        if ahead <= 0:
            return 0.0
        slope = self._slope()
        if slope is None or self._has_fallen_from(self._value[-1]):
            return None
        seconds = ahead / slope
        return seconds if math.isfinite(seconds) else None

    def _forget(self, before: Seconds) -> None:
        moments, values = self._at, self._value
        while len(moments) > 2 and moments[1] < before:
            del moments[0], values[0]
        if self._falls and self._falls[0][0] < before:
            self._falls = self._falls[1:]
        if len(moments) > _MOST_POINTS:
            # The one that is missed least: near its neighbours, for its age.
            now = moments[-1]
            index = min(
                range(1, len(moments) - 1),
                key=lambda i: (moments[i + 1] - moments[i - 1]) / (now - moments[i]),
            )
            del moments[index], values[index]

    def _slope(self) -> float | None:
        """Growth by the second: the median over all pairs, after Theil and Sen."""
        count = len(self._at)
        if count < _FEWEST_POINTS:
            return None
        points = list(zip(self._at, self._value, strict=True))
        slopes = [
            (value - points[j][1]) / (at - points[j][0])
            for i, (at, value) in enumerate(points)
            for j in range(i)
        ]
        rising = sum(slope > 0 for slope in slopes)
        falling = sum(slope < 0 for slope in slopes)
        by_chance = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
        if rising < _RISING * len(slopes) or rising - falling < _SURE * by_chance:
            return None
        slope = median(slopes)
        return slope if slope > 0 else None

    def _has_fallen_from(self, value: float) -> bool:
        return len(self._falls) > 1 and value <= max(peak for _, peak in self._falls)
