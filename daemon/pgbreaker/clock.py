"""The two clocks, handed in wherever the time is needed."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pgbreaker.core.units import Seconds


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic time decides, wall time is only shown.

    Attributes:
        now: Reads the monotonic clock, in seconds.
        wall: Reads the wall clock, in seconds since the epoch.
    """

    now: Callable[[], Seconds] = time.monotonic
    wall: Callable[[], float] = time.time

    def wall_of(self, at: Seconds) -> float:
        """Show the monotonic moment *at* as wall time, as of today's offset."""
        return self.wall() - (self.now() - at)
