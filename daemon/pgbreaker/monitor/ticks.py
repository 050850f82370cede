"""When the daemon wakes up: in steps of a tenth of a second of the monotonic clock.

Waking up costs the processor more than a ping does; whoever wakes up together shares it.
"""

import math
from typing import Final

from pgbreaker.core.units import Seconds

TICK: Final[Seconds] = 0.1


def tick(moment: Seconds) -> Seconds:
    """The last step at, or before, *moment*."""
    return math.floor(moment / TICK) * TICK
