"""What forecasts would have said of a recording, and what came of it.

The readings of a recording go through the forecasts as they did when they were read, on
the recording's own clock, and so do the moves that breakers really made: nobody judges
anew, and nobody is asked anything. Beside them stands what a plain threshold would have
said, counted alike.

What a recording does not tell is which failures were planned: those of a maintenance
count like any other.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.entry import BY_OPERATORS
from pgbreaker.core.forecast.odds import HORIZON, LEAD
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.warning import CONNECTIONS, FAILURE, KINDS
from pgbreaker.core.judge import PGBOUNCER, REPLICATION, SATURATION
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Transition
from pgbreaker.core.units import Seconds, Share, percent
from pgbreaker.monitor.notices import notices
from pgbreaker.monitor.outlook import OUTLOOK, Outlook, opens_by_itself
from pgbreaker.monitor.outlook.values import number, rows
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.record import Begun, Heard, Recorded, Rules, Unread

FORECAST: Final = "forecast"
"""Who warns: the forecasts of the daemon."""

THRESHOLD: Final = "threshold"
"""Who warns: a share of what there is that is taken."""

USUAL: Final[Share] = 0.8
"""Share from which a threshold warns, where nobody says another."""

POOL: Final = "pool"

DAY: Final[Seconds] = 86_400.0
_MINUTE: Final[Seconds] = 60.0
_GAP: Final[Seconds] = 300.0  # longer without a reading: nobody looked
_EVER: Final[Seconds] = math.inf
_BINS: Final = 10
_COUNTS: Final = ("came", "late", "false", "missed")
_OWN: Final = frozenset(shown.value for shown in OUTLOOK)


class Came(StrEnum):
    """What came of a warning, and how a failure came."""

    TRUE = "true"  # of a warning: a failure, at least a minute later
    FALSE = "false"  # nothing, within an hour of its end
    UNTOLD = "untold"  # nothing, until the recording ended or the server was another
    UNSCORED = "unscored"  # people have days to avert it, so nobody counts
    FORESEEN = "foreseen"  # of a failure: warned of at least a minute before
    LATE = "late"  # of both: less than a minute lay between
    MISSED = "missed"  # without a warning


@dataclass(slots=True)
class Told:
    """A warning that was given, or a failure.

    A warning that comes again within an hour of its end is the same one, and so is a
    failure; a warning of what is there already is none.

    Attributes:
        at: Wall time, in seconds since the epoch.
        target: Name of the target.
        of: Name of the kind.
        by: Who warned, or was to: `FORECAST` or `THRESHOLD`.
        is_failure: Whether it is one.
        reason: One sentence.
        came: What came of it.
        lead: Seconds between warning and failure. None: there are not both.
        ended: When the warning ended. None: it stands, or it is a failure.
    """

    at: float
    target: str
    of: str
    by: str
    is_failure: bool
    reason: str
    came: Came
    lead: Seconds | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of all warnings of one kind of one target.

    Attributes:
        of: Name of the kind.
        by: Who warned.
        score: What is counted; empty where `is_scored` is not.
        warnings: How many there were.
        untold: Of how many it cannot be told what came of them.
        is_scored: Whether what came of them is counted.
    """

    of: str
    by: str
    score: Score
    warnings: int
    untold: int
    is_scored: bool

    @property
    def failures(self) -> int:
        """How many there were, warned of or not."""
        return self.score.came + self.score.late + self.score.missed


@dataclass(slots=True)
class Bin:
    """Minutes in which the model said much the same.

    Attributes:
        low: Probability from which on it is this one.
        high: Up to which.
        minutes: How many there were.
        came: After how many a breaker opened in the time that it looks ahead.
        total: Of the probabilities that it said.
    """

    low: Share
    high: Share
    minutes: int = 0
    came: int = 0
    total: float = 0.0

    @property
    def said(self) -> Share:
        """The probability that it said, on average; 0 where it said none."""
        return self.total / self.minutes if self.minutes else 0.0

    @property
    def share(self) -> Share:
        """Share of the minutes after which a breaker opened."""
        return self.came / self.minutes if self.minutes else 0.0


