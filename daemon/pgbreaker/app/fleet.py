"""The fleet: the targets that are watched, each with its patrol. They come and go."""

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pgbreaker.app.memories import Memories, recall
from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.plan import TargetPlan
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub


def board_of(
    plan: TargetPlan, clock: Clock, memories: Memories = MappingProxyType({})
) -> TargetBoard:
    """Make the board of a target that nobody has looked at yet.

    Args:
        memories: What its breakers go on by.
    """
    breakers = {
        operation: Breaker(f"{plan.name}/{operation}", plan.policy, clock.now())
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
        self, board: Board, hub: Hub, schedule: Schedule, pulse: Pulse, clock: Clock
    ) -> None:
        self._board = board
        self._hub = hub
        self._schedule = schedule
        self._pulse = pulse
        self._clock = clock
        self._doorway = Doorway()
        self.patrols: dict[str, Patrol] = {
            name: self._patrol(target) for name, target in board.targets.items()
        }

    def _patrol(self, target: TargetBoard) -> Patrol:
        return Patrol(
            target,
            self._hub,
            self._schedule,
            self._clock,
            doorway=self._doorway,
            late=self._pulse.lost_since,
        )

    def start(self) -> None:
        """Begin; needs a running loop."""
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
            if not target.readings:
                return f"no probe of {name} has come back yet"
        return None

    async def take(self, plans: Iterable[TargetPlan]) -> None:
        """Watch the targets of *plans*, and no others.

        One that is planned as it was goes on as if nobody had asked. One that is planned
        anew goes on where it was, by its new rules.
        """
        wanted = {plan.name: plan for plan in plans}
        known: Mapping[str, TargetBoard] = dict(self._board.targets)
        anew = [n for n, t in known.items() if n in wanted and wanted[n] != t.plan]
        gone = [name for name in known if name not in wanted]
        # Whoever was on a round may still tell of the old board until it has closed.
        await asyncio.gather(*(self._dismiss(name) for name in (*anew, *gone)))
        # From here to the end nothing waits: nobody sees half of it.
        for name in gone:
            self._board.remove(name)
        for name, plan in wanted.items():
            if name in self.patrols:
                continue
            target = board_of(plan, self._clock)
            if name in known:
                target.inherit(known[name])
            self._board.add(target)
            self.patrols[name] = self._patrol(target)
            self.patrols[name].start()
        self._board.arrange(tuple(wanted))

    async def _dismiss(self, name: str) -> None:
        await self.patrols[name].leave()
        del self.patrols[name]

    async def close(self) -> None:
        """Hang up everywhere."""
        await asyncio.gather(*(patrol.close() for patrol in self.patrols.values()))
