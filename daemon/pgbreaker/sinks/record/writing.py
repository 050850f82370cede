"""From events to lines, of which each says only what is new.

The line of a reading is an array: number of its stream (a probe of a target), by how much
the breakers were told later than was due, how long it took; then by how much they were
told later than it had taken, and pairs, place and value, of what is not as it was in the
line before of the same stream. Rows are told likewise, each against the one that stood in
its place. A stream is declared first, with the names of its places. Whoever begins to
read at a ``begun`` or an ``anew`` understands all that follows.

Moments and durations are in `TICKS`, but what breakers were told later by: that is in
milliseconds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Reading, Row
from pgbreaker.core.states import Evidence, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.record.discreet import Discreet
from pgbreaker.sinks.record.told import SCHEMA, TICKS

_LONGEST: Final = 16 * 1024  # bytes of a line; more is rows that nobody judges by
_ANEW: Final[Seconds] = 3600.0  # what is damaged costs no more than this
_FIRST: Final = 5  # place of the first value; before it is what every reading has
_UNSAID: Final = object()

_written = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=str
).encode


def ticks(moment: Seconds) -> int:
    """Whole ticks of *moment*. Rounded down: what was quicker than a limit stays so."""
    return int(moment * TICKS + 1e-3)


def head(
    targets: Iterable[TargetPlan],
    version: str,
    at: Seconds,
    wall: float,
    *,
    goes_on: bool,
) -> dict[str, Any]:
    """The first line of a file, and of each run in it: whose clock follows, and by which
    rules it was judged. What is the same of many targets stands there once.

    Args:
        at: Moment by the clock of the run, and *wall* the same by that of the wall.
        goes_on: Whether breakers have seen more than what follows.
    """
    numbers: dict[str, int] = {}
    rules: list[dict[str, Any]] = []
    named = {}
    for plan in targets:
        own = _rules(plan)
        number = numbers.setdefault(_written(own), len(numbers))
        if number == len(rules):
            rules.append(own)
        named[plan.name] = number
    return {
        "kind": "begun",
        "schema": SCHEMA,
        "version": version,
        "at": ticks(at) / TICKS,
        "wall": round(wall, 6),
        "goes_on": goes_on,
        "rules": rules,
        "targets": named,
    }


def _rules(plan: TargetPlan) -> dict[str, Any]:
    def asked(name: str) -> dict[str, float]:
        probe = plan.probes[name]
        told = {
            "interval": probe.interval,
            "timeout": probe.timeout,
            "limit": probe.limit,
            "capacity": probe.capacity,
        }
        return {key: value for key, value in told.items() if value is not None}

    return {
        "operations": plan.operations,
        "policy": asdict(plan.policy),
        "probes": {name: asked(name) for name in plan.probes},
    }


class _Stream:
    """What was said last of a probe of a target.

    Attributes:
        number: What it is called in lines.
        every: Ticks after which the next reading is due.
        due: Ticks at which it is.
        names: Names of the values, in the order in which the probe gives them.
        columns: For each value that is written: names of the columns of its rows; None
            for one that has none.
        said: What was said last, in the order of the places.
    """

    __slots__ = ("columns", "due", "every", "names", "number", "said")

    def __init__(self, number: int, every: int, now: int) -> None:
        self.number, self.every, self.due = number, every, now
        self.names: tuple[str, ...] = ()
        self.columns: list[tuple[str, ...] | None] = []
        self.said: list[Any] = [_UNSAID] * _FIRST

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether the columns of all rows are known; none are while there was no row."""
        return not any(
            isinstance(value, tuple) and (columns is None or (value and not columns))
            for value, columns in zip(values, self.columns, strict=True)
        )


