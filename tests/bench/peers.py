"""The breakers that ours is measured against, each behind the same few methods.

Each is used as its own README says, at the latest version, with the options that serve
it best. What a library cannot do, its adapter says by raising `Unsupported`; nothing is
rebuilt here on its behalf.
"""

import itertools
from collections.abc import Callable
from datetime import timedelta
from importlib import metadata
from typing import Any

import aiobreaker
import circuitbreaker
import fluxgate
import interlock
import purgatory
import purgatory.domain.model
import pybreaker
import resilix
from fluxgate.permits import All
from fluxgate.retries import Cooldown
from fluxgate.trippers import (
    Closed,
    FailureStreak,
    HalfOpened,
    MinRequests,
    SlowRate,
)

import pgbreaker

NEVER = 10**9
"""Failures after which a breaker opens that is not to open."""

Listener = Callable[[], None]
_NUMBERS = itertools.count(1)


class Unsupported(Exception):
    """The library has no such thing."""


def fresh_name() -> str:
    """A name that no breaker of this process has yet."""
    return f"bench-{next(_NUMBERS)}"


class Peer:
    """One library.

    Attributes:
        name: Name that the tables show.
        distribution: Name on PyPI.
        modules: Prefix of its modules, to find the clocks it reads.
        refusal: What it raises when it refuses a call.
        is_async: Whether it guards coroutine functions. If not, all of it is measured
            on plain functions, against a bare call of one.
        has_jitter: Whether it can draw how long it stays open.
        jitter_from: Share of itself by which an opening may be shorter, for each of
            jitter.
    """

    name: str
    distribution: str
    modules: str
    refusal: type[Exception]
    is_async = True
    has_jitter = False
    jitter_from = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def version(self) -> str:
        return metadata.version(self.distribution)

    def make(
        self,
        failures: int = 5,
        recovery: float = 60.0,
        *,
        slow_call: float | None = None,
        jitter: float = 0.0,
        listener: Listener | None = None,
    ) -> Any:
        """A new breaker that opens after so many *failures* in a row.

        Args:
            recovery: Seconds that it stays open.
            slow_call: Seconds from which a call is slow, for those who know such.
            jitter: Share of *recovery* that is drawn.
            listener: Called with every change of state.

        Raises:
            Unsupported: It knows no jitter, or no listeners.
        """
        raise NotImplementedError

    def guard(self, breaker: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate *function*: a coroutine function where `is_async`."""
        return breaker(function)

    def guard_blocking(
        self, failures: int, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Decorate a plain function, with a breaker of its own."""
        return self.make(failures)(function)

    def block(self, breaker: Any) -> Any:
        """What stands behind `with`: a context manager that can be used again and
        again, or a callable that makes one."""
        raise Unsupported

    def async_block(self, breaker: Any) -> Any:
        """What stands behind `async with`: likewise, but what makes one is awaited."""
        raise Unsupported

    def told_wait(self, refusal: Exception) -> float | None:
        """Seconds to wait that the refusal tells, None if it tells none."""
        return None


class Pgbreaker(Peer):
    name = "pgbreaker"
    distribution = "pgbreaker"
    modules = "pgbreaker"
    refusal = pgbreaker.CircuitOpenError
    has_jitter = True

    @staticmethod
    def config(
        failures: int, recovery: float = 60.0, **more: Any
    ) -> pgbreaker.PostgreSQLCircuitBreakerConfig:
        """Rules that open after so many failures in a row, and not by a rate before."""
        more.setdefault("minimum_calls", max(failures, 20))
        return pgbreaker.PostgreSQLCircuitBreakerConfig(
            failure_threshold=failures, timeout=recovery, **more
        )

    def make(self, failures=5, recovery=60.0, *, slow_call=None, jitter=0.0, **more):
        name, listener = fresh_name(), more.get("listener")
        rules: dict[str, Any] = {"jitter": jitter}
        if slow_call is not None:
            rules |= {"slow_call": slow_call, "trial_deadline": 10 * slow_call}
        config = self.config(failures, recovery, **rules)
        if listener is not None:
            pgbreaker.subscribe(
                lambda event: listener() if event.breaker == name else None
            )
        return pgbreaker.PostgreSQLCircuitBreaker(name, config)

    def block(self, breaker):
        return breaker

    def async_block(self, breaker):
        return breaker

    def told_wait(self, refusal):
        return refusal.retry_after


class _Listening:
    """interlock's listener: it has further hooks, and need not have them all."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def on_state_change(self, **_: Any) -> None:
        self._listener()


class Interlock(Peer):
    name = "interlock-cb"
    distribution = "interlock-cb"
    modules = "interlock"
    refusal = interlock.CircuitOpenError

    def make(self, failures=5, recovery=60.0, *, slow_call=None, jitter=0.0, **more):
        if jitter:
            raise Unsupported
        listener = more.get("listener")
        slowness = (
            {}
            if slow_call is None
            else {
                "slow_call_duration_threshold": slow_call,
                "slow_call_rate_threshold": 0.5,
            }
        )
        # It knows rates only: of the first so many calls, all have failed.
        config = interlock.Config(
            minimum_number_of_calls=failures,
            wait_duration_in_open=recovery,
            permitted_calls_in_half_open=1,
            **slowness,
        )
        return interlock.CircuitBreaker(
            name=fresh_name(),
            config=config,
            listener=_Listening(listener) if listener else None,
        )

    def block(self, breaker):
        return breaker

    def async_block(self, breaker):
        return breaker

    def told_wait(self, refusal):
        return refusal.retry_after


class Resilix(Peer):
    name = "resilix"
    distribution = "resilix"
    modules = "resilix"
    refusal = resilix.CircuitOpenError

    def make(self, failures=5, recovery=60.0, *, jitter=0.0, listener=None, **_):
        if jitter:
            raise Unsupported
        return resilix.CircuitBreaker(
            failures=failures,
            reset_timeout=recovery,
            on_state_change=listener and (lambda _old, _new: listener()),
        )


class Circuitbreaker(Peer):
    # It has `__enter__`, which is not documented and refuses nothing: not a block.
    name = "circuitbreaker"
    distribution = "circuitbreaker"
    modules = "circuitbreaker"
    refusal = circuitbreaker.CircuitBreakerError

    def make(self, failures=5, recovery=60.0, *, jitter=0.0, listener=None, **_):
        if jitter or listener:
            raise Unsupported
        return circuitbreaker.CircuitBreaker(failures, recovery, name=fresh_name())

    def told_wait(self, refusal):
        # In its text alone, but there.
        _, _, rest = str(refusal).partition(" failures, ")
        seconds, found, _ = rest.partition(" sec remaining")
        return float(seconds) if found else None


class Purgatory(Peer):
    name = "purgatory"
    distribution = "purgatory"
    modules = "purgatory"
    refusal = purgatory.domain.model.OpenedState

    def make(self, failures=5, recovery=60.0, *, jitter=0.0, listener=None, **_):
        if jitter:
            raise Unsupported
        factory = purgatory.AsyncCircuitBreakerFactory(failures, recovery)
        if listener is not None:
            factory.add_listener(lambda *_: listener())
        return factory

    def guard(self, breaker, function):
        return breaker("bench")(function)

    def guard_blocking(self, failures, function):
        return purgatory.SyncCircuitBreakerFactory(failures)("bench")(function)

    def block(self, breaker):
        factory = purgatory.SyncCircuitBreakerFactory(breaker.default_threshold)
        return lambda: factory.get_breaker("bench")

    def async_block(self, breaker):
        return lambda: breaker.get_breaker("bench")


class _Noting(aiobreaker.CircuitBreakerListener, pybreaker.CircuitBreakerListener):
    """The listener of aiobreaker, and of pybreaker, which it is a fork of."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def state_change(self, *_: Any) -> None:
        self._listener()


class Aiobreaker(Peer):
    name = "aiobreaker"
    distribution = "aiobreaker"
    modules = "aiobreaker"
    refusal = aiobreaker.CircuitBreakerError

    def make(self, failures=5, recovery=60.0, *, jitter=0.0, listener=None, **_):
        if jitter:
            raise Unsupported
        return aiobreaker.CircuitBreaker(
            fail_max=failures,
            timeout_duration=timedelta(seconds=recovery),
            listeners=[_Noting(listener)] if listener else None,
        )

    def told_wait(self, refusal):
        return refusal.time_remaining.total_seconds()


class Pybreaker(Peer):
    # `call_async` is Tornado's, which is not what applications of today run on.
    name = "pybreaker (sync)"
    distribution = "pybreaker"
    modules = "pybreaker"
    refusal = pybreaker.CircuitBreakerError
    is_async = False

    def make(self, failures=5, recovery=60.0, *, jitter=0.0, listener=None, **_):
        if jitter:
            raise Unsupported
        return pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=recovery,
            listeners=[_Noting(listener)] if listener else None,
            throw_new_error_on_trip=False,
        )

    def block(self, breaker):
        return breaker.calling


