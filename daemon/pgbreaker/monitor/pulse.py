"""The pulse: how late the daemon itself is, so that it blames no server for that.

A deadline that passes while our own loop is held up, by a thousand logins or by a
machine that is too busy, says nothing of the server: its answer may lie there unread.
So time in which nobody listened does not count.
"""

import asyncio
from collections import deque
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.monitor.ticks import TICK, tick

_HARDLY: Final[Seconds] = 0.01  # late; no loop is more punctual than that

HELD: Final[Seconds] = 2.0
"""Seconds for which the loop may be held up at a time: two pings, as most are timed."""

_REMEMBERED: Final[Seconds] = 10.0  # after which that is no trouble any more


class Pulse:
    """Beats in the loop, and notes each beat that is late; one a daemon.

    Attributes:
        lost: Seconds by which beats were late, in all.
        beaten_at: Moment of the last beat. None: it does not beat.
    """

    def __init__(self, clock: Clock) -> None:
        self.lost: Seconds = 0.0
        self.beaten_at: Seconds | None = None
        self._clock = clock
        self._due: Seconds | None = None  # None: it does not beat
        self._late: deque[tuple[Seconds, Seconds]] = deque(maxlen=256)  # moment, by
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; needs a running loop."""
        now = self.beaten_at = self._clock.now()
        self._due = tick(now) + TICK
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(self._due - now, self._beat)

    def stop(self) -> None:
        """Beat no more; nothing is late from then on."""
        self._due = self.beaten_at = None
        if self._next is not None:
            self._next.cancel()

    def _beat(self) -> None:
        now = self._clock.now()
        assert self._due is not None
        late = now - self._due
        if late > _HARDLY:
            self._late.append((now, late))
            self.lost += late
        self.start()

    @property
    def trouble(self) -> str | None:
        """How long the loop was held up, if that was long and lately. None: it was not."""
        if self._due is None:
            return None
        now = self._clock.now()
        lately = [late for at, late in self._late if now - at < _REMEMBERED]
        longest = max((*lately, now - self._due))
        if longest < HELD:
            return None
        return f"the daemon itself was held up for {lasting(longest)}"

    def lost_since(self, moment: Seconds) -> Seconds:
        """Seconds since *moment* in which the loop was held up."""
        if self._due is None:
            return 0.0
        now = self._clock.now()
        held_now = now - max(self._due, moment)
        lost = held_now if held_now > _HARDLY else 0.0
        for at, late in reversed(self._late):
            if at <= moment:
                break
            lost += min(late, at - moment)
        return lost
