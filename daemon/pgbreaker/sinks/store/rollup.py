"""What is kept of readings for weeks: counted by the minute, and the last bad ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import PING
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.store.books import FAILURES, Counts
from pgbreaker.sinks.store.rows import Bucket, Failure, fit

_MINUTE: Final = 60
_NO_NEWS: Final = (Finding.OK, Finding.SLOW, Finding.SKIPPED, Finding.ABSENT)


@dataclass(slots=True)
class _Pings:
    """Pings of one target in one minute."""

    count: int = 0
    total: Seconds = 0.0
    most: Seconds = 0.0
    bad: int = 0


@dataclass(slots=True)
class _Minutes:
    """What was counted and not handed on."""

    pings: dict[tuple[str, int], _Pings] = field(default_factory=dict)
    shut: dict[tuple[str, int], Seconds] = field(default_factory=dict)
    failures: dict[str, list[Failure]] = field(default_factory=dict)


class Rollup:
    """Counts pings, and the time in which breakers let no calls pass; a sink.

    Args:
        told: Is given what was counted, with each `flush`; such as `Store.count`.
    """

    def __init__(
        self, board: Board, clock: Clock, told: Callable[[Counts], None]
    ) -> None:
        self._board = board
        self._clock = clock
        self._told = told
        self._minutes = _Minutes()
        # Breaker -> since when it has been shut and that has not been counted.
        self._shut: dict[str, Seconds] = {}

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Reading():
                self._take(event)
            case Transition():
                self._measure(event.breaker, event.at)

    def _take(self, reading: Reading) -> None:
        wall = self._clock.wall_of(reading.at)
        if reading.probe == PING:
            key = (reading.target, _minute(wall))
            pings = self._minutes.pings.setdefault(key, _Pings())
            if reading.answered:
                pings.count += 1
                pings.total += reading.took
                pings.most = max(pings.most, reading.took)
            else:
                pings.bad += 1
        if reading.finding not in _NO_NEWS:
            known = self._minutes.failures.setdefault(reading.target, [])
            known.append(_failure(reading, wall))
            del known[:-FAILURES]

    def _measure(self, name: str, now: Seconds) -> None:
        """Count the time that a breaker was shut until *now*, and look how it is."""
        since = self._shut.pop(name, None)
        if since is not None:
            self._count(name, since, now)
        breaker = self._board.breaker(name)
        if breaker is not None and not breaker.passes:
            self._shut[name] = now

    def _count(self, name: str, since: Seconds, until: Seconds) -> None:
        start = self._clock.wall_of(since)
        end = start + max(0.0, until - since)
        while start < end:
            minute = _minute(start)
            piece = min(end, minute + _MINUTE) - start
            key = (name, minute)
            self._minutes.shut[key] = self._minutes.shut.get(key, 0.0) + piece
            start = minute + _MINUTE

    def flush(self, now: Seconds | None = None) -> None:
        """Hand on what was counted until *now*; None: until now.

        To be called about once a minute, and at the end. What is handed on in the middle
        of a minute is added to by what comes later.
        """
        moment = self._clock.now() if now is None else now
        shut = {
            breaker.name
            for target in self._board.targets.values()
            for breaker in target.breakers.values()
            if not breaker.passes
        }
        for name in shut | self._shut.keys():
            self._measure(name, moment)
        minutes, self._minutes = self._minutes, _Minutes()
        counts = Counts(
            {
                (target, start): Bucket(start, p.count, p.total, p.most, p.bad)
                for (target, start), p in minutes.pings.items()
            },
            minutes.shut,
            [f for failures in minutes.failures.values() for f in failures],
        )
        if len(counts):
            self._told(counts)


def _minute(wall: float) -> int:
    return int(wall // _MINUTE) * _MINUTE


def _failure(reading: Reading, wall: float) -> Failure:
    seen = reading.evidence
    return Failure(
        target=reading.target,
        at=wall,
        probe=reading.probe,
        finding=reading.finding.value,
        took=reading.took,
        sqlstate=None if seen is None else fit(seen.sqlstate),
        text=None if seen is None else fit(seen.text),
    )
