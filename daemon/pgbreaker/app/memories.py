"""What breakers remember, and what forecasts have learned, from one process to the next."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias
from zlib import crc32

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import FORETOLD, Event, Notice
from pgbreaker.sinks.store import Learned, Rollup, Store

log = logging.getLogger(__name__)

_EVERY: Final[Seconds] = 5.0  # so old a window can be that a kill -9 leaves
_AT_ONCE: Final = 20  # breakers; a thousand targets' would hold the loop up for long

# With what a round loses to a busy loop, a kill -9 costs a quarter of an hour of what was
# learned in weeks.
_LEARNED_EVERY: Final[Seconds] = 840.0
_FEWEST: Final = 10  # parts of it; usually a second each

Memories: TypeAlias = Mapping[str, tuple[float, Mapping[str, Any]]]
"""Breaker -> wall time at which it was written, and what is remembered of it."""


def recall(breaker: Breaker, memories: Memories, clock: Clock) -> None:
    """Have a breaker go on where *memories* left it; without one, it begins anew."""
    if breaker.name not in memories:
        return
    written, memory = memories[breaker.name]
    try:
        breaker.recall(memory, clock.now(), max(0.0, clock.wall() - written))
    except ValueError as error:
        log.warning("breaker %s begins anew: %s", breaker.name, error)


class Keeper:
    """Has the store keep what breakers remember, and what was counted; a sink."""

    def __init__(
        self,
        board: Board,
        store: Store,
        rollup: Rollup,
        clock: Clock,
        *,
        every: Seconds = _EVERY,
    ) -> None:
        """Keep the breakers of *board* in *store*.

        Args:
            every: Seconds in which each of them is kept once.
        """
        self._every = every
        self._board = board
        self._store = store
        self._rollup = rollup
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Take an event from the hub: a breaker that moved is remembered at once."""
        if isinstance(event, Transition):
            self._keep((event.breaker,))

    def keep(self) -> None:
        """Have all of it kept, as it is now."""
        self._keep(self._names())
        self._rollup.flush(self._clock.now())

    async def run(self) -> None:
        """Keep it all every few seconds, some at a time, until cancelled."""
        while True:
            self._rollup.flush(self._clock.now())
            names = self._names()
            turns = max(1, math.ceil(len(names) / _AT_ONCE))
            for turn in range(turns):
                self._keep(names[turn * _AT_ONCE : (turn + 1) * _AT_ONCE])
                await asyncio.sleep(self._every / turns)

    def _names(self) -> list[str]:
        targets = self._board.targets.values()
        return [b.name for target in targets for b in target.breakers.values()]

    def _keep(self, names: Iterable[str]) -> None:
        """Have the breakers of these names kept, as far as there still are such."""
        now = self._clock.now()
        found = [b for name in names if (b := self._board.breaker(name)) is not None]
        self._store.keep({breaker.name: breaker.memory(now) for breaker in found})


class ForecastKeeper:
    """Has the store keep what forecasts have learned; a sink."""

    def __init__(
        self,
        targets: Collection[str],
        learned: Callable[[str], Learned | None],
        store: Store,
        *,
        every: Seconds = _LEARNED_EVERY,
    ) -> None:
        """Keep what was *learned* in *store*.

        Args:
            targets: Names of the targets there are, at any time.
            learned: Says what was learned of one. None: nothing.
            every: Seconds in which that of each target is kept once.
        """
        self._every = every
        self._targets = targets
        self._learned = learned
        self._store = store
        self._news: set[str] = set()  # targets whose record has changed

    def __call__(self, event: Event) -> None:
        """Take an event from the hub: what an opening, or a warning, added to the record
        is kept within a second."""
        if isinstance(event, Transition) and event.leaves_closed:
            self._news.add(event.breaker.partition("/")[0])
        elif isinstance(event, Notice) and event.code in FORETOLD:
            self._news.add(event.target)

    async def keep(self) -> None:
        """Have all of it kept, as it is now."""
        for target in tuple(self._targets):
            self._keep(target)
            await asyncio.sleep(0)  # of a thousand it takes a second

    async def run(self) -> None:
        """Keep each target's in its slot of the time, until cancelled.

        Its slot is by its name: one that comes is kept within that time, too, whoever
        comes and goes besides.
        """
        slots = max(_FEWEST, round(self._every))
        while True:
            for slot in range(slots):
                await asyncio.sleep(self._every / slots)
                news, self._news = self._news, set()
                for target in tuple(self._targets):
                    if target in news or crc32(target.encode()) % slots == slot:
                        self._keep(target)
                        await asyncio.sleep(0)

    def _keep(self, target: str) -> None:
        learned = self._learned(target)
        if learned is not None:
            self._store.learn({target: learned})