class Fluxgate(Peer):
    name = "fluxgate"
    distribution = "fluxgate"
    modules = "fluxgate"
    refusal = fluxgate.CallNotPermittedError
    has_jitter = True
    jitter_from = 1.0

    def make(self, failures=5, recovery=60.0, *, slow_call=None, jitter=0.0, **more):
        tripper = (Closed() & FailureStreak(failures)) | (
            HalfOpened() & FailureStreak(1)
        )
        if slow_call is not None:
            tripper |= MinRequests(20) & SlowRate(0.5, threshold=slow_call)
        listener = more.get("listener")
        return fluxgate.AsyncCircuitBreaker(
            tripper=tripper,
            retry=Cooldown(recovery, jitter_ratio=jitter),
            permit=All(),
            max_half_open_calls=1,
            listeners=[lambda _signal: listener()] if listener else (),
        )

    def guard_blocking(self, failures, function):
        return fluxgate.CircuitBreaker(tripper=FailureStreak(failures))(function)


OURS = Pgbreaker()
PEERS: tuple[Peer, ...] = (
    OURS,
    Interlock(),
    Resilix(),
    Circuitbreaker(),
    Purgatory(),
    Aiobreaker(),
    Pybreaker(),
    Fluxgate(),
)
"""All of them, ours first."""
