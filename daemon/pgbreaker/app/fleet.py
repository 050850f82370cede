"""The fleet: the targets that are watched, each with its patrol. They come and go."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from pgbreaker.app.memories import Memories, recall
from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.store import Learned

log = logging.getLogger(__name__)

# Seconds within which a target is pinged that another daemon had: it may have died, and
# all that while nobody has looked.
_SOON: Final[Seconds] = 0.4


def board_of(plan: TargetPlan, clock: Clock, memories: Memories) -> TargetBoard:
    """Make the board of a target that this process has not looked at yet.

    Args:
        memories: What is remembered of breakers, its own and others.
    """
    breakers: dict[str, Breaker] = {
        operation: RuledBreaker(f"{plan.name}/{operation}", plan.policy, clock.now())
        for operation in plan.operations
    }
    for breaker in breakers.values():
        recall(breaker, memories, clock)
    return TargetBoard(plan, breakers, clock)


class Fleet:
    """Watches every target of the board.

    Attributes:
        patrols: Name of the target -> what goes round it.
    """

    def __init__(
        self,
        board: Board,
        hub: Hub,
        schedule: Schedule,
        pulse: Pulse,
        clock: Clock,
        *,
        rests: bool = False,
        learned: dict[str, Learned] | None = None,
    ) -> None:
        """Be ready to watch.

        Args:
            rests: Whether others may watch targets instead, so that each is watched only
                once `watch` says so.
            learned: Target -> what forecasts had learned of it before this process began;
                it is taken from.
        """
        self._board = board
        self._hub = hub
        self._schedule = schedule
        self._pulse = pulse
        self._clock = clock
        self._doorway = Doorway()
        self._has_begun = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._rests = rests
        self._changing = asyncio.Lock()
        # Target -> what was learned of it by a patrol that goes round it no more; until
        # another has begun to.
        self._learned = {} if learned is None else learned
        self.patrols: dict[str, Patrol] = {}
        if not rests:
            for name, target in board.targets.items():
                self.patrols[name] = self._patrol(target)

    def _patrol(self, target: TargetBoard) -> Patrol:
        return Patrol(
            target,
            self._hub,
            self._schedule,
            self._clock,
            doorway=self._doorway,
            late=self._pulse.lost_since,
            recall=partial(self._recall, target.plan.name),
        )

    def _recall(self, name: str) -> tuple[Mapping[str, Any], Seconds] | None:
        learned = self._learned.pop(name, None)
        if learned is None:
            return None
        return learned.memory(), max(0.0, self._clock.wall() - learned.at)

    def learned(self, name: str) -> Learned | None:
        """What forecasts have learned of a target, by now or up to when this daemon last
        looked at it. None: nothing."""
        patrol = self.patrols.get(name)
        memory = None if patrol is None else patrol.memory()
        if memory is None:
            return self._learned.get(name)
        return Learned.of(memory, self._clock.wall())

    async def _put_by(self, leaving: Iterable[Patrol]) -> None:
        """Keep what patrols that have halted have learned for those who come after."""
        for patrol in leaving:
            memory = patrol.memory()
            if memory is not None:
                learned = Learned.of(memory, self._clock.wall())
                self._learned[patrol.board.plan.name] = learned
                await asyncio.sleep(0)  # of a thousand it takes a second

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._has_begun = True
        for patrol in self.patrols.values():
            patrol.start()

    @property
    def trouble(self) -> str | None:
        """What is wrong with a patrol, None when nothing is."""
        return next((t for p in self.patrols.values() if (t := p.trouble)), None)

    @property
    def unready(self) -> str | None:
        """The first target that no probe has come back from, None when all did."""
        for name, target in self._board.targets.items():
            if not target.readings and target.elsewhere is None:
                return f"no probe of {name} has come back yet"
        return None

    async def take(self, plans: Iterable[TargetPlan]) -> None:
        """Watch the targets of *plans*, and no others.

        One that is planned as it was goes on as if nobody had asked. One that is planned
        anew goes on where it was, by its new rules. Of those that others may watch, a new
        one waits for `watch`.
        """
        async with self._changing:
            await self._take(plans)

    async def watch(self, take: Iterable[str], leave: Iterable[str]) -> None:
        """Begin to watch targets of the board, and leave others to other daemons."""
        async with self._changing:
            leaving = [self.patrols.pop(n) for n in leave if n in self.patrols]
            # What is taken over waits for nobody who takes long to go.
            for name in take:
                target = self._board.targets.get(name)
                if target is not None and name not in self.patrols:
                    self.patrols[name] = self._patrol(target)
                    if self._has_begun:
                        self.patrols[name].start(_SOON)
            await asyncio.gather(*(patrol.halt() for patrol in leaving))
            for patrol in leaving:
                patrol.board.rest()  # what its last round has told
                self._dismiss(patrol)
            await self._put_by(leaving)

    async def _take(self, plans: Iterable[TargetPlan]) -> None:
        wanted = {plan.name: plan for plan in plans}
        known = dict(self._board.targets)
        gone = [name for name in known if name not in wanted]
        coming: dict[str, TargetBoard] = {}
        patrols: dict[str, Patrol] = {}
        for name, plan in wanted.items():
            if name not in known or known[name].plan != plan:
                coming[name] = board_of(plan, self._clock, {})
                if not self._rests or name in self.patrols:
                    patrols[name] = self._patrol(coming[name])
                await asyncio.sleep(0)  # a thousand of them take half a second
        # Whoever is on a round may still tell of the old board until it has stopped.
        leaving = [self.patrols[n] for n in (*coming, *gone) if n in self.patrols]
        await asyncio.gather(*(patrol.halt() for patrol in leaving))
        await self._put_by(leaving)
        # From here to the end nothing waits: nobody sees half of it.
        for name in gone:
            self._board.remove(name)
            self.patrols.pop(name, None)
            self._learned.pop(name, None)
        for name, target in coming.items():
            if name in known:
                target.inherit(known[name])
            self._board.add(target)
            if name not in patrols:
                continue
            self.patrols[name] = patrols[name]
            if self._has_begun:
                patrols[name].start()
        self._board.arrange(tuple(wanted))
        for patrol in leaving:
            self._dismiss(patrol)

    def _dismiss(self, patrol: Patrol) -> None:
        """Have a patrol hang up, which nobody waits for: its server may be frozen."""
        leaving = asyncio.create_task(patrol.close(), name="hanging up")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._left)

    def _left(self, leaving: asyncio.Task[None]) -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled() and (error := leaving.exception()) is not None:
            log.error("hanging up failed, which is a fault of ours", exc_info=error)

    async def close(self) -> None:
        """Hang up everywhere."""
        closing = [patrol.close() for patrol in self.patrols.values()]
        await asyncio.gather(*closing, *self._leaving)
