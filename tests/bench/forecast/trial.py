"""One simulated target, and what each forecaster said of it.

A forecaster lives through healthy days. Where an incident begins it is copied: one goes
on as if nothing were, the copy sees the incident. So every warning of the first is a false
alarm, and every incident meets a forecaster that knows its target.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, Self

from clocks import CAPACITY, LAG_LIMIT, clock
from forecasters import Forecaster, Ours, curves, plain
from incidents import (
    DAY,
    HOUR,
    TICK,
    Course,
    Incident,
    Kind,
    healthy,
    moment,
    readings,
    strike,
)

from pgbreaker.core.reading import Reading
from pgbreaker.core.units import Seconds

OURS: Final = "pgbreaker"
FIRST: Final = 2000
"""The first of the seeds that nothing was chosen with."""

KINDS: Final = (Kind.LEAK, Kind.QUEUE, Kind.LOCK, Kind.STORM)
EACH: Final = 2
"""Incidents of each kind in one course."""

DAYS: Final = 2.0
SWEEP: Final = tuple(range(50, 100))
"""Thresholds, in percent of the slots."""

_WARM: Final[Seconds] = 6 * HOUR
_ONE: Final[Seconds] = HOUR  # within which two alarms are one
_RELEVANT: Final = frozenset({"connections", "failure"})


@dataclass(slots=True)
class Alarm:
    """A warning, from its first moment to its last."""

    of: str
    since: Seconds
    until: Seconds


class Watched:
    """A forecaster, and the warnings that it gave."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._before: frozenset[str] = frozenset()
        self._open: dict[str, Alarm] = {}
        self.alarms: list[Alarm] = []

    def branch(self) -> Self:
        """Copy the forecaster, without what it said so far; what stands begins now."""
        return type(self)(deepcopy(self._forecaster))

    def take(self, reading: Reading) -> None:
        stands = self._forecaster.take(reading)
        if stands == self._before:
            return
        for of in stands - self._before:
            self._open[of] = Alarm(of, reading.at, float("inf"))
            self.alarms.append(self._open[of])
        for of in self._before - stands:
            self._open.pop(of).until = reading.at
        self._before = frozenset(stands)

    def first(self, names: frozenset[str]) -> Seconds | None:
        """Say when the first warning of these kinds began."""
        return min((a.since for a in self.alarms if a.of in names), default=None)


def episodes(alarms: Iterable[Alarm]) -> int:
    """Count alarms; those within an hour of each other are one."""
    count, ends = 0, float("-inf")
    for alarm in sorted(alarms, key=lambda a: a.since):
        count += alarm.since - ends > _ONE
        ends = max(ends, alarm.until)
    return count


@dataclass(slots=True)
class Met:
    """What forecasters made of one incident.

    Attributes:
        incident: The truth.
        leads: Seconds before it failed at which each first warned; those that did not
            are not in it.
        stood: Those whose warning stood a minute before it failed, of one that was not
            there by then.
        sweep: As `leads`, by thresholds.
    """

    incident: Incident
    leads: dict[str, Seconds] = field(default_factory=dict)
    stood: set[str] = field(default_factory=set)
    sweep: dict[int, Seconds] = field(default_factory=dict)


@dataclass(slots=True)
class Lived:
    """What forecasters made of one course.

    Attributes:
        days: That were healthy.
        alarms: False ones, by forecaster.
        sweep: How many false ones there are, by threshold.
        met: Incidents.
    """

    days: float
    alarms: dict[str, list[Alarm]]
    sweep: dict[int, int]
    met: list[Met]


def live(seed: int, *, more: bool = False) -> Lived:
    """Put all forecasters through one course and its incidents.

    Args:
        more: Lines of all horizons, too.
    """
    course = healthy(seed, days=DAYS)
    struck = sorted(
        (
            strike(
                course,
                kind,
                moment(course, kind, seed * EACH + n, _WARM),
                seed * EACH + n,
            )
            for kind in KINDS
            for n in range(EACH)
        ),
        key=lambda pair: -pair[1].begins,
    )
    watched = _watched(course, more)
    met = []
    for reading in readings(course):
        while struck and struck[-1][1].begins <= reading.at:
            met.append(_meet(watched, *struck.pop()))
        for one in watched.values():
            one.take(reading)
    for one in met:
        looked_at = one.incident.fails_at - 60.0
        if looked_at <= one.incident.begins:
            one.stood = {
                name for name, w in watched.items() if _stands(w.alarms, looked_at)
            }
    return Lived(
        days=course.lasts / DAY,
        alarms={name: one.alarms for name, one in watched.items()},
        sweep=_crossings(course),
        met=met,
    )


