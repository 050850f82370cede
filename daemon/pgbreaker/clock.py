"""The two clocks, handed in wherever the time is needed."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds

_BOOT: Final = "/proc/sys/kernel/random/boot_id"


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


def boot_id() -> str:
    """What this start of the machine is called, within which monotonic moments of all its
    processes can be compared; its name, where it says no other.

    https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html
    """
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.uname().nodename
