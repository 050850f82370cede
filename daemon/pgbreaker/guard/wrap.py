"""Guards around functions, one for each kind that Python has.

A guard calls its function once. What it raises goes through unchanged; *again*, where
there is one, may have it called another time instead.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from pgbreaker.core.flights import Slice
from pgbreaker.core.units import Seconds
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.outcomes import Judgement
from pgbreaker.postgres.sqlstates import Retry

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")


NOTHING: Final[frozenset[Retry]] = frozenset()


class Again(Protocol):
    """What a failed call goes to: it gives the result of another attempt, or raises
    the error again. Of a coroutine function it is a coroutine function itself."""

    def __call__(
        self,
        begun: Seconds,
        error: BaseException,
        judgement: Judgement,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any: ...


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, for messages."""
    return getattr(function, "__qualname__", None) or repr(function)


def kind_of(function: Callable[..., Any]) -> str:
    """Tell which of Python's kinds of function it is: ``coroutine``, ``async
    generator``, ``generator`` or ``function``.

    Raises:
        TypeError: It is nothing that can be guarded.
    """
    if isinstance(function, staticmethod | classmethod):
        raise TypeError(
            f"put the breaker below @{type(function).__name__}, next to the function"
        )
    if inspect.isclass(function) or not callable(function):
        raise TypeError(
            f"a breaker guards functions; {function!r} is none"
            " (guard the methods that call the server)"
        )
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner):
        inner = type(inner).__call__  # an object that can be called
    if inspect.iscoroutinefunction(inner):
        return "coroutine"
    if inspect.isasyncgenfunction(inner):
        return "async generator"
    return "generator" if inspect.isgeneratorfunction(inner) else "function"


def guard(
    breaker: PostgreSQLCircuitBreaker,
    function: Callable[P, R],
    again: Again | None = None,
    safe: frozenset[Retry] = NOTHING,
) -> Callable[P, R]:
    """Guard every call of *function* with *breaker*.

    Args:
        again: What a failed call goes to. None: it simply fails.
        safe: The failures that do.

    Raises:
        TypeError: It is nothing that can be guarded.
    """
    make: Any = {
        "coroutine": guard_coroutine,
        "async generator": guard_async_generator,
        "generator": guard_generator,
        "function": guard_function,
    }[kind_of(function)]
    guarded: Callable[P, R] = make(breaker, function, again, safe)
    return guarded


