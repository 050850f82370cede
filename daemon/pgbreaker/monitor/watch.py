"""The watch: some of the slower probes on one target, feeding its breakers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import GONE, LOGIN, PING, is_bad
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.line import Line
from pgbreaker.probes import probe_called
from pgbreaker.probes.probe import Place

# A failure of these kinds is asked again at once; the others would only be repeated.
_DOUBTFUL: Final = GONE | {Finding.FULL, Finding.SYSTEM}

_HURRY: Final[Seconds] = 1.0
_SOON: Final[Seconds] = 15.0  # after a turn that was left out

_BUSY: Final[Share] = 0.02  # of the time, that a question may take
_SLACKEST: Final = 16
_VAIN: Final = frozenset((Finding.QUERY, Finding.TIMEOUT, Finding.DENIED, Finding.AUTH))
"""Findings of a question that was too much to ask, or that only fills the server's log."""


class Watch:
    """Asks probes of one place and one interval, together.

    Attributes:
        probes: Their names.
        interval: Seconds between two runs when all is well.
        timeout: Seconds that its questions may take, one after the other.
        is_dear: Whether they cost the server more than a moment.
        has_asked: Whether they were ever asked.
        due: Moment at which it is to ask next.
        ended_at: Moment at which its last run ended.
    """

    def __init__(
        self, probes: Sequence[str], line: Line, feed: Feed, clock: Clock
    ) -> None:
        self.probes = tuple(probes)
        self._line = line
        self._feed = feed
        self._clock = clock
        first = probe_called(probes[0])
        self.is_dear = first.is_dear
        self.has_asked = False
        self.timeout = sum(feed.board.plan.probes[probe].timeout for probe in probes)
        self._is_apart = first.place is Place.APART
        self.interval = feed.board.plan.probes[probes[0]].interval
        self._slack = dict.fromkeys(probes, 1)  # runs of which one is made
        self._rest = dict.fromkeys(probes, 0)  # runs to be left out still
        self._doubted: set[str] = set()  # probes that failed the last time
        self._held_since = feed.board.held_since
        self.due = self.ended_at = clock.now()

    async def tick(self, late: Seconds = 0.0) -> None:
        """Probe, judge, tell the breakers, tell the world."""
        if PING not in self._feed.board.readings:
            self._settle_next()
            return  # the sentinel goes first
        if self.is_dear and not self._feed.all_pass:
            self._skip()
            return
        if self._is_reachable:
            await self._run(late)
        else:
            # While the held connection is away nothing is asked, so there is no news
            # for the breakers; but it is still shown, for nothing is worse than a
            # series that vanishes in the incident.
            for probe in self.probes:
                self._feed.show(replace(self._line.echo(probe), late=late))
        self._feed.board.connections = self._line.connections
        self.ended_at = self._clock.now()
        self._settle_next()

    @property
    def _is_reachable(self) -> bool:
        return self._is_apart or self._line.is_up

    async def _run(self, late: Seconds) -> None:
        if self._held_since != self._feed.board.held_since:
            # Let in anew: whatever was in vain before is worth another try.
            self._held_since = self._feed.board.held_since
            self._rest = dict.fromkeys(self.probes, 0)
        due = [probe for probe in self.probes if not self._rests(probe)]
        self.has_asked = True
        for reading in await self._ask(due) if due else ():
            told = replace(reading, late=late) if late else reading
            if self._is_reachable:
                self._feed.judge(told)
            else:
                self._feed.show(told)
            self._pace(reading)

    async def _ask(self, probes: Sequence[str]) -> list[Reading]:
        readings = {r.probe: r for r in await self._line.ask(probes)}
        doubtful = [r for r in readings.values() if self._is_in_doubt(r)]
        if doubtful and self._is_reachable:
            for reading in doubtful:
                self._feed.show(reading)
            again = [reading.probe for reading in doubtful]
            self._doubted.update(again)
            readings |= {r.probe: r for r in await self._line.ask(again)}
        return [self._confirm(reading) for reading in readings.values()]

    def _is_in_doubt(self, reading: Reading) -> bool:
        return (
            reading.finding in _DOUBTFUL
            and not reading.confirmed
            and reading.probe not in self._doubted
            and self._feed.is_deciding(reading.probe)
        )

    def _confirm(self, reading: Reading) -> Reading:
        """Say whether a failure was seen twice, and remember it for the next time."""
        failed = is_bad(reading) and self._feed.is_deciding(reading.probe)
        twice = reading.finding in _DOUBTFUL and reading.probe in self._doubted
        # A session that was let in and then lost can have been ended by hand, twice
        # in a row as well: that is for the window to weigh.
        confirmed = twice and reading.finding is not Finding.LOST
        if failed:
            self._doubted.add(reading.probe)
        else:
            self._doubted.discard(reading.probe)
        if confirmed and not reading.confirmed:
            return replace(reading, confirmed=True)
        return reading

    def _skip(self) -> None:
        """Leave a server in trouble alone, and say so."""
        why = "not asked while a breaker of the target refuses calls"
        for probe in self.probes:
            now = self._clock.now()
            evidence = Evidence(Finding.SKIPPED.value, why, probe=probe)
            target = self._feed.board.plan.name
            self._feed.show(
                Reading(target, probe, now, 0.0, Finding.SKIPPED, evidence=evidence)
            )
        self.ended_at = self._clock.now()
        # It has not had its turn: a trouble of a moment must not cost it a quarter of
        # an hour.
        self.due = self.ended_at + min(self.interval, _SOON)

    # When next.

    @property
    def _is_barred(self) -> bool:
        """Whether it was not let in the last time."""
        last = [self._feed.board.readings.get(probe) for probe in self.probes]
        return any(r is not None and r.finding is Finding.AUTH for r in last)

    def _rests(self, probe: str) -> bool:
        """Whether *probe* is to be left out this time."""
        self._rest[probe] -= 1
        return self._rest[probe] >= 0

    def _pace(self, reading: Reading) -> None:
        """Ask less often what costs much or is in vain, and as usual afterwards.

        A probe that decides only where we are not let in: repeated bad logins look like
        an attack, and can lock the role. Backing off otherwise would hide when the
        server is back (https://github.com/prometheus/prometheus/issues/302).
        """
        probe = reading.probe
        if self._feed.is_deciding(probe):
            slack = self._slack[probe] * 2 if reading.finding is Finding.AUTH else 1
        else:
            asking = self._cost(reading)
            is_dear = asking > _BUSY * self.interval or reading.finding in _VAIN
            slack = self._slack[probe] * 2 if is_dear else self._slack[probe] // 2
        self._slack[probe] = min(max(slack, 1), _SLACKEST)
        self._rest[probe] = self._slack[probe] - 1
        self._feed.board.intervals[probe] = self.interval * self._slack[probe]

    def _cost(self, reading: Reading) -> Seconds:
        """What the server took for *reading*: without the way there and back, and no
        more than its share of a statement for several."""
        way = self._feed.board.readings[PING].took
        return (reading.took - reading.connecting) / len(self.probes) - 2 * way

    def _settle_next(self) -> None:
        now = self._clock.now()
        if self._is_hurried:
            self.due = now + _HURRY
        else:
            # On its own grid, as long as it keeps up.
            self.due = max(self.due + self.interval, now + self.interval / 2)

    @property
    def _is_hurried(self) -> bool:
        """Whether it is to ask again sooner than usual."""
        if not self._is_reachable or self._is_barred:
            return False  # the sentinel says when it is back
        if self._doubted or any(self._feed.is_wanted(p) for p in self.probes):
            return self.interval > _HURRY
        is_needed = LOGIN in self.probes and self._feed.is_nearly_full
        return is_needed and self.interval > _HURRY
