"""The circuit breaker, without I/O.

A `Breaker` never sleeps, awaits, logs, locks or reads a clock: whatever needs the
time takes ``now``, and whatever moves the breaker says so in its return value.
What drives it (a guard, a probe, a test, a replayed log) is not its business.

It can be driven in two ways, and one breaker is driven in one of them:

- calls ask first and report later (`admit`, `settle`): the library's guards;
- somebody who asks the server anyway tells what was seen (`observe`): the daemon.

Every move draws a new *era* from one process-wide counter. A call's permit is the
era it began in, a trial call's is a number of its own from the same counter, so a
result that comes back late can be told from one that counts.

Calls that nothing speaks against need not ask: until `Breaker.edge` a guard counts
them in the current slice of `Breaker.flights`, and there again when they come back
well and soon. The breaker gathers what was counted when it next has to think.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pgbreaker.core import memory as memories
from pgbreaker.core import rules, telling
from pgbreaker.core.flights import FOREVER, Flights, Slice
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import (
    FAILURES,
    MOVES,
    OVERRIDES,
    PASS,
    POOL,
    SHUT,
    UNWEIGHED,
    Cause,
    Evidence,
    Outcome,
    Override,
    Permit,
    Refusal,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.core.window import Counts, Window

GATE_SHUT: Final = -1
"""The value of `Breaker.gate` while admission has to be asked for."""

ERAS: Final = itertools.count(1)
"""Eras and trial permits of every breaker of the process."""

by_chance: Final[Callable[[], float]] = random.random
"""Where jitter comes from, 0 to 1, unless it is handed in."""

_SLICES: Final = 5  # of `slow_call`: how exactly it is known that a call is overdue
_BARREN: Final = 3  # trials in a row that told nothing, and no fewer, reopen


class Breaker:
    """One breaker.

    Threads: `gate`, `edge`, `shut_until`, `rejected` and the slice of `flights` may
    be used freely under the GIL; every method that changes something requires
    external locking.

    Attributes:
        name: Name of the breaker, the same in every log, metric and message.
        policy: Its rules.
        window: What became of the last calls.
        flights: The calls that are out.
        gate: The current era while calls may pass unasked, else `GATE_SHUT`.
        edge: Moment until which they may; past it `turn` wants to be called.
        shut_until: Moment until which every call is sure to be refused.
        held: Whether calls have to ask all the same, because a breaker above this
            one wants to be asked; `hold` changes it.
        since: Moment of the last move of the machine.
        cause: The rule that made it, None before the first.
        evidence: The last failure seen, None when there was none.
        left_closed: Moment at which calls last ceased to pass as a matter of course, as
            they feel it. None: never.
        rejected: Calls refused since the beginning.
        late: Results that came back after a move, since the beginning.
        ignored: Calls settled so, since the beginning; likewise `unreached`,
            `released` and `cut`.
    """

    __slots__ = (
        "_barren",
        "_draw",
        "_era",
        "_eras",
        "_forced_at",
        "_good",
        "_heard",
        "_heard_at",
        "_is_local",
        "_override",
        "_ramping",
        "_reason",
        "_round",
        "_run",
        "_starved",
        "_state",
        "_trials",
        "_until",
        "_wait",
        "cause",
        "cut",
        "edge",
        "evidence",
        "flights",
        "gate",
        "held",
        "ignored",
        "late",
        "left_closed",
        "name",
        "policy",
        "rejected",
        "released",
        "shut_until",
        "since",
        "unreached",
        "window",
    )

    def __init__(
        self,
        name: str,
        policy: Policy,
        now: Seconds,
        *,
        draw: Callable[[], float] = by_chance,
        eras: Iterator[int] = ERAS,
    ) -> None:
        self.name = name
        self.policy = policy
        self.window = Window(policy.window, policy.buckets, now)
        self.cause: Cause | None = None
        self.evidence: Evidence | None = None
        self.left_closed: Seconds | None = None
        self.rejected = self.late = 0
        self.cut = self.ignored = self.unreached = self.released = 0
        self._draw = draw
        self._eras = eras
        self._override: Override | None = None
        self._forced_at = now  # the last time that an operator took over
        self._trials: dict[int, Seconds] = {}  # token -> deadline
        self._good = 0  # trials that succeeded in a row
        self._barren = 0  # trials that told nothing in a row
        self._run = 0  # failures in a row
        self._starved = 0  # calls in a row for which the pool had no connection
        self._heard = 0  # successes ever, when last looked at
        self._heard_at = now  # the last look at which there were more of them
        self._round = 0  # openings that flapping remembers
        self._is_local = False  # whether it is open for want of a pooled connection
        self._wait = 0.0  # seconds that the current opening lasts
        self._until = now
        self._state = State.CLOSED
        self._reason = "no call has failed yet"
        self._era = next(eras)
        self.since = now
        self.held = self._ramping = False
        # Without `slow_call` nothing is ever overdue: a slice may be a bucket long.
        slice_ = (policy.slow_call or policy.window) / _SLICES
        width = min(slice_, policy.window / policy.buckets)
        self.flights = Flights(width, self._era, now)
        self._open_gate()

    def __repr__(self) -> str:
        counts = self.counts()
        return (
            f"<Breaker {self.name!r} {self.state}"
            f" {counts.failed}/{counts.total} failed, round {self._round}>"
        )

    # Reading: none of these changes anything.

    @property
    def computed_state(self) -> State:
        """What the machine decided, whatever an operator says."""
        return self._state

    @property
    def state(self) -> State:
        """What callers feel."""
        return self._override.state if self._override else self._state

    @property
    def override(self) -> Override | None:
        return self._override

    @property
    def era(self) -> int:
        """Number of the current state; larger is later."""
        return self._era

    @property
    def passes(self) -> bool:
        """Whether a call made now would pass as a matter of course."""
        return self.state not in SHUT

    @property
    def computed_passes(self) -> bool:
        """Whether it would, were there no operator."""
        return self._state is State.CLOSED

    def counts(self, now: Seconds | None = None) -> Counts:
        """What the window holds, with what guards have counted since.

        Args:
            now: When. None: as of the last time that something was counted.
        """
        window, fresh = self.window, self._untold
        if now is not None:
            seen = window.counts_at(now)
            fresh = fresh if window.reaches(now) else 0
        else:
            seen = window.counts()
        return Counts(seen.total + fresh, seen.failed, seen.slow) if fresh else seen

    @property
    def _untold(self) -> int:
        current = self.flights.slice
        return current.ok - current.told

    @property
    def totals(self) -> dict[str, int]:
        """Calls since the beginning, by what became of them. Slow ones are counted
        beside their outcome; late ones came back after a move."""
        return {
            "success": self.window.successes + self._untold,
            "failure": self.window.failures - self.cut,
            "slow": self.window.slows,
            "cut": self.cut,
            "ignored": self.ignored,
            "unreached": self.unreached,
            "released": self.released,
            "rejected": self.rejected,
            "late": self.late,
        }

    @property
    def reason(self) -> str:
        """Why the machine moved last, in one sentence."""
        return self._reason

    @property
    def refusing_since(self) -> Seconds:
        """Moment since which calls are refused, where they are."""
        return self.since if self._override is None else self._forced_at

    def refusing_because(self, now: Seconds) -> str:
        """Why calls are refused, where they are, in one sentence."""
        if self._override is not None:
            return telling.overridden(self._override, now)
        if self._state is State.CLOSED:
            return "not every call is let in yet"
        return self._reason

    def is_on_trial(self, token: int) -> bool:
        """Whether *token* is that of a trial which has not come back."""
        return token in self._trials

    def oldest_flight(self) -> Slice | None:
        """The slice of the call that has been out for longest. Never a trial: only who
        made it may say what it came to."""
        return self.flights.oldest()

    def is_due(self, now: Seconds) -> bool:
        """Whether the breaker is open and the next call will be a trial."""
        return self._state is State.OPEN and now >= self._until

    def retry_after(self, now: Seconds) -> Seconds:
        """Seconds until a call may pass, 0 when one may now."""
        override = self._override
        if override is not None and override.state is State.FORCED_OPEN:
            return (
                self.policy.max_timeout
                if override.until is None
                else max(0.0, override.until - now)
            )
        if self._ramping and override is None:
            return max(0.0, self.since + self.policy.ramp - now)
        if self.passes:
            return 0.0
        if self._state is State.OPEN:
            return max(0.0, self._until - now)
        if len(self._trials) < self.policy.trials:
            return 0.0
        # Half-open and taken: ask again after a usual opening, or when the
        # slowest trial must be back, whichever is sooner.
        return max(0.0, min(self.policy.timeout, min(self._trials.values()) - now))

    @property
    def until(self) -> Seconds:
        """Moment until which an opening lasts, the last one when there is none."""
        return self._until

    @property
    def good_trials(self) -> int:
        """Trials that succeeded since the breaker is half-open."""
        return self._good

    @property
    def round(self) -> int:
        """Openings that flapping remembers."""
        return self._round

    @property
    def in_flight(self) -> int:
        """Calls that have not come back."""
        return self.flights.out + len(self._trials)

    def explain(self, now: Seconds) -> str:
        """Say in one sentence what the breaker does and why."""
        return telling.explain(self, now)

    def snapshot(self, now: Seconds) -> dict[str, Any]:
        """All that can be said of the breaker now, fit for JSON."""
        return telling.snapshot(self, now)

    # Memory: across processes.

    def memory(self, now: Seconds) -> dict[str, Any]:
        """What is remembered of the breaker while no process has it, fit for JSON.

        The operator's word is not: whoever gave it remembers it.
        """
        left, window = self.left_closed, self.window.memory(now)
        if self._untold:  # guards have counted what the window has not heard of yet
            *held, (ok, failed, slow) = window.buckets
            heard = (*held, (ok + self._untold, failed, slow))
            window = replace(window, buckets=heard)
        return memories.Memory(
            state=self._state,
            cause=self.cause,
            reason=self._reason,
            evidence=self.evidence,
            since_ago=max(0.0, now - self.since),
            left_closed_ago=None if left is None else max(0.0, now - left),
            heard_ago=max(0.0, now - self._heard_at),
            until_in=self._until - now,
            wait=self._wait,
            round=self._round,
            run=0 if self._untold else self._run,
            starved=0 if self._untold else self._starved,
            good=self._good,
            barren=self._barren,
            local=self._is_local,
            ramping=self._ramping,
            counted={name: getattr(self, name) for name in memories.COUNTED},
            window=window,
        ).written()

    def recall(
        self, memory: Mapping[str, Any], now: Seconds, away: Seconds = 0.0
    ) -> None:
        """Be as the breaker was of which *memory* tells, as far as that still holds.

        An opening goes on, and is due if it would have ended meanwhile. Trials that were
        out are nobody's any more. The operator's word stays what it is here, and nobody
        is told: the machine did not move.

        Args:
            away: Seconds since `memory` was asked for it.

        Raises:
            ValueError: It is no memory of a breaker; nothing has changed.
        """
        known = memories.read(memory)
        away = max(0.0, away)
        then = now - away
        self.window.recall(known.window, now, away)
        for name, count in known.counted.items():
            setattr(self, name, count)
        self._state, self.cause, self._reason = known.state, known.cause, known.reason
        self.evidence = known.evidence
        self.since = then - known.since_ago
        left = known.left_closed_ago
        self.left_closed = None if left is None else then - left
        self._heard, self._heard_at = self.window.successes, then - known.heard_ago
        self._until, self._wait = then + known.until_in, known.wait
        self._round, self._is_local = known.round, known.local
        # What came in a row does not go on after so long that no window would hold it.
        is_fresh = away < self.policy.window
        self._run, self._starved = (known.run, known.starved) if is_fresh else (0, 0)
        self._good, self._barren = (known.good, known.barren) if is_fresh else (0, 0)
        self._trials.clear()
        self._era = next(self._eras)
        self.flights.forget(self._era, now)
        self._ramping = known.ramping and self._override is None
        self._open_gate()

    # Calls: ask first, report later.

    def admit(self, now: Seconds) -> Permit | Refusal:
        """Ask to make one call.

        While `gate` is above 0 it is the permit's token and nobody need ask.
        """
        move = None if self.gate > 0 else self.advance(now)
        if self.gate > 0:
            return Permit(self.gate, move=move)
        override = self._override
        if override is not None:
            return self._admit_overridden(override, now, move)
        match self._state:
            case State.CLOSED if self._ramped_in(now):
                return Permit(self._era, move=move)
            case State.HALF_OPEN if len(self._trials) < self.policy.trials:
                return Permit(self._begin_trial(now), trial=True, move=move)
        return self._refuse(now, move)

    def _admit_overridden(
        self, override: Override, now: Seconds, move: Transition | None
    ) -> Permit | Refusal:
        if override.state is State.FORCED_OPEN:
            return self._refuse(now, move)
        if override.state is State.DISABLED:
            return Permit(PASS, move=move)
        # Every call passes, and the machine behind goes on as if it decided.
        if self._state is State.CLOSED:
            return Permit(self._era, move=move)
        if self._state is State.HALF_OPEN and len(self._trials) < self.policy.trials:
            return Permit(self._begin_trial(now), trial=True, move=move)
        return Permit(UNWEIGHED, move=move)

    def _begin_trial(self, now: Seconds) -> int:
        token = next(self._eras)
        self._trials[token] = now + self.policy.lease
        return token

    def _ramped_in(self, now: Seconds) -> bool:
        """Let a growing share of the calls in after a recovery."""
        elapsed = now - self.since
        if not self._ramping or elapsed >= self.policy.ramp:
            self._ramping = False
            self._open_gate()
            return True
        return self._draw() < 0.1 + 0.9 * elapsed / self.policy.ramp

    def _refuse(self, now: Seconds, move: Transition | None) -> Refusal:
        self.rejected += 1
        return Refusal(
            self.state,
            self.refusing_because(now),
            self.retry_after(now),
            self.refusing_since,
            self.evidence,
            move,
        )

    def settle(
        self,
        token: int,
        outcome: Outcome,
        now: Seconds,
        *,
        slow: bool = False,
        evidence: Evidence | None = None,
    ) -> Transition | None:
        """Report how a permitted call ended.

        Args:
            slow: Whether it took `Policy.slow_call` or longer, well or badly.
            evidence: What was seen, for a failure.

        Returns:
            The move that this brought about, if any.
        """
        if token == self._era and self._state is State.CLOSED:
            if outcome is Outcome.FAILURE:
                return self.fail(now, evidence, slow)
            return self._count(outcome, now, slow=slow, evidence=evidence)
        if token == PASS:
            return None
        if token == UNWEIGHED:
            self._tally_trial(outcome, slow=slow)
            return None
        if token in self._trials:
            del self._trials[token]
            self._tally_trial(outcome, slow=slow)
            self._remember(evidence)
            return self._try(outcome, now, slow=slow)
        self.late += 1  # begun before the last move: no news of this state
        return None

    def retract(self, token: int) -> None:
        """Take a trial back that was permitted and never made."""
        self._trials.pop(token, None)

    # Probes: tell what was seen.

    def observe(
        self,
        outcome: Outcome,
        now: Seconds,
        *,
        slow: bool = False,
        confirmed: bool = False,
        evidence: Evidence | None = None,
    ) -> tuple[Transition, ...]:
        """Take what somebody saw who asks the server anyway.

        While open, every failure seen puts the next trial off by one wait, and
        the first success after that wait is the first trial.

        Args:
            slow: Whether the answer took `Policy.slow_call` or longer.
            confirmed: Two signals agree: a failure opens without a window.
            evidence: What was seen, for a failure.
        """
        moves: list[Transition | None] = [self._end_override(now)]
        self._remember(evidence)
        if self._state is State.OPEN:
            self._tally_trial(outcome, slow=slow)
            if outcome in FAILURES:
                self._until = max(self._until, now + self._wait)
            elif (
                outcome is Outcome.SUCCESS
                and now >= self._until
                and not self._is_too_slow(outcome, slow=slow)
            ):
                moves.append(self._cool(now))
                moves.append(self._try(outcome, now, slow=slow))
        elif self._state is State.HALF_OPEN:
            self._tally_trial(outcome, slow=slow)
            moves.append(self._try(outcome, now, slow=slow))
        else:
            if confirmed and outcome in FAILURES:
                moves.append(self._confirm(outcome, now, slow=slow))
            else:
                moves.append(self._count(outcome, now, slow=slow, evidence=None))
        if self._ramping:
            self._ramping = False  # nobody asks for admission here
            self._open_gate()
        return tuple(move for move in moves if move is not None)

    # Time and operators.

    def turn(self, now: Seconds) -> Transition | None:
        """Begin a new slice, and see whether the calls that are out come back."""
        move = self.advance(now)
        if move is not None or self._state is not State.CLOSED:
            return move
        if now >= self.flights.edge:
            self._gather(self.flights.turn(self._era, now))
        else:
            self._gather(self.flights.slice)
        self.window.rotate(now)
        self._find_edge()
        return self._weigh_flights(now)

    def hold(self, held: bool) -> None:
        """Have every call ask, or no longer."""
        self.held = held
        self._open_gate()

    def disown(self, now: Seconds) -> None:
        """Forget the calls that are out and what was counted: they are another
        process's, of which this one is a fork. What is known of the server stays."""
        self._gather(self.flights.slice)
        self.window.clear(now)
        self.flights.forget(self._era, now)
        self._trials.clear()
        self._run = self._good = self._barren = self._starved = 0
        self._find_edge()

    def advance(self, now: Seconds) -> Transition | None:
        """Do what time alone brings about.

        An override ends, an opening cools, a trial expires: at most one of them,
        in this order, so that each is told.
        """
        ended = self._end_override(now)
        if ended is not None:
            return ended
        if self.is_due(now):
            return self._cool(now)
        if self._trials and min(self._trials.values()) <= now:
            reason = (
                f"a trial call did not come back within {lasting(self.policy.lease)}"
            )
            return self._move(Cause.EXPIRED, now, reason)
        return None

    def force(self, override: Override, now: Seconds) -> Transition:
        """Put an operator's word before the machine's.

        Raises:
            ValueError: The state is not one an operator can ask for.
        """
        if override.state not in OVERRIDES:
            allowed = ", ".join(state.value for state in OVERRIDES)
            raise ValueError(
                f"a breaker cannot be forced {override.state.value}; it can be {allowed}"
            )
        before = self.state
        self._override = override
        self._forced_at = now
        return self._took_over(
            before, Cause.OVERRIDDEN, telling.overridden(override, now), now
        )

    def resume(self, now: Seconds, reason: str = "handed back") -> Transition | None:
        """Let the machine decide again. None when it already does."""
        if self._override is None:
            return None
        before = self.state
        self._override = None
        return self._took_over(before, Cause.RESUMED, reason, now)

    def _end_override(self, now: Seconds) -> Transition | None:
        override = self._override
        if override is None or override.until is None or now < override.until:
            return None
        return self.resume(now, f"the override by {override.author} ran out")

    def _took_over(
        self, before: State, cause: Cause, reason: str, now: Seconds
    ) -> Transition:
        # The machine has not moved: its era stays, calls in flight still count.
        self._ramping = False
        self._open_gate()
        return self._told(
            Transition(
                self.name,
                before,
                self.state,
                cause,
                reason,
                now,
                self._era,
                self.retry_after(now),
                self.evidence,
            )
        )

    def _told(self, move: Transition) -> Transition:
        if move.leaves_closed:
            self.left_closed = move.at
        return move

    # The machine. Only `_move` assigns the state, and `recall`.

    def _count(
        self, outcome: Outcome, now: Seconds, *, slow: bool, evidence: Evidence | None
    ) -> Transition | None:
        """Put one ended call into the window; only bad news is weighed."""
        if outcome in FAILURES:
            self._tally(outcome)
            return self.fail(now, evidence, slow)
        self._remember(evidence)
        if outcome is Outcome.SUCCESS:
            self._record_success(now, slow=slow)
            if self._is_too_slow(outcome, slow=slow):
                return self._weigh_slowness(now)
            return None
        self._gather(self.flights.slice)
        self.window.rotate(now)
        self._tally(outcome)
        return self._starve(now, evidence) if outcome is Outcome.UNREACHED else None

    def fail(
        self,
        now: Seconds,
        evidence: Evidence | None,
        slow: bool,
    ) -> Transition | None:
        """Report a failure of a call of the current era, while closed; as `settle`
        does it, in one piece, for in an outage there are many of them."""
        window, current = self.window, self.flights.slice
        if current.ok != current.told:
            self._gather(current)
        if now >= window.edge:
            window.rotate(now)
        window.failed += 1
        window.slow += slow
        self._run += 1
        if evidence is not None:
            self.evidence = evidence
        policy = self.policy
        if (
            policy.failure_threshold is not None
            and self._run >= policy.failure_threshold
        ):
            return self._open_by(rules.failure_run(self._run, policy), now)
        failed = window.held_failed + window.failed
        total = window.held_ok + window.ok + failed
        if total < policy.minimum_calls:
            return None
        if failed >= policy.failure_rate * total:
            return self._open_by(rules.failure_rate(window.counts(), policy), now)
        return self._weigh_slowness(now) if slow else None

    def _weigh_slowness(self, now: Seconds) -> Transition | None:
        return self._open_by(rules.slow_rate(self.window.counts(), self.policy), now)

    def _is_too_slow(self, outcome: Outcome, *, slow: bool) -> bool:
        """Whether a success was so slow that it speaks against the server."""
        return slow and outcome is Outcome.SUCCESS and self.policy.slow_rate is not None

    def _starve(self, now: Seconds, evidence: Evidence | None) -> Transition | None:
        """Count a call that never left; it matters when the caller's own pool had no
        connection for it."""
        if evidence is None or evidence.code != POOL:
            return None
        self._starved += 1
        return self._open_by(rules.pool_exhausted(self._starved, self.policy), now)

    def _weigh_flights(self, now: Seconds) -> Transition | None:
        """Judge by the calls that are out, for those that hang report nothing."""
        successes = self.window.successes
        if successes != self._heard:
            self._heard, self._heard_at = successes, now
        policy = self.policy
        if policy.slow_call is None:
            return None
        overdue = self.flights.overdue(policy.slow_call, now)
        if not overdue:
            return None
        counts = self.window.counts()
        # Before anybody asked, nobody could come back.
        oldest = self.flights.oldest()
        asked_at = now if oldest is None else min(now, oldest.until)
        silence = now - max(self._heard_at, asked_at)
        span = min(policy.window, now - self.since)
        charge = rules.slow_rate(counts, policy, overdue) or rules.hanging(
            counts, policy, overdue, silence, span
        )
        return self._open_by(charge, now)

    def _open_by(self, charge: rules.Charge | None, now: Seconds) -> Transition | None:
        """Open, if a rule has something against staying closed."""
        if charge is None:
            return None
        cause, reason = charge
        is_of_failures = cause in (Cause.FAILURE_RUN, Cause.FAILURE_RATE)
        return self._move(
            cause, now, reason + self._last() if is_of_failures else reason
        )

    def _confirm(self, outcome: Outcome, now: Seconds, *, slow: bool) -> Transition:
        self._tally(outcome)
        self._gather(self.flights.slice)
        self.window.rotate(now)
        self.window.failed += 1
        self.window.slow += slow
        reason = str(self.evidence) if self.evidence else "two signals agree"
        return self._move(Cause.CONFIRMED, now, reason)

    def _gather(self, slice_: Slice) -> None:
        """Tell the window of what guards have counted in a slice since the last time.

        A slice that has ended is gathered after the next has taken its place: until
        then another thread may still count in it.
        """
        fresh = slice_.ok - slice_.told
        if fresh:
            slice_.told += fresh
            self.credit(fresh)

    def credit(self, successes: int) -> None:
        """Count successes that nobody settled one by one."""
        self.window.ok += successes
        self._run = self._starved = 0

    def _record_success(self, now: Seconds, *, slow: bool) -> None:
        self._gather(self.flights.slice)
        self.window.rotate(now)
        self.credit(1)
        self.window.slow += slow

    def _tally(self, outcome: Outcome) -> None:
        """Count, for the record, what the window does not."""
        if outcome is Outcome.CUT:
            self.cut += 1
        elif outcome is Outcome.IGNORED:
            self.ignored += 1
        elif outcome is Outcome.UNREACHED:
            self.unreached += 1
        elif outcome is Outcome.RELEASED:
            self.released += 1

    def _tally_trial(self, outcome: Outcome, *, slow: bool) -> None:
        """Count a call that the window does not see."""
        self._tally(outcome)
        ok, failed = outcome is Outcome.SUCCESS, outcome in FAILURES
        self.window.pass_by(ok=ok, failed=failed, slow=slow and (ok or failed))

    def _remember(self, evidence: Evidence | None) -> None:
        if evidence is not None:
            self.evidence = evidence

    def _try(self, outcome: Outcome, now: Seconds, *, slow: bool) -> Transition | None:
        """Weigh one trial that came back."""
        if outcome in FAILURES or self._is_too_slow(outcome, slow=slow):
            how = "failed" if outcome in FAILURES else "was slow"
            return self._move(Cause.RELAPSED, now, f"a trial call {how}{self._last()}")
        if outcome is Outcome.SUCCESS:
            self._barren = 0
            self._good += 1
            # That the pool has a connection again is no matter of chance.
            enough = 1 if self._is_local else self.policy.success_threshold
            if self._good < enough:
                return None
            reason = f"{self._good} trial calls in a row succeeded"
            return self._move(Cause.RECOVERED, now, reason)
        if outcome is not Outcome.IGNORED:
            self._barren += 1
            if self._barren >= max(self.policy.success_threshold, _BARREN):
                reason = f"{self._barren} trial calls in a row never reached the server"
                return self._move(Cause.BARREN, now, reason)
        return None

    def _cool(self, now: Seconds) -> Transition:
        return self._move(Cause.COOLED, now, f"open for {lasting(now - self.since)}")

    def _last(self) -> str:
        return f", last {self.evidence}" if self.evidence else ""

    def _move(self, cause: Cause, now: Seconds, reason: str) -> Transition:
        before, after = self._state, MOVES[self._state, cause]
        self._era = next(self._eras)
        self._gather(self.flights.turn(self._era, now))
        if after is State.OPEN:
            self._open(before, cause, now)
        elif after is State.CLOSED:
            self.window.clear(now)
            self._run = 0
            self._heard_at = now
        self._trials.clear()
        self._good = self._barren = self._starved = 0
        self._state = after
        self._reason = reason
        self.cause = cause
        self.since = now
        self._ramping = (
            after is State.CLOSED
            and self.policy.ramp > 0
            and self._override is None
            and not self._is_local
        )
        self._open_gate()
        return self._told(
            Transition(
                self.name,
                before,
                after,
                cause,
                reason,
                now,
                self._era,
                max(0.0, self._until - now) if after is State.OPEN else 0.0,
                self.evidence,
                self._override.state if self._override else None,
            )
        )

    def _open(self, before: State, cause: Cause, now: Seconds) -> None:
        """Draw how long to stay open; flapping is remembered past a close."""
        policy = self.policy
        if cause is not Cause.BARREN:  # which is no news of why it is open
            self._is_local = cause is Cause.POOL_EXHAUSTED
        base = policy.timeout
        if self._is_local:
            base = min(policy.pool_timeout, base)
        if before is State.CLOSED:
            healthy = int((now - self.since) / policy.window)
            self._round = max(0, self._round - healthy)
        self._round += 1
        # Past 2**60 the product overflows no float but means nothing either.
        doubled = base * 2.0 ** min(self._round - 1, 60)
        wait = min(doubled, policy.max_timeout)
        self._wait = wait * (1 + policy.jitter * self._draw())
        if self.evidence is not None:
            self._wait = max(self._wait, self.evidence.hint)
        self._until = now + self._wait

    def _open_gate(self) -> None:
        """Let calls pass unasked exactly when nothing speaks against it."""
        free = (
            self._state is State.CLOSED
            and self._override is None
            and not self.held
            and not self._ramping
        )
        self.gate = self._era if free else GATE_SHUT
        self._find_edge()

    def _find_edge(self) -> None:
        """Say until when nobody need ask, and until when asking is in vain."""
        override = self._override
        self.edge = (
            min(self.window.edge, self.flights.edge)
            if self.gate != GATE_SHUT
            else -FOREVER
        )
        if override is not None:
            is_shut = override.state is State.FORCED_OPEN
            ends = FOREVER if override.until is None else override.until
            self.shut_until = ends if is_shut else -FOREVER
        else:
            self.shut_until = self._until if self._state is State.OPEN else -FOREVER
