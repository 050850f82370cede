"""How many retries may be made: a share of the calls, so that an outage is not made worse.

A bucket of tokens. Each call puts in a share of one, each retry takes one out; an idle
application may always make a few. The calls are not reported one by one: when a retry is
asked for, the breakers that share the bucket say how many there have been.

After the token bucket of M. Brooker, "Fixing retries with token buckets and circuit
breakers" (2022).
"""

import threading
from typing import Final

from pgbreaker.core.units import Seconds, Share
from pgbreaker.guard.living import join

_RESERVE: Final = 5.0  # retries that an application may make however few its calls
_REFILL: Final[Seconds] = 10.0  # in which a bucket without calls earns one


class Budget:
    """Retries that may still be made on one server.

    Attributes:
        ratio: Retries that each call earns.
        spent: Retries made, since the beginning.
        denied: Retries not made for want of budget, since the beginning.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_calls",
        "_lock",
        "_tokens",
        "denied",
        "ratio",
        "spent",
    )

    def __init__(self, ratio: Share) -> None:
        self.ratio = ratio
        self.spent = self.denied = 0
        self._tokens = _RESERVE
        self._calls = 0
        self._at: Seconds | None = None
        self._lock = threading.RLock()
        join(self)

    def disown(self) -> None:
        """In a forked process: nobody holds the lock."""
        self._lock = threading.RLock()

    def spend(self, calls: int, now: Seconds) -> bool:
        """Take leave for one retry.

        Args:
            calls: Calls made so far, since the beginning, refused ones included.
        """
        with self._lock:
            earned = max(0, calls - self._calls) * self.ratio
            if self._at is not None:
                earned += (now - self._at) / _REFILL
            self._calls, self._at = max(calls, self._calls), now
            self._tokens = min(_RESERVE, self._tokens + earned)
            if self._tokens < 1:
                self.denied += 1
                return False
            self._tokens -= 1
            self.spent += 1
            return True
