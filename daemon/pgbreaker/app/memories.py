"""What breakers remember, from one process to the next."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.store import Rollup, Store

log = logging.getLogger(__name__)

_EVERY: Final[Seconds] = 5.0  # so old a window can be that a kill -9 leaves

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
        self, board: Board, store: Store, rollup: Rollup, clock: Clock
    ) -> None:
        self._board = board
        self._store = store
        self._rollup = rollup
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Take an event from the hub: a breaker that moved is remembered at once."""
        if isinstance(event, Transition):
            breaker = self._board.breaker(event.breaker)
            if breaker is not None:
                self._store.keep({breaker.name: breaker.memory(self._clock.now())})

    def keep(self) -> None:
        """Have all of it kept, as it is now."""
        now = self._clock.now()
        self._store.keep(
            {
                breaker.name: breaker.memory(now)
                for target in self._board.targets.values()
                for breaker in target.breakers.values()
            }
        )
        self._rollup.flush(now)

    async def run(self) -> None:
        """Keep it now and every few seconds, until cancelled."""
        while True:
            self.keep()
            await asyncio.sleep(_EVERY)
