"""The breaker as an application holds it: the state machine, a clock, and a lock.

While all is well a call passes on two comparisons: of the time with the breaker's
`edge` when it is sent, of its slice with the current one when it is back. No lock, no
allocation, no await. Everything else (a failure, a slow call, a new slice of time, a
breaker that is not simply closed) goes through `enter`, `leave` and `fail`, under the
lock, which is never held across anybody else's code.
"""

import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar

from pgbreaker.clock import Clock
from pgbreaker.core.flights import Slice
from pgbreaker.core.states import Cause, Override, State
from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.core.wall import moment
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.gate import BOUNDS, ENDED, UNCOUNTED, Gate, Ticket
from pgbreaker.guard.living import living
from pgbreaker.guard.outcomes import CATEGORIES
from pgbreaker.postgres.sqlstates import Category

P = ParamSpec("P")
R = TypeVar("R")

# The calls of `with breaker:` in this context, the innermost first: the breaker (None
# once it has ended), the moment it began, its slice, and the one around it. A guard
# object of its own for each would cost as much again.
_Within: TypeAlias = list[Any]
_WITHIN: Final[ContextVar[_Within | None]] = ContextVar("pgbreaker", default=None)


class PostgreSQLCircuitBreaker(Gate):
    """A circuit breaker around the calls of one kind.

    Use it as a decorator (`@breaker`, for coroutine functions, asynchronous
    generators, functions and generators), around a block (`with breaker:`, and `async
    with`, which does no more), by `await breaker.call(function, ...)`, or, where
    nothing can be wrapped, by `acquire` and `record`.

    What a call raises, it raises on, unchanged; a call that is refused raises
    `CircuitOpenError`. Errors that the caller is to blame for count for nothing, nor
    does a call that was cancelled, unless it was overdue already.

    Threads, tasks and forks may share one.
    """

    __slots__ = ()

    above: "PostgreSQLCircuitBreaker | None"

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
            name: Its name, the same in every log, metric and message.
            config: Its rules. None: the defaults.
            above: The breaker of the whole server, asked before this one.
            clock: Where the time comes from. None: the system's clocks.
        """
        super().__init__(name, config, above=above, clock=clock)
        if os.environ.get("PGBREAKER_DISABLED") == "1":
            self.force(State.METRICS_ONLY, "PGBREAKER_DISABLED=1 is in the environment")

    def __repr__(self) -> str:
        return f"<PostgreSQLCircuitBreaker {self.name!r} {self.state}>"

    # Reading: none of these changes anything.

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
            "since": moment(self._clock.wall_of(core.since)),
            "reason": self.explain(),
            "cause": {
                "code": core.cause.value if core.cause else None,
                "sqlstate": evidence.get("sqlstate"),
                "category": evidence.get("code"),
                "text": evidence.get("text"),
            },
            "retry_after_seconds": round(self.retry_after(), 3),
            "override": seen["override"],
            "advice": seen["advice"],
            "due": seen["due"],
            "window": seen["window"],
            "in_flight": seen["in_flight"],
            "totals": self.totals,
        }

    @property
    def totals(self) -> dict[str, int]:
        """Calls since the beginning, by what came of them: as the core counts them,
        and those that were answered otherwise or tried again."""
        return self.counted | {
            "fallback": self.fallbacks,
            "stale": self.stale_answers,
            "retries": self.retries,
        }

    @property
    def transitions(self) -> dict[tuple[State, State, Cause], int]:
        """(from, to, cause) -> moves, since the beginning."""
        return dict(self._transitions or {})

    def errors(self) -> dict[Category, int]:
        """Category of `pgbreaker.classify` -> errors met, since the beginning."""
        return dict(zip(CATEGORIES, self._errors, strict=True))

    def durations(self) -> tuple[int, ...]:
        """Calls by their duration: up to each of `BOUNDS`, and beyond the last."""
        totals = self.counted
        ended = sum(totals[outcome] for outcome in ENDED)
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
                raise breaker.refuse(now)

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
            return self._now(), self._core.oldest_flight() or UNCOUNTED

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


def all_breakers() -> list[PostgreSQLCircuitBreaker]:
    """Every breaker of the process, by name; of several with one name the last made."""
    by_name = {
        thing.name: thing
        for thing in living()
        if isinstance(thing, PostgreSQLCircuitBreaker)
    }
    return [by_name[name] for name in sorted(by_name)]
