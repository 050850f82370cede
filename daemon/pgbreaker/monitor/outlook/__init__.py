"""What follows from what probes saw before: how long until something runs out, what is
not as usual, how likely a breaker opens.

All of it warns, none of it opens a breaker.

    runways   how long is left of what runs out      owners   whose connections they are
    signals   readings, by the minute                counts   counters, as they are shown
    standing  warnings, and what came of them        shown    all of it as metrics
    naming    the model's features, for people
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pgbreaker.core.entry import BY_OPERATORS
from pgbreaker.core.forecast.foretold import Foretold, Model
from pgbreaker.core.forecast.odds import Odds
from pgbreaker.core.forecast.warning import CONNECTIONS, FAILURE, Forewarning
from pgbreaker.core.judge import SATURATION, is_of_role
from pgbreaker.core.reading import NOTHING, Finding, Reading, Seen, Value
from pgbreaker.core.remembered import part, reading
from pgbreaker.core.states import BY_DAEMONS, SHUT, State, Transition
from pgbreaker.core.units import Seconds, Share, percent
from pgbreaker.monitor.outlook.counts import Counts
from pgbreaker.monitor.outlook.naming import said_of
from pgbreaker.monitor.outlook.runways import Runways
from pgbreaker.monitor.outlook.shown import COMPUTED as COMPUTED
from pgbreaker.monitor.outlook.shown import OUTLOOK as OUTLOOK
from pgbreaker.monitor.outlook.signals import FEATURES, Signals
from pgbreaker.monitor.outlook.standing import Warnings

_VERSION: Final = 1  # of what is remembered
_REASONS: Final = 3
_BY_OTHERS: Final = BY_OPERATORS | BY_DAEMONS


def opens_by_itself(move: Transition) -> bool:
    """Whether a breaker has seen work fail that did not, whoever's word goes before it."""
    is_own = move.cause not in _BY_OTHERS and not is_of_role(move.evidence)
    return is_own and move.after in SHUT and move.before not in SHUT


