"""What a daemon consists of, put together."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker import __version__
from pgbreaker import config as files
from pgbreaker.app.fleet import Fleet, board_of
from pgbreaker.app.memories import Keeper
from pgbreaker.app.renewal import Renewal, Source
from pgbreaker.clock import Clock
from pgbreaker.core.entry import Kind
from pgbreaker.core.metric import Shown
from pgbreaker.core.plan import Config, OtlpPlan
from pgbreaker.core.units import counted
from pgbreaker.monitor.desk import Desk
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.probes import probe_called
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub, Sink
from pgbreaker.sinks.log import LogSink
from pgbreaker.sinks.metrics import (
    ALERTS_PUSHED,
    CLOCK_STEPS,
    DROPPED,
    LOOP_LATE,
    PUSH_FAILURES,
    RELOADED,
    RELOADED_AT,
    SKIPPED,
    STORE_DEGRADED,
    STORE_LOST,
    STORE_SIZE,
    STREAMS,
    Metrics,
)
from pgbreaker.sinks.push import Push, pushing
from pgbreaker.sinks.recent import Recent
from pgbreaker.sinks.record import Recorder, recording
from pgbreaker.sinks.store import Restored, Rollup, Store
from pgbreaker.sinks.traces import open_traces
from pgbreaker.web.inside import Inside
from pgbreaker.web.server import serve
from pgbreaker.web.stream import Stream
from pgbreaker.web.views import LastReload, Stored, Views

log = logging.getLogger(__name__)

LATER: Final = (*files.LATER, "alertmanager", "log.format")
"""Keys whose changes only take effect with the next start."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that runs.

    Attributes:
        board: What is true now.
        address: Host and port that it serves HTTP on.
        fleet: What it watches.
        pulse: How late the daemon itself is.
        renewal: Reads its configuration anew. None: it was given no file.
    """

    board: Board
    address: tuple[str, int]
    fleet: Fleet
    pulse: Pulse
    renewal: Renewal | None

    @property
    def patrols(self) -> tuple[Patrol, ...]:
        """What goes round each target."""
        return tuple(self.fleet.patrols.values())

    @property
    def trouble(self) -> str | None:
        """What is wrong with the daemon itself, None when nothing is."""
        return self.pulse.trouble or self.fleet.trouble

    @property
    def unready(self) -> str | None:
        """The first target that no probe has come back from, None when all did."""
        return self.fleet.unready

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
    config: Config,
    *,
    source: Source | None = None,
    clock: Clock | None = None,
    also: Iterable[Sink] = (),
) -> AsyncIterator[Daemon]:
    """Run a daemon for the time of the block.

    Args:
        source: Where *config* came from, and comes from when it changes. None: it does
            not change.
        also: Further sinks that are told of every event.

    Raises:
        PgbreakerError: The address cannot be listened on, an extra is missing, or
            another daemon has the store.
    """
    # One straight line, because each part is handed what stands above it; the stack
    # takes them down in reverse.
    async with AsyncExitStack() as stack:
        ground = await _ground(config, clock or Clock(), also, stack)
        schedule, pulse = Schedule(ground.clock), Pulse(ground.clock)
        fleet = Fleet(ground.board, ground.hub, schedule, pulse, ground.clock)
        desk = Desk(ground.board, ground.hub, ground.history, ground.clock)
        await ground.restore(desk)
        renewal = _renewal(config, source, ground, fleet)
        views = _views(ground, renewal)
        stream = Stream(ground.history, views, ground.clock)
        _own(ground.metrics, schedule, pulse, stream, renewal)
        inside = Inside(
            board=ground.board,
            views=views,
            metrics=ground.metrics,
            history=ground.history,
            desk=desk,
            clock=ground.clock,
            version=__version__,
            health=lambda: pulse.trouble or fleet.trouble,
            ready=lambda: fleet.unready,
            reload=None if renewal is None else renewal.reload,
            stream=stream,
            config=lambda: files.shown(config if renewal is None else renewal.config),
            recent=ground.recent,
            grafana_url=None
            if config.alertmanager is None
            else config.alertmanager.grafana_url,
        )
        address = await stack.enter_async_context(serve(config.http, inside))
        # Before the server hangs up, whoever listens is told that it will.
        stack.push_async_callback(stream.close)
        stack.push_async_callback(ground.tell, "the daemon stops")
        stack.push_async_callback(fleet.close)
        stack.push_async_callback(schedule.close)
        stack.push_async_callback(desk.close)
        _meanwhile(stack, "the desk", desk.run())
        if ground.keeper is not None:
            _meanwhile(stack, "what keeps memories", ground.keeper.run())
        if renewal is not None:
            _meanwhile(stack, "what watches the configuration", renewal.watch())
        count = counted(len(ground.board.targets), "target")
        await ground.tell(f"pgbreaker {__version__} starts, watching {count}")
        fleet.start()
        schedule.start()
        pulse.start()
        stack.callback(pulse.stop)
        yield Daemon(ground.board, address, fleet, pulse, renewal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What stands before anybody watches anything."""

    clock: Clock
    board: Board
    metrics: Metrics
    history: History
    recent: Recent
    hub: Hub
    restored: Restored
    store: Store | None
    keeper: Keeper | None
    recorder: Recorder | None
    push: Push | None

    async def restore(self, desk: Desk) -> None:
        """Take up what was decided, and what was told, before the process began."""
        await desk.restore(self.restored.overrides, self.restored.windows)
        if self.push is not None:
            self.history.follow(self.push.heed)
            self.push.take_up()

    async def tell(self, text: str) -> None:
        """Tell of the daemon itself."""
        await self.history.decide(Kind.DAEMON, text)

    def turn(self, config: Config) -> None:
        """Go on by a configuration that was read anew, but for the targets."""
        self.metrics.show(_shown(config))
        self.recent.keep(frozenset(self.board.targets))
        if self.recorder is not None:
            self.recorder.turn(config.targets)


