"""What is unlike usual on one target: its readings, minute by minute, as a few signals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, expm1, inf, log, log1p
from typing import Any, Final

from pgbreaker.core.forecast.change import Cusum
from pgbreaker.core.forecast.foretold import Change
from pgbreaker.core.forecast.sketch import Sketch
from pgbreaker.core.forecast.usual import Usual
from pgbreaker.core.judge import is_bad
from pgbreaker.core.reading import Finding, Reading, Row, Seen
from pgbreaker.core.remembered import part, reading, several
from pgbreaker.core.units import Seconds, Share, lasting, percent
from pgbreaker.core.wall import moment
from pgbreaker.monitor.outlook.values import number

VERSION: Final = 1
"""Of what is remembered: another one is not read."""

_MINUTE: Final[Seconds] = 60.0
_DAY: Final[Seconds] = 86_400.0
_FARTHEST: Final = 8.0  # spreads that a feature tells apart
_FEWEST: Final = 20  # calls or transactions: of fewer a mean is chance
_KEPT_A_DAY: Final[Share] = 0.5 ** (
    1 / 14
)  # as what is usual forgets: half in two weeks
_SHORTEST: Final[Seconds] = 1e-6
_OK: Final = Finding.OK


@dataclass(frozen=True, slots=True)
class _Signal:
    """How one signal is weighed and worded.

    Attributes:
        says: What its value is part of: "ping takes {}".
        absolute: The least spread, in what it is measured in.
        relative: The same as a share of what is usual.
        words: Says a value.
        value_of: Turns what it is measured in, such as a logarithm, into the value.
        half: Value of which the level is one half. None: the value is its own level.
    """

    says: str
    absolute: float
    relative: float = 0.0
    words: Callable[[float], str] = "{:.1f}".format
    value_of: Callable[[float], float] = float
    half: float | None = None


def _exp(number: float) -> float:
    return exp(min(number, 100.0))


def _expm1(number: float) -> float:
    return expm1(min(number, 100.0))


def _time(says: str, absolute: float) -> _Signal:
    """Seconds, by their logarithm: 0.15 are 15 %."""
    return _Signal(says, absolute, words=lasting, value_of=_exp)


def _age(says: str, absolute: float) -> _Signal:
    """Seconds of which none are many: by the logarithm of one more."""
    return _Signal(says, absolute, words=lasting, value_of=_expm1)


# A spread below these would make a change out of what nobody cares about.
_SIGNALS: Final[Mapping[str, _Signal]] = {
    "ping": _time("ping takes {}", 0.15),
    "login": _time("a login takes {}", 0.2),
    "commit": _time("a commit takes {}", 0.25),
    "latency": _time("the canary takes {}", 0.2),
    "statements": _time("a statement takes {} on average", 0.25),
    "errors": _Signal("{} of what is asked fails or is slow", 0.02, 0.2, percent),
    "lock_waiters": _Signal(
        "{} sessions wait for a lock", 1.5, 0.25, "{:.0f}".format, half=10.0
    ),
    "active": _Signal("{} clients are active", 1.5, 0.2),
    "used": _Signal("{} of the usable slots are taken", 0.03, 0.1, percent),
    "idle_in_transaction": _Signal("{} clients are idle in transaction", 1.5, 0.25),
    "waiting": _Signal("{} clients wait for I/O or within the server", 1.5, 0.25),
    "oldest_transaction": _age("the oldest transaction is {} old", 1.0),
    "connects": _Signal("{} sessions begin a second", 0.5, 0.25),
    "rollbacks": _Signal("{} of transactions are rolled back", 0.03, 0.2, percent),
    "pool_wait": _Signal(
        "clients wait {} for the pooler", 0.05, 0.25, lasting, half=1.0
    ),
    "lag": _age("the replica's data are {} old", 0.5),
}
_NAMES: Final = tuple(_SIGNALS)
_LEVELS: Final = ("used", "errors", "lock_waiters", "pool_wait")

FEATURES: Final[tuple[str, ...]] = (
    *_NAMES,
    *(f"{name}_level" for name in _LEVELS),
    "change",
)
"""The names of `Signals.features`: by how much each signal is above (below 0: below) what
is usual, 1 for eight spreads or more; how much some are, whatever is usual, 0 to 1; how
certain the most certain change is, 0 to 1, from a half on it is one."""


class Signals:
    """The signals of one target, of which each minute has one value each.

    A signal that nothing was heard of in a minute is absent in it: its features are 0,
    and a change of it is not told.

    Args:
        wall_of: Shows a moment as wall time, in seconds since the epoch.

    Attributes:
        features: Of the last minute that was closed, as `FEATURES` names them.
        changes: The changes that stand, as of then.
    """

    def __init__(self, wall_of: Callable[[Seconds], float]) -> None:
        self._wall_of = wall_of
        self._usual = _new_usual()
        self._change = _new_changes()
        self._seen = _new_sketches()
        self._minutes = 0  # of the day since these were aged
        # The current minute: moments before and after it are of another. A reading is
        # told of when it ends, so those of the minute before are still let in.
        self._from, self._edge = inf, -inf
        self._told = self._bad = 0
        self._timed = {
            probe: _Mean() for probe in ("ping", "login", "commit", "latency")
        }
        self._means = {
            name: _Mean()
            for name in (
                "active",
                "used",
                "idle_in_transaction",
                "waiting",
                "oldest_transaction",
                "lag",
            )
        }
        self._most: dict[str, float] = {}  # of lock_waiters and pool_wait
        self._statements, self._sessions, self._ends = _Grown(), _Grown(), _Grown()
        self._takers: dict[str, Callable[[Seconds, Seen], None]] = {
            "saturation": self._take_saturation,
            "blocking": self._take_blocking,
            "database": self._take_database,
            "statements": self._take_statements,
            "pgbouncer": self._take_pgbouncer,
            "replication": self._take_replication,
        }
        self.features: tuple[float, ...] = (0.0,) * len(FEATURES)
        self.changes: list[Change] = []

    def take(self, reading: Reading) -> bool:
        """Learn from *reading*, answered or not; returns whether a minute was closed."""
        at = reading.at
        is_closed = not self._from <= at < self._edge and self._turn(at)
        if reading.finding is _OK:
            self._told += 1
            timed = self._timed.get(reading.probe)
            if timed is not None:
                timed.take_time(reading.took)
                return is_closed
        elif reading.finding is Finding.SLOW or is_bad(reading):
            self._told += 1
            self._bad += 1
            timed = self._timed.get(reading.probe)
            if timed is not None and reading.answered:
                timed.take_time(reading.took)
        taker = self._takers.get(reading.probe)
        if taker is not None and reading.values:
            taker(at, reading.values)
        return is_closed

    # -- Within a minute -----------------------------------------------------------

    def _take_saturation(self, _at: Seconds, seen: Seen) -> None:
        means = self._means
        used, usable = number(seen, "slots_used"), number(seen, "slots_usable")
        if used is not None and usable is not None and usable > 0:
            means["used"].take(used / usable)
        for name in ("active", "idle_in_transaction"):
            count = number(seen, name)
            if count is not None:
                means[name].take(count)
        inside, outside = number(seen, "waiting_lwlock"), number(seen, "waiting_io")
        if inside is not None and outside is not None:
            means["waiting"].take(inside + outside)
        self._take_age("oldest_transaction", number(seen, "oldest_transaction_seconds"))

    def _take_blocking(self, _at: Seconds, seen: Seen) -> None:
        self._take_most("lock_waiters", number(seen, "lock_waiters"))

    def _take_pgbouncer(self, _at: Seconds, seen: Seen) -> None:
        self._take_most("pool_wait", number(seen, "pooler_maxwait_seconds"))

    def _take_replication(self, _at: Seconds, seen: Seen) -> None:
        self._take_age("lag", number(seen, "replay_age_seconds"))

    def _take_statements(self, _at: Seconds, seen: Seen) -> None:
        calls = number(seen, "statement_calls")
        self._statements.take(calls, number(seen, "statement_seconds"))

    def _take_database(self, at: Seconds, seen: Seen) -> None:
        rows = seen.get("databases")
        if not isinstance(rows, tuple) or not rows:
            return
        # Which databases have a row of their own changes; the sum does not.
        self._sessions.take(at, _sum(rows, "sessions"))
        self._ends.take(_sum(rows, "commits"), _sum(rows, "rollbacks"))

    def _take_age(self, name: str, age: Seconds | None) -> None:
        if age is not None:
            self._means[name].take(log1p(max(age, 0.0)))

    def _take_most(self, name: str, value: float | None) -> None:
        if value is not None:
            self._most[name] = max(value, self._most.get(name, value))

    # -- From minute to minute -----------------------------------------------------

    def _turn(self, at: Seconds) -> bool:
        """Begin the minute of *at*; returns whether there was one before it."""
        edge = self._edge
        is_closed = edge > -inf
        if is_closed:
            self._close(self._wall_of(edge))
        follows = edge <= at < edge + _MINUTE
        self._edge = edge + _MINUTE if follows else at + _MINUTE
        self._from = self._edge - 2 * _MINUTE
        return is_closed

    def _close(self, wall: float) -> None:
        """Weigh the minute that ended at *wall*."""
        values = self._values()
        certain = 0.0
        features = []
        changes = []
        for name in _NAMES:
            value = values.get(name)
            far = None if value is None else self._usual[name].take(wall, value)
            if value is None or far is None:
                features.append(0.0)
                continue
            change = self._change[name]
            change.take(wall, far)
            certain = max(certain, change.level)
            features.append(min(max(far / _FARTHEST, -1.0), 1.0))
            if change.since is not None:
                changes.append(self._told_of(name, change.since, wall, value))
        self._look_back(values)
        levels = (_level(name, values.get(name)) for name in _LEVELS)
        self.features = (*features, *levels, min(certain / 2, 1.0))
        self.changes = changes

    def _look_back(self, values: Mapping[str, float]) -> None:
        """Remember how large signals have been, whatever the hour."""
        for name, value in values.items():
            self._seen[name].take(_SIGNALS[name].value_of(value))
        self._minutes += 1
        if self._minutes >= _DAY / _MINUTE:
            self._minutes = 0
            for sketch in self._seen.values():
                sketch.age(_KEPT_A_DAY)

    def _values(self) -> dict[str, float]:
        """What the signals that there are were in this minute; begins the next one."""
        values = self._most
        self._most = {}
        for means in (self._timed, self._means):
            for name, mean in means.items():
                if mean.count:
                    values[name] = mean.ended()
        if self._told:
            values["errors"] = self._bad / self._told
        self._told = self._bad = 0
        self._count_up(values)
        return values

    def _count_up(self, values: dict[str, float]) -> None:
        calls, spent = self._statements.ended()
        if calls >= _FEWEST and spent > 0:
            values["statements"] = log(max(spent / calls, _SHORTEST))
        seconds, sessions = self._sessions.ended()
        if seconds > 0:
            values["connects"] = sessions / seconds
        committed, rolled_back = self._ends.ended()
        if committed + rolled_back >= _FEWEST:
            values["rollbacks"] = rolled_back / (committed + rolled_back)

    def _told_of(self, name: str, since: float, wall: float, value: float) -> Change:
        signal = _SIGNALS[name]
        expected = self._usual[name].expects(wall)
        assert expected is not None  # or nothing had been said of a deviation
        now, usual = signal.value_of(value), signal.value_of(expected.middle)
        usual = max(usual, 0.0)  # a mean of what was on both sides of the level
        above = min(self._seen[name].rank(now) or 0.0, 0.99)
        text = (
            f"{signal.says.format(signal.words(now))}, usually {signal.words(usual)} at"
            f" this hour and less in {percent(above)} of all minutes, since"
            f" {_clock(since, wall)}"
        )
        return Change(signal=name, since=since, now=now, usual=usual, text=text)

    # -- Memory --------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """What is remembered of them, fit for JSON: below 20 kB."""
        return {
            "version": VERSION,
            "signals": {
                name: [
                    usual.memory(),
                    self._change[name].memory(),
                    self._seen[name].memory(),
                ]
                for name, usual in self._usual.items()
                if usual.is_taught
            },
        }

    @reading("memory of signals")
    def recall(self, memory: Mapping[str, Any]) -> None:
        """Know what is remembered; the minute under way goes on.

        Raises:
            ValueError: `memory` did not write this, or that of another version did;
                nothing has changed then.
        """
        self._usual, self._change, self._seen = _recalled(memory)


class _Mean:
    """The mean of what was taken since the last minute ended."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    def take(self, value: float) -> None:
        self.total += value
        self.count += 1

    def take_time(self, took: Seconds) -> None:
        """Take its logarithm: one that is ten times as long is not all that counts."""
        if 0 <= took < inf:
            self.total += log(took if took > _SHORTEST else _SHORTEST)
            self.count += 1

    def ended(self) -> float:
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        return mean


