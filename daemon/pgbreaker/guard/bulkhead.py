"""A limit on calls in flight, so that one kind of them cannot take every connection."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.errors import BulkheadFullError

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
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], None]] = deque()

    def _take(self, wake: Callable[[], None]) -> bool:
        """Take a place, or join the queue with what is to be called for the turn."""
        with self._lock:
            if self.taken < self.limit:
                self.taken += 1
                return True
            if self.patience:
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
            wake()

    async def enter(self, name: str) -> None:
        """Take a place, waiting for it if need be.

        Raises:
            BulkheadFullError: There was none in time.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()

        def wake() -> None:
            loop.call_soon_threadsafe(_set, turn)

        if self._take(wake):
            return
        if not self.patience:
            raise BulkheadFullError(name, self.limit, 0.0)
        begun = monotonic()
        try:
            await asyncio.wait((turn,), timeout=self.patience)
        except asyncio.CancelledError:
            if not self._leave_queue(wake):
                self.give_back()
            raise
        if self._leave_queue(wake):
            raise BulkheadFullError(name, self.limit, monotonic() - begun)

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
