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
from weakref import WeakSet, WeakValueDictionary

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.flights import Slice
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
from pgbreaker.guard.outcomes import Judgement, judge

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

# What the calls of `with breaker:` in this context are: (breaker, moment, slice, the
# one around it). A guard object of its own for each would cost as much again.
_Within: TypeAlias = "tuple[PostgreSQLCircuitBreaker, Seconds, Slice, _Within | None]"
_WITHIN: Final[ContextVar["_Within | None"]] = ContextVar("pgbreaker", default=None)

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
        budget: How many retries may still be made.
        fallbacks: Calls answered by a fallback, since the beginning.
        stale_answers: Calls answered from a stale cache, since the beginning.
        retries: Calls tried again, since the beginning.
        errors: Category of `pgbreaker.classify` -> errors met, since the beginning.
        transitions: (from, to, cause) -> moves, since the beginning.
    """

    __slots__ = (
        "__weakref__",
        "_below",
        "_clock",
        "_core",
        "_lock",
        "_took",
        "above",
        "budget",
        "config",
        "errors",
        "fallbacks",
        "operation",
        "retries",
        "stale_answers",
        "target",
        "transitions",
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
        self._core = Breaker(name, config.policy(), self._clock.now())
        self._lock = threading.Lock()
        self._took: list[int] | None = None  # calls longer than each of BOUNDS
        self._below: WeakSet[PostgreSQLCircuitBreaker] | None = None
        self.above = above
        self.target: str | None = None
        self.operation: str | None = None
        self.budget: Budget = above.budget if above else Budget(config.retry_ratio)
        self.fallbacks = self.stale_answers = self.retries = 0
        self.errors: dict[str, int] = {}
        self.transitions: dict[tuple[State, State, Cause], int] = {}
        if above is not None:
            above.stand_above(self)
        elif _FREE_THREADED:
            self._core.hold(True)
        ALL[name] = self
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
        now = self._clock.now()
        with self._lock:
            text = self._core.explain(now)
        if self.above is not None and not self.above.passes:
            return f"{self.above.explain()}; {text}"
        return text

    def retry_after(self) -> Seconds:
        """Seconds until a call may pass, 0 when one may now."""
        now = self._clock.now()
        own = self._core.retry_after(now)
        return own if self.above is None else max(own, self.above.retry_after())

    def snapshot(self) -> dict[str, Any]:
        """All that can be said of the breaker now, fit for JSON; with the keys that
        the daemon's breakers have at ``/api/v1/breakers``, and more."""
        core, now = self._core, self._clock.now()
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
        begun = self._clock.now()
        core = self._core
        if begun < core.edge:
            flight = core.flights.slice
            flight.started += 1
            return begun, flight
        return begun, self.enter(begun)

    def peek(self) -> None:
        """Refuse early what is sure to be refused.

        Raises:
            CircuitOpenError: A call made now would be refused.
        """
        now = self._clock.now()
        for breaker in (self.above, self):
            if breaker is not None and now < breaker._core.shut_until:
                self._core.rejected += 1
                raise breaker._refusal_while_open(now)

    def record(self, ticket: Ticket, error: BaseException | None = None) -> None:
        """Report how the call ended.

        Args:
            error: What it raised, None when it ended well.
        """
        begun, flight = ticket
        if error is None:
            if flight is self._core.flights.slice and self._clock.now() - begun < BRISK:
                flight.ok += 1
            else:
                self.leave(begun, flight)
        else:
            self.fail(begun, flight, error)

    def __enter__(self) -> Self:
        begun = self._clock.now()
        core = self._core
        if begun < core.edge:
            flight = core.flights.slice
            flight.started += 1
        else:
            flight = self.enter(begun)
        _WITHIN.set((self, begun, flight, _WITHIN.get()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        within = _WITHIN.get()
        if within is not None and within[0] is self:
            _, begun, flight, around = within
            _WITHIN.set(around)
        else:
            begun, flight = self._find_within(within)
        if error is not None:
            self.fail(begun, flight, error)
        elif flight is self._core.flights.slice and self._clock.now() - begun < BRISK:
            flight.ok += 1
        else:
            self.leave(begun, flight)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _find_within(self, within: "_Within | None") -> Ticket:
        """Find the call of a block that ends elsewhere than it began: a generator that
        somebody else closes, a dependency that a web framework runs in threads."""
        passed: list[_Within] = []
        while within is not None and within[0] is not self:
            passed.append(within)
            within = within[3]
        if within is not None:
            around = within[3]
            for inner in reversed(passed):
                around = (*inner[:3], around)
            _WITHIN.set(around)
            return within[1], within[2]
        # Another context: its calls are told apart by nothing but their age.
        with self._lock:
            now = self._clock.now()
            return now, self._core.oldest_flight() or _UNCOUNTED

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
        begun = self._clock.now()
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
        if flight is core.flights.slice and self._clock.now() - begun < BRISK:
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
        now = self._clock.now()
        until = None if lasting is None else now + seconds_of(lasting, "lasting")
        with self._lock:
            move = self._core.force(Override(state, reason, author, until), now)
            self._note(move)
        self._spread()

    def resume(self) -> None:
        """Let the breaker decide again."""
        now = self._clock.now()
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
            raise self._refusal_while_open(begun)
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
            self._give_back(above, begun)
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
        now = self._clock.now()
        took = now - begun
        core = self._core
        slow_call = core.policy.slow_call
        with self._lock:
            flight.gone += 1
            self._time(took)
            slow = slow_call is not None and took >= slow_call
            is_news = self._settle(flight, Outcome.SUCCESS, took, now, slow=slow)
        if flight.above is not None:
            self._report_above(flight, Outcome.SUCCESS, now)
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
        took = self._clock.now() - begun
        judgement = judge(error, took, self._core.policy.slow_call, strict=strict)
        self.count(begun, flight, judgement)
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
        now = self._clock.now()
        took = now - begun
        outcome = Outcome.RELEASED if stale else judgement.outcome
        if judgement.only_above and self.above is not None:
            outcome = Outcome.UNREACHED
        evidence = None if stale else judgement.evidence
        found = judgement.classification
        with self._lock:
            flight.gone += 1
            if found is not None:
                self.errors[found.category] = self.errors.get(found.category, 0) + 1
            self._time(took)
            is_news = self._settle(
                flight, outcome, took, now, slow=judgement.is_slow, evidence=evidence
            )
        if self.above is not None:
            above = Outcome.RELEASED if stale else judgement.above
            self._report_above(flight, above, now, evidence)
        if is_news:
            self._spread()

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

    def _time(self, took: Seconds) -> None:
        if took > BRISK:
            if self._took is None:
                self._took = [0] * len(BOUNDS)
            self._took[bisect_left(BOUNDS, took) - 1] += 1

    # The breaker above.

    def stand_above(self, breaker: "PostgreSQLCircuitBreaker") -> None:
        """Be asked before *breaker* from now on."""
        if self._below is None:
            self._below = WeakSet()
        self._below.add(breaker)
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
        return flight if self.above._core.is_on_trial(flight.era) else None

    def _give_back(self, above: Slice, now: Seconds) -> None:
        assert self.above is not None
        self.above.settle(above.era, Outcome.RELEASED, now)

    def _report_above(
        self,
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
            self.above.hear(now, evidence)

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

    def hear(self, now: Seconds, evidence: Evidence | None) -> None:
        """Count a failure of a connection that a breaker below has met."""
        good = sum(b._core.totals["success"] for b in self._below or ())
        core = self._core
        with self._lock:
            # Successes are not told one by one; only whether there were any since
            # the last failure matters to a run of them.
            core.window.ok += max(0, good - core.window.successes)
            move = core.settle(core.era, Outcome.FAILURE, now, evidence=evidence)
            self._note(move)
        if move is not None:
            self._spread()

    # Telling.

    def _refusal_while_open(self, now: Seconds) -> CircuitOpenError:
        """The refusal of a breaker that is open for sure, without its lock."""
        core = self._core
        return CircuitOpenError(
            core.name,
            core.state,
            core.reason,
            core.retry_after(now) if core.override else core.shut_until - now,
            self._clock.wall_of(core.since),
            core.evidence,
        )

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
        key = (move.before, move.after, move.cause)
        self.transitions[key] = self.transitions.get(key, 0) + 1
        events.note(move, detailed=True)

    def _spread(self) -> None:
        """Tell of what was noted, the breakers below first."""
        for breaker in tuple(self._below or ()):
            self._hold(breaker)
        events.flush()

    def disown(self) -> None:
        """Start anew in a forked process: locks may be held, and the calls that are
        out are the parent's."""
        self._lock = threading.Lock()
        self._core.disown(self._clock.now())


SYSTEM: Final = Clock()

ALL: Final[WeakValueDictionary[str, PostgreSQLCircuitBreaker]] = WeakValueDictionary()
"""Every breaker of the process, by name; of several with one name, the last made."""


def _beside(flight: Slice, above: Slice) -> Slice:
    """A call's slice that remembers the trial it is for the breaker above."""
    return Slice(flight.era, above)


def _moment(at: float) -> str:
    """Write a Unix time as in RFC 3339, to the millisecond."""
    whole, rest = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:03d}Z"


def all_breakers() -> list[PostgreSQLCircuitBreaker]:
    """Every breaker of the process, by name."""
    there = (ref() for ref in ALL.valuerefs())
    found = [breaker for breaker in there if breaker is not None]
    return sorted(found, key=lambda breaker: breaker.name)


def _disown_all() -> None:
    for breaker in all_breakers():
        breaker.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
