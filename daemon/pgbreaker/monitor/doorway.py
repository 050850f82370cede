"""The doorway: every login of the daemon goes through it, a few at a time.

A login by TLS and SCRAM takes milliseconds of the processor. When a thousand targets
come back at once, their logins would be all that the loop does for seconds, and pings
of others would be late for no fault of their servers.
"""

import asyncio
from typing import Final, Self

from pgbreaker.core.units import Seconds

_WIDTH: Final = 20  # logins under way
_APART: Final[Seconds] = (
    0.005  # between two that begin, so that they do not march in step
)
# A login that takes longer waits for its server, and not for our processor. Its place
# goes to the next: those that hang would keep the others out.
_HOLD: Final[Seconds] = 0.25


class Turn:
    """A place in the doorway, left by whoever has it, at the end of a ``with``, or by
    time; more than once is once."""

    def __init__(self, places: asyncio.Semaphore, hold: Seconds) -> None:
        self._places: asyncio.Semaphore | None = places
        loop = asyncio.get_running_loop()
        self._overdue = loop.call_later(hold, self.leave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        self._overdue.cancel()
        places, self._places = self._places, None
        if places is not None:
            places.release()


class Doorway:
    """Lets logins begin, in the order in which they came; one a daemon.

    Args:
        width: Logins that may be under way at a time.
        apart: Seconds between the beginnings of two.
        hold: Seconds after which a login no longer counts as under way.
    """

    def __init__(
        self,
        width: int = _WIDTH,
        *,
        apart: Seconds = _APART,
        hold: Seconds = _HOLD,
    ) -> None:
        self._places = asyncio.Semaphore(width)
        self._apart = apart
        self._hold = hold
        self._next: Seconds = 0.0  # moment at which another login may begin

    async def enter(self) -> Turn:
        """Wait for a place, which is the caller's from then on.

        The wait is ours: it is no part of what the server took.
        """
        await self._places.acquire()
        try:
            await self._step_in()
        except BaseException:
            self._places.release()
            raise
        return Turn(self._places, self._hold)

    async def _step_in(self) -> None:
        now = asyncio.get_running_loop().time()
        begin = max(now, self._next)
        self._next = begin + self._apart
        if begin > now:
            await asyncio.sleep(begin - now)