def guard_coroutine(
    breaker: PostgreSQLCircuitBreaker,
    function: Callable[P, Awaitable[R]],
    again: Again | None = None,
    safe: frozenset[Retry] = NOTHING,
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Guard a coroutine function."""
    core, clock, brisk = breaker.core, breaker.clock.now, breaker.brisk
    flights, enter, leave, fail = (
        core.flights,
        breaker.enter,
        breaker.leave,
        breaker.fail,
    )

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        begun = clock()
        if begun < core.edge:
            flight = flights.slice
            flight.started += 1
        else:
            flight = enter(begun)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            judgement = fail(begun, flight, error)
            if again is None or judgement.retry not in safe:
                raise
            repeated: R = await again(begun, error, judgement, args, kwargs)
            return repeated
        if clock() - begun < brisk and flight is flights.slice:
            flight.ok += 1
        else:
            leave(begun, flight)
        return result

    return guarded


def guard_function(
    breaker: PostgreSQLCircuitBreaker,
    function: Callable[P, R],
    again: Again | None = None,
    safe: frozenset[Retry] = NOTHING,
) -> Callable[P, R]:
    """Guard a function; of one that returns an awaitable, what is awaited."""
    core, clock, brisk = breaker.core, breaker.clock.now, breaker.brisk
    flights, enter, leave, fail = (
        core.flights,
        breaker.enter,
        breaker.leave,
        breaker.fail,
    )

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        begun = clock()
        if begun < core.edge:
            flight = flights.slice
            flight.started += 1
        else:
            flight = enter(begun)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            judgement = fail(begun, flight, error)
            if again is None or judgement.retry not in safe:
                raise
            repeated: R = again(begun, error, judgement, args, kwargs)
            return repeated
        if hasattr(type(result), "__await__"):
            if hasattr(type(result), "__aenter__"):
                breaker.withdraw(flight)
                raise TypeError(
                    f"what {name_of(function)} returns can be awaited and entered;"
                    " guard the block instead: with breaker: ..."
                )
            # Nothing has been done yet: the call is what will be awaited, perhaps
            # never. It asks for itself when it begins.
            breaker.withdraw(flight)
            awaited: Any = _await(breaker, result)
            later: R = awaited
            return later
        if clock() - begun < brisk and flight is flights.slice:
            flight.ok += 1
        else:
            leave(begun, flight)
        return result

    return guarded


async def _await(breaker: PostgreSQLCircuitBreaker, coming: Any) -> Any:
    try:
        ticket = breaker.acquire()
    except CircuitOpenError:
        if inspect.iscoroutine(coming):
            coming.close()
        raise
    try:
        result = await coming
    except BaseException as error:
        breaker.fail(*ticket, error)
        raise
    breaker.leave(*ticket)
    return result


def guard_async_generator(
    breaker: PostgreSQLCircuitBreaker,
    function: Callable[P, AsyncGenerator[T, S]],
    _again: Again | None = None,
    _safe: frozenset[Retry] = NOTHING,
) -> Callable[P, AsyncGenerator[T, S]]:
    """Guard an asynchronous generator: one call from the first item to the last.

    The time that its consumer takes is not the server's, and a consumer who has seen
    enough says nothing of it.
    """

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, S]:
        stream = Stream(breaker)
        async with aclosing(function(*args, **kwargs)) as items:
            try:
                item = await anext(items)
                while True:
                    stream.rest()
                    try:
                        sent = yield item
                    except GeneratorExit:
                        stream.resume()
                        raise
                    except BaseException as error:  # noqa: BLE001 - thrown on
                        stream.resume()
                        item = await items.athrow(error)
                    else:
                        stream.resume()
                        item = await items.asend(sent)
            except StopAsyncIteration:
                stream.end()
            except BaseException as error:
                stream.end(error)
                raise

    return guarded


def guard_generator(
    breaker: PostgreSQLCircuitBreaker,
    function: Callable[P, Generator[T, S, R]],
    _again: Again | None = None,
    _safe: frozenset[Retry] = NOTHING,
) -> Callable[P, Generator[T, S, R]]:
    """Guard a generator, as `guard_async_generator` does."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Generator[T, S, R]:
        stream = Stream(breaker)
        items = function(*args, **kwargs)
        try:
            item = next(items)
            while True:
                stream.rest()
                try:
                    sent = yield item
                except GeneratorExit:
                    stream.resume()
                    items.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown on
                    stream.resume()
                    item = items.throw(error)
                else:
                    stream.resume()
                    item = items.send(sent)
        except StopIteration as last:
            stream.end()
            result: R = last.value
            return result
        except BaseException as error:
            stream.end(error)
            raise

    return guarded


class Stream:
    """One call whose time is not all the server's: it rests with somebody else now and
    then. So it is not among the calls that are expected back.

    Args:
        breaker: Who is asked; refuses as `acquire` does.
    """

    __slots__ = ("_begun", "_breaker", "_flight", "_rested")

    def __init__(self, breaker: PostgreSQLCircuitBreaker) -> None:
        self._breaker = breaker
        self._begun, flight = breaker.acquire()
        flight.gone += 1
        self._flight = Slice(flight.era, flight.above)
        self._rested = 0.0

    def rest(self) -> None:
        """What follows is the consumer's time."""
        self._rested = self._breaker.clock.now()

    def resume(self) -> None:
        """What follows is the server's again."""
        self._begun += self._breaker.clock.now() - self._rested

    def end(self, error: BaseException | None = None) -> None:
        """Report how it ended."""
        if error is None:
            self._breaker.leave(self._begun, self._flight)
        else:
            self._breaker.fail(self._begun, self._flight, error)
