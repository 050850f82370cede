"""From a configuration to a running daemon, and back in reverse."""

import asyncio
import gc
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pgbreaker import __version__
from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.metric import Shown
from pgbreaker.core.plan import Config, TargetPlan
from pgbreaker.core.units import Seconds, counted
from pgbreaker.monitor.desk import Desk
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.notify import Notifier
from pgbreaker.probes import probe_called
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub, Sink
from pgbreaker.sinks.log import LogSink
from pgbreaker.sinks.metrics import (
    ALERTS_PUSHED,
    CLOCK_STEPS,
    DROPPED,
    LOOP_LATE,
    PUSH_FAILURES,
    SKIPPED,
    Metrics,
)
from pgbreaker.sinks.push import pushing
from pgbreaker.sinks.traces import open_traces
from pgbreaker.web.inside import Inside
from pgbreaker.web.server import serve
from pgbreaker.web.views import Views

log = logging.getLogger(__name__)

_SETTLED: Final[Seconds] = 15.0  # after the first pings: all was asked once by then
_STOP_WITHIN: Final[Seconds] = 9.0  # a service manager kills after ten


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that runs.

    Attributes:
        board: What is true now.
        address: Host and port that it serves HTTP on.
        patrols: What goes round each target.
    """

    board: Board
    address: tuple[str, int]
    patrols: tuple[Patrol, ...]

    @property
    def trouble(self) -> str | None:
        """What is wrong with the daemon itself, None when nothing is."""
        return next((t for p in self.patrols if (t := p.trouble)), None)

    @property
    def unready(self) -> str | None:
        """The first target that no probe has come back from, None when all did."""
        for name, target in self.board.targets.items():
            if not target.readings:
                return f"no probe of {name} has come back yet"
        return None

    @property
    def status(self) -> str:
        """One line for a service manager: what is not as it should be."""
        shut = [
            f"{breaker.name} {breaker.state.value} ({breaker.evidence})"
            for target in self.board.targets.values()
            for breaker in target.breakers.values()
            if not breaker.passes
        ]
        targets = counted(len(self.board.targets), "target")
        if not shut:
            return f"{targets}, all breakers closed"
        return f"{targets}, {len(shut)} not closed: {', '.join(shut[:3])}"


@asynccontextmanager
async def running(
    config: Config, *, clock: Clock | None = None, also: Iterable[Sink] = ()
) -> AsyncIterator[Daemon]:
    """Run a daemon for the time of the block.

    Args:
        also: Further sinks that are told of every event.

    Raises:
        PgbreakerError: The address cannot be listened on, or an extra is missing.
    """
    clock = clock or Clock()
    # One straight line, because each part is handed what stands above it; the stack
    # takes them down in reverse.
    async with AsyncExitStack() as stack:
        board = Board((_board(plan, clock) for plan in config.targets), clock)
        metrics = Metrics(board, __version__, _shown(config))
        sinks = await _sinks(config, board, metrics, clock, stack)
        history = History(board, clock)
        hub = Hub([*sinks, history, *also])
        schedule = Schedule(clock)
        metrics.own(CLOCK_STEPS, lambda: schedule.clock_steps)
        metrics.own(SKIPPED, lambda: schedule.skipped)
        metrics.own(DROPPED, lambda: hub.dropped)
        pulse, doorway = Pulse(clock), Doorway()
        metrics.own(LOOP_LATE, lambda: pulse.lost)
        patrols = tuple(
            Patrol(target, hub, schedule, clock, doorway=doorway, late=pulse.lost_since)
            for target in board.targets.values()
        )
        daemon: Daemon | None = None

        def trouble() -> str | None:
            return daemon.trouble if daemon else None

        def unready() -> str | None:
            return daemon.unready if daemon else "starting"

        address = await stack.enter_async_context(
            serve(
                config.http,
                Inside(
                    board=board,
                    views=Views(board, clock, uuid.uuid4().hex[:12]),
                    metrics=metrics,
                    history=history,
                    desk=Desk(board, hub, history, clock),
                    clock=clock,
                    version=__version__,
                    health=trouble,
                    ready=unready,
                ),
            )
        )
        daemon = Daemon(board, address, patrols)
        stack.push_async_callback(_close_all, patrols)
        stack.push_async_callback(schedule.close)
        for patrol in patrols:
            patrol.start()
        schedule.start()
        pulse.start()
        stack.callback(pulse.stop)
        yield daemon


async def _sinks(
    config: Config, board: Board, metrics: Metrics, clock: Clock, stack: AsyncExitStack
) -> list[Sink]:
    """Those who are told of every event, each after those whom it asks.

    They end after the patrols and the schedule: nothing moves a breaker by then.
    """
    sinks: list[Sink] = [board, metrics, LogSink(board)]
    if config.otlp is not None:
        traces = open_traces(
            config.otlp.endpoint, config.otlp.sample, board, clock, __version__
        )
        stack.push_async_callback(traces.close)
        sinks.insert(1, traces)  # before the metrics, which ask it for exemplars
        metrics.lead_to(traces)
    if config.alertmanager is not None:
        pushed = pushing(config.alertmanager, board, clock)
        push = await stack.enter_async_context(pushed)
        metrics.own(ALERTS_PUSHED, lambda: push.pushed)
        metrics.own(PUSH_FAILURES, lambda: push.failures)
        sinks.append(push)
    return sinks


async def settle(daemon: Daemon) -> None:
    """Have Python's collector leave alone what is there for good, once it is there.

    With a thousand targets that is a quarter of a million objects: looking at all of
    them, a few times a minute, would hold the loop for more than a tenth of a second.
    """
    while daemon.unready:  # noqa: ASYNC110 - nobody tells us, and it is no hurry
        await asyncio.sleep(1.0)
    await asyncio.sleep(_SETTLED)
    gc.collect()
    gc.freeze()


def _board(plan: TargetPlan, clock: Clock) -> TargetBoard:
    breakers = {
        operation: Breaker(f"{plan.name}/{operation}", plan.policy, clock.now())
        for operation in plan.operations
    }
    return TargetBoard(plan, breakers, clock)


def _shown(config: Config) -> Iterator[Shown]:
    """What the probes of all targets show, and what is reckoned from it."""
    names = {name: None for plan in config.targets for name in plan.probes}
    for name in names:
        yield from probe_called(name).shows
    yield from OUTLOOK


async def _close_all(patrols: tuple[Patrol, ...]) -> None:
    await asyncio.gather(*(patrol.close() for patrol in patrols))


async def run(config: Config) -> None:
    """Run a daemon until the process is told to end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    notifier = Notifier()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(running(config))
        log.info(
            "watching %s, listening on %s:%d",
            counted(len(config.targets), "target"),
            *daemon.address,
        )
        telling = asyncio.create_task(
            notifier.keep_telling(lambda: daemon.status, lambda: daemon.trouble)
        )
        settling = asyncio.create_task(settle(daemon))
        notifier.send("READY=1", f"STATUS={daemon.status}")
        await stop.wait()
        telling.cancel()
        settling.cancel()
        notifier.send("STOPPING=1")
        log.info("stopping")
        # From here a second signal ends the process at once, and so does time.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        loop.call_later(_STOP_WITHIN, signal.raise_signal, signal.SIGTERM)
