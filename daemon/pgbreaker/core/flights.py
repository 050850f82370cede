"""The calls that are out: how many, and for how long.

A call that hangs tells nothing until somebody's timeout ends it, which may take
minutes. So the calls that have not come back are evidence too. To know their age
without noting each one's, they are counted by the slice of time they began in: a
guard adds one to its slice when it sends a call, and one more when it comes back.
"""

from typing import Final

from pgbreaker.core.units import Seconds

FOREVER: Final[Seconds] = float("inf")

_LOST_AFTER: Final[Seconds] = 3600.0


class Slice:
    """Calls that began within one slice of time, all in one era.

    The counters only ever grow and each is added to by the guard's fast path, so
    that no lock is needed under the GIL.

    Attributes:
        era: The permit of every call in it; of a trial, its own number.
        until: Moment before which they all began; `FOREVER` while it lasts.
        started: Calls sent.
        ok: Those that came back, well and soon, while the slice was current.
        gone: Those that came back in any other way.
        told: Of `ok`, those that the window has been told of.
        above: What the breaker above gave for this one call, if anything.
    """

    __slots__ = ("above", "era", "gone", "ok", "started", "told", "until")

    def __init__(self, era: int, above: object = None) -> None:
        self.era = era
        self.above = above
        self.until = FOREVER
        self.started = self.ok = self.gone = self.told = 0

    @property
    def out(self) -> int:
        """Calls that have not come back."""
        return self.started - self.ok - self.gone


class Flights:
    """The slices that have calls out.

    Attributes:
        slice: The current one.
        edge: Moment at which it should end.
    """

    __slots__ = ("_past", "_width", "edge", "slice")

    def __init__(self, width: Seconds, era: int, now: Seconds) -> None:
        self._width = width
        self._past: tuple[Slice, ...] = ()
        self.slice = Slice(era)
        self.edge = now + width

    def turn(self, era: int, now: Seconds) -> Slice:
        """Begin a new slice, and forget those whose calls are all back.

        Returns:
            The one that has ended.
        """
        ended = self.slice
        ended.until = now
        self.slice = Slice(era)
        self._past = tuple(
            old
            for old in (*self._past, ended)
            # A call that nobody reported within an hour was lost by its caller.
            if old.out > 0 and now - old.until < _LOST_AFTER
        )
        self.edge = now + self._width
        return ended

    @property
    def out(self) -> int:
        """Calls that have not come back, as far as they were sent unasked."""
        return self.slice.out + sum(old.out for old in self._past)

    def overdue(self, age: Seconds, now: Seconds) -> int:
        """Calls that have been out for *age* or longer, to a slice's precision."""
        return sum(old.out for old in self._past if old.until <= now - age)

    def oldest(self) -> Slice | None:
        """The first slice that has calls out, None when all are back."""
        return next((old for old in (*self._past, self.slice) if old.out > 0), None)

    def forget(self, era: int, now: Seconds) -> None:
        """Know of no call any more: they belong to another process."""
        self._past = ()
        self.slice = Slice(era)
        self.edge = now + self._width
