"""Everything that goes round one target, put together."""

import asyncio
import logging
from functools import partial
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.feed import Feed, Recall
from pgbreaker.monitor.line import Line
from pgbreaker.monitor.round import Round, grouped
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.monitor.sentinel import Sentinel
from pgbreaker.monitor.watch import Watch
from pgbreaker.postgres.target import Late, Target
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.log import tell_fall

log = logging.getLogger(__name__)

# A beat takes at most two deadlines and the patience of a knock; a watch that is
# asked twice, two of its own. What is later than this is stuck.
_STUCK: Final[Seconds] = 15.0


class Patrol:
    """The sentinel and the rounds of one target.

    Attributes:
        board: What is true of the target.
    """

    def __init__(
        self,
        board: TargetBoard,
        hub: Hub,
        schedule: Schedule,
        clock: Clock,
        *,
        doorway: Doorway | None = None,
        late: Late = lambda _since: 0.0,
        recall: Recall = lambda: None,
    ) -> None:
        self.board = board
        self._clock = clock
        self._schedule = schedule
        self._feed = Feed(board, hub, clock, self._told, self._filling, recall)
        target = Target(board.plan, late)
        self._line = Line(target, clock, self._alarm, doorway)
        self._sentinel = Sentinel(self._line, self._feed, clock, self._hasten)
        self._rounds = [
            Round(
                f"{board.plan.name}/{kind}",
                [Watch(probes, self._line, self._feed, clock) for probes in watches],
                clock,
            )
            for kind, watches in grouped(board.plan.probes)
        ]
        self._beating: asyncio.Task[None] | None = None

    def start(self, within: Seconds = 1.0) -> None:
        """Begin to ping within so many seconds; needs a running loop."""
        self._beating = asyncio.create_task(
            self._sentinel.run(within), name=f"sentinel {self.board.plan.name}"
        )
        # `trouble` says so from then on.
        self._beating.add_done_callback(partial(tell_fall, log))
        for round_ in self._rounds:
            self._schedule.add(round_)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the patrol itself, None when nothing is."""
        name = self.board.plan.name
        if self._beating is not None and self._beating.done():
            return f"the sentinel of {name} has ended"
        now = self._clock.now()
        silent = now - self._sentinel.beaten_at
        if silent > 3 * max(self._sentinel.interval, 20.0) + _STUCK:
            return f"the sentinel of {name} has been silent for {lasting(silent)}"
        for round_ in self._rounds:
            for watch in round_.watches:
                silent = now - watch.ended_at
                if silent > 3 * watch.interval + round_.longest + _STUCK:
                    asked = ", ".join(watch.probes)
                    return f"{asked} of {name} has not run for {lasting(silent)}"
        return None

    def memory(self) -> dict[str, Any] | None:
        """What the forecasts have learned, fit for JSON. None: nothing yet."""
        return self._feed.memory()

    async def halt(self) -> None:
        """Go round no more; what is under way is cut short, and nothing is told after."""
        if self._beating is None:
            return
        await asyncio.gather(
            self._stop_beating(),
            *(self._schedule.remove(round_.name) for round_ in self._rounds),
        )

    async def close(self) -> None:
        """Stop beating and hang up. The schedule is closed by whoever made it."""
        await self._stop_beating()
        await self._line.close()

    async def _stop_beating(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])

    def _alarm(self) -> None:
        self._sentinel.alarm()

    def _hasten(self) -> None:
        """The target is there, or there again: everything is asked at once."""
        for round_ in self._rounds:
            self._go(round_)

    def _go(self, round_: Round) -> None:
        round_.hasten()
        if not round_.is_running:  # else it goes on by itself
            self._schedule.soon(round_.name)

    def _told(self, code: str) -> None:
        """Follow what was noticed: where the name leads now, what the server is now."""
        if code == "moved":
            self._line.hang_up()
            self._sentinel.alarm()
        elif code == "role":
            self._ask_at_the_door()

    def _filling(self) -> None:
        """The last slots are being taken: whether one is left shows at the door."""
        self._ask_at_the_door()

    def _ask_at_the_door(self) -> None:
        for round_ in self._rounds:
            if round_.name.endswith("/door"):
                self._go(round_)
