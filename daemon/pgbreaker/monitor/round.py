"""The round: several watches on one target, one job of the schedule."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import COMMIT, LATENCY, LOGIN, PING
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.watch import Watch
from pgbreaker.probes import probe_called
from pgbreaker.probes.probe import Place

_BREATH: Final[Seconds] = 0.01


class Round:
    """Goes round its watches and has those ask that are due, one after the other.

    One job a target and not one a probe: a thousand targets would be ten thousand jobs.

    Attributes:
        name: Target and kind of round, for schedules and logs.
        watches: The watches, in their order.
        longest: Seconds that one round can take, with everything asked twice.
        is_running: Whether it goes round just now.
    """

    def __init__(self, name: str, watches: Sequence[Watch], clock: Clock) -> None:
        self.name = name
        self.watches = tuple(watches)
        self.interval = min(watch.interval for watch in watches)
        self.longest = 2 * sum(watch.timeout for watch in watches)
        self.is_running = False
        self._clock = clock

    @property
    def hurry(self) -> Seconds | None:
        """Seconds after which to go round again, sooner than usual. None: as usual."""
        soonest = min(watch.due for watch in self.watches) - self._clock.now()
        # Not at once: the job that asks has to end first, or it is in its own way.
        return max(soonest, _BREATH) if soonest < self.interval / 2 else None

    async def tick(self, late: Seconds = 0.0) -> None:
        """Go round once."""
        self.is_running = True
        try:
            for watch in self.watches:
                # Nearer to this round than to the next; those of the round's own
                # interval are asked in each, or one that was asked out of turn would
                # miss the next.
                is_own = watch.interval <= self.interval and not watch.is_dear
                if is_own or watch.due <= self._clock.now() + self.interval / 2:
                    await watch.tick(late)
        finally:
            self.is_running = False

    def hasten(self) -> None:
        """Have every watch ask in the next round, but for dear ones that have asked."""
        for watch in self.watches:
            if not (watch.is_dear and watch.has_asked):
                watch.due = self._clock.now()


def grouped(plans: Mapping[str, ProbePlan]) -> Iterator[tuple[str, list[list[str]]]]:
    """Say which rounds there are: their names, and the probes of each watch."""
    held: dict[Seconds, list[str]] = {}
    door: dict[Seconds, list[str]] = {}
    dear: list[list[str]] = []
    for name, plan in plans.items():
        probe = probe_called(name)
        if name == PING:
            continue
        if probe.place is Place.APART:
            yield name, [[name]]
        elif name == LATENCY:
            yield name, [[name]]  # it decides: nothing dear may keep it waiting
        elif name in (LOGIN, COMMIT):
            door.setdefault(plan.interval, []).append(name)
        elif probe.place is Place.FRESH:
            dear.append([name])
        else:
            held.setdefault(plan.interval, []).append(name)
    if held:
        yield "held", list(held.values())
    if door:
        yield "door", list(door.values())
    if dear:
        yield "dear", dear
