"""A limit on calls in flight, so that one kind of them cannot take every connection."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.errors import BulkheadFullError, CallTimeoutError
from pgbreaker.guard.deadline import limited
from pgbreaker.guard.living import join

P = ParamSpec("P")
R = TypeVar("R")


class Bulkhead:
    """At most so many calls at once; the others wait for their turn, or are refused.

    Tasks of several loops and threads may share one.

    Attributes:
        limit: Calls in flight at once.
        patience: Seconds that a call waits for its turn. 0: none waits.
        taken: Places that are taken now.
    """

    def __init__(self, limit: int, *, wait: Seconds | str | None = None) -> None:
        """
        Args:
            limit: Calls in flight at once.
            wait: Seconds, or a text like ``100ms``, that a call waits for its turn.
                None: none waits.

        Raises:
            ValueError: *limit* is below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is a count of 1 or more, got {limit!r}")
        self.limit = limit
        self.patience = 0.0 if wait is None else seconds_of(wait, "wait")
        self.taken = 0
        self._lock = threading.RLock()
        self._queue: deque[Callable[[], None]] = deque()
        join(self)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn now."""
        return len(self._queue)

    def disown(self) -> None:
        """In a forked process: the calls in flight are the parent's."""
        self._lock = threading.RLock()
        self._queue.clear()
        self.taken = 0

    def _take(self, wake: Callable[[], None], patience: Seconds | None = None) -> bool:
        """Take a place, or join the queue with what is to be called for the turn."""
        with self._lock:
            if self.taken < self.limit:
                self.taken += 1
                return True
            if self.patience if patience is None else patience:
                self._queue.append(wake)
            return False

    def _leave_queue(self, wake: Callable[[], None]) -> bool:
        """Whether *wake* was still waiting; else its turn has come meanwhile."""
        with self._lock:
            if wake in self._queue:
                self._queue.remove(wake)
                return True
            return False

    def give_back(self) -> None:
        """Free a place, or hand it to whoever waits for longest."""
        with self._lock:
            wake = self._queue.popleft() if self._queue else None
            if wake is None:
                self.taken -= 1
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # the loop of the waiting one is closed
                self.give_back()

    async def enter(self, name: str, within: Seconds | None = None) -> Seconds:
        """Take a place, waiting for it if need be; gives the seconds waited.

        Args:
            within: Seconds that nobody waits longer than. None: `patience` alone.

        Raises:
            BulkheadFullError: There was none in time.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()

        def wake() -> None:
            loop.call_soon_threadsafe(_set, turn)

        patience = self.patience if within is None else min(self.patience, within)
        if self._take(wake, patience):
            return 0.0
        if not patience:
            raise BulkheadFullError(name, self.limit, 0.0)
        begun = monotonic()
        try:
            await asyncio.wait((turn,), timeout=patience)
        except asyncio.CancelledError:
            if not self._leave_queue(wake):
                self.give_back()
            raise
        waited = monotonic() - begun
        if self._leave_queue(wake):
            raise BulkheadFullError(name, self.limit, waited)
        return waited

    def enter_blocking(self, name: str) -> None:
        """The same, for a thread."""
        turn = threading.Event()
        if self._take(turn.set):
            return
        begun = monotonic()
        if not self.patience or (
            not turn.wait(self.patience) and self._leave_queue(turn.set)
        ):
            raise BulkheadFullError(name, self.limit, monotonic() - begun)

    def around(
        self, function: Callable[P, Awaitable[R]], name: str
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Have every call of *function* take a place."""

        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            await self.enter(name)
            try:
                return await function(*args, **kwargs)
            finally:
                self.give_back()

        return call

    def around_limited(
        self, function: Callable[P, Awaitable[R]], name: str, seconds: Seconds
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """The same, with so many seconds for each call and its wait together.

        Who runs out of them after a wait has met our queue, and not the server.
        """
        at_once = limited(function, seconds, name)

        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            # The wait ends a little before the time: else nobody could tell which.
            waited = await self.enter(name, 0.95 * seconds)
            try:
                if not waited:
                    return await at_once(*args, **kwargs)
                in_time = limited(function, seconds - waited, name)
                return await in_time(*args, **kwargs)
            except CallTimeoutError as late:
                if not waited:
                    raise
                raise BulkheadFullError(name, self.limit, waited) from late
            finally:
                self.give_back()

        return call

    def around_blocking(self, function: Callable[P, R], name: str) -> Callable[P, R]:
        """The same, for a function."""

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            self.enter_blocking(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.give_back()

        return call


def _set(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
