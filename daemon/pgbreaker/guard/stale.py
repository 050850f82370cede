"""Answers from before, for when there are no others.

A `StaleCache` is no cache to spare the server work: every call still asks it. What it
answered is kept, and given out only when it cannot be asked, or fails.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from inspect import signature
from threading import RLock
from typing import Any, Final, Literal, TypeAlias, TypeVar

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.guard.living import join
from pgbreaker.guard.wrap import name_of

R = TypeVar("R")

log = logging.getLogger("pgbreaker")

Source: TypeAlias = Literal["call", "fallback", "stale"]

_SOURCE: Final[ContextVar[Source]] = ContextVar("pgbreaker_source", default="call")
_AGE: Final[ContextVar[Seconds | None]] = ContextVar("pgbreaker_age", default=None)


def answered_by() -> Source:
    """Where the last answer of a call with a fallback or a cache came from, in this
    task: ``call``, ``fallback`` or ``stale``."""
    return _SOURCE.get()


def stale_age() -> Seconds | None:
    """Age of the last answer, in seconds, when it came from a stale cache; else
    None. A web service puts it into the header ``Age``."""
    return _AGE.get()


def mark(source: Source, age: Seconds | None = None) -> None:
    """Say where an answer came from."""
    _SOURCE.set(source)
    _AGE.set(age)


class StaleCache:
    """The last answers of calls, by their arguments.

    Threads and tasks may share one, and so may functions: keys hold the function.

    Attributes:
        max_age: Seconds after which an answer is too old to be given.
        size: Answers kept; the one not used for longest goes first.
        hits: Answers given.
        misses: Times that there was none.
    """

    def __init__(
        self,
        max_age: Seconds,
        *,
        size: int = 1024,
        key: Callable[..., Hashable] | None = None,
        single_flight: bool = True,
    ) -> None:
        if size < 1:
            raise ValueError(f"size is a count of 1 or more, got {size!r}")
        self.max_age = max_age
        self.size = size
        self.hits = self.misses = 0
        self._key = key
        self._single_flight = single_flight
        self._kept: OrderedDict[Hashable, tuple[Any, Seconds]] = OrderedDict()
        self._flying: dict[Hashable, asyncio.Future[Any]] = {}
        self._lock = RLock()
        self._has_warned = False
        join(self)

    def disown(self) -> None:
        """In a forked process: nobody holds the lock, and no call is in flight."""
        self._lock = RLock()
        self._flying.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, function: Callable[..., Any]) -> None:
        """Refuse a function whose arguments make no key.

        Raises:
            TypeError: It is a method, and no ``key=`` says what tells its calls apart.
        """
        names = list(signature(function).parameters)
        if self._key is None and names and names[0] in ("self", "cls"):
            raise TypeError(
                f"{name_of(function)} is a method: say what tells its calls apart,"
                " as in stale('5m', key=lambda self, player_id: player_id)"
            )

    def key_of(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Hashable:
        """The key of a call.

        Raises:
            TypeError: An argument cannot be part of one.
        """
        if self._key is not None:
            return (function, self._key(*args, **kwargs))
        key = (function, args, tuple(sorted(kwargs.items())))
        try:
            hash(key)
            _refuse_identity((*args, *kwargs.values()))
        except TypeError as error:
            raise TypeError(
                f"the arguments of {name_of(function)} make no key ({error}):"
                " say what tells its calls apart, as in"
                " stale('5m', key=lambda session, player_id: player_id)"
            ) from None
        return key

    def keep(self, key: Hashable, value: object, now: Seconds) -> None:
        """Keep an answer."""
        first = value[0] if isinstance(value, list | tuple) and value else value
        if not self._has_warned and hasattr(first, "_sa_instance_state"):
            self._has_warned = True
            log.warning(
                "a stale cache keeps %s, which belongs to a session: its attributes"
                " may not be readable later (DetachedInstanceError); return a plain"
                " object instead, or set expire_on_commit=False",
                type(first).__qualname__,
            )
        with self._lock:
            self._kept[key] = (value, now)
            self._kept.move_to_end(key)
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)

    def find(self, key: Hashable, now: Seconds) -> tuple[Any, Seconds] | None:
        """The last answer and its age in seconds; None when there is none, or when it
        is too old."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or now - found[1] > self.max_age:
                self._kept.pop(key, None)
                self.misses += 1
                return None
            self._kept.move_to_end(key)
            self.hits += 1
            return found[0], now - found[1]

    def clear(self) -> None:
        """Forget every answer, as after a change of what they look like."""
        with self._lock:
            self._kept.clear()

    async def once(self, key: Hashable, call: Callable[[], Awaitable[R]]) -> R:
        """Call, unless the same call is in flight: then take what it comes to."""
        flying = self._flying.get(key) if self._single_flight else None
        if flying is not None and flying.get_loop() is asyncio.get_running_loop():
            try:
                shared: R = await asyncio.shield(flying)
                return shared
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flying.cancelled() or (task is not None and task.cancelling()):
                    raise  # ourselves, and not the call
            # Who made the call has given it up: make it ourselves.
            return await self.once(key, call)
        if not self._single_flight:
            return await call()
        return await self._fly(key, call)

    async def _fly(self, key: Hashable, call: Callable[[], Awaitable[R]]) -> R:
        flying: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._flying[key] = flying
        try:
            result = await call()
        except asyncio.CancelledError:
            flying.cancel()
            raise
        except BaseException as error:
            flying.set_exception(error)
            flying.exception()  # looked at: perhaps nobody else waits for it
            raise
        else:
            flying.set_result(result)
            return result
        finally:
            if self._flying.get(key) is flying:
                del self._flying[key]
            del flying  # its error knows this frame


def _refuse_identity(arguments: tuple[Any, ...]) -> None:
    """A session is equal to nothing but itself: a key of it would never be met again."""
    for argument in arguments:
        hashed_by: object = type(argument).__hash__
        if hashed_by is object.__hash__:
            raise TypeError(f"{type(argument).__name__} is equal to itself alone")


def stale(
    max_age: Seconds | str,
    *,
    size: int = 1024,
    key: Callable[..., Hashable] | None = None,
    single_flight: bool = True,
) -> StaleCache:
    """Have the last good answer of each call given out while there is no other.

    Args:
        max_age: Seconds, or a text like ``5m``, after which an answer is too old.
        size: Answers kept.
        key: What tells calls apart, from their arguments. None: all the arguments,
            which must then be hashable.
        single_flight: Whether calls that are the same and made at the same time share
            one call of the server.

    Raises:
        ValueError: *max_age* or *size* is nothing of the kind.
    """
    age = seconds_of(max_age, "max_age")
    return StaleCache(age, size=size, key=key, single_flight=single_flight)
