"""From a reading to the breakers: judge it, tell them, tell the world."""

from pgbreaker.clock import Clock
from pgbreaker.core.judge import deciding, judge
from pgbreaker.core.reading import Reading
from pgbreaker.monitor.notices import notices
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Hub


class Feed:
    """Feeds the breakers of one target with what its probes saw.

    Attributes:
        board: What is true of the target.
        decides: Operation -> the probe that decides about it.
    """

    def __init__(self, board: TargetBoard, hub: Hub, clock: Clock) -> None:
        self.board = board
        self.decides = deciding(frozenset(board.plan.probes))
        self._hub = hub
        self._clock = clock

    def show(self, reading: Reading) -> None:
        """Tell the world, but not the breakers."""
        for notice in notices(self.board, reading):
            self._hub.publish(notice)
        self._hub.publish(reading)

    def judge(self, reading: Reading) -> None:
        """Tell the world and the breakers, in this order: a move is explained by
        the reading before it."""
        self.show(reading)
        verdict = judge(reading, self.decides)
        now = self._clock.now()
        for operation, outcome in verdict.outcomes.items():
            breaker = self.board.breakers.get(operation)
            if breaker is None:
                continue
            for move in breaker.observe(
                outcome,
                now,
                slow=verdict.slow,
                confirmed=verdict.confirmed,
                evidence=reading.evidence,
            ):
                self._hub.publish(move)

    @property
    def all_pass(self) -> bool:
        """Whether every breaker of the target lets calls pass."""
        return all(b.computed_passes for b in self.board.breakers.values())

    def is_wanted(self, probe: str) -> bool:
        """Whether a breaker waits for *probe* to let calls pass again."""
        return any(
            decider == probe and not self.board.breakers[operation].computed_passes
            for operation, decider in self.decides.items()
            if operation in self.board.breakers
        )
