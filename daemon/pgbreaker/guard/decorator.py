"""`@circuit_breaker`: a guard, and what is to be done when it has no good answer.

The order of the layers is fixed, for each other order is a known mistake:

    fallback( retry( breaker( timeout( bulkhead( call )))))

A fallback within the retry would silence it; a retry within the breaker would count
once what the server felt three times; a timeout around the breaker would not be seen
by it.
"""

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, Protocol, TypeVar, overload

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.bulkhead import Bulkhead
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.deadline import limited
from pgbreaker.guard.outcomes import Judgement, is_outage, judge
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.guard.retry import Retrying, retrying
from pgbreaker.guard.stale import StaleCache, mark
from pgbreaker.guard.wrap import (
    Again,
    guard,
    guard_coroutine,
    guard_function,
    kind_of,
)

P = ParamSpec("P")
R = TypeVar("R")


class Guards(Protocol):
    """Takes a function and gives one with the same signature."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


class GuardsLike(Protocol[P, R]):
    """Takes a function with the signature of its fallback, asynchronous or not."""

    @overload
    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


class GuardsCoroutine(Protocol[P, R]):
    """Takes a coroutine function with the signature of its fallback."""

    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...


class _Nothing:
    """No fallback value: None can be one."""


_NOTHING: Final = _Nothing()


@overload
def circuit_breaker(  # type: ignore[overload-overlap]
    name: str,
    /,
    *,
    fallback: Callable[P, Coroutine[Any, Any, R]],
    config: PostgreSQLCircuitBreakerConfig | None = ...,
    cache: StaleCache | None = ...,
    timeout: Seconds | str | None = ...,
    bulkhead: Bulkhead | int | None = ...,
    deadline: Seconds | str | None = ...,
    retry: bool = ...,
    idempotent: bool = ...,
) -> GuardsCoroutine[P, R]: ...
@overload
def circuit_breaker(
    name: str,
    /,
    *,
    fallback: Callable[P, R],
    config: PostgreSQLCircuitBreakerConfig | None = ...,
    cache: StaleCache | None = ...,
    timeout: Seconds | str | None = ...,
    bulkhead: Bulkhead | int | None = ...,
    deadline: Seconds | str | None = ...,
    retry: bool = ...,
    idempotent: bool = ...,
) -> GuardsLike[P, R]: ...
@overload
def circuit_breaker(
    name: str,
    /,
    *,
    default: object = ...,
    config: PostgreSQLCircuitBreakerConfig | None = ...,
    cache: StaleCache | None = ...,
    timeout: Seconds | str | None = ...,
    bulkhead: Bulkhead | int | None = ...,
    deadline: Seconds | str | None = ...,
    retry: bool = ...,
    idempotent: bool = ...,
) -> Guards: ...
def circuit_breaker(
    name: str,
    /,
    *,
    fallback: Callable[..., Any] | None = None,
    default: object = _NOTHING,
    config: PostgreSQLCircuitBreakerConfig | None = None,
    cache: StaleCache | None = None,
    timeout: Seconds | str | None = None,
    bulkhead: Bulkhead | int | None = None,
    deadline: Seconds | str | None = None,
    retry: bool = True,
    idempotent: bool = False,
) -> Any:
    """Guard every call of a function.

    Args:
        name: Name of the breaker; functions that name the same share it.
            ``TARGET/OPERATION`` is the breaker of one kind of work on a target.
        fallback: What is called instead, with the same arguments, when the call is
            refused or fails by the server's fault. Errors of the caller's own go
            through.
        default: What is given instead, where a value will do.
        config: Rules of the breaker. None: those it has, or the defaults.
        cache: `stale("5m")` has the last good answer given before any fallback.
        timeout: Seconds, or a text like ``800ms``, for each attempt. None: no limit.
        bulkhead: Calls that may be in flight at once, or a `Bulkhead`.
        deadline: Seconds, or a text, from the first attempt after which no retry
            begins. None: no such limit.
        retry: Whether calls are tried again, as often as `max_retry_attempts` of the
            rules says.
        idempotent: Whether doing the call twice is like doing it once. Then it is
            tried again also when nobody knows what became of it; else only when it
            never reached the server.

    Raises:
        TypeError: Something does not go together with the function.
        ValueError: A duration or a count is out of its range.
    """
    if not isinstance(name, str):
        raise TypeError(
            "say which breaker: @circuit_breaker('name'), not @circuit_breaker"
        )
    if fallback is not None and default is not _NOTHING:
        raise TypeError("give a fallback or a default, not both")
    breaker = REGISTRY.breaker(name, config)
    layers = Layers(
        breaker=breaker,
        fallback=fallback,
        default=default,
        cache=cache,
        timeout=None if timeout is None else seconds_of(timeout, "timeout"),
        bulkhead=Bulkhead(bulkhead) if isinstance(bulkhead, int) else bulkhead,
        retrying=retrying(breaker.config, deadline, idempotent=idempotent)
        if retry
        else None,
    )
    return layers.around


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Layers:
    """What stands around a function, from the outside in."""

    breaker: PostgreSQLCircuitBreaker
    fallback: Callable[..., Any] | None = None
    default: object = _NOTHING
    cache: StaleCache | None = None
    retrying: Retrying | None = None
    timeout: Seconds | None = None
    bulkhead: Bulkhead | None = None

    @property
    def has_other_answers(self) -> bool:
        return self._has_instead or self.cache is not None

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Put the layers around *function*.

        Raises:
            TypeError: One of them does not go together with it.
        """
        kind = kind_of(function)
        if self.cache is not None:
            self.cache.check(function)
        if kind == "coroutine":
            return self._around_coroutine(function)
        self._refuse(kind)
        if kind == "function":
            return self._around_function(function)
        return guard(self.breaker, function)

    def _refuse(self, kind: str) -> None:
        if self.timeout is not None:
            raise TypeError(
                f"timeout= needs a coroutine function: a {kind} cannot be interrupted;"
                " set statement_timeout instead"
            )
        if self.cache is not None:
            raise TypeError(f"cache= needs a coroutine function, not a {kind}")
        if kind != "function" and (self.has_other_answers or self.bulkhead is not None):
            raise TypeError(f"a {kind} takes neither a fallback nor a bulkhead")
        if self.fallback is not None and kind_of(self.fallback) == "coroutine":
            raise TypeError("an asynchronous fallback needs a coroutine function")

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        call = self._limited(function)
        attempt = guard_coroutine(self.breaker, call)
        if self.retrying is not None:
            again = repeating(self.breaker, self.retrying, attempt)
            attempt = guard_coroutine(self.breaker, call, again, self.retrying.safe)
        if not self.has_other_answers:
            return attempt
        return functools.wraps(function)(self._answering(function, attempt))

    def _limited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = self.breaker.name
        if self.bulkhead is not None and self.timeout is not None:
            return self.bulkhead.around_limited(function, name, self.timeout)
        if self.bulkhead is not None:
            return self.bulkhead.around(function, name)
        if self.timeout is not None:
            return limited(function, self.timeout, name)
        return function

    def _around_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        call = function
        if self.bulkhead is not None:
            call = self.bulkhead.around_blocking(call, self.breaker.name)
        attempt = guard_function(self.breaker, call)
        if self.retrying is not None:
            again = repeating_blocking(self.breaker, self.retrying, attempt)
            attempt = guard_function(self.breaker, call, again, self.retrying.safe)
        if not self.has_other_answers:
            return attempt

        @functools.wraps(function)
        def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                result = attempt(*args, **kwargs)
            except Exception as error:
                if not self._has_instead or not is_outage(error):
                    raise
                return self._instead(args, kwargs)
            if hasattr(type(result), "__await__"):
                return self._answer_later(result, args, kwargs)
            mark("call")
            return result

        return answered

    async def _answer_later(
        self, coming: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            result = await coming
        except Exception as error:
            if not self._has_instead or not is_outage(error):
                raise
            return self._instead(args, kwargs)
        mark("call")
        return result

    def _answering(
        self, function: Callable[..., Any], attempt: Callable[..., Any]
    ) -> Callable[..., Any]:
        cache, breaker = self.cache, self.breaker

        async def fresh(*args: Any, **kwargs: Any) -> Any:
            if cache is None:
                return await attempt(*args, **kwargs)
            key = cache.key_of(function, args, kwargs)
            # Nobody joins a call that hangs: who is refused has an answer from before.
            if breaker.passes:
                result = await cache.once(key, lambda: attempt(*args, **kwargs))
            else:
                result = await attempt(*args, **kwargs)
            cache.keep(key, result, breaker.clock.now())
            return result

        async def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                result = await fresh(*args, **kwargs)
            except Exception as error:
                if not is_outage(error):
                    raise
                if cache is not None:
                    key = cache.key_of(function, args, kwargs)
                    found = cache.find(key, breaker.clock.now())
                    if found is not None:
                        breaker.stale_answers += 1
                        mark("stale", found[1])
                        return found[0]
                if not self._has_instead:
                    raise
                result = self._instead(args, kwargs)
                return await result if inspect.isawaitable(result) else result
            mark("call")
            return result

        return answered

    @property
    def _has_instead(self) -> bool:
        return self.fallback is not None or self.default is not _NOTHING

    def _instead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.breaker.fallbacks += 1
        mark("fallback")
        return self.default if self.fallback is None else self.fallback(*args, **kwargs)


def repeating(
    breaker: PostgreSQLCircuitBreaker,
    rules: Retrying,
    attempt: Callable[..., Any],
) -> Again:
    """What a failed call of a coroutine function goes to: *attempt* once more, as long
    as the rules say so."""

    async def again(
        begun: Seconds,
        error: BaseException,
        judgement: Judgement,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        number = 1
        try:
            while (wait := rules.wait(breaker, judgement, number, begun)) is not None:
                await asyncio.sleep(wait)
                try:
                    return await attempt(*args, **kwargs)
                except CircuitOpenError:
                    break  # the call that was made raises its own error
                except Exception as failed:  # noqa: BLE001 - raised below, or repeated
                    error, judgement = failed, judge(failed, 0.0, None)
                    number += 1
            raise error
        finally:
            del error  # it knows this frame, and this frame it

    return again


def repeating_blocking(
    breaker: PostgreSQLCircuitBreaker,
    rules: Retrying,
    attempt: Callable[..., Any],
) -> Again:
    """The same, of a function; its thread sleeps meanwhile."""

    def again(
        begun: Seconds,
        error: BaseException,
        judgement: Judgement,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        number = 1
        try:
            while (wait := rules.wait(breaker, judgement, number, begun)) is not None:
                time.sleep(wait)
                try:
                    return attempt(*args, **kwargs)
                except CircuitOpenError:
                    break
                except Exception as failed:  # noqa: BLE001 - raised below, or repeated
                    error, judgement = failed, judge(failed, 0.0, None)
                    number += 1
            raise error
        finally:
            del error

    return again