@dataclass(slots=True)
class TargetRecord:
    """What came of one target.

    Attributes:
        seen: Seconds for which somebody looked; gaps of more than five minutes left out.
        readings: How many there were.
        results: Of each kind that somebody looked at.
        not_looked_at: Kind -> what it takes to look at it.
        bins: What the model said and what came, of the bins in which it said anything.
        silent_because: Why the model is silent at the end. None: it speaks.
        is_known: Whether the configuration, if there is one, has it.
    """

    seen: Seconds = 0.0
    readings: int = 0
    results: list[Result] = field(default_factory=list)
    not_looked_at: dict[str, str] = field(default_factory=dict)
    bins: list[Bin] = field(default_factory=list)
    silent_because: str | None = None
    is_known: bool = True


@dataclass(slots=True)
class Backtested:
    """What came of a recording.

    Attributes:
        began: Wall time of the first reading, in seconds since the epoch; 0 when there
            is none.
        ended: Wall time of the last thing recorded.
        targets: Name -> what came of it.
        told: All warnings and failures, in order.
        left_out: Targets that were recorded and not looked at.
        overridden: Times that somebody's word went before a breaker's: that is no
            failure.
        unread: Parts of the recording that could not be read.
    """

    began: float = 0.0
    ended: float = 0.0
    targets: dict[str, TargetRecord] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    overridden: int = 0
    unread: list[Unread] = field(default_factory=list)

    @property
    def readings(self) -> int:
        """How many were looked at."""
        return sum(target.readings for target in self.targets.values())


def tenth_lead(score: Score) -> Seconds | None:
    """Seconds from warning to failure that nine of ten had at least. None: no failure was
    foreseen."""
    leads = sorted(score.leads)
    return leads[math.ceil(len(leads) / 10) - 1] if leads else None


def backtest(
    recorded: Iterable[Recorded],
    plans: Iterable[TargetPlan] | None = None,
    *,
    only: str | None = None,
    threshold: Share = USUAL,
) -> Backtested:
    """Replay a recording through the forecasts, which begin to learn with it.

    Args:
        recorded: The recording, read once: it can be larger than memory.
        plans: What is known of targets, by their names: capacities, and how far a
            replica may be behind. None: as far as the recording itself tells.
        only: The one target to look at. None: all.
        threshold: Share from which the plain threshold warns.
    """
    known = None if plans is None else {plan.name: plan for plan in plans}
    return _Backtest(known, only, threshold).run(recorded)


class _Backtest:
    """Events in, results out."""

    def __init__(
        self,
        plans: Mapping[str, TargetPlan] | None,
        only: str | None,
        threshold: Share,
    ) -> None:
        self._plans = plans
        self._only = only
        self._threshold = threshold
        self._rules: Mapping[str, Rules] = {}
        self._watched: dict[str, _Watched] = {}
        self._now = 0.0
        self._ahead: Seconds = 0.0
        self._clock = Clock(now=lambda: self._now, wall=lambda: self._now)
        self.done = Backtested()

    def run(self, recorded: Iterable[Recorded]) -> Backtested:
        for event in recorded:
            match event:
                case Heard():
                    self._read(event.reading, event.at)
                case Transition():
                    self._move(event)
                case Begun():
                    # Moments only go up, though the clock was put back between two runs.
                    self._ahead = max(self._now - event.at, 0.0)
                    self._rules = {**self._rules, **event.targets}
                case Unread():
                    self.done.unread.append(event)
        done = self.done
        done.ended = self._now
        for name, watched in self._watched.items():
            done.targets[name] = watched.close(self._now)
        done.told.sort(key=lambda told: told.at)
        return done

    def _read(self, reading: Reading, told: float) -> None:
        watched = self._find(reading.target)
        if watched is None:
            return
        if self._ahead:
            reading = replace(reading, at=reading.at + self._ahead)
        self._now = max(self._now, told + self._ahead)
        self.done.began = self.done.began or self._now
        watched.read(reading, self._now)

    def _move(self, move: Transition) -> None:
        target = move.breaker.partition("/")[0]
        watched = self._find(target)
        if watched is None:
            return
        move = replace(move, at=move.at + self._ahead)
        self._now = max(self._now, move.at)
        if move.cause in BY_OPERATORS:
            self.done.overridden += 1
        else:
            watched.note(move)

    def _find(self, target: str) -> "_Watched | None":
        if self._only not in (None, target):
            self.done.left_out.add(target)
            return None
        if target not in self._watched:
            plan = None if self._plans is None else self._plans.get(target)
            self._watched[target] = _Watched(
                plan or _as_told(target, self._rules.get(target)),
                self._clock,
                self._threshold,
                self.done.told,
                is_known=plan is not None or self._plans is None,
            )
        return self._watched[target]