class Lines:
    """Writes the lines of one file after the other.

    Args:
        computed: Names of values that follow from what was seen before, and that a
            reader finds out anew: they are left out.
    """

    def __init__(self, computed: Iterable[str] = ()) -> None:
        self._computed = frozenset(computed)
        self._discreet: Discreet = str
        self._every: Mapping[tuple[str, str], int] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._now = 0
        self._anew = 0

    def begin(
        self, targets: Iterable[TargetPlan], told: dict[str, Any], discreet: Discreet
    ) -> bytes:
        """The line of a head, *told*; what was said before counts no more."""
        self._discreet = discreet
        self._every = {
            (plan.name, name): ticks(probe.interval)
            for plan in targets
            for name, probe in plan.probes.items()
        }
        self._forget(ticks(told["at"]))
        return _line(told)

    def _forget(self, now: int) -> None:
        self._streams = {}
        self._now, self._anew = now, now + ticks(_ANEW)

    def of_move(self, move: Transition) -> bytes:
        """The line of a move."""
        told = {
            "kind": "move",
            "breaker": move.breaker,
            "from": move.before.value,
            "to": move.after.value,
            "cause": move.cause.value,
            "reason": self._discreet(move.reason),
            "at": round(move.at, 6),
            "retry_after": round(move.retry_after, 6),
            "override": None if move.override is None else move.override.value,
        }
        return _line(told)

    def of_reading(self, reading: Reading, told: Seconds) -> bytes:
        """The lines of a reading: its own, and before it those that explain it.

        Args:
            told: Moment at which breakers were told.
        """
        now, before = ticks(told), b""
        if now >= self._anew:
            self._forget(now)
            before = _line({"kind": "anew", "at": now / TICKS})
        seen = {n: v for n, v in reading.values.items() if n not in self._computed}
        names, values = tuple(seen), tuple(seen.values())
        stream = self._streams.get((reading.target, reading.probe))
        if stream is None or (
            names and (names != stream.names or not stream.fits(values))
        ):
            stream = self._new_stream(reading, names, values, stream)
            before += self._declared(reading, stream)
        took = ticks(reading.took)
        beginning = f"[{stream.number},{now - stream.due},{took}"
        stream.due = now + stream.every
        lag = (now - took - ticks(reading.at)) * 1000 // TICKS
        said = [
            *(reading.finding.value, reading.judged, reading.confirmed),
            *(reading.evidence, not names),
            *values,
        ]
        line = self._changes(stream, said, beginning, lag)
        if len(line) > _LONGEST:
            said = [() if isinstance(one, tuple) else one for one in said]
            line = self._changes(stream, said, beginning, lag)
        stream.said[: len(said)] = said
        return before + line

    def _new_stream(
        self,
        reading: Reading,
        names: tuple[str, ...],
        values: Sequence[Any],
        last: _Stream | None,
    ) -> _Stream:
        whose = (reading.target, reading.probe)
        number = len(self._streams) if last is None else last.number
        due = self._now if last is None else last.due
        stream = _Stream(number, self._every.get(whose, 0), due)
        stream.names = names
        stream.columns = [
            (tuple(v[0]) if v else ()) if isinstance(v, tuple) else None for v in values
        ]
        stream.said = [_UNSAID] * (_FIRST + len(values))
        self._streams[whose] = stream
        return stream

    def _declared(self, reading: Reading, stream: _Stream) -> bytes:
        places = [
            name if columns is None else [name, columns]
            for name, columns in zip(stream.names, stream.columns, strict=True)
        ]
        whose = (reading.target, reading.probe)
        return _line(["stream", stream.number, *whose, stream.every, places])

    def _changes(
        self, stream: _Stream, said: list[Any], beginning: str, lag: int
    ) -> bytes:
        told: list[Any] = []
        for place, (value, old) in enumerate(zip(said, stream.said, strict=False)):
            if value is not old and value != old:
                told += (place, self._cell(stream, place, value, old))
        if told:
            return _encoded(f"{beginning},{_written([lag, *told])[1:]}\n")
        return (f"{beginning},{lag}]\n" if lag else f"{beginning}]\n").encode()

    def _cell(self, stream: _Stream, place: int, value: object, old: object) -> object:
        if place < _FIRST:
            return self._evidence(value) if isinstance(value, Evidence) else value
        if not isinstance(value, tuple):
            return self._scalar(value)
        columns = stream.columns[place - _FIRST]
        last = old if isinstance(old, tuple) else ()
        before = (*last[: len(value)], *[None] * (len(value) - len(last)))
        return [
            0 if row == was else self._row(row, was, columns)
            for row, was in zip(value, before, strict=True)
        ]

    def _row(
        self, row: Row, was: Row | None, columns: tuple[str, ...] | None
    ) -> object:
        """Pairs, column and value, of what is not as it *was*; an odd row as it is."""
        if tuple(row) != columns:
            return {name: self._scalar(value) for name, value in row.items()}
        is_like = was is not None and tuple(was) == columns
        told: list[object] = []
        for place, (name, value) in enumerate(row.items()):
            if not is_like or was is None or value != was[name]:
                told += (place, self._scalar(value))
        return told

    def _scalar(self, value: object) -> object:
        if type(value) is float:  # to a millionth: of itself, or of one
            return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")
        return self._discreet(value) if isinstance(value, str) else value

    def _evidence(self, seen: Evidence) -> list[Any]:
        told = [seen.code, self._discreet(seen.text), seen.sqlstate, seen.probe]
        return [*told, seen.hint] if seen.hint else told


def _line(told: object) -> bytes:
    return _encoded(f"{_written(told)}\n")


def _encoded(text: str) -> bytes:
    # Half a character, as file names can hold, is written as JSON escapes it.
    return text.encode("utf-8", "backslashreplace")
