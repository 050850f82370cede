"""Counters of the server, as they are shown: how much more, how much longer than usual."""

from typing import Final

from pgbreaker.core.reading import NOTHING, Reading, Seen
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.outlook.shown import ENDS
from pgbreaker.monitor.outlook.values import number


class Counts:
    """How much longer statements take, and how many sessions ended badly.

    Attributes:
        slowness: Mean time of a statement lately, as a multiple of what is usual. None:
            the last reading does not tell.
    """

    def __init__(self) -> None:
        self.slowness: float | None = None
        self._slowdown = Slowdown()
        self._ends = {end: Growth() for end in ENDS}

    def take(self, reading: Reading) -> Seen:
        """Learn from a reading; returns what follows from it, by name."""
        seen = reading.values
        if reading.probe == "database":
            self.slowness = None
            return {
                f"session_ends_{end}": growth.take(number(seen, f"sessions_{end}"))
                for end, growth in self._ends.items()
            }
        if reading.probe != "statements":
            return NOTHING
        calls, spent = (
            number(seen, "statement_calls"),
            number(seen, "statement_seconds"),
        )
        if calls is None or spent is None:
            return NOTHING
        self.slowness = self._slowdown.take(reading.at, calls, spent)
        return {"statement_mean_ratio": self.slowness}


class Slowdown:
    """What a statement usually takes, and how the last interval compares to that."""

    _HALF_LIFE: Final[Seconds] = 1800.0
    _FEWEST_CALLS: Final = 20
    _SILENT_FOR: Final = 10

    def __init__(self) -> None:
        self._last: tuple[Seconds, float, float] | None = None
        self._usual: Seconds = 0.0
        self._learnt = 0

    def take(self, at: Seconds, calls: float, spent: Seconds) -> float | None:
        """Take both counters; returns the ratio, None while it says nothing."""
        last, self._last = self._last, (at, calls, spent)
        if last is None:
            return None
        since, more, longer = at - last[0], calls - last[1], spent - last[2]
        # Counters that were reset go backwards; of few calls the mean is chance.
        if since <= 0 or more < self._FEWEST_CALLS or longer < 0:
            return None
        mean = longer / more
        is_known = self._learnt >= self._SILENT_FOR and self._usual > 0
        ratio = mean / self._usual if is_known else None
        self._learnt += 1
        # At first the plain mean of all, or the very first would weigh on for hours.
        weight = max(1 - 0.5 ** (since / self._HALF_LIFE), 1 / self._learnt)
        self._usual += weight * (mean - self._usual)
        return ratio


class Growth:
    """By how much a count has grown since it was first seen.

    The sum over all databases falls when one is dropped or its statistics are reset;
    Prometheus would take what is left for new. What grew unseen before that is lost.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._grown = 0.0

    def take(self, count: float | None) -> float | None:
        """Take the count; returns its growth, None while nothing is known of it."""
        if count is not None:
            if self._last is not None:
                self._grown += max(0.0, count - self._last)
            self._last = count
        return None if self._last is None else self._grown
