"""The watch: one of the slower probes on one target, feeding its breakers."""

from dataclasses import replace
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import GONE, LOGIN, PING
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.line import Line

# A failure of these kinds is asked again at once; the others would only be repeated.
_DOUBTFUL: Final = GONE | {Finding.FULL, Finding.SYSTEM}

_HURRY: Final[Seconds] = 1.0
_NEARLY_FULL: Final[Share] = 0.9


class Watch:
    """Runs one probe when the schedule says so.

    Attributes:
        probe: Name of the probe.
        ended_at: Moment at which its last run ended.
    """

    def __init__(self, probe: str, line: Line, feed: Feed, clock: Clock) -> None:
        self.probe = probe
        self._plan = feed.board.plan.probes[probe]
        self._line = line
        self._feed = feed
        self._clock = clock
        self._failed = False  # the last time
        self.ended_at = clock.now()

    @property
    def name(self) -> str:
        """Target and probe, for schedules and logs."""
        return f"{self._feed.board.plan.name}/{self.probe}"

    @property
    def interval(self) -> Seconds:
        """Seconds between two runs when all is well."""
        return self._plan.interval

    @property
    def hurry(self) -> Seconds | None:
        """Seconds after which to ask again, sooner than usual. None: as usual."""
        ratio = self._feed.board.facts.get("slots_ratio")
        is_nearly_full = isinstance(ratio, float) and ratio >= _NEARLY_FULL
        if not self._line.is_up:
            return None  # the sentinel says when it is back
        is_awaited = self._failed or self._feed.is_wanted(self.probe)
        if is_awaited or (self.probe == LOGIN and is_nearly_full):
            return _HURRY if self.interval > _HURRY else None
        return None

    async def tick(self, late: Seconds = 0.0) -> None:
        """Probe, judge, tell the breakers, tell the world."""
        if PING not in self._feed.board.readings:
            return  # the sentinel goes first
        # While the held connection is away nothing is asked, so there is no news for
        # the breakers; but it is still shown, for nothing is worse than a series
        # that vanishes in the incident.
        asked = self._line.is_up
        reading = await self._ask() if asked else self._line.echo(self.probe)
        if asked and self._line.is_up:
            self._feed.judge(replace(reading, late=late))
        else:
            self._feed.show(replace(reading, late=late))
        self._feed.board.connections = self._line.connections
        self.ended_at = self._clock.now()

    async def _ask(self) -> Reading:
        reading = await self._line.ask(self.probe, self._plan)
        if reading.finding in _DOUBTFUL and not self._failed and self._line.is_up:
            self._feed.show(reading)
            reading = await self._line.ask(self.probe, self._plan)
            self._failed = True
        failed = reading.finding in _DOUBTFUL
        # A session that was let in and then lost can have been ended by hand, twice
        # in a row as well: that is for the window to weigh.
        confirmed = failed and self._failed and reading.finding is not Finding.LOST
        self._failed = failed
        return replace(reading, confirmed=confirmed)
