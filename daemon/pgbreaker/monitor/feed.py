"""From a reading to the breakers: judge it, tell them, tell the world."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import SATURATION, Verdict, deciding, judge
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import Outcome
from pgbreaker.core.units import Share
from pgbreaker.monitor.notices import notices
from pgbreaker.monitor.outlook import Outlook
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Hub

_NEARLY_FULL: Final[Share] = 0.9


class Feed:
    """Feeds the breakers of one target with what its probes saw.

    Attributes:
        board: What is true of the target.
        decides: Operation -> the probes that decide about it.
    """

    def __init__(
        self,
        board: TargetBoard,
        hub: Hub,
        clock: Clock,
        when_moved: Callable[[], None] = lambda: None,
        when_filling: Callable[[], None] = lambda: None,
    ) -> None:
        self.board = board
        self.decides = deciding(board.plan.probes)
        self._bad: dict[str, set[str]] = {name: set() for name in self.decides}
        size = board.plan.probes.get("size")
        self._outlook = Outlook(None if size is None else size.capacity)
        self._hub = hub
        self._clock = clock
        self._when_moved = when_moved
        self._when_filling = when_filling

    def show(self, reading: Reading) -> None:
        """Tell the world, but not the breakers."""
        if reading.answered:
            seen = self._outlook.take(reading)
            reading = replace(reading, values={**reading.values, **seen})
        for notice in notices(self.board, reading):
            self._hub.publish(notice)
            if notice.code == "moved":
                self._when_moved()
        self._hub.publish(reading)
        if reading.probe == SATURATION and self.is_nearly_full:
            self._when_filling()

    def judge(self, reading: Reading) -> None:
        """Tell the world and the breakers, in this order: a move is explained by
        the reading before it."""
        self.show(reading)
        verdict = judge(reading, self.decides)
        self._forget(reading, verdict)
        now = self._clock.now()
        for operation, outcome in verdict.outcomes.items():
            breaker = self.board.breakers.get(operation)
            if breaker is None or self._is_contradicted(operation, reading, outcome):
                continue
            for move in breaker.observe(
                outcome,
                now,
                slow=verdict.slow,
                confirmed=verdict.confirmed,
                evidence=reading.evidence,
            ):
                self._hub.publish(move)

    def _forget(self, reading: Reading, verdict: Verdict) -> None:
        """Hold nothing against an operation any more by a probe that cannot tell."""
        for operation, bad in self._bad.items():
            if operation not in verdict.outcomes:
                bad.discard(reading.probe)

    def _is_contradicted(
        self, operation: str, reading: Reading, outcome: Outcome
    ) -> bool:
        """Whether a good answer of one probe is no news, because another that decides
        about *operation* gave a bad one last."""
        bad = self._bad[operation]
        if outcome is Outcome.SUCCESS:
            bad.discard(reading.probe)
            return bool(bad)
        if reading.probe in self.decides[operation]:
            bad.add(reading.probe)
        return False

    @property
    def is_nearly_full(self) -> bool:
        """Whether hardly a connection slot was left when last seen."""
        ratio = self.board.facts.get("slots_ratio")
        return isinstance(ratio, int | float) and ratio >= _NEARLY_FULL

    @property
    def all_pass(self) -> bool:
        """Whether every breaker of the target lets calls pass."""
        return all(b.computed_passes for b in self.board.breakers.values())

    def is_wanted(self, probe: str) -> bool:
        """Whether a breaker waits for *probe* to let calls pass again."""
        return any(
            probe in deciders and not self.board.breakers[operation].computed_passes
            for operation, deciders in self.decides.items()
            if operation in self.board.breakers
        )

    def is_deciding(self, probe: str) -> bool:
        """Whether some breaker of the target goes by *probe*."""
        return any(
            probe in deciders
            for operation, deciders in self.decides.items()
            if operation in self.board.breakers
        )