class _Grown:
    """By how much two counters have grown together since the last minute ended.

    Those that were reset go backwards; what is between is not known, and left out.
    """

    __slots__ = ("_first", "_last", "_second")

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._first = self._second = 0.0

    def take(self, first: float | None, second: float | None) -> None:
        if first is None or second is None:
            return
        last, self._last = self._last, (first, second)
        if last is not None and first >= last[0] and second >= last[1]:
            self._first += first - last[0]
            self._second += second - last[1]

    def ended(self) -> tuple[float, float]:
        grown = self._first, self._second
        self._first = self._second = 0.0
        return grown


def _new_usual() -> dict[str, Usual]:
    return {
        name: Usual(absolute=signal.absolute, relative=signal.relative)
        for name, signal in _SIGNALS.items()
    }


def _new_changes() -> dict[str, Cusum]:
    return {name: Cusum() for name in _NAMES}


def _new_sketches() -> dict[str, Sketch]:
    # One in twenty is as well as people read it, and 64 buckets span three decades.
    return {name: Sketch(error=0.05, most=64) for name in _NAMES}


def _recalled(
    memory: Mapping[str, Any],
) -> tuple[dict[str, Usual], dict[str, Cusum], dict[str, Sketch]]:
    if memory["version"] != VERSION:
        raise ValueError(f"version {memory['version']!r} of memory is not {VERSION}")
    usuals, changes, sketches = _new_usual(), _new_changes(), _new_sketches()
    for name, remembered in part(memory, "signals").items():
        if name not in usuals:
            raise ValueError(f"none is called {name!r}")
        usual, change, sketch = several(remembered, name, 3)
        usuals[name].recall(usual)
        changes[name].recall(change)
        sketches[name].recall(sketch)
    return usuals, changes, sketches


def _level(name: str, value: float | None) -> Share:
    if value is None or value <= 0:
        return 0.0
    half = _SIGNALS[name].half
    return min(value, 1.0) if half is None else value / (value + half)


def _clock(since: float, wall: float) -> str:
    """The time of the day, with the day where that is another."""
    told = moment(since)
    is_today = since // _DAY == wall // _DAY
    return f"{told[11:16]} UTC" if is_today else f"{told[:10]} {told[11:16]} UTC"


def _sum(rows: tuple[Row, ...], name: str) -> float | None:
    """None: one of them does not tell."""
    total = 0.0
    for row in rows:
        value = number(row, name)
        if value is None:
            return None
        total += value
    return total
