"""The schedule of the slower probes: the only importer of APScheduler.

APScheduler 3 starts jobs by wall time. Left alone it is blind for an hour when the
clock is set back by one, and enumerates every missed run when it is set forward. So
it gets a trigger with one next run however long the gap, and whenever the two clocks
drift apart every job is placed anew.
"""

import asyncio
import logging
import math
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.ticks import TICK, tick

log = logging.getLogger(__name__)

_LOOK: Final[Seconds] = 1.0  # between looks at the clocks
_STEP: Final[Seconds] = 0.5  # drift between two looks that is no drift any more


class Task(Protocol):
    """What can be scheduled: a watch, or anything of its shape."""

    @property
    def name(self) -> str: ...
    @property
    def interval(self) -> Seconds: ...
    @property
    def hurry(self) -> Seconds | None: ...
    async def tick(self, late: Seconds = 0.0) -> None: ...


class Grid(BaseTrigger):  # type: ignore[misc] # APScheduler 3 is untyped
    """Fires at ``phase + n * period``: no drift, no herd, one run after any gap."""

    def __init__(self, period: Seconds, phase: Seconds) -> None:
        self.period = period
        self.phase = phase

    def get_next_fire_time(
        self, _previous: datetime | None, now: datetime
    ) -> datetime | None:
        """Strictly after *now*, whatever was before."""
        turns = math.floor((now.timestamp() - self.phase) / self.period) + 1
        moment = self._point(turns)
        # A point of the grid, cut to microseconds, may be *now* itself; APScheduler
        # would then ask for the one after it for ever, and keep each answer.
        return moment if moment > now else self._point(turns + 1)

    def _point(self, turns: int) -> datetime:
        return datetime.fromtimestamp(self.phase + turns * self.period, UTC)

    def late(self, now: float) -> Seconds:
        """Seconds since the last point of the grid."""
        return (now - self.phase) % self.period


@dataclass(frozen=True, slots=True)
class _Entry:
    task: Task
    grid: Grid


class Schedule:
    """Runs each task at its interval, one run of it at a time.

    Attributes:
        skipped: Runs that did not begin because the one before had not ended, or
            because their time had passed.
        clock_steps: Times that the wall clock was seen to jump.
    """

    def __init__(self, clock: Clock) -> None:
        self.skipped = 0
        self.clock_steps = 0
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._out_of_turn: set[str] = set()  # names that `soon` was asked for
        self._running: dict[str, asyncio.Task[object]] = {}
        self._offset = clock.wall() - clock.now()
        self._look: asyncio.TimerHandle | None = None
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={
                "coalesce": True,
                "max_instances": 1,
                "misfire_grace_time": None,
            },
        )
        self._scheduler.add_listener(
            self._skipped, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
        )
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        # It logs one warning a period and target while a run hangs, and tracebacks
        # for what it cancels itself; the listeners above count and tell.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)

    def add(self, task: Task) -> None:
        """Run *task* from now on, soon for the first time."""
        share = zlib.crc32(task.name.encode()) / 2**32
        phase = tick(share * task.interval) + self._offset % TICK
        grid = Grid(task.interval, phase)
        entry = self._entries[task.name] = _Entry(task, grid)
        self._scheduler.add_job(
            self._run,
            grid,
            id=task.name,
            args=[entry],
            next_run_time=self._at(share),
        )
        self._out_of_turn.add(task.name)

    async def remove(self, name: str) -> None:
        """Run the task called *name* no more, and cut a run that is under way short."""
        del self._entries[name]
        self._out_of_turn.discard(name)
        self._scheduler.remove_job(name)
        if (running := self._running.get(name)) is not None:
            running.cancel()
            await asyncio.wait((running,))

    def soon(self, name: str, after: Seconds = 0.0) -> None:
        """Run the task called *name* after *after* seconds, then as usual; one that was
        removed is not run any more."""
        if name not in self._entries:
            return
        self._out_of_turn.add(name)
        self._scheduler.modify_job(name, next_run_time=self._at(after))

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._scheduler.start()
        self._watch_clocks()

    async def close(self, within: Seconds = 5.0) -> None:
        """Begin no more runs, and give those under way *within* seconds to end."""
        if self._look is not None:
            self._look.cancel()
        if self._scheduler.running:
            self._scheduler.pause()
            if self._running:
                await asyncio.wait(self._running.values(), timeout=within)
            self._scheduler.shutdown(wait=False)

    def _at(self, after: Seconds) -> datetime:
        return datetime.fromtimestamp(self._clock.wall() + after, UTC)

    async def _run(self, entry: _Entry) -> None:
        name = entry.task.name
        if self._entries.get(name) is not entry:
            return  # removed between its time and its beginning
        current = asyncio.current_task()
        assert current is not None
        self._running[name] = current
        try:
            await entry.task.tick(self._late(entry))
        finally:
            del self._running[name]
        hurry = entry.task.hurry
        if hurry is not None:
            self.soon(name, hurry)

    def _late(self, entry: _Entry) -> Seconds:
        if entry.task.name in self._out_of_turn:
            self._out_of_turn.discard(entry.task.name)
            return 0.0
        return entry.grid.late(self._clock.wall())

    def _watch_clocks(self) -> None:
        """Place every job anew when wall time has jumped against monotonic time."""
        offset = self._clock.wall() - self._clock.now()
        if abs(offset - self._offset) > _STEP:
            self.clock_steps += 1
            log.warning("the wall clock jumped by %.1f s", offset - self._offset)
            now = datetime.fromtimestamp(self._clock.wall(), UTC)
            for name, entry in self._entries.items():
                moment = entry.grid.get_next_fire_time(None, now)
                self._scheduler.modify_job(name, next_run_time=moment)
        self._offset = offset
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(_LOOK, self._watch_clocks)

    def _skipped(self, _event: JobEvent) -> None:
        self.skipped += 1

    def _failed(self, event: JobEvent) -> None:
        if isinstance(event.exception, asyncio.CancelledError):
            return  # we are closing
        log.error("%s raised", event.job_id, exc_info=event.exception)
