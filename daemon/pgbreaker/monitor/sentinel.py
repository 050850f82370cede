"""The sentinel: stands at one target and knows within moments when it goes.

It holds a connection, so that a server that dies is noticed by the event, and pings
on it, so that one that freezes is noticed by the silence. One bad sign alone opens
nothing: a connection can be ended by an operator, a firewall, an idle timeout. So the
first is followed at once by a knock and a login, and only when these fail too have an
old and a new connection agreed.
"""

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import GONE, PING, SHUT_OUT
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.line import Line
from pgbreaker.monitor.ticks import TICK, tick

_SUSPECT: Final[Seconds] = 0.25  # between pings while some breaker is not closed
_DOWN: Final[Seconds] = 0.5  # between knocks at a server that is gone
_FULL: Final[Seconds] = 1.0  # between logins at a server with no slot left
_LOCKED_OUT: Final[Seconds] = 5.0  # after a login refused, doubling
_LOCKED_OUT_MAX: Final[Seconds] = 60.0


# A full server needs no second opinion on whether it is there, but on its fullness.
_FAILING: Final = GONE | {Finding.FULL}


def first(name: str, within: Seconds, now: Seconds) -> Seconds:
    """The moment from which on to ask the target called *name*, *within* seconds.

    Spread over that time, so that a thousand targets are not asked as one.
    """
    steps = max(1, round(within / TICK))
    return tick(now) + (1 + zlib.crc32(name.encode()) % steps) * TICK


class Sentinel:
    """The ping loop of one target, and its suspicion.

    Attributes:
        beaten_at: Moment at which the last beat ended.
    """

    def __init__(
        self,
        line: Line,
        feed: Feed,
        clock: Clock,
        when_back: Callable[[], None] = lambda: None,
    ) -> None:
        plan = feed.board.plan
        self._line = line
        self._feed = feed
        self._clock = clock
        self._when_back = when_back
        self._plan = plan.probes[PING]
        self._name = plan.name
        self._lost = asyncio.Event()
        self._last = Finding.OK
        self._failed = False  # the last beat
        self._beaten = False  # ever
        self._refusals = 0  # logins refused in a row
        self.beaten_at = clock.now()

    @property
    def interval(self) -> Seconds:
        """Seconds between two pings when all is well."""
        return self._plan.interval

    def alarm(self) -> None:
        """Beat at once: the held connection was lost."""
        self._lost.set()

    async def run(self, within: Seconds = 1.0) -> None:
        """Beat until cancelled, for the first time *within* so many seconds."""
        due = first(self._name, min(self.interval, within), self._clock.now())
        while True:
            late = await self._wait(due)
            await self.beat(late)
            due = self._next(due)

    async def _wait(self, due: Seconds) -> Seconds:
        """Wait until *due*, or until the connection is lost. Returns how late it is."""
        while (left := due - self._clock.now()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._lost.wait()
            except TimeoutError:
                break
            self._lost.clear()
            if not self._line.is_up:  # else renewed since: an old alarm
                return 0.0
        return max(0.0, self._clock.now() - due)

    def _next(self, due: Seconds) -> Seconds:
        """Say when to beat next: on the grid when all is well."""
        now = self._clock.now()
        if self._last in SHUT_OUT:
            # Repeated bad logins look like an attack, and can lock the role.
            doubled = _LOCKED_OUT * 2.0 ** min(self._refusals - 1, 10)
            return now + min(doubled, _LOCKED_OUT_MAX)
        if self._last is Finding.FULL:
            return now + _FULL
        if not self._line.is_up:
            return now + _DOWN
        if not self._feed.all_pass:
            return now + min(_SUSPECT, self.interval)
        missed = max(0, int((now - due) / self.interval))
        return due + (missed + 1) * self.interval

    async def beat(self, late: Seconds = 0.0) -> None:
        """Ping once; at the first failure ask again at once, on a new connection."""
        was_up = self._line.is_up
        reading = await self._ping()
        if reading.finding in GONE and not self._failed:
            self._feed.show(reading)
            reading = await self._line.renew()
            was_up = False
            self._failed = True
        # Either asked twice just now, or the beat before failed too.
        self._failed, failed_before = reading.finding in _FAILING, self._failed
        confirmed = self._failed and failed_before
        self._note(replace(reading, late=late, confirmed=confirmed), was_up=was_up)

    async def _ping(self) -> Reading:
        if self._line.last_loss is None and not self._line.is_up and self._beaten:
            return self._line.echo(PING)  # lost between two beats: the first bad sign
        return await self._line.ping()

    def _note(self, reading: Reading, *, was_up: bool) -> None:
        self._beaten = True
        self._last = reading.finding
        self._refusals = self._refusals + 1 if self._last in SHUT_OUT else 0
        self._feed.board.connections = self._line.connections
        self._feed.judge(reading)
        self.beaten_at = self._clock.now()
        if reading.answered and not was_up:
            self._feed.board.held_since = reading.at
            self._when_back()