async def _ground(
    config: Config, clock: Clock, also: Iterable[Sink], stack: AsyncExitStack
) -> _Ground:
    store = None if config.store is None else await Store.open(config.store, clock)
    restored = Restored() if store is None else store.restored()
    memories = restored.memories
    board = Board((board_of(plan, clock, memories) for plan in config.targets), clock)
    metrics = Metrics(board, __version__, _shown(config))
    history = History(
        board,
        clock,
        store,
        archive=store,
        last=restored.last_id,
        entries=restored.entries,
    )
    keeper = None
    if store is not None:
        keeper = Keeper(board, store, Rollup(board, clock, store.count), clock)
        _keep(store, keeper, history, metrics, stack)
    # Each after those whom it asks. They end after the patrols and the schedule: nothing
    # moves a breaker by then.
    sinks: list[Sink] = [board, metrics, LogSink(board), history, recent := Recent()]
    if config.otlp is not None:
        # Before the metrics, which ask it for exemplars.
        sinks.insert(1, _traces(config.otlp, board, metrics, clock, stack))
    push = None
    if config.alertmanager is not None:
        pushed = pushing(config.alertmanager, board, clock)
        push = await stack.enter_async_context(pushed)
        metrics.own(ALERTS_PUSHED, lambda: push.pushed)
        metrics.own(PUSH_FAILURES, lambda: push.failures)
    recorder = None
    if config.record is not None:
        recorded = recording(config.record, config.targets, clock, __version__)
        recorder = await stack.enter_async_context(recorded)
    sinks += [sink for sink in (push, keeper, recorder) if sink is not None]
    hub = Hub([*sinks, *also])
    metrics.own(DROPPED, lambda: hub.dropped)
    return _Ground(
        clock=clock,
        board=board,
        metrics=metrics,
        history=history,
        recent=recent,
        hub=hub,
        restored=restored,
        store=store,
        keeper=keeper,
        recorder=recorder,
        push=push,
    )


def _keep(
    store: Store,
    keeper: Keeper,
    history: History,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> None:
    """Have *store* end after all that it is told."""
    stack.push_async_callback(store.close)
    stack.callback(keeper.keep)
    stack.push_async_callback(history.close)
    metrics.own(STORE_DEGRADED, lambda: int(store.degraded is not None))
    metrics.own(STORE_SIZE, lambda: store.size_bytes)
    metrics.own(STORE_LOST, lambda: store.lost)


def _traces(
    plan: OtlpPlan, board: Board, metrics: Metrics, clock: Clock, stack: AsyncExitStack
) -> Sink:
    traces = open_traces(plan.endpoint, plan.sample, board, clock, __version__)
    stack.push_async_callback(traces.close)
    metrics.lead_to(traces)
    return traces


def _renewal(
    config: Config, source: Source | None, ground: _Ground, fleet: Fleet
) -> Renewal | None:
    if source is None:
        return None

    async def apply(new: Config) -> None:
        await fleet.take(new.targets)
        ground.turn(new)
        logging.getLogger().setLevel(new.log.level)

    return Renewal(source, config, apply, ground.history, ground.clock, later=LATER)


def _views(ground: _Ground, renewal: Renewal | None) -> Views:
    def stored() -> Stored | None:
        store = ground.store
        return None if store is None else Stored(store.degraded, store.size_bytes)

    def last_reload() -> LastReload | None:
        return None if renewal is None else LastReload(renewal.at, renewal.problem)

    epoch = uuid.uuid4().hex[:12]
    return Views(
        ground.board, ground.clock, epoch, stored=stored, last_reload=last_reload
    )


def _own(
    metrics: Metrics,
    schedule: Schedule,
    pulse: Pulse,
    stream: Stream,
    renewal: Renewal | None,
) -> None:
    """Have *metrics* show how the daemon itself is."""
    metrics.own(CLOCK_STEPS, lambda: schedule.clock_steps)
    metrics.own(SKIPPED, lambda: schedule.skipped)
    metrics.own(LOOP_LATE, lambda: pulse.lost)
    metrics.own(STREAMS, lambda: stream.listeners)
    if renewal is not None:
        metrics.own(RELOADED, lambda: int(renewal.problem is None))
        metrics.own(RELOADED_AT, lambda: renewal.taken_at)


def _meanwhile(
    stack: AsyncExitStack, what: str, work: Coroutine[Any, Any, None]
) -> None:
    """Do *work* until the stack comes to it."""
    task = asyncio.create_task(work, name=what)

    def tell(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.critical("%s fell, which is a fault of ours", what, exc_info=error)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    task.add_done_callback(tell)
    stack.push_async_callback(end)


def _shown(config: Config) -> Iterator[Shown]:
    """What the probes of all targets show, and what is reckoned from it."""
    names = {name: None for plan in config.targets for name in plan.probes}
    for name in names:
        yield from probe_called(name).shows
    yield from OUTLOOK
