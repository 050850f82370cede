"""What probes saw lately, kept small enough to have it of a thousand targets; a sink.

The board has the last reading of each probe. Here is what came before: how long pings
took in the last minutes, the last runs of the probes with the time of each step, and
which errors there were. It is told of each reading, so it stores numbers, in columns.
"""

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.judge import COMMIT, LATENCY, LOGIN, PING
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.hub import Event

KEPT: Final = 50
"""Runs that are kept of each kind of probe."""

SPAN: Final[Seconds] = 300.0
"""Seconds that the course of the pings covers."""

SLICES: Final = 60
"""Parts of the course; each has the slowest answer in it."""

STEPS: Final = ("dns", "tcp", "tls", "auth", "query")
"""What a run can consist of, in order."""

_WIDTH: Final = SPAN / SLICES
# Nobody was asked, or what was asked about is not there.
_NO_ERRORS: Final = (Finding.SKIPPED, Finding.ABSENT)
_NO_TIME: Final[Seconds] = 5e-5  # no server answers within
_ERRORS: Final = 16  # kinds of errors that are kept of a target
_FINDINGS: Final = tuple(Finding)
_NUMBERS: Final = {finding: number for number, finding in enumerate(_FINDINGS)}
_USUAL_AFTER: Final = 30  # answers, before anything is called usual
_HALF_LIFE: Final = 1800.0  # seconds after which an answer weighs half in what is usual


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a probe, as far as it is kept.

    Attributes:
        at: Moment at which it began.
        took: Seconds until it ended.
        connecting: Seconds of them that connecting took.
        steps: Step -> seconds, of those that are known, in their order.
        evidence: What went wrong, None when nothing did.
    """

    probe: str
    at: Seconds
    took: Seconds
    finding: Finding
    connecting: Seconds
    steps: tuple[tuple[str, Seconds], ...]
    evidence: Evidence | None

    @property
    def was_asked(self) -> bool:
        """Whether the server was asked at all: of one that is known not to answer, a
        probe is told at once what the ping has found."""
        return self.took >= _NO_TIME


@dataclass(slots=True)
class Errors:
    """Errors of one kind, seen on one target.

    Attributes:
        code: SQLSTATE, or the finding where the server said nothing.
        count: How many there were since this daemon began.
        last: Moment of the last.
        text: What the last one said.
        probe: Which probe saw it.
    """

    code: str
    count: int
    last: Seconds
    text: str
    probe: str


class _Runs:
    """The last `KEPT` runs of some probes, a column for each of their numbers."""

    __slots__ = ("_at", "_connecting", "_evidence", "_finding", "_next", "_probe", "_steps", "_took")  # fmt: skip

    def __init__(self) -> None:
        self._at = array("d")
        self._took = array("f")
        self._connecting = array("f")
        self._finding = bytearray()
        self._probe: list[str] = []  # the plan's own names, so no copies
        self._evidence: dict[int, Evidence] = {}  # few have any
        self._steps: array[float] | None = None  # a row for each run; most take none
        self._next = 0

    def take(self, reading: Reading) -> None:
        place = self._next
        if len(self._at) < KEPT:
            self._at.append(reading.at)
            self._took.append(reading.took)
            self._connecting.append(reading.connecting)
            self._finding.append(_NUMBERS[reading.finding])
            self._probe.append(reading.probe)
        else:
            self._at[place] = reading.at
            self._took[place] = reading.took
            self._connecting[place] = reading.connecting
            self._finding[place] = _NUMBERS[reading.finding]
            self._probe[place] = reading.probe
        self._keep_evidence(place, reading.evidence)
        self._keep_steps(place, dict(reading.steps))
        self._next = (place + 1) % KEPT

    def _keep_steps(self, place: int, steps: Mapping[str, Seconds]) -> None:
        if self._steps is None:
            if not steps:
                return
            self._steps = array("f", [math.nan]) * (KEPT * len(STEPS))
        for number, name in enumerate(STEPS, place * len(STEPS)):
            self._steps[number] = steps.get(name, math.nan)

    def _steps_at(self, place: int) -> tuple[tuple[str, Seconds], ...]:
        if self._steps is None:
            return ()
        first = place * len(STEPS)
        row = zip(STEPS, self._steps[first : first + len(STEPS)], strict=True)
        return tuple((name, took) for name, took in row if not math.isnan(took))

    def _keep_evidence(self, place: int, evidence: Evidence | None) -> None:
        if evidence is None:
            self._evidence.pop(place, None)
            return
        # An outage says the same again and again: one copy is enough.
        before = self._evidence.get((place - 1) % KEPT)
        self._evidence[place] = before if before == evidence and before else evidence

    def newest_first(self) -> Iterator[Run]:
        count = len(self._at)
        for back in range(1, count + 1):
            place = (self._next - back) % count
            yield Run(
                self._probe[place],
                self._at[place],
                self._took[place],
                _FINDINGS[self._finding[place]],
                self._connecting[place],
                self._steps_at(place),
                self._evidence.get(place),
            )


class Course:
    """How long pings took: the last minutes in slices, and what is usual.

    Attributes:
        last: Seconds that the last answered one took. None: none was.
    """

    __slots__ = ("_answers", "_failed", "_mean", "_slice", "_slowest", "_spread", "last")  # fmt: skip

    def __init__(self) -> None:
        self.last: Seconds | None = None
        self._slowest = array("f", [math.nan]) * SLICES
        self._failed = bytearray(SLICES)
        self._slice = 0  # number of the newest slice, since the clock began
        self._answers = 0
        self._mean = 0.0  # of the logarithm: what is usual has a long tail above
        self._spread = 0.0

    def take(self, reading: Reading, interval: Seconds) -> None:
        """Take a ping."""
        self._advance(int(reading.at / _WIDTH))
        place = self._slice % SLICES
        if not reading.answered:
            self._failed[place] = 1
            return
        self.last = took = reading.took
        known = self._slowest[place]
        self._slowest[place] = took if math.isnan(known) else max(known, took)
        self._learn(took, interval)

    def _advance(self, slice_: int) -> None:
        for new in range(max(self._slice + 1, slice_ - SLICES + 1), slice_ + 1):
            self._slowest[new % SLICES] = math.nan
            self._failed[new % SLICES] = 0
        self._slice = max(self._slice, slice_)

    def _learn(self, took: Seconds, interval: Seconds) -> None:
        value = math.log(max(took, 1e-6))
        self._answers += 1
        # At first the plain mean of all, or the very first would weigh on for long.
        weight = max(1 - 0.5 ** (interval / _HALF_LIFE), 1 / self._answers)
        off = value - self._mean
        self._mean += weight * off
        self._spread = (1 - weight) * (self._spread + weight * off * off)

    @property
    def usual(self) -> tuple[Seconds, Seconds] | None:
        """Between which times nearly all answers come. None: not known yet."""
        if self._answers < _USUAL_AFTER:
            return None
        off = 2 * math.sqrt(self._spread)
        return math.exp(self._mean - off), math.exp(self._mean + off)

    def slices(self, now: Seconds) -> list[tuple[Seconds | None, bool]]:
        """Slowest answer, and whether any failed, of each slice up to *now*, the oldest
        first. None: no answer."""
        newest = int(now / _WIDTH)
        told: list[tuple[Seconds | None, bool]] = []
        for slice_ in range(newest - SLICES + 1, newest + 1):
            if not self._slice - SLICES < slice_ <= self._slice:
                told.append((None, False))
                continue
            slowest = self._slowest[slice_ % SLICES]
            seen = None if math.isnan(slowest) else slowest
            told.append((seen, bool(self._failed[slice_ % SLICES])))
        return told


class TargetRecent:
    """What was seen lately of one target.

    Attributes:
        course: How long its pings took.
        errors: Its errors, by code.
    """

    __slots__ = ("_deciding", "_others", "_pings", "course", "errors")

    def __init__(self) -> None:
        self.course = Course()
        self.errors: dict[str, Errors] = {}
        # Apart from each other, or what is asked each second would push out the login
        # of a minute ago, and that is the one which tells.
        self._pings, self._deciding, self._others = _Runs(), _Runs(), _Runs()

    def take(self, reading: Reading, interval: Seconds) -> None:
        """Take a reading."""
        if reading.probe == PING:
            self.course.take(reading, interval)
            self._pings.take(reading)
        elif reading.probe in (LOGIN, COMMIT, LATENCY):
            self._deciding.take(reading)
        else:
            self._others.take(reading)
        if reading.evidence is not None and reading.finding not in _NO_ERRORS:
            self._count(reading, reading.evidence)

    def _count(self, reading: Reading, seen: Evidence) -> None:
        code = seen.sqlstate or reading.finding.value
        known = self.errors.pop(code, None) or Errors(code, 0, 0.0, "", "")
        known.count += 1
        known.last, known.text, known.probe = reading.at, seen.text, reading.probe
        self.errors[code] = known  # the newest last
        if len(self.errors) > _ERRORS:
            del self.errors[next(iter(self.errors))]

    def runs(self, *probes: str, limit: int = KEPT) -> list[Run]:
        """The last runs, the newest first, of *probes*; of all where none is named."""
        kept = (self._pings, self._deciding, self._others)
        found = [
            run
            for runs in kept
            for run in runs.newest_first()
            if not probes or run.probe in probes
        ]
        found.sort(key=lambda run: run.at, reverse=True)
        return found[:limit]


class Recent:
    """What was seen lately, of every target.

    Attributes:
        targets: Name -> what was seen of it. One that nothing was seen of is missing.
        heard: Moment at which the last reading ended. None: there was none.
    """

    def __init__(self) -> None:
        self.targets: dict[str, TargetRecent] = {}
        self.heard: Seconds | None = None
        self._last: dict[str, Seconds] = {}  # target -> moment of its last ping

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if not isinstance(event, Reading):
            return
        target = self.targets.get(event.target)
        if target is None:
            target = self.targets[event.target] = TargetRecent()
        ended = event.at + event.took
        self.heard = ended if self.heard is None else max(self.heard, ended)
        interval = 0.0
        if event.probe == PING:
            interval = max(0.0, event.at - self._last.get(event.target, event.at))
            self._last[event.target] = event.at
        target.take(event, interval)

    def keep(self, names: frozenset[str]) -> None:
        """Forget every target but those of *names*: the others are watched no more."""
        for name in self.targets.keys() - names:
            del self.targets[name]
            self._last.pop(name, None)

    def age(self, now: Seconds) -> Seconds | None:
        """Seconds since the last reading of any target ended. None: there was none."""
        return None if self.heard is None else max(0.0, now - self.heard)
