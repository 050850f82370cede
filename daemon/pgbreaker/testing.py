"""What an application needs to test how it behaves when its breakers open.

Nothing here needs a server or waits: the clock is set by hand, and what the server would
have done is written down beforehand.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pgbreaker.clock import Clock
from pgbreaker.core.states import State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.guard import events
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.registry import REGISTRY


class ManualClock:
    """A clock that goes only when it is told to.

    Give its `clock` to a breaker: ``PostgreSQLCircuitBreaker("x", clock=time.clock)``.

    Attributes:
        at: The moment that it shows, in seconds; the wall clock shows the same.
        clock: What takes it.
    """

    def __init__(self, at: Seconds = 0.0) -> None:
        self.at = at
        self.clock = Clock(now=lambda: self.at, wall=lambda: self.at)

    def advance(self, seconds: Seconds) -> None:
        """Let so much time pass.

        Raises:
            ValueError: It would go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock goes forward, got {seconds!r}")
        self.at += seconds


class ScriptedServer:
    """Answers calls as it was told: a value is returned, an exception raised, and
    `HANG` never answered. After the last line of the script it goes on with that.

    Attributes:
        calls: Arguments of each call, in their order.
    """

    HANG = object()

    def __init__(self, script: Iterable[object]) -> None:
        """
        Raises:
            ValueError: The script is empty.
        """
        self._script = list(script)
        if not self._script:
            raise ValueError("a script has at least one line")
        self.calls: list[tuple[Any, ...]] = []

    async def __call__(self, *args: object) -> Any:  # noqa: ANN401 - whatever was written
        line = self._script[min(len(self.calls), len(self._script) - 1)]
        self.calls.append(args)
        if line is self.HANG:
            await asyncio.get_running_loop().create_future()
        if isinstance(line, BaseException):
            raise line
        return line


class Recorder:
    """Keeps the events of every breaker, while it is entered.

    Attributes:
        events: In their order.
    """

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __enter__(self) -> "Recorder":
        self._end = events.subscribe(self.events.append)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def moves(self) -> list[tuple[str, State, State]]:
        """The transitions: breaker, from, to."""
        return [
            (event.breaker, event.before, event.after)
            for event in self.events
            if isinstance(event, Transition)
        ]


@contextmanager
def force(
    breaker: str | PostgreSQLCircuitBreaker, state: State = State.FORCED_OPEN
) -> Iterator[PostgreSQLCircuitBreaker]:
    """Have a breaker in *state* for the time of the block.

    Args:
        breaker: The breaker, or its name in `pgbreaker.registry`.
    """
    found = REGISTRY.breaker(breaker) if isinstance(breaker, str) else breaker
    found.force(state, "pgbreaker.testing.force", author="test")
    try:
        yield found
    finally:
        found.resume()


@contextmanager
def isolated() -> Iterator[None]:
    """Begin with no named breaker, and forget those of the block at its end.

    Decorated functions keep the breakers that they were made with.
    """
    REGISTRY.clear()
    try:
        yield
    finally:
        REGISTRY.clear()
