"""What one signal is like at this hour, and how unlike that a value is.

A level that follows for good what changes for good, and above or below it what each hour
of the day brings, of working days and of weekends apart. A forecast warns and never
opens a breaker: what is unusual need not be wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log
from statistics import median
from typing import Any, Final

from pgbreaker.core.remembered import numbers, reading, short, whole, wholes
from pgbreaker.core.units import Seconds

_HOUR: Final[Seconds] = 3600.0
_WEEK: Final = 168  # hours
_HOURS: Final = 24
_BINS: Final = 2 * _HOURS  # the hours of working days, then those of weekends

# The first hour of the epoch was one of a Thursday's, the fourth day of a week.
_BIN_OF: Final = tuple(
    hour % _HOURS + (_HOURS if (hour // _HOURS + 3) % 7 >= 5 else 0)
    for hour in range(_WEEK)
)

_COLD: Final = 360  # samples before anything is said: six hours of minutes
_FIRST: Final = 5  # samples that the level begins with the median of
_AT_LEVEL: Final = 60  # samples of which the level is the plain mean

# How much of the past an hour weighs, in samples: a mean that forgets half within n
# samples weighs as many as n / ln 2. In two weeks there are ten working days and four
# days of weekends, and 60 samples in the hour of each.
_MOST: Final = (*(866.0,) * _HOURS, *(346.0,) * _HOURS)
_BORROWED: Final = 10.0  # samples that an hour never seen is taken to have seen
_SEEN_TWICE: Final = 125.0  # what was borrowed, and nearly two hours of its own
_STEP: Final = 10  # samples, to which their number is remembered
_DIGITS: Final = 5  # of what else is
_COUNTABLE: Final = 2**53  # samples, beyond which a float does not tell them apart

# Per sample: half of a new level is learnt in 8 hours. When it falls by much, in 24: an
# ordinary day after a holiday stands out the less.
_RISES: Final = 1 - 0.5 ** (1 / 480)
_FALLS: Final = 1 - 0.5 ** (1 / 1440)
_MUCH: Final = 2.0  # spreads
_DAY: Final = 1 - 0.5 ** (1 / 1440)

_NORMAL: Final = 1.2533  # standard deviations a mean absolute deviation is
_CLIP: Final = 4.0  # spreads beyond which a value teaches no more than at them
_LOUDEST: Final = 3.0
_PATIENCE: Final = 180  # samples on one side after which twice as much is believed
_LONGEST: Final = 20.0  # times that twice is
_GREATEST: Final = 1e150  # beyond it a number of spreads might be none
_LEAST: Final = 1e-100  # that a floor can be
_FINEST: Final = 999  # parts of the largest offset that others are rounded to
_SMALLEST: Final = 99  # steps below the largest deviation, of which this one is none
_STEP_DOWN: Final = 0.9


@dataclass(frozen=True, slots=True)
class Expected:
    """What is usual at some hour.

    Attributes:
        middle: The value.
        spread: Its standard deviation, if it were normal; above 0.
    """

    middle: float
    spread: float


class Usual:
    """A baseline of one signal, of which it takes a sample a minute.

    There are 48 bins: the 24 hours of UTC, for working days and for weekends. That is
    enough: another zone's day is the same bins in another order, summer time moves it by
    one of them twice a year and is learnt anew within days, and where a weekend begins at
    another hour than that of UTC, the hours between are of wider spread. Between the
    middles of two hours what is usual is on the line between them.

    Each bin has means of how far values are from the level and of how much they deviate,
    both of which forget half within two weeks. The level forgets half within 8 hours,
    within 24 where it falls by much; it learns only from hours that were seen on two days
    before. A value beyond four spreads teaches as one at four: an hour of it changes
    little. The longer values stay on one side the more of them is believed, twice as much
    each three hours: so what lasts for a day or two is the usual, however far it is.

    Samples are counted, not timed: a clock that steps only finds another hour.

    Args:
        absolute: The least that a spread is taken to be; above 0.
        relative: The same as a share of the middle.
    """

    __slots__ = (
        "_absolute",
        "_count",
        "_day",
        "_deviation",
        "_first",
        "_level",
        "_loud",
        "_offset",
        "_relative",
        "_run",
        "_seen",
        "_wide",
    )

    def __init__(self, *, absolute: float, relative: float = 0.0) -> None:
        if not _LEAST <= absolute < _GREATEST or not 0 <= relative < _GREATEST:
            raise ValueError(
                f"a spread has a floor above 0, got {absolute}, {relative}"
            )
        self._absolute = absolute
        self._relative = relative
        self._clear()

    def _clear(self) -> None:
        self._seen = 0
        self._first: list[float] = []  # until there are enough to begin with
        self._level = self._day = self._wide = 0.0
        self._loud = 1.0  # spreads lately, as a multiple of those of the bins
        self._run = 0.0  # samples beyond the clip on one side, below 0 on the lower
        self._offset = [0.0] * _BINS
        self._deviation = [0.0] * _BINS
        self._count = [0.0] * _BINS

    @property
    def is_cold(self) -> bool:
        """Whether it has seen less than six hours, and says nothing yet."""
        return self._seen < _COLD

    @property
    def is_taught(self) -> bool:
        """Whether it has seen enough to have something to remember."""
        return self._seen > 0

    def take(self, wall: float, value: float) -> float | None:
        """Learn *value*, seen at wall time *wall*.

        Returns by how many spreads it is above what was usual before; below 0, below.
        None: too little was seen, or the value is no number, or one beyond 1e150.
        """
        if not -_GREATEST < value < _GREATEST:
            return None
        if not self._seen:
            self._begin_with(value)
            return None
        hours = wall / _HOUR - 0.5  # of which the whole are the middles of hours
        hour = floor(hours)
        later = hours - hour
        sooner = 1.0 - later
        first, second = _BIN_OF[hour % _WEEK], _BIN_OF[(hour + 1) % _WEEK]
        offset, deviation, count = self._offset, self._deviation, self._count
        if not count[first] or not count[second]:
            self._begin(first, second)

        middle = self._level + sooner * offset[first] + later * offset[second]
        mean = sooner * deviation[first] + later * deviation[second]
        base = self._floored(middle, mean)
        spread = base * self._loud
        off = value - middle
        far = off / spread

        most = _CLIP * spread
        taught = off if -most <= off <= most else most if off > 0 else -most
        size = taught if taught >= 0 else -taught
        known = min(count[first], count[second])
        self._teach_level(off, far, taught, most, known)
        weight = count[first] + sooner
        count[first] = weight if weight < _MOST[first] else _MOST[first]
        gain = sooner / count[first]
        offset[first] += gain * taught
        deviation[first] += gain * (size - deviation[first])
        weight = count[second] + later
        count[second] = weight if weight < _MOST[second] else _MOST[second]
        gain = later / count[second]
        offset[second] += gain * taught
        deviation[second] += gain * (size - deviation[second])

        loud = _NORMAL * size / base
        loud = self._loud + _RISES * (min(loud, _LOUDEST) - self._loud)
        self._loud = loud if loud > 1.0 else 1.0
        self._day += _DAY * (taught + middle - self._day)
        self._wide += _DAY * (abs(taught + middle - self._day) - self._wide)
        self._seen += 1
        return far if self._seen > _COLD else None

    def expects(self, wall: float) -> Expected | None:
        """What is usual at wall time *wall*. None: too little was seen.

        At an hour never seen it is that of the other kind of day; where that was not
        seen either, what the last days were like, whatever the hour.
        """
        if self.is_cold:
            return None
        hours = wall / _HOUR - 0.5
        hour = floor(hours)
        later = hours - hour
        offset, deviation = self._known(_BIN_OF[hour % _WEEK])
        offset2, deviation2 = self._known(_BIN_OF[(hour + 1) % _WEEK])
        middle = self._level + offset + later * (offset2 - offset)
        mean = deviation + later * (deviation2 - deviation)
        return Expected(middle, self._floored(middle, mean) * self._loud)

    def _floored(self, middle: float, deviation: float) -> float:
        """The spread of a mean absolute deviation."""
        spread = _NORMAL * deviation
        share = self._relative * (middle if middle >= 0 else -middle)
        if share < self._absolute:
            share = self._absolute
        return spread if spread > share else share

    def _known(self, bin_: int) -> tuple[float, float]:
        """Offset and deviation of a bin, or of what stands in for it."""
        for found in (bin_, (bin_ + _HOURS) % _BINS):
            if self._count[found]:
                return self._offset[found], self._deviation[found]
        return self._day - self._level, self._wide

    def _begin_with(self, value: float) -> None:
        """Take one of the first values; the very first are often odd."""
        self._first.append(value)
        if len(self._first) == _FIRST:
            self._level = self._day = median(self._first)
            self._seen = _FIRST
            self._first.clear()

    def _begin(self, first: int, second: int) -> None:
        """Give bins never seen something to begin with."""
        for bin_, other in ((first, second), (second, first)):
            if self._count[bin_]:
                continue
            is_alone = not self._count[(bin_ + _HOURS) % _BINS]
            # On the first day an hour is to begin with as the one before it was.
            like = other if is_alone and self._count[other] else bin_
            self._offset[bin_], self._deviation[bin_] = self._known(like)
            self._count[bin_] = _BORROWED

    def _teach_level(
        self, off: float, far: float, taught: float, most: float, known: float
    ) -> None:
        run = self._run
        if -_CLIP <= far <= _CLIP:
            if run:
                self._run = run / 2 if run > 1 or run < -1 else 0.0
        else:
            side = 1.0 if far > 0 else -1.0
            self._run = run = run + side if run * side >= 0 else side
            most *= 2.0 ** min(run * side / _PATIENCE, _LONGEST)
            taught = off if -most <= off <= most else most * side
        if self._seen < _AT_LEVEL:
            self._level += taught / (self._seen + 1)
        elif known >= _SEEN_TWICE:
            self._level += (_RISES if far > -_MUCH else _FALLS) * taught

    # -- Memory --------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """What is remembered of it, fit for JSON: below 700 bytes.

        Offsets are rounded to a thousandth of the largest, deviations to a twentieth of
        themselves.
        """
        unit = max(map(abs, self._offset)) / _FINEST
        largest = max(self._deviation)
        return {
            "seen": self._seen,
            "now": [
                short(number, _DIGITS)
                for number in (self._level, self._day, self._wide, self._loud)
            ],
            "run": round(self._run),
            "units": [short(unit, _DIGITS), short(largest, _DIGITS)],
            # Of numbers so small that their thousandth is none there is none.
            "offsets": [round(off / unit) if unit else 0 for off in self._offset],
            "deviations": [_steps(number, largest) for number in self._deviation],
            "counts": [-int(-count // _STEP) for count in self._count],
        }

    @reading("memory of the usual")
    def recall(self, memory: Mapping[str, Any]) -> None:
        """Be what is remembered.

        Raises:
            ValueError: `memory` did not write this; nothing has changed then.
        """
        seen = whole(memory["seen"], "seen", 0, _COUNTABLE)
        run = whole(memory["run"], "run", -_COUNTABLE, _COUNTABLE)
        level, day, wide, loud = numbers(memory["now"], "now", 4, -_GREATEST, _GREATEST)
        unit, largest = numbers(memory["units"], "units", 2, 0.0, _GREATEST)
        if wide < 0 or not 1 <= loud <= _LOUDEST:
            raise ValueError(f"its spread is {wide:g}, and {loud:g} times that")
        offsets = wholes(memory["offsets"], "offsets", _BINS, -_FINEST, _FINEST)
        deviations = wholes(memory["deviations"], "deviations", _BINS, 0, _SMALLEST)
        counts = wholes(memory["counts"], "counts", _BINS, 0, _FINEST)
        self._first.clear()
        self._seen, self._run = seen, float(run)
        self._level, self._day, self._wide, self._loud = level, day, wide, loud
        self._offset = [part * unit for part in offsets]
        self._deviation = [
            0.0 if steps == _SMALLEST else largest * _STEP_DOWN**steps
            for steps in deviations
        ]
        self._count = [
            min(float(count * _STEP), most)
            for count, most in zip(counts, _MOST, strict=True)
        ]


def _steps(number: float, largest: float) -> int:
    if number <= 0:
        return _SMALLEST
    return min(round(log(number / largest) / log(_STEP_DOWN)), _SMALLEST)
