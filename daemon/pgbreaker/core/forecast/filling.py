"""Connection slots that fill up: slowly, by a leak, or in a hurry, by work that piles up.

Samples come every two seconds and are averaged by the ten: a slope over them all would
cost more than it tells. What is asked of a trend before anybody is warned was found on
simulated servers (tests/bench/forecast), by seeds that its figures are not from.
"""

from array import array
from collections.abc import Mapping
from typing import Any, Final

from pgbreaker.core.forecast.runway import (
    NOTHING_LEFT,
    Left,
    Trend,
    left_at,
    trend,
)
from pgbreaker.core.remembered import number, numbers, reading, short
from pgbreaker.core.units import Seconds, Share

_BIN: Final[Seconds] = 10.0
_GAP: Final[Seconds] = 300.0
"""What was seen before nobody looked for so long says nothing of now."""

# Below half the slots the waves of everyday look like leaks.
_FROM: Final[Share] = 0.5

# Connections that are not given back rise for as long as one looks. Half an hour of
# minutes tells them from a burst or a deploy, which are over by then, and from the
# morning, which would take hours.
_MINUTE: Final = 6  # bins
_LEAK_MINUTES: Final = 30
_LONGEST: Final = (_LEAK_MINUTES + 1) * _MINUTE
_LEAK_SURE: Final = 4.0  # standard deviations of chance; ten minutes can have no more
_LEAK_WITHIN: Final[Seconds] = 3600.0  # by the flattest slope that the samples allow

# What rises and is idle within a transaction is a leak sooner, and goes on under the waves
# of all else: no burst does that. In a hurry, so is what rises steadily and does nothing.
_HELD_FROM: Final[Share] = 0.4
_SOON_STEP: Final = 3  # bins
_SOON_POINTS: Final = 16
_IDLE_SURE: Final = 5.0
_IDLE_WITHIN: Final[Seconds] = 1800.0
_IDLE: Final[Share] = 0.2  # of what is new may be active
_GOES_ON: Final[Share] = 0.5  # of the rise before

# A saw's tooth, as some of it comes back, is smaller.
_GIVEN_BACK: Final[Share] = 0.2

# Work that piles up doubles within a minute: calls come as before, and each stays longer.
# What comes with it tells it from a burst of calls: nearly all that is new is active, and
# statements take longer than usual or wait for locks.
_SURGE_BINS: Final = 6
_SURGE_WITHIN: Final[Seconds] = 300.0
_ACTIVE: Final[Share] = 0.8  # of what is new

# Where nobody tells how long statements take, only what is more urgent and further on.
_BLIND_WITHIN: Final[Seconds] = 180.0
_BLIND_FROM: Final[Share] = 0.7

# Of what is remembered: the courses by name, digits, and what nothing is above.
_COURSES: Final = ("used", "active", "held")
_DIGITS: Final = 4
_MOST: Final = 1e12


