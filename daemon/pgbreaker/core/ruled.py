"""A breaker of a daemon over which several daemons rule.

Its machine goes by what this daemon sees; what callers feel goes by what enough of them
see. So what they rule stands before the machine, as an operator's word does, and behind
one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pgbreaker.core import telling
from pgbreaker.core.breaker import ERAS, Breaker, by_chance
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import Cause, State, Transition
from pgbreaker.core.units import Seconds


@dataclass(frozen=True, slots=True)
class Ruling:
    """What several daemons hold.

    Attributes:
        state: `State.OPEN` or `State.CLOSED`.
        because: Why, as half a sentence: ``2 of 3 daemons see it open``.
        since: Moment of it.
    """

    state: State
    because: str
    since: Seconds


class RuledBreaker(Breaker):
    """A breaker with a ruling before its machine, or with none."""

    __slots__ = ("_ruling",)

    def __init__(
        self,
        name: str,
        policy: Policy,
        now: Seconds,
        *,
        draw: Callable[[], float] = by_chance,
        eras: Iterator[int] = ERAS,
    ) -> None:
        self._ruling: Ruling | None = None
        super().__init__(name, policy, now, draw=draw, eras=eras)

    @property
    def ruling(self) -> Ruling | None:
        """What several daemons hold. None: the machine decides."""
        return self._ruling

    @property
    def _ruled(self) -> Ruling | None:
        """What decides, where that is a ruling."""
        return self._ruling if self._override is None else None

    @property
    def state(self) -> State:
        """What callers feel."""
        ruling = self._ruled
        return super().state if ruling is None else ruling.state

    @property
    def refusing_since(self) -> Seconds:
        """Moment since which calls are refused, where they are."""
        ruling = self._ruled
        return super().refusing_since if ruling is None else ruling.since

    def explain(self, now: Seconds) -> str:
        """Say in one sentence what the breaker does and why."""
        ruling = self._ruled
        if ruling is None:
            return super().explain(now)
        return telling.ruled(self, ruling.state, ruling.because, now)

    def refusing_because(self, now: Seconds) -> str:
        """Why calls are refused, where they are, in one sentence."""
        ruling = self._ruled
        return super().refusing_because(now) if ruling is None else ruling.because

    def snapshot(self, now: Seconds) -> dict[str, Any]:
        """All that can be said of the breaker now, fit for JSON."""
        ruling = self._ruling
        return super().snapshot(now) | {
            "ruling": None
            if ruling is None
            else {"state": ruling.state.value, "because": ruling.because}
        }

    def rule(
        self, state: State | None, because: str, now: Seconds
    ) -> Transition | None:
        """Put a ruling before the machine, or take it away with None.

        Returns:
            What callers feel of it. None: nothing.
        """
        before, ruling = self.state, self._ruling
        if state is None:
            self._ruling = None
        elif ruling is None or ruling.state is not state:
            self._ruling = Ruling(state, because, now)
        else:
            self._ruling = Ruling(state, because, ruling.since)
        after = self.state
        if after is before or self._override is not None:
            return None
        self._open_gate()
        cause = Cause.OUTVOTED if after is State.CLOSED else Cause.AGREED
        move = Transition(
            self.name,
            before,
            after,
            cause,
            because,
            now,
            self._era,
            self.retry_after(now),
            self.evidence,
        )
        return self._told(move)

    def _move(self, cause: Cause, now: Seconds, reason: str) -> Transition:
        left_closed, ruling = self.left_closed, self._ruled
        move = super()._move(cause, now, reason)
        if ruling is None:
            return move
        self.left_closed = left_closed  # callers feel nothing of it
        return replace(move, override=ruling.state)
