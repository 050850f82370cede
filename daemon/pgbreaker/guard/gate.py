"""The way in and out of a breaker: the state machine, a clock, and a lock.

What comes here is what did not pass on two comparisons: a failure, a slow call, a
new slice of time, a breaker that is not simply closed. All of it happens under the
breaker's own lock, which is never held across anybody else's code, and never together
with another. It can be taken again by the thread that has it: garbage may be collected
at any allocation, and a generator that is closed by that reports its call here.
"""

import sys
import threading
from bisect import bisect_left
from contextvars import ContextVar
from typing import Final, TypeAlias
from weakref import ReferenceType, ref

from pgbreaker.clock import Clock
from pgbreaker.core.advice import Advice
from pgbreaker.core.advised import AdvisedBreaker
from pgbreaker.core.flights import FOREVER, Slice
from pgbreaker.core.states import (
    PASS,
    UNWEIGHED,
    Cause,
    Evidence,
    Outcome,
    Permit,
    Refusal,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard import events
from pgbreaker.guard.budget import Budget
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.living import join
from pgbreaker.guard.outcomes import CATEGORIES, Judgement, judge

Ticket: TypeAlias = tuple[Seconds, Slice]
"""A call that was let in: the moment it began, and the slice that counts it."""

BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the histogram of durations, in seconds.

Below the first a call is counted by one comparison; how many there are is what is left
when all others are taken away."""

BRISK: Final[Seconds] = BOUNDS[0]


UNCOUNTED: Final = Slice(PASS)  # calls that are part of others, or that nobody counts

ENDED: Final = (
    *("success", "failure", "cut", "ignored", "unreached", "released", "late"),
)

_ASKED: Final = (*ENDED, "rejected")

# The trials that this context is part of: what is called within a trial, on the same
# breaker, belongs to it. Set only when a trial begins.
_TRIALS: Final[ContextVar[tuple[tuple[AdvisedBreaker, int], ...]]] = ContextVar(
    "pgbreaker_trials", default=()
)

# Without the GIL an addition can be lost, so there every call takes the lock.
_FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()

SYSTEM: Final = Clock()


class Gate:
    """A breaker with a clock and a lock, for guards.

    Attributes:
        config: Its rules.
        above: The breaker of the whole server, asked before this one. None: there is
            none.
        target: Name of the server, None when it stands for itself.
        operation: The kind of work on it, None when it stands for itself.
        brisk: Seconds below which a call that ends well needs no further look.
        fallbacks: Calls answered by a fallback, since the beginning.
        stale_answers: Calls answered from a stale cache, since the beginning.
        retries: Calls tried again, since the beginning.
    """

    __slots__ = (
        "__weakref__",
        "_below",
        "_budget",
        "_clock",
        "_core",
        "_credited",
        "_errors",
        "_flights",
        "_good_below",
        "_lock",
        "_now",
        "_refusing",
        "_took",
        "_transitions",
        "above",
        "brisk",
        "config",
        "fallbacks",
        "operation",
        "retries",
        "stale_answers",
        "target",
    )

    def __init__(
        self,
        name: str,
        config: PostgreSQLCircuitBreakerConfig | None = None,
        *,
        above: "Gate | None" = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            config: Its rules. None: the defaults.
            above: The breaker of the whole server.
            clock: Where the time comes from. None: the system's clocks.
        """
        self.config = config = config or PostgreSQLCircuitBreakerConfig()
        self._clock = clock or SYSTEM
        self._now = self._clock.now
        self._core = AdvisedBreaker(name, config.policy(), self._now())
        self._flights = self._core.flights
        self._lock = threading.RLock()
        self._took: list[int] | None = None  # calls longer than each of BOUNDS
        # What is said of every refusal of one opening; made with the first.
        self._refusing: tuple[str, State, str, float, Evidence | None] | None = None
        # Without the GIL no call is brisk: each takes the lock.
        self.brisk = -1.0 if _FREE_THREADED else min(BRISK, config.slow_call or BRISK)
        # Weakly, and replaced whole, so that reading it needs no lock.
        self._below: tuple[ReferenceType[Gate], ...] = ()
        self._good_below = 0  # successes of the breakers below, when last looked at
        self._credited = 0  # of those, told to the machine, and counted below already
        self.above = above
        self.target: str | None = None
        self.operation: str | None = None
        self._budget: Budget | None = None
        self.fallbacks = self.stale_answers = self.retries = 0
        self._errors = [0] * len(CATEGORIES)
        self._transitions: dict[tuple[State, State, Cause], int] | None = None
        if above is not None:
            above.stand_above(self)
        elif _FREE_THREADED:
            self._core.hold(True)
        join(self)

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def clock(self) -> Clock:
        """Where its time comes from."""
        return self._clock

    @property
    def core(self) -> AdvisedBreaker:
        """The state machine, for guards; applications have no use for it."""
        return self._core

    @property
    def state(self) -> State:
        """What callers feel, but for the breaker above."""
        return self._core.state

    @property
    def left_closed(self) -> Seconds | None:
        """Moment at which it last ceased to let calls pass as a matter of course, None
        when it never did. A trial that fails does not change it, so that it tells the
        length of the whole outage."""
        return self._core.left_closed

    @property
    def counted(self) -> dict[str, int]:
        """Calls of its own since the beginning, by what became of them: as the machine
        counts them, but for what it was told of the breakers below."""
        if not self._below:
            return self._core.totals
        with self._lock:  # or it would be seen with one of the two and not the other
            totals = self._core.totals
            totals["success"] -= self._credited
            return totals

    def calls(self) -> int:
        """Calls since the beginning, refused ones too, of all the breakers that share
        the budget for retries."""
        sharing = [self] if self.above is None else self.above.below
        return sum(sum(b.counted[name] for name in _ASKED) for b in sharing)

    @property
    def budget(self) -> Budget:
        """How many retries may still be made, on the whole server."""
        if self.above is not None:
            return self.above.budget
        with self._lock:
            if self._budget is None:
                self._budget = Budget(self.config.retry_ratio)
            return self._budget

    # What guards do when a call is not simply let in, or does not simply end well.

    def enter(self, begun: Seconds) -> Slice:
        """Ask for a call that may not be sent unasked; gives the slice it counts in.

        Raises:
            CircuitOpenError: The call is refused.
        """
        core = self._core
        if begun < core.shut_until:
            core.rejected += 1
            wait, refusing = core.shut_until - begun, self._refusing
            # Another thread may have moved it since it was looked at.
            if refusing is None or not 0 < wait < FOREVER:
                raise self.refuse(begun)
            name, state, reason, since, last_error = refusing
            raise CircuitOpenError(name, state, reason, wait, since, last_error)
        above = self._ask_above(begun) if self.above is not None else None
        with self._lock:
            gate = core.gate
            turned = core.turn(begun)
            if core.computed_state is State.HALF_OPEN and self._is_part_of_trial():
                answer: Permit | Refusal = Permit(PASS)
            else:
                answer = core.admit(begun)
            flight = None if isinstance(answer, Refusal) else self._slice_for(answer)
            if flight is not None:
                flight.started += 1
            has_moved = turned is not None or answer.move is not None
            if has_moved:
                self._note(turned)
                self._note(answer.move)
            is_news = has_moved or gate != core.gate  # the end of a ramp is no move
        if flight is not None and above is not None:
            flight = _beside(flight, above)
        elif above is not None:
            assert self.above is not None
            self.above.withdraw(above)
        if is_news:
            self._spread()
        if isinstance(answer, Refusal):
            raise self._refusal(answer)
        assert flight is not None
        return flight

    def _slice_for(self, permit: Permit) -> Slice:
        if permit.trial:
            core = self._core
            live = [t for t in _TRIALS.get() if t[0].is_on_trial(t[1])]
            _TRIALS.set((*live, (core, permit.token)))
            return Slice(permit.token)
        if permit.token == PASS:
            return UNCOUNTED
        if permit.token == UNWEIGHED:
            return Slice(UNWEIGHED)
        return self._core.flights.slice

    def _is_part_of_trial(self) -> bool:
        return any(
            core is self._core and core.is_on_trial(token)
            for core, token in _TRIALS.get()
        )

    def leave(self, begun: Seconds, flight: Slice) -> None:
        """Count a call that came back well."""
        now = self._now()
        took = now - begun
        core = self._core
        slow_call = core.policy.slow_call
        slow = slow_call is not None and took >= slow_call
        timed = self._took
        is_long = took > BRISK
        if not (slow or _FREE_THREADED or (is_long and timed is None)):
            place = bisect_left(BOUNDS, took) - 1
            # Nothing but longer than the briskest, or begun in a slice that is over: no
            # lock is needed. From here on nothing is called, so no thread comes between.
            if flight.era == core.gate:
                if is_long and timed is not None:
                    timed[place] += 1
                current = core.flights.slice
                current.started += 1
                current.ok += 1
                flight.gone += 1
                return
        with self._lock:
            flight.gone += 1
            self._time(flight, took)
            is_news = self._settle(flight, Outcome.SUCCESS, took, now, slow=slow)
        if flight.above is not None:
            self._report_above(begun, flight, Outcome.SUCCESS, now)
        if is_news:
            self._spread()

    def fail(
        self,
        begun: Seconds,
        flight: Slice,
        error: BaseException,
        *,
        strict: bool = False,
    ) -> Judgement:
        """Count a call that raised *error*.

        Args:
            strict: Whether an error of the operating system counts only when a driver
                is seen to have raised it: the call is a block of the user's code.

        Returns:
            What is made of it.
        """
        now = self._now()
        core = self._core
        took = now - begun
        judgement = judge(error, took, core.policy.slow_call, None, strict)
        if (
            judgement.outcome is not Outcome.FAILURE
            or judgement.only_above
            or flight.era != core.gate
        ):
            self._count(begun, now, flight, judgement, False)
            return judgement
        # What an outage is made of: a call that was simply let in, and failed. As
        # `_count` does it, without the steps that such a call does not need.
        with self._lock:
            flight.gone += 1
            self._errors[judgement.kind] += 1
            if took > BRISK:
                self._time(flight, took)
            # Nobody has moved it meanwhile, or it is late.
            if flight.era == core.gate:
                move = core.fail(now, judgement.evidence, judgement.is_slow)
            else:
                core.late += 1
                move = None
            if move is not None:
                self._note(move)
        if self.above is not None and judgement.above is Outcome.FAILURE:
            self.above.hear(begun, now, judgement.evidence)
        if move is not None:
            self._spread()
        return judgement

    def count(
        self,
        begun: Seconds,
        flight: Slice,
        judgement: Judgement,
        *,
        stale: bool = False,
    ) -> None:
        """Count a call that did not end well.

        Args:
            stale: Whether its session is one of many that ended at the same moment,
                which has been counted already.
        """
        self._count(begun, self._now(), flight, judgement, stale)

    def _count(
        self,
        begun: Seconds,
        now: Seconds,
        flight: Slice,
        judgement: Judgement,
        stale: bool,
    ) -> None:
        if flight.era == PASS:
            flight.gone += 1
            return  # nobody counts it
        took = now - begun
        outcome = Outcome.RELEASED if stale else judgement.outcome
        if judgement.only_above and self.above is not None:
            outcome = Outcome.UNREACHED
        evidence = None if stale else judgement.evidence
        found = judgement.classification
        with self._lock:
            flight.gone += 1
            if found is not None:
                self._errors[judgement.kind] += 1
            self._time(flight, took)
            is_news = self._settle(
                flight, outcome, took, now, slow=judgement.is_slow, evidence=evidence
            )
        if self.above is not None:
            above = Outcome.RELEASED if stale else judgement.above
            self._report_above(begun, flight, above, now, evidence)
        if is_news:
            self._spread()

    def drop(self, begun: Seconds, flight: Slice) -> None:
        """Count a call of which nothing came, and that says nothing of the server."""
        self.count(begun, flight, Judgement(Outcome.RELEASED, Outcome.RELEASED))

    def _settle(
        self,
        flight: Slice,
        outcome: Outcome,
        took: Seconds,
        now: Seconds,
        *,
        slow: bool,
        evidence: Evidence | None = None,
    ) -> bool:
        """Tell the machine, under the lock; says whether there is something to tell."""
        core = self._core
        is_trial = core.is_on_trial(flight.era)
        move = core.settle(flight.era, outcome, now, slow=slow, evidence=evidence)
        if is_trial:
            trial = events.Trial(self.name, outcome, took, now)
            events.note(trial, detailed=self.config.enable_detailed_logging)
        self._note(move)
        return is_trial or move is not None

    def _time(self, flight: Slice, took: Seconds) -> None:
        if took > BRISK and flight.era != PASS:
            if self._took is None:
                self._took = [0] * len(BOUNDS)
            self._took[bisect_left(BOUNDS, took) - 1] += 1

    # The breaker above.

    @property
    def below(self) -> "list[Gate]":
        """The breakers that ask this one first."""
        there = [below() for below in self._below]
        return [breaker for breaker in there if breaker is not None]

    def stand_above(self, breaker: "Gate") -> None:
        """Be asked before *breaker* from now on."""
        with self._lock:
            there = tuple(below for below in self._below if below() is not None)
            self._below = (*there, ref(breaker))
        self._hold(breaker)

    def _hold(self, breaker: "Gate") -> None:
        # Not our own lock: nobody holds two.
        with breaker._lock:
            breaker._core.hold(self._core.gate <= 0 or _FREE_THREADED)

    def _ask_above(self, begun: Seconds) -> Slice | None:
        """Ask the breaker of the whole server; gives its trial, if this is one."""
        assert self.above is not None
        if begun < self.above._core.edge:
            return None
        try:
            flight = self.above.enter(begun)
        except CircuitOpenError:
            self._core.rejected += 1
            raise
        if self.above._core.is_on_trial(flight.era):
            return flight
        flight.gone += 1  # the call is ours to count, not that of the one above
        return None

    def withdraw(self, flight: Slice) -> None:
        """Take back a call that was let in and will not be made."""
        with self._lock:
            flight.gone += 1
            self._core.retract(flight.era)
        if self.above is not None and isinstance(flight.above, Slice):
            self.above.withdraw(flight.above)

    def pass_above(self, flight: Slice) -> None:
        """Tell the breaker of the whole server that its trial, if the call is one, has
        found connections to work."""
        if self.above is not None and isinstance(flight.above, Slice):
            trial, flight.above = flight.above, None
            self.above.settle_trial(trial.era, Outcome.SUCCESS, self._now())

    def _report_above(
        self,
        begun: Seconds,
        flight: Slice,
        outcome: Outcome,
        now: Seconds,
        evidence: Evidence | None = None,
    ) -> None:
        """Tell the breaker of the whole server what concerns it."""
        assert self.above is not None
        trial = flight.above
        if isinstance(trial, Slice):
            self.above.settle_trial(trial.era, outcome, now, evidence)
        elif outcome is Outcome.FAILURE:
            self.above.hear(begun, now, evidence)

    def settle_trial(
        self,
        token: int,
        outcome: Outcome,
        now: Seconds,
        evidence: Evidence | None = None,
    ) -> None:
        """Report what a trial granted to a breaker below came to."""
        with self._lock:
            move = self._core.settle(token, outcome, now, evidence=evidence)
            self._note(move)
        if move is not None:
            self._spread()

    def hear(self, begun: Seconds, now: Seconds, evidence: Evidence | None) -> None:
        """Count a failure of a connection that a breaker below has met."""
        good = sum(b._core.totals["success"] for b in self.below)
        core = self._core
        with self._lock:
            if begun < core.since:
                core.late += 1  # begun before the last move
                return
            # Successes are not told one by one; only whether there were any since
            # the last failure matters to a run of them.
            if good > self._good_below:
                core.credit(good - self._good_below)
                self._credited += good - self._good_below
            self._good_below = good
            move = core.settle(core.era, Outcome.FAILURE, now, evidence=evidence)
            self._note(move)
        if move is not None:
            self._spread()

    # Advice.

    def advise(self, advice: Advice, every: Seconds, spread: Seconds) -> None:
        """Take what a daemon says, as of now; see `AdvisedBreaker.advise`."""
        with self._lock:
            gate = self._core.gate
            moves = self._core.advise(advice, self._now(), every=every, spread=spread)
            self._refusing = None  # a lease that is longer now is told with the next
            for move in moves:
                self._note(move)
            is_news = bool(moves) or gate != self._core.gate
        if is_news:
            self._spread()

    def lapse(self) -> None:
        """Do what the end of a lease brings about, with no call to see it."""
        with self._lock:
            move = self._core.lapse(self._now())
            self._note(move)
        if move is not None:
            self._spread()

    # Telling.

    def refuse(self, now: Seconds) -> CircuitOpenError:
        """The refusal of a breaker that is open for sure, without its lock."""
        core = self._core
        opened_at = self._clock.wall_of(core.refusing_since)
        because = core.refusing_because(now)
        refusing = (core.name, core.state, because, opened_at, core.evidence)
        if core.override is None:
            self._refusing = refusing  # an operator's says how long it will last
        wait = core.retry_after(now)
        return CircuitOpenError(*refusing[:3], wait, *refusing[3:])

    def _refusal(self, refusal: Refusal) -> CircuitOpenError:
        return CircuitOpenError(
            self.name,
            refusal.state,
            refusal.reason,
            refusal.retry_after,
            self._clock.wall_of(refusal.opened_at),
            refusal.evidence,
        )

    def _note(self, move: Transition | None) -> None:
        """Take down a move, under the lock."""
        if move is None:
            return
        self._refusing = None
        if self._transitions is None:
            self._transitions = {}
        key = (move.before, move.after, move.cause)
        self._transitions[key] = self._transitions.get(key, 0) + 1
        events.note(move, detailed=True)

    def _spread(self) -> None:
        """Tell of what was noted, the breakers below first."""
        for breaker in self.below:
            self._hold(breaker)
        events.flush()

    def disown(self) -> None:
        """Start anew in a forked process: locks may be held, and the calls that are
        out are the parent's."""
        self._lock = threading.RLock()
        self._core.disown(self._now())


def _beside(flight: Slice, above: Slice) -> Slice:
    """A call's slice that remembers the trial it is for the breaker above."""
    beside = Slice(flight.era, above)
    beside.started += 1
    flight.gone += 1
    return beside