class Filling:
    """How soon all slots are taken.

    Attributes:
        left: What is left. None: it cannot be told.
        is_short: Whether that is so sure and so soon that people should know.
        is_surge: Whether it is work that piles up, and no leak.
    """

    __slots__ = (
        "_active",
        "_bins",
        "_count",
        "_ends",
        "_held",
        "_leak",
        "_level",
        "_moments",
        "_sums",
        "_usable",
        "is_short",
        "is_surge",
        "left",
    )

    def __init__(self) -> None:
        self._moments = array("d")  # at which bins ended
        self._bins = array("d")  # slots used
        self._active = array("d")
        self._held = array("d")  # idle within a transaction
        self._ends: Seconds = 0.0  # the bin that is being filled
        self._usable = 0.0
        self._sums, self._count = (0.0, 0.0, 0.0), 0  # of the bin: used, active, held
        self._leak: Trend | None = None
        self._level = 0.0  # the most slots used since that was found
        self.left: Left | None = None
        self.is_short = self.is_surge = False

    def take(
        self,
        at: Seconds,
        used: float,
        usable: float,
        active: float | None = None,
        held: float | None = None,
        strained: bool | None = None,
    ) -> None:
        """Take a sample.

        Args:
            used: Slots that are taken.
            usable: Those that can be.
            active: Connections that run a statement. None: it is not known.
            held: Connections that are idle within a transaction. None: it is not known.
            strained: Whether statements take longer than usual, or wait for locks. None:
                nobody tells.
        """
        if usable != self._usable:
            self._usable = usable
            self._forget()
        if at >= self._ends:
            if self._count:
                self._close(strained)
            self._begin(at)
        before = self._sums
        self._sums = (
            before[0] + used,
            before[1] + (active or 0),
            before[2] + (held or 0),
        )
        self._count += 1
        if used >= usable:
            self.left, self.is_short = NOTHING_LEFT, True

    def memory(self, epoch: float) -> dict[str, Any]:
        """What is remembered of it, fit for JSON: below 6 kB.

        Args:
            epoch: Wall time of moment 0.
        """
        return {
            "usable": self._usable,
            "at": [round(at + epoch) for at in self._moments],
            **{
                name: [short(value, _DIGITS) for value in kept]
                for name, kept in zip(_COURSES, self._kept()[1:], strict=True)
            },
        }

    @reading("course of connections")
    def recall(self, memory: Mapping[str, Any], epoch: float) -> None:
        """Go on from a memory; one that is too old is forgotten with the next sample.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none; nothing has changed then.
        """
        usable = number(memory["usable"], "usable", 0.0, _MOST)
        moments = numbers(memory["at"], "at", None, -_MOST, _MOST)
        courses = [
            numbers(memory[name], name, len(moments), 0.0, _MOST) for name in _COURSES
        ]
        if len(moments) >= _LONGEST or moments != sorted(moments):
            raise ValueError("its moments are too many, or not in order")
        self._forget()
        self._usable = usable
        told = ([at - epoch for at in moments], *courses)
        for kept, values in zip(self._kept(), told, strict=True):
            kept.extend(values)
        if moments:
            self._level = self._bins[-1]
            self._leak = self._leaking()

    def _begin(self, at: Seconds) -> None:
        """Begin a bin."""
        if self._moments and not 0 <= at - self._moments[-1] <= _GAP:
            self._forget()
        self._ends = at + _BIN

    def _forget(self) -> None:
        for kept in self._kept():
            del kept[:]
        self._sums, self._count = (0.0, 0.0, 0.0), 0
        self._leak = self.left = None
        self.is_short = self.is_surge = False

    def _close(self, strained: bool | None) -> None:
        """Look at what there is, now that ten seconds more are."""
        means = (total / self._count for total in self._sums)
        for kept, value in zip(self._kept(), (self._ends, *means), strict=True):
            kept.append(value)
        self._sums, self._count = (0.0, 0.0, 0.0), 0
        if self._is_mended():
            self._forget()
            return
        if len(self._bins) == _LONGEST:
            # A minute at once: then the minutes that are left are those of before.
            for kept in self._kept():
                del kept[:_MINUTE]
        if len(self._bins) % _MINUTE == 0:
            self._leak = self._leaking()
        self._tell(self._surging(strained))

    def _kept(self) -> tuple["array[float]", ...]:
        return self._moments, self._bins, self._active, self._held

    def _tell(self, surge: Trend | None) -> None:
        ahead = max(self._usable - self._bins[-1], 0.0)
        self.is_surge = surge is not None
        if surge is not None:
            self.left = left_at(surge, ahead, _SURGE_BINS * _BIN)
            self.is_short = True
        elif self._leak is not None:
            seen = self._moments[-1] - self._moments[0]
            self.left = left_at(self._leak, ahead, seen)
            self.is_short = self.left is not None and self.left.latest < _LEAK_WITHIN
        else:
            self.left, self.is_short = None, False

    def _is_mended(self) -> bool:
        """Whether slots were given back while a leak stood: it was ended, and what led
        there says nothing of what is there now."""
        now = self._bins[-1]
        self._level = now if self._leak is None else max(self._level, now)
        return self._level - now > _GIVEN_BACK * self._usable

    def _leaking(self) -> Trend | None:
        if self._bins[-1] < _HELD_FROM * self._usable:
            return None
        courses = [
            self._course(self._held, _SOON_STEP, _SOON_POINTS),
            self._course(self._held, _MINUTE, _LEAK_MINUTES),
        ]
        if self._bins[-1] >= _FROM * self._usable:
            courses.append(self._course(self._bins, _MINUTE, _LEAK_MINUTES))
            courses.append(self._idling())
        found = [course for course in courses if course is not None]
        return max(found, key=lambda course: course.flattest, default=None)

    def _idling(self) -> Trend | None:
        """What rises in a hurry and does nothing."""
        used = self._course(self._bins, _SOON_STEP, _SOON_POINTS, sure=_IDLE_SURE)
        if used is None:
            return None
        ahead = self._usable - self._bins[-1]
        if ahead >= _IDLE_WITHIN * used.flattest:
            return None
        first, middle, last = _thirds(self._bins)
        busy, _, busier = _thirds(self._active)
        # What was a step, new processes say, has ended by now.
        goes_on = last - middle > _GOES_ON * (middle - first)
        return used if goes_on and busier - busy < _IDLE * (last - first) else None

    def _course(
        self,
        values: "array[float]",
        step: int,
        points: int,
        sure: float = _LEAK_SURE,
    ) -> Trend | None:
        """The trend of the last bins, *step* of them a point."""
        first = max(0, len(values) // step - points) * step
        means = [
            sum(values[i : i + step]) / step
            for i in range(first, len(values) - step + 1, step)
        ]
        third = len(means) // 3
        if sum(means[-third:]) <= sum(means[:third]):
            return None  # which costs less to see than a trend
        return trend(self._moments[first + step - 1 :: step], means, sure=sure)

    def _surging(self, strained: bool | None) -> Trend | None:
        if strained is False or len(self._bins) < _SURGE_BINS:
            return None
        is_blind = strained is None
        moments, bins = self._moments[-_SURGE_BINS:], self._bins[-_SURGE_BINS:]
        least = (_BLIND_FROM if is_blind else _FROM) * self._usable
        within = _BLIND_WITHIN if is_blind else _SURGE_WITHIN
        if bins[-1] < least or moments[-1] - moments[0] > 1.5 * _SURGE_BINS * _BIN:
            return None
        rise = trend(moments, bins)
        if rise is None or self._usable - bins[-1] > within * rise.slope:
            return None
        active = trend(moments, self._active[-_SURGE_BINS:])
        return rise if active and active.slope > _ACTIVE * rise.slope else None


def _thirds(bins: "array[float]") -> list[float]:
    """The means of the first, middle and last third of what rises in a hurry."""
    part = _SOON_STEP * _SOON_POINTS // 3
    lasts = bins[-3 * part :]
    return [sum(lasts[i : i + part]) / part for i in range(0, 3 * part, part)]
