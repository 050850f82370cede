"""What applications tell of their breakers, kept for as long as they go on telling.

It is only shown: nothing that decides reads from here. What is counted is counted as it
comes, so that a page or a scrape costs the same for one process and for ten thousand.
"""

import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.core.report import By, Crowd, Report, Told, Voice
from pgbreaker.core.units import Seconds

EVERY: Final[Seconds] = 5.0
"""Seconds between two reports of a process, at least."""

RATE: Final = 100
"""Reports a second that all of them make; where there are more, each reports less often."""

VOICES: Final = 5
"""Reasons that are kept of each breaker."""

_FORGOTTEN: Final = 3  # intervals without a report
_ROOM: Final = 32 * 1024 * 1024  # bytes that all details may take

_Key = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class _Reporter:
    """A process that reports.

    Attributes:
        at: When it did last.
        until: When it is forgotten, unless it does so again.
        stances: The daemon's breaker -> who holds it there. None: calls pass.
        details: All that it told, packed. None: there was no room for it.
    """

    instance: str
    application: str | None
    at: Seconds
    until: Seconds
    stances: Mapping[str, By | None]
    details: bytes | None


class _Count:
    """What all of them tell of one breaker."""

    __slots__ = ("held", "processes", "voices")

    def __init__(self) -> None:
        self.processes = 0
        self.held = dict.fromkeys(By, 0)
        self.voices: dict[_Key, Voice] = {}  # the newest last


class Reports:
    """Who reports, and what.

    A process with five breakers takes 0.8 kB here, one with two hundred 10 kB beside its
    details. The details of all of them take no more than 32 MB together: from then on a
    process is counted, and its details are not kept. So 5,000 processes take 4 MB, and
    5,000 that want to do harm less than 100 MB.

    Attributes:
        refused: Reports that were none, or of more processes than there may be.
    """

    def __init__(self, knows: Callable[[str], bool], most: int = 5000) -> None:
        """Begin with nobody.

        Args:
            knows: Whether there is a breaker of this name here; of others nothing is
                counted.
            most: Processes that there may be at a time.
        """
        self.most = most
        self.refused = 0
        self._knows = knows
        self._reporters: dict[_Key, _Reporter] = {}  # who reported last is the last
        self._counts: dict[str, _Count] = {}
        self._size = 0
        self._due: Seconds = math.inf  # nobody is forgotten before that

    def count(self, now: Seconds) -> int:
        """Processes that were heard of lately."""
        self.forget(now)
        return len(self._reporters)

    @property
    def every(self) -> Seconds:
        """Seconds until a process that has just reported is to do so again."""
        return _every(len(self._reporters))

    def take(self, report: Report, who: str | None, now: Seconds) -> bool:
        """Note a report, in the place of the last one of the same process.

        Args:
            who: Who logged in to tell. It is their process: one that somebody else
                tells of is another, whatever its name.

        Returns:
            Whether there was a place for it.
        """
        self.forget(now)
        key = who, report.instance
        old = self._reporters.get(key)
        if old is None and len(self._reporters) >= self.most:
            self.refused += 1
            return False
        stances = {
            sys.intern(name): told
            for name, told in report.stances().items()
            if self._knows(name)
        }
        if old is not None:
            self._leave(key, old, stances)
        self._reporters[key] = new = _Reporter(
            report.instance,
            report.application,
            now,
            now + _FORGOTTEN * _every(len(self._reporters) + 1),
            {name: told.held for name, told in stances.items()},
            self._packed(report),
        )
        self._size += len(new.details or b"")
        self._due = min(self._due, new.until)
        for name, told in stances.items():
            was_held = old is not None and old.stances.get(name) is not None
            self._count(key, report, name, told, was_held=was_held)
        return True

    def _packed(self, report: Report) -> bytes | None:
        told = [one.written() for one in report.breakers]
        packed = zlib.compress(json.dumps(told, ensure_ascii=False).encode(), 1)
        return packed if self._size + len(packed) <= _ROOM else None

    def _count(
        self, key: _Key, report: Report, name: str, told: Told, *, was_held: bool
    ) -> None:
        count = self._counts.setdefault(name, _Count())
        count.processes += 1
        if told.held is None:
            return
        count.held[told.held] += 1
        voices = count.voices
        if not was_held and len(voices) >= VOICES:
            del voices[next(iter(voices))]
        # Who said so before says so again, and is no news.
        if key in voices or len(voices) < VOICES:
            voices[key] = Voice(
                *(report.instance, report.application, told.name, told.held),
                told.reason,
            )

    def _leave(
        self, key: _Key, old: _Reporter, stances: Mapping[str, Told] | None = None
    ) -> None:
        """Take back what was counted of a process.

        Args:
            stances: What it tells instead. None: nothing any more.
        """
        del self._reporters[key]
        self._size -= len(old.details or b"")
        for name, held in old.stances.items():
            count = self._counts[name]
            count.processes -= 1
            if held is not None:
                count.held[held] -= 1
            told = None if stances is None else stances.get(name)
            if told is None or told.held is None:
                count.voices.pop(key, None)
            if not count.processes and told is None:
                del self._counts[name]

    def forget(self, now: Seconds) -> None:
        """Forget who has told nothing for three intervals."""
        if now < self._due:
            return
        gone = [(key, one) for key, one in self._reporters.items() if one.until <= now]
        for key, one in gone:
            self._leave(key, one)
        self._due = min(
            (one.until for one in self._reporters.values()), default=math.inf
        )

    def crowd(self, breaker: str, now: Seconds) -> Crowd | None:
        """What is told of one of the daemon's breakers. None: nobody reports that they
        follow it."""
        self.forget(now)
        count = self._counts.get(breaker)
        if count is None:
            return None
        voices = tuple(reversed(count.voices.values()))
        return Crowd(count.processes, dict(count.held), voices)

    def instances(
        self, now: Seconds, breaker: str | None, limit: int
    ) -> Iterator[dict[str, Any]]:
        """Show each process, fit for JSON: those first that hold calls back, and of these
        who reported last.

        Args:
            breaker: Only those who follow this one. None: all.
            limit: How many are shown.
        """
        self.forget(now)
        found = [
            one
            for one in reversed(self._reporters.values())
            if breaker is None or breaker in one.stances
        ]
        found.sort(key=lambda one: not any(one.stances.values()))
        for one in found[:limit]:
            yield {
                "instance": one.instance,
                "application": one.application,
                "age_seconds": round(max(0.0, now - one.at), 3),
                "breakers": None
                if one.details is None
                else json.loads(zlib.decompress(one.details)),
            }


def _every(reporters: int) -> Seconds:
    return max(EVERY, reporters / RATE)
