"""A breaker that is told, besides, what is seen elsewhere.

What a daemon advises, and what an operator decides for a whole fleet, come from outside
and may stop coming. So nothing of it is the machine's: it stands before it, as an
operator's word here does, for as long as it is said.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from pgbreaker.core import telling
from pgbreaker.core.advice import Advice, Word
from pgbreaker.core.breaker import ERAS, GATE_SHUT, Breaker, by_chance
from pgbreaker.core.merge import Counsel, Effect, Local, merge
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import (
    Cause,
    Override,
    Permit,
    Refusal,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds

EVERY: Final[Seconds] = 1.0
"""Between two calls that find out how the server is, while advice alone refuses them."""

SPREAD: Final[Seconds] = 1.0
"""Over which the breakers of a fleet come back, when it is healthy again."""


class AdvisedBreaker(Breaker):
    """A breaker that takes advice; `pgbreaker.core.merge` says what becomes of it."""

    __slots__ = ("_counsel", "_fleets", "_is_advised")

    def __init__(
        self,
        name: str,
        policy: Policy,
        now: Seconds,
        *,
        draw: Callable[[], float] = by_chance,
        eras: Iterator[int] = ERAS,
    ) -> None:
        self._counsel: Counsel | None = None
        self._fleets: Override | None = None  # the fleet's word, behind one given here
        self._is_advised = False  # whether advice shuts what is closed by itself
        super().__init__(name, policy, now, draw=draw, eras=eras)

    # Reading: none of these changes anything.

    @property
    def is_advised(self) -> bool:
        """Whether calls are refused by advice alone: by itself it is closed."""
        return self._is_advised

    def disagrees(self, now: Seconds) -> bool:
        """Whether it stays closed though others think that it should not."""
        if self._override is not None or self._is_advised:
            return False  # an operator's word, or not yet its turn to come back
        return self._effect(now) is Effect.DISAGREE

    @property
    def _shut_by(self) -> Counsel | None:
        """What refuses calls, where that is advice."""
        return self._counsel if self._is_advised and self._override is None else None

    @property
    def state(self) -> State:
        """What callers feel."""
        return super().state if self._shut_by is None else State.OPEN

    @property
    def refusing_since(self) -> Seconds:
        """Moment since which calls are refused, where they are."""
        counsel = self._shut_by
        return super().refusing_since if counsel is None else counsel.since

    def refusing_because(self, now: Seconds) -> str:
        """Why calls are refused, where they are, in one sentence."""
        counsel = self._shut_by
        return super().refusing_because(now) if counsel is None else counsel.because

    def retry_after(self, now: Seconds) -> Seconds:
        """Seconds until a call may pass, 0 when one may now."""
        counsel = self._shut_by
        if counsel is None:
            return super().retry_after(now)
        return max(0.0, min(counsel.try_at, counsel.until) - now)

    def explain(self, now: Seconds) -> str:
        """Say in one sentence what the breaker does and why."""
        text, counsel = super().explain(now), self._shut_by
        if counsel is not None:
            text = telling.advised(self.name, counsel, text)
        advice = None if self._counsel is None else self._counsel.holding(now)
        if advice is not None and advice.daemon:
            text += f"; advised by {advice.daemon}"
        return text

    def snapshot(self, now: Seconds) -> dict[str, Any]:
        """All that can be said of the breaker now, fit for JSON."""
        advice = None if self._counsel is None else self._counsel.holding(now)
        return super().snapshot(now) | {
            "advice": None
            if advice is None
            else {
                "breaker": advice.breaker,
                "daemon": advice.daemon,
                "opinion": advice.opinion.value,
                "reason": advice.reason,
                "heeded": self._is_advised,
                "disagrees": self.disagrees(now),
            }
        }

    # Calls.

    def admit(self, now: Seconds) -> Permit | Refusal:
        """Ask to make one call."""
        if not self._is_advised:
            return super().admit(now)
        move = self.advance(now)
        counsel = self._shut_by
        if counsel is None:
            answer = super().admit(now)
            return answer if move is None else replace(answer, move=move)
        if counsel.lets_out(self._successes, now):
            self._find_edge()
            return Permit(self._era, move=move)
        return self._refuse(now, move)

    @property
    def _successes(self) -> int:
        return self.window.successes + self._untold

    # Time and operators.

    def advance(self, now: Seconds) -> Transition | None:
        """Do what time alone brings about: advice ends, or what `Breaker` does."""
        move = self.lapse(now)
        return super().advance(now) if move is None else move

    def lapse(self, now: Seconds) -> Transition | None:
        """Do what the end of an override or of advice brings about; no opening cools by
        it, for that takes a call."""
        return self._end_override(now) or self._weigh(now)

    def resume(self, now: Seconds, reason: str = "handed back") -> Transition | None:
        """Let the machine decide again, or whoever decides for the fleet. None when it
        already does: what was decided for a fleet does not end here."""
        current = self._override
        if current is None or current.is_fleets:
            return None
        return self._hand_back(now, reason)

    def _end_override(self, now: Seconds) -> Transition | None:
        current = self._override
        if current is None or current.until is None or now < current.until:
            return None
        return self._hand_back(now, f"the override by {current.author} ran out")

    def _hand_back(self, now: Seconds, reason: str) -> Transition:
        before, fleets = self.state, self._fleets
        if fleets is not None and fleets.until is not None and now >= fleets.until:
            fleets = self._fleets = None
        self._override = fleets
        return self._took_over(before, Cause.RESUMED, reason, now)

    # Advice.

    def advise(
        self,
        advice: Advice,
        now: Seconds,
        *,
        every: Seconds = EVERY,
        spread: Seconds = SPREAD,
    ) -> tuple[Transition, ...]:
        """Take advice that was given at *now*; what is older than what holds is let be.

        Args:
            every: Seconds between two calls that find out how it is, while advice alone
                refuses them.
            spread: Seconds over which the breakers of a fleet come back.
        """
        counsel = self._counsel
        if counsel is None:
            counsel = self._counsel = Counsel(now)
        counsel.every, counsel.spread = every, spread
        if not counsel.take(advice, now, spread * self._draw()):
            return ()
        moves = (self._heed(advice.word, now), self._weigh(now))
        self._find_edge()  # which a longer lease moves, too
        return tuple(move for move in moves if move is not None)

    def _heed(self, word: Word | None, now: Seconds) -> Transition | None:
        """Take the word of an operator of the fleet, or that there is none."""
        current = self._override
        if word is None:
            self._fleets = None
            is_over = current is not None and current.is_fleets
            return self._hand_back(now, "handed back elsewhere") if is_over else None
        fleets = Override(
            word.state, word.reason, word.author, now + word.left, is_fleets=True
        )
        self._fleets = fleets
        if current is not None and not current.is_fleets:
            return None  # who is nearer goes first
        if current is not None and replace(current, until=fleets.until) == fleets:
            self._override = fleets  # the same, and its end is told anew
            return None
        return self.force(fleets, now)

    def _weigh(self, now: Seconds) -> Transition | None:
        """Do what advice, its end, and what own calls have found bring about."""
        counsel = self._counsel
        if counsel is None:
            return None
        run = 0 if self._untold else self._run
        proven_until = now + self.policy.window
        counsel.hear(self._successes, run, self.policy.success_threshold, proven_until)
        effect = self._effect(now)
        if effect is Effect.HASTEN and not (counsel.is_hastened or self._is_local):
            counsel.is_hastened = True
            self._until = min(self._until, now + counsel.spread * self._draw())
            self._find_edge()
        is_closed = self._state is State.CLOSED
        shuts = effect is Effect.SHUT or (is_closed and counsel.keeps_shut(now))
        if shuts == self._is_advised:
            return None
        self._is_advised = shuts
        if shuts:
            reason = counsel.shut(now, self._draw())
            return self._told_by(State.CLOSED, State.OPEN, Cause.ADVISED, reason, now)
        reason = counsel.unshut(effect, now)
        return self._told_by(State.OPEN, State.CLOSED, Cause.WITHDRAWN, reason, now)

    def _effect(self, now: Seconds) -> Effect:
        advice = None if self._counsel is None else self._counsel.holding(now)
        return Effect.NONE if advice is None else merge(advice, self._local(now))

    def _local(self, now: Seconds) -> Local:
        if self._state is not State.CLOSED:
            return Local.OPEN if self._state is State.OPEN else Local.TRYING
        if self._counsel is not None and self._counsel.is_proven(now):
            return Local.PROVEN
        counts, policy = self.counts(now), self.policy
        is_well = counts.failure_ratio < policy.failure_rate / 2
        is_enough = counts.total >= policy.minimum_calls
        return Local.SURE if is_well and is_enough else Local.UNSURE

    def _told_by(
        self, before: State, after: State, cause: Cause, reason: str, now: Seconds
    ) -> Transition:
        # The machine has not moved: its era stays, calls in flight still count.
        self._ramping = False
        self._open_gate()
        move = Transition(
            self.name,
            before,
            after,
            cause,
            reason,
            now,
            self._era,
            self.retry_after(now) if after is State.OPEN else 0.0,
            self.evidence,
            self._override.state if self._override else None,
        )
        return self._told(move)

    # The machine.

    def _move(self, cause: Cause, now: Seconds, reason: str) -> Transition:
        was_advised, left_closed = self._is_advised, self.left_closed
        self._is_advised = False  # from here on it is by itself what it is
        if self._counsel is not None:
            self._counsel.is_shut = False
        move = super()._move(cause, now, reason)
        if was_advised:  # what it lets pass no longer, it did not before
            self.left_closed = left_closed
        if move.after is State.CLOSED and self._counsel is not None:
            self._counsel.prove(now + self.policy.window)  # its trials have found out
        return move

    def _open_gate(self) -> None:
        super()._open_gate()
        if self._is_advised:
            self.gate = GATE_SHUT
            self._find_edge()

    def _find_edge(self) -> None:
        super()._find_edge()
        counsel = self._shut_by
        if counsel is not None:
            self.shut_until = min(counsel.try_at, counsel.until)