def _as_told(name: str, rules: Rules | None) -> TargetPlan:
    """A target by what its recording tells of it, which is not where it is."""
    probes = {
        probe: ProbePlan(
            interval=asked.interval or 0.0,
            timeout=asked.timeout or 0.0,
            limit=asked.limit,
            capacity=asked.capacity,
        )
        for probe, asked in (rules.probes if rules else {}).items()
    }
    return TargetPlan(name=name, dsn=Secret(""), probes=probes)


# -- One target --------------------------------------------------------------------


class _Watched:
    """The forecasts of one target, the threshold beside them, and what comes of both."""

    def __init__(
        self,
        plan: TargetPlan,
        clock: Clock,
        threshold: Share,
        told: list[Told],
        *,
        is_known: bool,
    ) -> None:
        self._plan = plan
        self._board = TargetBoard(plan, {}, clock)
        self._done = TargetRecord(is_known=is_known)
        self._last: float | None = None  # when it was last looked at
        self._due = 0.0  # when the model is asked again
        self._evidence: Evidence | None = None  # of the last reading
        self._system: object = None
        self._looked_at: set[str] = set()
        self._said = Said()
        self._outlook = self._new_outlook()
        self._standing: set[str] = set()
        self._ledgers = {
            of: _Ledger(plan.name, of, FORECAST, told, self._outlook.foretold().record)
            for of in KINDS
        }
        self._levels = {
            of: _Level(
                threshold, _Ledger(plan.name, of, THRESHOLD, told, {}), KINDS[of].says
            )
            for of in (CONNECTIONS, POOL)
        }

    def read(self, reading: Reading, now: float) -> None:
        """Take a reading, as the daemon did."""
        self._pass(now)
        reading = _without_forecasts(reading)
        self._recognise(reading)
        self._outlook.take(reading)
        self._count(reading.at, self._at_its_limit)
        for of, share in _shares(reading):
            self._levels[of].take(reading.at, share)
        self._ask(reading.at)
        self._learn(reading)
        self._evidence = reading.evidence

    def note(self, move: Transition) -> None:
        """Take a move that a breaker made by itself."""
        if move.evidence is None:
            # It is not recorded with a move, but the reading that brought it about is
            # what was recorded before it.
            move = replace(move, evidence=self._evidence)
        self._outlook.note(move)
        reason = f"{move.breaker}: {move.reason}"
        self._count(move.at, lambda _of: reason)
        seen = move.evidence
        code = None if seen is None else seen.code
        if not opens_by_itself(move):
            return
        self._said.opened(move.at)
        self._due = move.at + _MINUTE  # what it last said was of before
        if code == Finding.FULL:
            self._levels[CONNECTIONS].fails(move.at, reason)

    def close(self, now: float) -> TargetRecord:
        """Say what came of it up to *now*."""
        done = self._done
        levels = [level.ledger for level in self._levels.values()]
        for ledger in (*self._ledgers.values(), *levels):
            ledger.close(now)
        self._looked_at |= {found.of for found in self._outlook.foretold().runways}
        for of, ledger in self._ledgers.items():
            result = ledger.result()
            if of in (*self._looked_at, FAILURE) or result.failures:
                done.results.append(result)
                if of in self._levels:
                    done.results.append(self._levels[of].ledger.result())
            else:
                done.not_looked_at[of] = KINDS[of].needs
        done.bins = self._said.bins()
        done.silent_because = self._outlook.foretold().model.silent_because
        return done

    # -- The forecasts ---------------------------------------------------------------

    def _new_outlook(self) -> Outlook:
        size = self._plan.probes.get("size")
        replication = self._plan.probes.get(REPLICATION)
        return Outlook(
            capacity=None if size is None else size.capacity,
            lag_limit=None if replication is None else replication.limit,
            bearer=SATURATION,
        )

    def _recognise(self, reading: Reading) -> None:
        """Begin anew when another cluster answers."""
        system = reading.values.get("system_id")
        if not isinstance(system, str) or system == self._system:
            return
        if self._system is not None:
            self._begin_anew()
        self._system = system

    def _learn(self, reading: Reading) -> None:
        """Begin anew when new connections reach another server."""
        for notice in notices(self._board, reading):
            self._board.notices[notice.code] = notice
            if notice.code == "moved":
                self._board.forget()
                self._begin_anew()
        self._board.take(reading)

    def _begin_anew(self) -> None:
        """Forget what was seen: it was another server's."""
        self._outlook = self._new_outlook()
        self._standing.clear()
        for ledger in self._ledgers.values():
            ledger.follow(self._outlook.foretold().record)

    def _count(self, at: float, reason: Callable[[str], str]) -> None:
        """Look what the forecasts have counted, and which warnings began and ended."""
        for of, ledger in self._ledgers.items():
            ledger.look(at, partial(reason, of))
        standing = self._outlook.warnings
        if standing.keys() == self._standing:
            return
        for of in standing.keys() - self._standing:
            self._ledgers[of].begins(standing[of].since, standing[of].reason)
        for of in self._standing - standing.keys():
            self._ledgers[of].ends(at)
        self._standing = set(standing)

    def _at_its_limit(self, of: str) -> str:
        standing = self._outlook.warnings.get(of)
        if standing is not None and standing.left and not standing.left.seconds:
            return standing.reason
        return f"at its limit: {KINDS[of].says}"

    def _ask(self, at: float) -> None:
        """Note once a minute what the model says."""
        if at < self._due:
            return
        self._due = at + _MINUTE
        foretold = self._outlook.foretold()
        self._looked_at.update(found.of for found in foretold.runways)
        self._said.take(at, foretold.model.probability)

    def _pass(self, now: float) -> None:
        if self._last is not None and now - self._last <= _GAP:
            self._done.seen += now - self._last
        self._last = now
        self._done.readings += 1


