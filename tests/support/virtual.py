"""A loop in which time passes as fast as there is something to do.

When nothing is ready, its clock goes to the next timer at once. Only threads live in real
time: for as long as one of them is at work for the loop, the clock stands still, so that
no disk seems slow that merely was not waited for.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import Any, Protocol

from apscheduler.schedulers import base

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds

BEGIN = 1_800_000_000.0  # the wall clock, when the loop's shows 0
TURN: Seconds = 1e-6
POLL: Seconds = 0.001  # real time, between two looks whether a thread is done


class _Leaping(selectors.DefaultSelector):
    """A selector that does not wait for a time, but makes it come.

    Attributes:
        now: What the loop's clock shows.
        is_held: Whether a thread is at work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Seconds = 0.0
        self.is_held: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[Any]:
        # A turn takes its time: a clock that stood still would never come to what is due
        # by the least that numbers can tell.
        self.now += TURN
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.is_held():
            return super().select(POLL)
        if timeout is None:
            return super().select(None)
        self.now += timeout
        return []


class Network(Protocol):
    """What the loop reaches beside the real network."""

    async def look_up(self, host: str) -> str | None:
        """The address of *host*. None: it is not of this network.

        Raises:
            OSError: Nobody knows it.
        """

    async def connect(
        self, protocol: asyncio.Protocol, address: str
    ) -> asyncio.Transport | None:
        """Connect to *address*. None: it is not of this network.

        Raises:
            OSError: It does not let us.
        """


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop.

    Attributes:
        clock: Its time, and a wall clock that goes with it.
        faults: What its exception handler was told.
        network: What it reaches beside the real one. None: nothing.
        holding: Say that a thread is at work, beside those of executors.
    """

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)
        self._leaping.is_held = self._is_held
        self._away = 0  # calls that an executor has
        self.clock = Clock(now=self.time, wall=lambda: BEGIN + self.time())
        self.faults: list[dict[str, Any]] = []
        self.network: Network | None = None
        self.holding: list[Callable[[], bool]] = []
        self.set_exception_handler(lambda _loop, fault: self.faults.append(fault))

    def time(self) -> Seconds:
        return self._leaping.now

    def _is_held(self) -> bool:
        return self._away > 0 or any(holds() for holds in self.holding)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Hold the clock for the time of the block, in which nothing may wait for it."""

        def holds() -> bool:
            return True

        self.holding.append(holds)
        try:
            yield
        finally:
            self.holding.remove(holds)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Awaitable[Any]:
        done = super().run_in_executor(executor, func, *args)
        self._away += 1
        done.add_done_callback(self._came_back)
        return done

    def _came_back(self, _done: asyncio.Future[Any]) -> None:
        self._away -= 1

    async def getaddrinfo(self, host, port, **more):  # type: ignore[no-untyped-def, override]
        if self.network is not None and isinstance(host, str):
            address = await self.network.look_up(host)
            if address is not None:
                return [(2, 1, 6, "", (address, port))]
        return await super().getaddrinfo(host, port, **more)

    async def create_connection(self, factory, host=None, port=None, **more):  # type: ignore[no-untyped-def, override]
        if self.network is not None and isinstance(host, str):
            address = await self.network.look_up(host)
            if address is not None:
                protocol = factory()
                transport = await self.network.connect(protocol, address)
                if transport is not None:
                    return transport, protocol
        return await super().create_connection(factory, host, port, **more)


@contextmanager
def scheduled_by(clock: Clock) -> Iterator[None]:
    """Have APScheduler go by *clock*, for the time of the block: it is handed none, and
    reads the machine's."""

    def now(timezone: tzinfo) -> datetime:
        return datetime.fromtimestamp(clock.wall(), timezone)

    known = base.datetime
    base.datetime = SimpleNamespace(now=now)  # all that it asks of it
    try:
        yield
    finally:
        base.datetime = known
