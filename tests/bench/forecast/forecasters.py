"""Those who foretell: ours, and the plain ones that it has to be better than."""

from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from pgbreaker.core.reading import Reading
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.outlook import Outlook

NONE: frozenset[str] = frozenset()
FULL: frozenset[str] = frozenset({"connections"})


HORIZONS = (2, 4, 7, 10, 15, 20, 30, 45, 60)
"""Minutes."""


class Forecaster(Protocol):
    """Whoever takes readings and warns."""

    def take(self, reading: Reading) -> Collection[str]:
        """Learn from a reading; returns what is warned of from now on."""


class Ours:
    """What the daemon makes of the readings of one target."""

    def __init__(
        self,
        wall_of: Callable[[Seconds], float],
        capacity: float | None = None,
        lag_limit: Seconds | None = None,
    ) -> None:
        self.outlook = Outlook(wall_of=wall_of, capacity=capacity, lag_limit=lag_limit)

    def take(self, reading: Reading) -> Collection[str]:
        self.outlook.take(reading)
        return self.outlook.warnings.keys()


class Threshold:
    """Warns while so large a share of the slots is taken."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._stands = NONE

    def take(self, reading: Reading) -> Collection[str]:
        if reading.probe == "saturation" and reading.values:
            is_above = reading.values["slots_ratio"] >= self._share
            self._stands = FULL if is_above else NONE
        return self._stands


class Line:
    """Warns while a straight line through what was seen is at the limit soon.

    Args:
        span: Seconds of what was seen, a point every 15 s.
        horizon: Seconds until then that are soon.
        fit: Share of the variance that the line has to explain (r²).
        share: Share of the slots that has to be taken.
        run: Points in a row of which all that has to be true.
    """

    _EVERY: Seconds = 15.0

    def __init__(
        self,
        span: Seconds,
        horizon: Seconds,
        *,
        fit: Share = 0.0,
        share: Share = 0.0,
        run: int = 1,
    ) -> None:
        self._span, self._horizon = span, horizon
        self._fit, self._share, self._run = fit, share, run
        self._points: deque[float] = deque(maxlen=round(span / self._EVERY))
        self._due: Seconds = 0.0
        self._hits = 0
        self._stands = NONE

    def take(self, reading: Reading) -> Collection[str]:
        if reading.probe != "saturation" or reading.at < self._due:
            return self._stands
        if reading.values:
            self._due = reading.at + self._EVERY
            ratio = reading.values["slots_ratio"]
            self._points.append(ratio)
            is_soon = ratio >= self._share and self._is_soon(ratio)
            self._hits = self._hits + 1 if is_soon else 0
            self._stands = FULL if self._hits >= self._run else NONE
        return self._stands

    def _is_soon(self, ratio: float) -> bool:
        count = len(self._points)
        if count < self._points.maxlen:
            return False
        # Least squares over 0, 1, 2, ...: the sums over these are known.
        middle = (count - 1) / 2
        mean = sum(self._points) / count
        along = sum((i - middle) * p for i, p in enumerate(self._points))
        spread = count * (count * count - 1) / 12
        slope = along / spread / self._EVERY
        if slope <= 0 or ratio + slope * self._horizon < 1.0:
            return False
        around = sum((p - mean) ** 2 for p in self._points)
        return around > 0 and along * along / spread / around >= self._fit


def curves() -> dict[str, Forecaster]:
    """Make lines of all horizons, for a picture: name, then minutes until it is full."""
    return {
        **{f"line of 5 min/{m}": Line(300.0, m * 60.0) for m in HORIZONS},
        **{
            f"line of 15 min, r² ≥ 0.7, 4 in a row/{m}": Line(
                900.0, m * 60.0, fit=0.7, share=0.5, run=4
            )
            for m in HORIZONS
        },
    }


def plain() -> dict[str, Forecaster]:
    """Make the plain ones, by name."""
    return {
        "80 % of the slots": Threshold(0.8),
        "90 % of the slots": Threshold(0.9),
        "line of 5 min, full within 10 min": Line(300.0, 600.0),
        "line of 5 min, r² ≥ 0.8, 4 in a row, full within 15 min": Line(
            300.0, 900.0, fit=0.8, share=0.5, run=4
        ),
        "line of 15 min, r² ≥ 0.7, 4 in a row, full within 30 min": Line(
            900.0, 1800.0, fit=0.7, share=0.5, run=4
        ),
    }