def _without_forecasts(reading: Reading) -> Reading:
    """What the server itself said: what forecasts made of it is found out anew."""
    if _OWN.isdisjoint(reading.values):
        return reading
    values = {name: v for name, v in reading.values.items() if name not in _OWN}
    return replace(reading, values=values)


def _shares(reading: Reading) -> Iterator[tuple[str, Share]]:
    """Kind -> share of it that is taken, of those that a threshold is told of."""
    seen = reading.values
    if reading.probe == SATURATION:
        used, usable = number(seen, "slots_used"), number(seen, "slots_usable")
        if used is not None and usable:
            yield CONNECTIONS, used / usable
    elif reading.probe == PGBOUNCER:
        size = number(seen, "pooler_pool_size")
        shares = [
            (busy + waiting) / size
            for row in rows(seen, "pools")
            if size
            and (busy := number(row, "server_active")) is not None
            and (waiting := number(row, "waiting")) is not None
            # One that is larger than usual and has nobody waiting has room.
            and (busy < size or waiting)
        ]
        if size:
            yield POOL, max(shares, default=0.0)


# -- What came of it ---------------------------------------------------------------


class _Ledger:
    """The warnings and failures of one kind, one by one, as a `Score` counts them.

    Args:
        told: Where they are listed.
        record: Kind -> its score, of those that are counted.
    """

    def __init__(
        self,
        target: str,
        of: str,
        by: str,
        told: list[Told],
        record: Mapping[str, Score],
    ) -> None:
        self._target, self._of, self._by = target, of, by
        self._told = told
        self._is_scored = KINDS[of].is_scored
        self._totals = [0, 0, 0, 0]
        self._leads: list[Seconds] = []
        self._warnings = self._untold = 0
        self._open: Told | None = None  # the warning of which nothing came yet
        self.score = Score()
        self._seen = _counts(self.score)
        self.follow(record)

    def follow(self, record: Mapping[str, Score]) -> None:
        """Go on by another score; what came of the warning before will not be told."""
        self._close(Came.UNTOLD)
        self.score = record.get(self._of, self.score)
        self._seen = _counts(self.score)

    def look(self, at: float, reason: Callable[[], str]) -> None:
        """Note what the score has counted since: failures at *at*, warnings before."""
        counts = _counts(self.score)
        if counts == self._seen:
            return
        new = [now - before for now, before in zip(counts, self._seen, strict=True)]
        self._seen = counts
        self._totals = [a + b for a, b in zip(self._totals, new, strict=True)]
        came, late, false, missed = new
        if false:
            self._close(Came.FALSE)
        if came:
            self._leads.append(self.score.leads[-1])
            self._fails(at, reason(), Came.FORESEEN, Came.TRUE)
        if late:
            self._fails(at, reason(), Came.LATE, Came.LATE)
        if missed:
            self._fails(at, reason(), Came.MISSED, Came.UNTOLD)

    def begins(self, at: float, reason: str) -> None:
        """A warning began; one that came again is the same, one of what is there none."""
        is_new = self._open is None
        if is_new and (not self._is_scored or _is_open(self.score)):
            came = Came.UNTOLD if self._is_scored else Came.UNSCORED
            self._open = self._tell(at, reason, came, is_failure=False)
            self._warnings += 1
        elif self._open is not None:
            self._open.ended = None

    def ends(self, at: float) -> None:
        """The warning that stands ended."""
        if self._open is None:
            return
        self._open.ended = at
        if not self._is_scored:
            self._open = None

    def close(self, at: float) -> None:
        """The recording ends at *at*."""
        self.score.settle(at)
        self.look(at, str)
        self._close(Came.UNTOLD)

    def result(self) -> Result:
        """What came of all of them."""
        counts = dict(zip(_COUNTS, self._totals, strict=True))
        score = Score.recall_from({**counts, "leads": self._leads})
        return Result(
            of=self._of,
            by=self._by,
            score=score,
            warnings=self._warnings,
            untold=self._untold,
            is_scored=self._is_scored,
        )

    def _fails(self, at: float, reason: str, came: Came, of_warning: Came) -> None:
        failure = self._tell(at, reason, came, is_failure=True)
        if self._open is not None and of_warning is not Came.UNTOLD:
            self._open.lead = failure.lead = at - self._open.at
            self._close(of_warning)

    def _close(self, came: Came) -> None:
        if self._open is not None and self._is_scored:
            self._open.came = came
            self._untold += came is Came.UNTOLD
        self._open = None

    def _tell(self, at: float, reason: str, came: Came, *, is_failure: bool) -> Told:
        told = Told(
            at=at,
            target=self._target,
            of=self._of,
            by=self._by,
            is_failure=is_failure,
            reason=reason,
            came=came,
        )
        self._told.append(told)
        return told


