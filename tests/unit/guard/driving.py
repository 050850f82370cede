"""A breaker in the hand: its time, its calls, and the errors that they end in."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig
from pgbreaker.clock import Clock
from pgbreaker.core.states import State

EPOCH = 1_700_000_000.0

CONFIG = PostgreSQLCircuitBreakerConfig(
    failure_threshold=5,
    success_threshold=2,
    timeout=30.0,
    jitter=0.0,
    slow_call=0.5,
    max_retry_attempts=0,
)


class Time:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=self, wall=lambda: EPOCH + self.at)


class _Waiting(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None):
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self._time.passes(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, time: Time) -> None:
        super().__init__(_Waiting(time))
        self._at = time

    def time(self) -> float:
        return self._at()


def run(time: Time, work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* in a loop whose timers go by *time*, so that nobody waits."""
    with asyncio.Runner(loop_factory=lambda: _Loop(time)) as runner:
        return runner.run(work)


def make(time: Time, name: str = "orders", **rules) -> PostgreSQLCircuitBreaker:
    return PostgreSQLCircuitBreaker(name, CONFIG.replace(**rules), clock=time.clock)


def succeed(breaker: PostgreSQLCircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.record(breaker.acquire())


def fail(
    breaker: PostgreSQLCircuitBreaker,
    times: int = 1,
    error: BaseException | None = None,
) -> None:
    for _ in range(times):
        breaker.record(breaker.acquire(), error or refused())


def opened(time: Time, name: str = "orders", **rules) -> PostgreSQLCircuitBreaker:
    breaker = make(time, name, **rules)
    fail(breaker, 5)
    assert breaker.state is State.OPEN
    return breaker


def cooled(time: Time, name: str = "orders", **rules) -> PostgreSQLCircuitBreaker:
    """A breaker whose next call is a trial."""
    breaker = opened(time, name, **rules)
    time.passes(breaker.retry_after())
    return breaker


def refused() -> Exception:
    """The server cannot be reached: safe to try again, every operation's business."""
    return ConnectionRefusedError(111, "Connection refused")


def lost() -> Exception:
    """The connection broke: nobody knows what became of the call."""
    return ConnectionResetError(104, "Connection reset by peer")


def timed_out() -> Exception:
    """One statement took too long: the business of its operation alone."""
    return asyncpg.QueryCanceledError("canceling statement due to statement timeout")


def duplicate() -> Exception:
    """The caller's own fault, as the server says it."""
    return asyncpg.UniqueViolationError("duplicate key value violates a constraint")


def starved() -> Exception:
    """No connection came free in the application's own pool."""
    return PoolTimeoutError("QueuePool limit of size 5 overflow 10 reached")
