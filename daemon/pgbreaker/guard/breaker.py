"""The breaker as an application holds it: the state machine, a clock, and a lock.

While all is well a call passes on two comparisons: of the time with the breaker's
`edge` when it is sent, of its slice with the current one when it is back. No lock, no
allocation, no await. Everything else (a failure, a slow call, a new slice of time, a
breaker that is not simply closed) goes through `enter`, `leave` and `fail`, under the
lock, which is never held across anybody else's code.
"""

import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar
from weakref import ReferenceType, ref

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.flights import FOREVER, Slice
from pgbreaker.core.states import (
    PASS,
    Cause,
    Evidence,
    Outcome,
    Override,
    Permit,
    Refusal,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard import events
from pgbreaker.guard.budget import Budget
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.living import join, living
from pgbreaker.guard.outcomes import CATEGORIES, Judgement, judge
from pgbreaker.postgres.sqlstates import Category

P = ParamSpec("P")
R = TypeVar("R")

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

_UNCOUNTED: Final = Slice(PASS)  # calls that are part of others, or that nobody counts

_ENDED: Final = (
    *("success", "failure", "cut", "ignored", "unreached", "released", "late"),
)

_ASKED: Final = (*_ENDED, "rejected")

# The calls of `with breaker:` in this context, the innermost first: the breaker (None
# once it has ended), the moment it began, its slice, and the one around it. A guard
# object of its own for each would cost as much again.
_Within: TypeAlias = list[Any]
_WITHIN: Final[ContextVar[_Within | None]] = ContextVar("pgbreaker", default=None)

# The trials that this context is part of: what is called within a trial, on the same
# breaker, belongs to it. Set only when a trial begins.
_TRIALS: Final[ContextVar[tuple[tuple[Breaker, int], ...]]] = ContextVar(
    "pgbreaker_trials", default=()
)

# Without the GIL an addition can be lost, so there every call takes the lock.
_FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()


class PostgreSQLCircuitBreaker:
    """A circuit breaker around the calls of one kind.

    Use it as a decorator (`@breaker`, for coroutine functions, asynchronous
    generators, functions and generators), around a block (`with breaker:`, and `async
    with`, which does no more), by `await breaker.call(function, ...)`, or, where
    nothing can be wrapped, by `acquire` and `record`.

    What a call raises, it raises on, unchanged; a call that is refused raises
    `CircuitOpenError`. Errors that the caller is to blame for count for nothing, nor
    does a call that was cancelled, unless it was overdue already.

    Threads, tasks and forks may share one.

    Attributes:
        name: Its name, the same in every log, metric and message.
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
        "_errors",
        "_flights",
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
        above: "PostgreSQLCircuitBreaker | None" = None,
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
        self._core = Breaker(name, config.policy(), self._now())
        self._flights = self._core.flights
        self._lock = threading.Lock()
        self._took: list[int] | None = None  # calls longer than each of BOUNDS
        # What is said of every refusal of one opening; made with the first.
        self._refusing: tuple[str, State, str, float, Evidence | None] | None = None
        self.brisk = min(BRISK, config.slow_call or BRISK)
        # Weakly, and replaced whole, so that reading it needs no lock.
        self._below: tuple[ReferenceType[PostgreSQLCircuitBreaker], ...] = ()
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
        if os.environ.get("PGBREAKER_DISABLED") == "1":
            self.force(State.METRICS_ONLY, "PGBREAKER_DISABLED=1 is in the environment")

    def __repr__(self) -> str:
        return f"<PostgreSQLCircuitBreaker {self.name!r} {self.state}>"

    # Reading: none of these changes anything.

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def clock(self) -> Clock:
        """Where its time comes from."""
        return self._clock

    @property
    def core(self) -> Breaker:
        """The state machine, for guards; applications have no use for it."""
        return self._core

    @property
    def state(self) -> State:
        """What callers feel, but for the breaker above."""
        return self._core.state

    @property
    def passes(self) -> bool:
        """Whether a call made now would pass as a matter of course."""
        return self._core.passes and (self.above is None or self.above.passes)

    def explain(self) -> str:
        """Say in one sentence what the breaker does and why."""
        now = self._now()
        with self._lock:
            text = self._core.explain(now)
        if self.above is not None and not self.above.passes:
            return f"{self.above.explain()}; {text}"
        return text

    def retry_after(self) -> Seconds:
        """Seconds until a call may pass, 0 when one may now."""
        now = self._now()
        own = self._core.retry_after(now)
        return own if self.above is None else max(own, self.above.retry_after())

    def snapshot(self) -> dict[str, Any]:
        """All that can be said of the breaker now, fit for JSON; with the keys that
        the daemon's breakers have at ``/api/v1/breakers``, and more."""
        core, now = self._core, self._now()
        with self._lock:
            seen = core.snapshot(now)
        evidence = seen["evidence"] or {}
        return {
            "name": self.name,
            "target": self.target,
            "operation": self.operation,
            "state": seen["state"],
            "computed_state": seen["computed_state"],
            "since": _moment(self._clock.wall_of(core.since)),
            "reason": self.explain(),
            "cause": {
                "code": core.cause.value if core.cause else None,
                "sqlstate": evidence.get("sqlstate"),
                "category": evidence.get("code"),
                "text": evidence.get("text"),
            },
            "retry_after_seconds": round(self.retry_after(), 3),
            "override": seen["override"],
            "due": seen["due"],
            "window": seen["window"],
            "in_flight": seen["in_flight"],
            "totals": self.totals,
        }

    @property
    def totals(self) -> dict[str, int]:
        """Calls since the beginning, by what came of them: as the core counts them,
        and those that were answered otherwise or tried again."""
        return self._core.totals | {
            "fallback": self.fallbacks,
            "stale": self.stale_answers,
            "retries": self.retries,
        }

    def calls(self) -> int:
        """Calls since the beginning, refused ones too, of all the breakers that share
        the budget for retries."""
        sharing = [self] if self.above is None else self.above.below
        return sum(sum(b._core.totals[name] for name in _ASKED) for b in sharing)

    @property
    def budget(self) -> Budget:
        """How many retries may still be made, on the whole server."""
        if self.above is not None:
            return self.above.budget
        with self._lock:
            if self._budget is None:
                self._budget = Budget(self.config.retry_ratio)
            return self._budget

    @property
    def transitions(self) -> dict[tuple[State, State, Cause], int]:
        """(from, to, cause) -> moves, since the beginning."""
        return dict(self._transitions or {})

    def errors(self) -> dict[Category, int]:
        """Category of `pgbreaker.classify` -> errors met, since the beginning."""
        return dict(zip(CATEGORIES, self._errors, strict=True))

    def durations(self) -> tuple[int, ...]:
        """Calls by their duration: up to each of `BOUNDS`, and beyond the last."""
        totals = self._core.totals
        ended = sum(totals[outcome] for outcome in _ENDED)
        longer = tuple(self._took or (0,) * len(BOUNDS))
        return (max(0, ended - sum(longer)), *longer)

    # Calls that cannot be wrapped, and the ways of wrapping.

    def acquire(self) -> Ticket:
        """Ask to make one call; `record` wants the ticket back, once.

        Raises:
            CircuitOpenError: The call is refused.
        """
        now = self._now  # 3.11 is slow at calling what is in a slot
        begun = now()
        if begun < self._core.edge:
            flight = self._flights.slice
            flight.started += 1
            return begun, flight
        return begun, self.enter(begun)

    def peek(self) -> None:
        """Refuse early what is sure to be refused.

        Raises:
            CircuitOpenError: A call made now would be refused.
        """
        now = self._now()
        for breaker in (self.above, self):
            if breaker is not None and now < breaker._core.shut_until:
                self._core.rejected += 1
                raise breaker._refuse(now)

    def record(self, ticket: Ticket, error: BaseException | None = None) -> None:
        """Report how the call ended.

        Args:
            error: What it raised, None when it ended well.
        """
        begun, flight = ticket
        if error is None:
            if self._now() - begun < self.brisk and flight is self._core.flights.slice:
                flight.ok += 1
            else:
                self.leave(begun, flight)
        else:
            self.fail(begun, flight, error)

    def __enter__(self) -> Self:
        now = self._now
        begun = now()
        if begun < self._core.edge:
            flight = self._flights.slice
            flight.started += 1
        else:
            flight = self.enter(begun)
        around = _WITHIN.get()
        while around is not None and around[0] is None:
            around = around[3]
        _WITHIN.set([self, begun, flight, around])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        within = _WITHIN.get()
        if within is not None and within[0] is self:
            within[0] = None
            _, begun, flight, _ = within
        else:
            begun, flight = self._find_within(within)
        now = self._now
        if (
            error is None
            and now() - begun < self.brisk
            and flight is self._flights.slice
        ):
            flight.ok += 1
        else:
            self._end(begun, flight, error)

    # The same once more, for a call that only passes it on costs as much as the half.

    async def __aenter__(self) -> Self:
        now = self._now
        begun = now()
        if begun < self._core.edge:
            flight = self._flights.slice
            flight.started += 1
        else:
            flight = self.enter(begun)
        around = _WITHIN.get()
        while around is not None and around[0] is None:
            around = around[3]
        _WITHIN.set([self, begun, flight, around])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        within = _WITHIN.get()
        if within is not None and within[0] is self:
            within[0] = None
            _, begun, flight, _ = within
        else:
            begun, flight = self._find_within(within)
        now = self._now
        if (
            error is None
            and now() - begun < self.brisk
            and flight is self._flights.slice
        ):
            flight.ok += 1
        else:
            self._end(begun, flight, error)

    def _end(self, begun: Seconds, flight: Slice, error: BaseException | None) -> None:
        """Report how a block ended that did not simply end well."""
        if flight.out <= 0:  # it has ended already, in another context
            begun, flight = self._oldest()
        if error is not None:
            self.fail(begun, flight, error)
        else:
            self.leave(begun, flight)

    def _find_within(self, within: _Within | None) -> Ticket:
        """Find the call of a block that ends elsewhere than it began: a generator that
        somebody else closes, a dependency that a web framework runs in threads."""
        while within is not None:
            if within[0] is self:
                within[0] = None
                return within[1], within[2]
            within = within[3]
        return self._oldest()

    def _oldest(self) -> Ticket:
        # Of another context's calls nothing is known here but their age.
        with self._lock:
            return self._now(), self._core.oldest_flight() or _UNCOUNTED

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard every call of *function*.

        Raises:
            TypeError: It is nothing that can be guarded.
        """
        from pgbreaker.guard.wrap import guard

        return guard(self, function)

    async def call(
        self,
        function: Callable[P, Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call *function* once, guarded.

        Raises:
            CircuitOpenError: The call is refused.
        """
        begun = self._now()
        core = self._core
        if begun < core.edge:
            flight = core.flights.slice
            flight.started += 1
        else:
            flight = self.enter(begun)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            self.fail(begun, flight, error)
            raise
        if self._now() - begun < self.brisk and flight is core.flights.slice:
            flight.ok += 1
        else:
            self.leave(begun, flight)
        return result

    # Operators.

    def force(
        self,
        state: State,
        reason: str,
        *,
        author: str = "application",
        lasting: Seconds | str | None = None,
    ) -> None:
        """Put *state* before what the breaker decides.

        Args:
            state: `State.CLOSED`, `FORCED_OPEN`, `DISABLED` or `METRICS_ONLY`.
            reason: Why, for everybody who meets it.
            lasting: Seconds, or a text like ``30m``, after which it ends. None: not
                by itself.

        Raises:
            ValueError: The state cannot be asked for.
        """
        now = self._now()
        until = None if lasting is None else now + seconds_of(lasting, "lasting")
        with self._lock:
            move = self._core.force(Override(state, reason, author, until), now)
            self._note(move)
        self._spread()

    def resume(self) -> None:
        """Let the breaker decide again."""
        now = self._now()
        with self._lock:
            move = self._core.resume(now)
            self._note(move)
        self._spread()

    # What guards do when a call is not simply let in, or does not simply end well.

    def enter(self, begun: Seconds) -> Slice:
        """Ask for a call that may not be sent unasked; gives the slice it counts in.

        Raises:
            CircuitOpenError: The call is refused.
        """
        core = self._core
        if begun < core.shut_until:
            core.rejected += 1
            raise self._refuse(begun)
        above = self._ask_above(begun) if self.above is not None else None
        with self._lock:
            turned = core.turn(begun)
            if core.computed_state is State.HALF_OPEN and self._is_part_of_trial():
                answer: Permit | Refusal = Permit(PASS)
            else:
                answer = core.admit(begun)
            flight = None if isinstance(answer, Refusal) else self._slice_for(answer)
            if turned is not None or answer.move is not None:
                self._note(turned)
                self._note(answer.move)
        if flight is not None and above is not None:
            flight = _beside(flight, above)
        elif above is not None:
            assert self.above is not None
            self.above.withdraw(above)
        if turned is not None or answer.move is not None:
            self._spread()
        if isinstance(answer, Refusal):
            raise self._refusal(answer)
        assert flight is not None
        flight.started += 1
        return flight

    def _slice_for(self, permit: Permit) -> Slice:
        if permit.trial:
            core = self._core
            live = [t for t in _TRIALS.get() if t[0].is_on_trial(t[1])]
            _TRIALS.set((*live, (core, permit.token)))
            return Slice(permit.token)
        return _UNCOUNTED if permit.token == PASS else self._core.flights.slice

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
        if self._took is not None and not slow and flight is core.flights.slice:
            # Nothing but longer than the briskest: no lock is needed for that.
            self._took[bisect_left(BOUNDS, took) - 1] += took > BRISK
            if flight is core.flights.slice:
                flight.ok += 1
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
    def below(self) -> "list[PostgreSQLCircuitBreaker]":
        """The breakers that ask this one first."""
        there = [below() for below in self._below]
        return [breaker for breaker in there if breaker is not None]

    def stand_above(self, breaker: "PostgreSQLCircuitBreaker") -> None:
        """Be asked before *breaker* from now on."""
        with self._lock:
            there = tuple(below for below in self._below if below() is not None)
            self._below = (*there, ref(breaker))
        self._hold(breaker)

    def _hold(self, breaker: "PostgreSQLCircuitBreaker") -> None:
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
            self.above.settle(trial.era, outcome, now, evidence)
        elif outcome is Outcome.FAILURE:
            self.above.hear(begun, now, evidence)

    def settle(
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
            fresh = good - core.window.successes
            if fresh > 0:
                core.credit(fresh)
            move = core.settle(core.era, Outcome.FAILURE, now, evidence=evidence)
            self._note(move)
        if move is not None:
            self._spread()

    # Telling.

    def _refuse(self, now: Seconds) -> CircuitOpenError:
        """The refusal of a breaker that is open for sure, without its lock."""
        refusing = self._refusing
        if refusing is None or self._core.override is not None:
            core = self._core
            opened_at = self._clock.wall_of(core.refusing_since)
            because = core.refusing_because(now)
            refusing = (core.name, core.state, because, opened_at, core.evidence)
            self._refusing = refusing
        name, state, reason, since, last_error = refusing
        wait = self._core.shut_until - now
        if wait == FOREVER:
            wait = self._core.retry_after(now)
        return CircuitOpenError(name, state, reason, wait, since, last_error)

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
        self._lock = threading.Lock()
        self._core.disown(self._now())


SYSTEM: Final = Clock()


def _beside(flight: Slice, above: Slice) -> Slice:
    """A call's slice that remembers the trial it is for the breaker above."""
    return Slice(flight.era, above)


def _moment(at: float) -> str:
    """Write a Unix time as in RFC 3339, to the millisecond."""
    whole, rest = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:03d}Z"


def all_breakers() -> list[PostgreSQLCircuitBreaker]:
    """Every breaker of the process, by name; of several with one name the last made."""
    by_name = {
        thing.name: thing
        for thing in living()
        if isinstance(thing, PostgreSQLCircuitBreaker)
    }
    return [by_name[name] for name in sorted(by_name)]