def _counts(score: Score) -> tuple[int, int, int, int]:
    return score.came, score.late, score.false, score.missed


def _is_open(score: Score) -> bool:
    """Whether there is a warning of which nothing came yet: that would be false, were it
    to end now and nothing to come."""
    later = copy(score)
    later.ends(0.0)
    later.settle(_EVER)
    return later.false > score.false


class _Level:
    """Warns while so large a share is taken, and keeps the record of that.

    Attributes:
        ledger: What came of it.
    """

    def __init__(self, threshold: Share, ledger: _Ledger, says: str) -> None:
        self.ledger = ledger
        self._threshold = threshold
        self._says = says
        self._is_above = False

    def take(self, at: float, share: Share) -> None:
        """Take what share is taken."""
        reason = f"{percent(share)} of the {self._says} are taken"
        if share >= 1.0:
            self.fails(at, reason)
        is_above = share >= self._threshold
        if is_above == self._is_above:
            return
        self._is_above = is_above
        if is_above:
            self.ledger.score.begins(at)
            self.ledger.look(at, str)
            self.ledger.begins(at, reason)
        else:
            self.ledger.score.ends(at)
            self.ledger.ends(at)

    def fails(self, at: float, reason: str) -> None:
        """Take that nothing is left."""
        self.ledger.score.fails(at)
        self.ledger.look(at, lambda: reason)


class Said:
    """What the model said, minute by minute, and whether a breaker opened soon after."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Share]] = deque()
        self._bins = [Bin(n / _BINS, (n + 1) / _BINS) for n in range(_BINS)]

    def take(self, at: float, said: Share | None) -> None:
        """Take what it says now. None: nothing."""
        self._settle(at)
        if said is not None:
            self._waiting.append((at, said))

    def opened(self, at: float) -> None:
        """A breaker opened by itself; what was said just before was no foresight."""
        self._settle(at)
        for since, said in self._waiting:
            if at - since >= LEAD:
                self._count(said, came=True)
        self._waiting.clear()

    def _settle(self, at: float) -> None:
        while self._waiting and at - self._waiting[0][0] > HORIZON:
            self._count(self._waiting.popleft()[1], came=False)

    def _count(self, said: Share, *, came: bool) -> None:
        one = self._bins[min(int(said * _BINS), _BINS - 1)]
        one.minutes += 1
        one.came += came
        one.total += said

    def bins(self) -> list[Bin]:
        """Those in which it said anything."""
        return [one for one in self._bins if one.minutes]