class Outlook:
    """What the readings of one target, one after the other, say of its future.

    Args:
        wall_of: Shows a moment as wall time: what is usual depends on the hour.
        capacity: Bytes of the disk that holds its data and WAL. None: not known.
        lag_limit: Seconds that a replica may be behind. None: as many as it likes.
        bearer: Name of the probe whose readings carry what is said of no probe alone.
        troubled: Names of the target's breakers that are not closed as it begins, but for
            those that are so by the server's role.
        is_planned: Whether the target is in maintenance: what fails then teaches nothing,
            and is not counted.
    """

    def __init__(
        self,
        wall_of: Callable[[Seconds], float] = lambda at: at,
        *,
        capacity: float | None = None,
        lag_limit: Seconds | None = None,
        bearer: str = SATURATION,
        troubled: Iterable[str] = (),
        is_planned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._wall_of = wall_of
        self._bearer = bearer
        self._runways = Runways(capacity, lag_limit)
        self._counts = Counts()
        self._signals = Signals(wall_of)
        self._odds = Odds(FEATURES)
        self._probability: Share | None = None
        self._warnings = Warnings(is_planned)
        self._is_planned = is_planned
        self._troubled = set(troubled)
        self._is_new = bool(self._troubled)  # and knows of no opening that led there
        self._borne: dict[str, Value] = {}
        self._bear(0.0)

    def take(self, reading: Reading) -> Seen:
        """Learn from *reading*, answered or not; returns what follows from it, by name.

        What cannot be told is None. A reading without values says nothing.
        """
        if self._signals.take(reading):
            self._expect(reading.at)
        if not reading.values or not reading.answered:
            return NOTHING
        seen = self._runways.take(reading)
        if seen:
            self._warn(reading)
        counts = self._counts.take(reading)
        if counts:
            seen = {**seen, **counts}
            self._runways.take_slowness(reading.at, self._counts.slowness)
        return {**seen, **self._borne} if reading.probe == self._bearer else seen

    def note(self, move: Transition) -> None:
        """Learn from what a breaker of the target does by itself, also where somebody's
        word goes before it."""
        if move.cause in _BY_OTHERS:
            return
        at, seen = move.at, move.evidence
        if move.after is State.CLOSED:
            self._troubled.discard(move.breaker)
            if not self._troubled:
                self._odds.closed(at)
            return
        if not opens_by_itself(move):
            return
        self._troubled.add(move.breaker)
        self._odds.opened(at)
        self._warnings.fails(FAILURE, at)
        if seen and seen.code == Finding.FULL:
            self._warnings.fails(CONNECTIONS, at)

    @property
    def warnings(self) -> Mapping[str, Forewarning]:
        """Kind -> the warning of it that stands."""
        return self._warnings.standing

    def foretold(self) -> Foretold:
        """All of it, for whoever shows it."""
        return Foretold(
            warnings=self._warnings.by_urgency(),
            runways=self._runways.all(),
            model=self._model(),
            changes=tuple(self._signals.changes),
            record=self._warnings.record,
        )

    def _model(self) -> Model:
        odds = self._odds
        return Model(
            probability=self._probability,
            silent_because=odds.silent_because,
            reasons=self._reasons(),
            openings=odds.openings,
            begun=odds.begun,
            learned=odds.learned,
        )

    def memory(self) -> dict[str, Any]:
        """What it has learned, fit for JSON. Moments in it are wall time: those of a
        process are of no use to the next."""
        epoch = self._wall_of(0.0)
        return {
            "version": _VERSION,
            "record": self._warnings.memory(epoch),
            "runways": self._runways.memory(epoch),
            "odds": self._odds.memory(),
            "signals": self._signals.memory(),
        }

    def recall(self, memory: Mapping[str, Any], ago: Seconds = 0.0) -> None:
        """Go on by a memory that was written so many seconds *ago*.

        Raises:
            ValueError: It is none.
        """
        names = ("record", "odds", "signals", "runways")
        with reading("memory of a forecast"):
            if memory["version"] != _VERSION:
                raise ValueError(f"version {memory['version']!r} is not {_VERSION}")
            record, odds, signals, runways = (part(memory, name) for name in names)
        epoch = self._wall_of(0.0)
        self._warnings.recall(record, epoch)
        self._runways.recall(runways, epoch)
        self._odds.recall(odds, ago)
        self._signals.recall(signals)
        self._bear(0.0)

    def _warn(self, reading: Reading) -> None:
        found, reason = self._runways.seen_by(reading.probe), self._runways.reason
        if self._runways.has_other_limits:
            self._warnings.drop(reading.at, CONNECTIONS)
        looks = [self._warnings.look(reading.at, one, reason) for one in found]
        if any(looks):
            self._bear(reading.at)

    def _expect(self, at: Seconds) -> None:
        """Say how likely a failure is, now that a minute is over."""
        if self._is_new:
            self._is_new = False
            self._odds.opened(at)
        if self._is_planned():
            self._odds.skip(at)
        self._probability = self._odds.take(at, self._signals.features)
        self._warnings.expect(at, self._probability, self._why)
        self._warnings.age(at)
        self._bear(at)

    def _why(self) -> str:
        return (
            f"with {percent(self._probability or 0.0)} a breaker opens within a quarter of"
            f" an hour, by what {self._odds.openings} openings have taught; what weighs"
            f" most: {', '.join(self._reasons())}"
        )

    def _reasons(self) -> tuple[str, ...]:
        """What weighs most, for people, to whom two features can be one."""
        named = (said_of(name) for name, _ in self._odds.reasons(2 * _REASONS))
        return tuple(dict.fromkeys(named))[:_REASONS]

    def _bear(self, at: Seconds) -> None:
        """Put together what is said of no probe alone."""
        begun, learned = self._odds.begun, self._odds.learned
        self._borne = {
            "failure_probability": self._probability,
            "model_begun": None if begun is None else self._wall_of(begun),
            "model_learned": None if learned is None else self._wall_of(learned),
            **self._warnings.values(at),
        }
