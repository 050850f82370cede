"""How long until something is used up, at the rate at which it goes now.

A forecast warns and never opens a breaker: it is a straight line through what was seen,
and says nothing where what was seen is no line.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

from pgbreaker.core.remembered import numbers, reading, several, short
from pgbreaker.core.units import Seconds, Share

_MOST_POINTS: Final = 64
_FEWEST_POINTS: Final = 5
_RISING: Final[Share] = 0.7

# Five points that rise by chance are no rarity. So the more rises than falls there are
# between pairs, the better, in standard deviations of what chance does (Mann-Kendall):
# of five points all pairs have to rise, of ten 80 %, of fifty the share above decides.
_SURE: Final = 2.4

# Of nine slopes out of ten that chance makes of one, in standard deviations.
_NINE_OF_TEN: Final = 1.645

_REMEMBERED_FALLS: Final = 4

_HUGE: Final = 1e300
_HOUR: Final[Seconds] = 3600.0
_DAY: Final[Seconds] = 86_400.0

# A trend of a day is not another one a minute later: it is looked for again when it has
# grown by so much.
_ANEW: Final[Share] = 0.02


@dataclass(frozen=True, slots=True)
class Left:
    """How long it is until something is used up.

    Attributes:
        seconds: By the slope that is the likeliest.
        soonest: By the steepest slope that the samples allow, nine times of ten.
        latest: By the flattest; infinite where it may not grow at all.
        seen: Seconds for which it has been seen to grow.
    """

    seconds: Seconds
    soonest: Seconds
    latest: Seconds
    seen: Seconds = math.inf


NOTHING_LEFT: Final = Left(0.0, 0.0, 0.0)
"""It is used up, which needs no forecast."""


class Trend(NamedTuple):
    """Growth by the second.

    Attributes:
        slope: The likeliest.
        flattest: That the samples allow; not above 0 where it may not grow at all.
        steepest: That they allow.
    """

    slope: float
    flattest: float
    steepest: float


def trend(
    moments: Sequence[float], values: Sequence[float], sure: float = _SURE
) -> Trend | None:
    """Find the trend of samples: the median of the slopes over all pairs, after Theil and
    Sen, with the interval that Sen (1968) gives it. None: they do not rise, or chance
    would do as much.

    The interval is that of independent samples; those of a server are not, quite.

    Args:
        sure: How much more pairs have to rise than fall, in standard deviations of what
            chance does.
    """
    count = len(moments)
    if count < _FEWEST_POINTS:
        return None
    slopes = [
        (values[i] - values[j]) / (moments[i] - moments[j])
        for i in range(count)
        for j in range(i)
    ]
    slopes.sort()
    rising = len(slopes) - bisect_right(slopes, 0.0)
    falling = bisect_left(slopes, 0.0)
    by_chance = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if rising < _RISING * len(slopes) or rising - falling < sure * by_chance:
        return None
    slope = median(slopes)
    if slope <= 0:
        return None
    aside = _NINE_OF_TEN * by_chance / 2
    middle = len(slopes) / 2
    return Trend(
        slope,
        slopes[max(math.floor(middle - aside), 0)],
        slopes[min(math.ceil(middle + aside), len(slopes) - 1)],
    )


def left_at(trend: Trend, ahead: float, seen: Seconds) -> Left | None:
    """Say how long it is until a value has grown by *ahead*, above 0. None: so long that
    nobody can count it."""
    seconds = ahead / trend.slope
    if not math.isfinite(seconds):
        return None
    latest = ahead / trend.flattest if trend.flattest > 0 else math.inf
    return Left(seconds, ahead / max(trend.steepest, trend.slope), latest, seen)


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

    __slots__ = ("_at", "_fall", "_falls", "_fit", "_fitted", "_span", "_value")

    def __init__(self, *, span: Seconds = _DAY, fall: Share = 0.0) -> None:
        self._span = span
        self._fall = fall
        self._at = array("d")
        self._value = array("d")
        self._falls: tuple[tuple[Seconds, float], ...] = ()  # when, and from where
        self._fit: Trend | None = None
        self._fitted: Seconds = -math.inf  # when that was found

    def take(self, at: Seconds, value: float) -> None:
        """Take a sample; moments only go up, others are ignored."""
        moments, values = self._at, self._value
        if moments and at <= moments[-1]:
            return
        if values and value < values[-1] - self._fall * abs(values[-1]):
            self._remember(at, max(values))
            del moments[:], values[:]
            self._fitted = -math.inf
        if len(values) > 1 and value == values[-1] == values[-2]:
            moments[-1] = at
        else:
            moments.append(at)
            values.append(value)
        self._forget(at - self._span)

    def memory(self, epoch: float) -> dict[str, Any]:
        """What is remembered of it, fit for JSON.

        Args:
            epoch: Wall time of moment 0.
        """
        return {
            "at": [round(at + epoch, 1) for at in self._at],
            "value": [short(value, 9) for value in self._value],
            "falls": [[round(at + epoch, 1), peak] for at, peak in self._falls],
        }

    @reading("course of a value")
    def recall(self, memory: Mapping[str, Any], epoch: float) -> None:
        """Go on from a memory.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none.
        """
        moments = numbers(memory["at"], "at", None, -_HUGE, _HUGE)
        values = numbers(memory["value"], "value", len(moments), -_HUGE, _HUGE)
        if len(moments) > _MOST_POINTS or moments != sorted(moments):
            raise ValueError("its moments are too many, or not in order")
        falls = several(memory["falls"], "falls")[-_REMEMBERED_FALLS:]
        known = [numbers(fall, "a fall", 2, -_HUGE, _HUGE) for fall in falls]
        self._at = array("d", (at - epoch for at in moments))
        self._value = array("d", values)
        self._falls = tuple((at - epoch, peak) for at, peak in known)
        self._fitted = -math.inf

    def left(self, limit: float) -> Left | None:
        """How long it is after the last sample until the value reaches *limit*.

        None: it does not grow, or not so that one could tell when.
        """
        if not self._value:
            return None
        ahead = limit - self._value[-1]
        if ahead <= 0:
            return NOTHING_LEFT
        now, first = self._at[-1], self._at[0]
        if now - self._fitted > _ANEW * (now - first):
            self._fit, self._fitted = trend(self._at, self._value), now
        if self._fit is None or self._has_fallen_from(self._value[-1]):
            return None
        return left_at(self._fit, ahead, now - self._rises_since())

    def _rises_since(self) -> Seconds:
        """When it was last as low as at first: what stood still has shown no growth."""
        least = self._value[0]
        pairs = zip(self._at, self._value, strict=True)
        return max(at for at, value in pairs if value <= least)

    def _remember(self, at: Seconds, peak: float) -> None:
        """Remember a fall: the highest are what others have to be higher than."""
        falls = [*self._falls, (at, peak)]
        if len(falls) > _REMEMBERED_FALLS:
            falls.remove(min(falls, key=lambda fall: fall[1]))
        self._falls = tuple(falls)

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

    def _has_fallen_from(self, value: float) -> bool:
        return len(self._falls) > 1 and value <= max(peak for _, peak in self._falls)


class Tide:
    """The course of a value that goes up and down each day.

    A backup, or what queries put into temporary files, comes and goes; what is left at the
    lowest of two days one after the other is what grows. It is at its limit when the
    highest of a day is.

    Args:
        span: Seconds for which samples are remembered.
    """

    __slots__ = ("_due", "_high", "_low", "_runway")

    def __init__(self, *, span: Seconds = 14 * _DAY) -> None:
        self._runway = Runway(span=span)
        self._low, self._high = _Lowest(), _Lowest()
        self._due: Seconds | None = None

    def memory(self, epoch: float) -> dict[str, Any]:
        """What is remembered of it, fit for JSON: the course from day to day.

        Args:
            epoch: Wall time of moment 0.
        """
        return self._runway.memory(epoch)

    def recall(self, memory: Mapping[str, Any], epoch: float) -> None:
        """Go on from a memory; what a day is like is seen within the next one.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none.
        """
        self._runway.recall(memory, epoch)

    def take(self, at: Seconds, value: float) -> None:
        """Take a sample."""
        self._low.take(at, value)
        self._high.take(at, -value)
        if self._due is None:
            self._due = at + _DAY
        if at >= self._due:
            self._due = at + _HOUR
            self._runway.take(at, self._low.lowest)

    def left(self, limit: float) -> Left | None:
        """How long it is until the highest of a day reaches *limit*. None: it cannot be
        told, as within the first day."""
        if not self._low.is_known:
            return None
        swing = -self._high.lowest - self._low.lowest
        return self._runway.left(limit - swing)


class _Lowest:
    """The lowest of the last day."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        # What nothing later is below; so the first is the lowest.
        self._seen: deque[tuple[Seconds, float]] = deque()

    def take(self, at: Seconds, value: float) -> None:
        seen = self._seen
        while seen and seen[-1][1] >= value:
            seen.pop()
        seen.append((at, value))
        while seen[0][0] <= at - _DAY:
            seen.popleft()

    @property
    def is_known(self) -> bool:
        return bool(self._seen)

    @property
    def lowest(self) -> float:
        return self._seen[0][1]
