"""The warnings of one target that stand, and what came of those that did."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pgbreaker.core.forecast.foretold import RunsOut
from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.warning import (
    FAILURE,
    KINDS,
    LIKELY,
    Forewarning,
    Standing,
)
from pgbreaker.core.reading import Value
from pgbreaker.core.remembered import part, reading
from pgbreaker.core.units import Seconds, Share


class Warnings:
    """Begins and ends warnings, and keeps their record.

    Attributes:
        standing: Kind -> the warning that stands.
        record: Kind -> what came of its warnings, of those that are scored.
    """

    def __init__(self, is_planned: Callable[[], bool]) -> None:
        self._is_planned = is_planned
        self.standing: dict[str, Forewarning] = {}
        self.record = {kind.of: Score() for kind in KINDS.values() if kind.is_scored}
        self._there: dict[str, int] = {}  # looks in a row that found it used up
        self._stands = {kind.of: Standing(kind) for kind in KINDS.values()}

    def look(self, at: Seconds, found: RunsOut, reason: Callable[[str], str]) -> bool:
        """Take what is left of a kind; returns whether that changes what stands."""
        of, left = found.of, found.left
        is_there = left is not None and not left.seconds
        self._there[of] = self._there.get(of, 0) + 1 if is_there else 0
        if self._there[of] >= KINDS[of].holds:
            self.fails(of, at)
        # Nobody is warned of what is there, unless it was days in coming: a pool that is
        # full for a moment is a pool at work.
        is_news = of in self.standing or not (is_there and KINDS[of].is_scored)
        is_seen = found.is_short and is_news
        return self._turn(at, of, is_seen, lambda: reason(of), left=left)

    def expect(
        self, at: Seconds, probability: Share | None, reason: Callable[[], str]
    ) -> None:
        """Take how likely a failure is."""
        is_seen = probability is not None and probability > LIKELY
        self._turn(at, FAILURE, is_seen, reason, probability=probability)

    def age(self, at: Seconds) -> None:
        """End what nobody has seen a reason for of late: its probe may have gone silent."""
        for of in [of for of in self.standing if not self._stands[of].lingers(at)]:
            self._end(at, of)

    def drop(self, at: Seconds, of: str) -> None:
        """End a warning whose reason is known to be over."""
        self._stands[of].end()
        if of in self.standing:
            self._end(at, of)

    def _end(self, at: Seconds, of: str) -> None:
        del self.standing[of]
        if of in self.record:
            self.record[of].ends(at)

    def fails(self, of: str, at: Seconds) -> None:
        """Take that what could be warned of is there."""
        if of in self.record and not self._is_planned():
            self.record[of].fails(at)

    def by_urgency(self) -> tuple[Forewarning, ...]:
        """Those that stand, the most urgent first."""
        return tuple(
            sorted(
                self.standing.values(),
                key=lambda told: (
                    told.is_over,
                    told.left.seconds if told.left else KINDS[told.of].within,
                ),
            )
        )

    def values(self, at: Seconds) -> dict[str, Value]:
        """All of it as values, by name."""
        seen: dict[str, Value] = {
            f"{of}_warning": 1 if of in self.standing else None for of in KINDS
        }
        for of, score in self.record.items():
            score.settle(at)
            seen[f"{of}_precision"] = score.precision
            seen[f"{of}_recall"] = score.recall
        return seen

    def _turn(
        self,
        at: Seconds,
        of: str,
        is_seen: bool,
        reason: Callable[[], str],
        *,
        left: Left | None = None,
        probability: Share | None = None,
    ) -> bool:
        """Have a warning begin, go on, or end; returns whether one began or ended."""
        standing = self._stands[of]
        before, stands = standing.since, standing.look(at, is_seen)
        if not stands:
            is_over = of in self.standing
            if is_over:
                self._end(at, of)
            return is_over
        if before is None and of in self.record:
            self.record[of].begins(at)
        if is_seen:
            self.standing[of] = Forewarning(
                of=of,
                since=at if standing.since is None else standing.since,
                left=left,
                probability=probability,
                reason=reason(),
            )
        elif not self.standing[of].is_over:
            self.standing[of] = replace(self.standing[of], is_over=True)
        return before is None

    def memory(self, epoch: float) -> dict[str, Any]:
        """What is remembered of them, fit for JSON: the record.

        Args:
            epoch: Wall time of moment 0.
        """
        return {of: score.memory(epoch) for of, score in self.record.items()}

    @reading("record of warnings")
    def recall(self, memory: Mapping[str, Any], epoch: float) -> None:
        """Go on by a memory.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none.
        """
        self.record |= {
            of: Score.recall_from(part(memory, of), epoch)
            for of in self.record.keys() & memory.keys()
        }