def _watched(course: Course, more: bool) -> dict[str, Watched]:
    born = (
        course.born
    )  # and not the course itself, which would be copied at each branch
    ours = Ours(lambda at: born + at)
    others = {**plain(), **(curves() if more else {})}
    return {name: Watched(f) for name, f in {OURS: ours, **others}.items()}


def _meet(watched: Mapping[str, Watched], struck: Course, incident: Incident) -> Met:
    branch = {name: one.branch() for name, one in watched.items()}
    for reading in readings(struck, since=incident.begins, until=incident.fails_at):
        for one in branch.values():
            one.take(reading)
    found = Met(incident)
    for name, one in branch.items():
        first = one.first(_RELEVANT)
        if first is not None:
            found.leads[name] = incident.fails_at - first
    found.sweep = _reached(struck, incident)
    return found


def _stands(alarms: Iterable[Alarm], at: Seconds) -> bool:
    return any(a.since <= at < a.until for a in alarms if a.of in _RELEVANT)


def _reached(course: Course, incident: Incident) -> dict[int, Seconds]:
    """Say how long before the end the slots taken reached each threshold."""
    found: dict[int, Seconds] = {}
    highest = 0.0
    for tick_ in range(int(incident.begins / TICK), int(incident.fails_at / TICK)):
        if course.used[tick_] > highest:
            highest = course.used[tick_]
            for percent in SWEEP:
                if percent * course.usable > highest * 100:
                    break
                found.setdefault(percent, incident.fails_at - tick_ * TICK)
    return found


def _crossings(course: Course) -> dict[int, int]:
    """Count the false alarms of each threshold."""
    counts, last = dict.fromkeys(SWEEP, 0), dict.fromkeys(SWEEP, float("-inf"))
    for tick_, used in enumerate(course.used):
        percent, at = used * 100 / course.usable, tick_ * TICK
        for threshold in SWEEP:
            if threshold > percent:
                break
            counts[threshold] += at - last[threshold] > _ONE
            last[threshold] = at
    return counts


@dataclass(slots=True)
class Ticked:
    """What we made of one slow clock.

    Attributes:
        of: What runs out.
        lasts: Seconds from the moment at which it began to run out; None: it did not.
        lead: Seconds before its end at which we warned; None: we did not.
        near: Seconds before its end at which 80 % were reached, for the last time.
        healthy: Days in which nothing ran out.
        wrong: Warnings in these.
        wrong_near: Times at which 80 % were reached in these.
    """

    of: str
    lasts: Seconds | None
    lead: Seconds | None
    near: Seconds | None
    healthy: float
    wrong: int
    wrong_near: int


def tick(of: str, seed: int, *, fails: bool) -> Ticked:
    """Put ours through one slow clock."""
    made = clock(of, seed, fails=fails)
    watched = Watched(Ours(made.wall_of, CAPACITY, LAG_LIMIT))
    for reading in made.readings():
        watched.take(reading)
    alarms = [alarm for alarm in watched.alarms if alarm.of == of]
    truth = made.incident
    if truth is None:
        wrong = episodes(watched.alarms)
        near = len(made.nears)
        return Ticked(of, None, None, None, made.lasts / DAY, wrong, near)
    # A warning of before that stands is not taken back for the sake of the count.
    true = [alarm for alarm in alarms if alarm.until > truth.begins]
    wrong = episodes(alarm for alarm in alarms if alarm.until <= truth.begins)
    since = min((max(a.since, truth.begins) for a in true), default=None)
    return Ticked(
        of,
        truth.lasts,
        None if since is None else truth.fails_at - since,
        truth.fails_at - made.nears[-1] if made.nears else None,
        truth.begins / DAY,
        wrong,
        sum(at < truth.begins for at in made.nears),
    )
