"""What the daemon consists of, put together."""

import asyncio
import gc
import logging
import os
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pgbreaker import __version__
from pgbreaker import config as files
from pgbreaker.app.alerting import Alerting
from pgbreaker.app.fleet import Fleet, board_of
from pgbreaker.app.memories import ForecastKeeper, Keeper
from pgbreaker.app.peering import own_peers, peers_of
from pgbreaker.app.renewal import Renewal, Source
from pgbreaker.app.works import Works
from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.metric import Shown
from pgbreaker.core.plan import AdvicePlan, Config, OtlpPlan, PeersPlan, StorePlan
from pgbreaker.core.units import Seconds, counted, lasting
from pgbreaker.monitor.desk import Desk
from pgbreaker.monitor.outlook import COMPUTED, OUTLOOK
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.pausing import Pausing
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.probes import probe_called
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub, Sink
from pgbreaker.sinks.log import LogSink, dropped
from pgbreaker.sinks.metrics import (
    ALERTS_PUSHED,
    CLOCK_STEPS,
    DROPPED,
    LOG_DROPPED,
    LOOP_LATE,
    PUSH_FAILURES,
    RECORDING_DROPPED,
    RECORDING_FAILURES,
    RELOADED,
    RELOADED_AT,
    SKIPPED,
    STORE_DEGRADED,
    STORE_LOST,
    STORE_SIZE,
    STREAMS,
    Metrics,
)
from pgbreaker.sinks.peers.peers import Peers
from pgbreaker.sinks.recent import Recent
from pgbreaker.sinks.record import Recorder, recording
from pgbreaker.sinks.store import Restored, Rollup, Store
from pgbreaker.sinks.traces import Traces, open_traces
from pgbreaker.web.agent import answering
from pgbreaker.web.api.advising import AdviceFile, Advising, Think
from pgbreaker.web.api.stream import Stream
from pgbreaker.web.doors.limits import DEFAULT as LIMITS
from pgbreaker.web.inside import Inside
from pgbreaker.web.server import serve
from pgbreaker.web.views import LastReload, Stored, Views

log = logging.getLogger(__name__)

_SETTLED: Final[Seconds] = 15.0  # after the first pings: all was asked once by then


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that runs.

    Attributes:
        board: What is true now.
        address: Host and port that it serves HTTP on.
        fleet: What goes round the targets.
        pulse: How late its loop is.
        renewal: Reads the configuration anew. None: there is none to read.
        works: What is done beside all else.
    """

    board: Board
    address: tuple[str, int]
    fleet: Fleet
    pulse: Pulse
    renewal: Renewal | None
    works: Works

    @property
    def patrols(self) -> tuple[Patrol, ...]:
        """What goes round each target."""
        return tuple(self.fleet.patrols.values())

    @property
    def trouble(self) -> str | None:
        """What is wrong with those who watch, None when nothing is."""
        return self.fleet.trouble or self.works.trouble

    @property
    def unready(self) -> str | None:
        """The first target that no probe has come back from, None when all did."""
        return self.fleet.unready

    @property
    def status(self) -> str:
        """One line for a service manager: what is not as it should be."""
        shut = [
            (target.moved[operation], breaker)
            for target in self.board.targets.values()
            for operation, breaker in target.breakers.items()
            if not breaker.passes
        ]
        targets = counted(len(self.board.targets), "target")
        if not shut:
            return f"{targets}, all breakers closed"
        told = ", ".join(
            f"{breaker.name} {breaker.state.value} since"
            f" {time.strftime('%H:%M', time.localtime(moved))} ({breaker.evidence})"
            for moved, breaker in shut[:3]
        )
        return f"{targets}, {len(shut)} not closed: {told}"


@asynccontextmanager
async def running(
    config: Config,
    *,
    source: Source | None = None,
    clock: Clock | None = None,
    also: Iterable[Sink] = (),
    taken: Callable[[Config], None] = lambda _config: None,
    env: Mapping[str, str] = os.environ,
) -> AsyncIterator[Daemon]:
    """Run a daemon for the time of the block.

    Args:
        source: Where *config* was read, to read it anew. None: nowhere.
        also: Further sinks that are told of every event.
        taken: Is told of each configuration that is taken later.

    Raises:
        PgbreakerError: The address cannot be listened on, an extra is missing, or
            another daemon has the store.
    """
    # One straight line, because each part is handed what stands above it; the stack
    # takes them down in reverse.
    async with AsyncExitStack() as stack:
        clock = clock or Clock()
        begun = clock.now()
        works = Works()
        ground = await _ground(config, clock, also, env, works, stack)
        board, history = ground.board, ground.history
        schedule, pulse = Schedule(clock), Pulse(clock)
        fleet = _fleet(config, ground, schedule, pulse, works, stack)
        desk = Desk(board, ground.hub, history, clock)
        renewal, peers = None, _peers(ground, config.peers, fleet, desk)
        if source is not None:

            async def apply(new: Config) -> None:
                await fleet.take(new.targets)
                if peers is not None:
                    peers.turn()
                await ground.turn(new)
                taken(new)

            renewal = Renewal(source, config, apply, history, clock)
        views = _views(ground, renewal, peers)
        stream = Stream(history, views, clock)
        think = None if peers is None else peers.sights.thought_of
        advising = _advising(ground, config.advice, views.epoch, stream, think)
        _own(ground, schedule, pulse, stream, renewal)
        await desk.restore(ground.restored.overrides, ground.restored.windows)
        _tell_restored(ground.restored, clock.now() - begun)
        stack.push_async_callback(desk.close)
        inside = Inside(
            board=board,
            views=views,
            metrics=ground.metrics,
            history=history,
            desk=desk,
            clock=clock,
            version=__version__,
            health=lambda: fleet.trouble or works.trouble or pulse.trouble,
            ready=lambda: fleet.unready,
            reload=None if renewal is None else renewal.reload,
            stream=stream,
            advising=advising,
            config=lambda: files.shown(config if renewal is None else renewal.config),
            recent=ground.recent,
            store=ground.store,
            grafana_url=_grafana(config),
        )
        address = await _serve(config, inside, stack)
        stack.push_async_callback(fleet.close)
        stack.push_async_callback(schedule.close)
        # Before the server hangs up, whoever listens is told that it will.
        stack.push_async_callback(stream.close)
        stack.callback(advising.close)
        await ground.alerting.take(config.alertmanager)
        await _tell_start(ground, config, works, stack)
        fleet.start()
        schedule.start()
        pulse.start()
        stack.callback(pulse.stop)
        if peers is not None:
            await _join(peers, advising, works, stack)
        works.begin(stack, "desk", desk.run())
        await _pause(config, ground, works, stack)
        file = None if config.advice.file is None else AdviceFile(config.advice.file)
        works.begin(stack, "advising", advising.run(file))
        if renewal is not None:
            stack.push_async_callback(renewal.close)
            works.begin(stack, "renewal", renewal.watch())
        yield Daemon(board, address, fleet, pulse, renewal, works)
        await ground.tell(_STOPPING, phase="stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What stands before anybody watches anything."""

    clock: Clock
    board: Board
    metrics: Metrics
    history: History
    recent: Recent
    alerting: Alerting
    recorder: Recorder | None
    pausing: Pausing
    hub: Hub
    store: Store | None
    restored: Restored

    async def tell(self, text: str, **more: str | float) -> None:
        """Tell of the daemon itself."""
        details = {"version": __version__, **more}
        await self.history.decide(Kind.DAEMON, text, details=details)

    async def turn(self, config: Config) -> None:
        """Go on by a configuration that was read anew, but for the targets."""
        self.metrics.show(_shown(config))
        self.recent.keep(frozenset(self.board.targets))
        if self.recorder is not None:
            self.recorder.turn(config.targets)
        await self.pausing.take(config.targets)
        await self.alerting.take(config.alertmanager)
        self.alerting.look()


async def _ground(
    config: Config,
    clock: Clock,
    also: Iterable[Sink],
    env: Mapping[str, str],
    works: Works,
    stack: AsyncExitStack,
) -> _Ground:
    store = await _store(config, clock, env, stack)
    restored = Restored() if store is None else store.restored()
    memories = restored.memories
    board = Board((board_of(plan, clock, memories) for plan in config.targets), clock)
    board.reports.most = config.advice.followers
    metrics = Metrics(board, __version__, _shown(config))
    history = History(
        board,
        clock,
        store,
        archive=store,
        last=restored.last_id,
        entries=restored.entries,
    )
    stack.push_async_callback(history.close)
    recent, alerting = Recent(), Alerting(board, clock)
    history.follow(alerting.heed)
    stack.push_async_callback(alerting.close)
    recorder = None
    if config.record is not None:
        recorded = recording(
            config.record, config.targets, clock, __version__, COMPUTED
        )
        recorder = await stack.enter_async_context(recorded)
    # Each after those whom it asks. They end after the patrols and the schedule: nothing
    # moves a breaker by then.
    sinks: list[Sink] = [board, metrics, LogSink(board), recent, alerting]
    if config.otlp is not None:
        # Before the metrics, which ask it for exemplars.
        traces = _traces(config.otlp, board, metrics, clock, stack)
        sinks.insert(1, traces)
        history.follow(traces.heed)
    if recorder is not None:
        sinks.append(recorder)
    pausing = Pausing(
        board, history, clock, is_kept=store is not None, may_act=board.leads
    )
    sinks.append(pausing)
    if store is not None:
        sinks += _keeping(board, store, metrics, clock, works, stack)
    return _Ground(
        clock=clock,
        board=board,
        metrics=metrics,
        history=history,
        recent=recent,
        alerting=alerting,
        recorder=recorder,
        pausing=pausing,
        hub=Hub([*sinks, history, *also]),
        store=store,
        restored=restored,
    )


async def _store(
    config: Config, clock: Clock, env: Mapping[str, str], stack: AsyncExitStack
) -> Store | None:
    """Open the store, if there is to be one: the service manager may have made room.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#RuntimeDirectory=
    """
    plan, room = config.store, env.get("STATE_DIRECTORY", "").partition(":")[0]
    if plan is None and room:
        plan = StorePlan(path=Path(room) / "state.db")
    if plan is None:
        return None
    store = await Store.open(plan, clock)
    stack.push_async_callback(store.close)
    return store


def _keeping(
    board: Board,
    store: Store,
    metrics: Metrics,
    clock: Clock,
    works: Works,
    stack: AsyncExitStack,
) -> tuple[Sink, ...]:
    """Those who have the store keep what is true."""
    metrics.own(STORE_DEGRADED, lambda: int(store.degraded is not None))
    metrics.own(STORE_SIZE, lambda: store.size_bytes)
    metrics.own(STORE_LOST, lambda: store.lost)
    rollup = Rollup(board, clock, store.count)
    keeper = Keeper(board, store, rollup, clock)
    stack.callback(keeper.keep)
    works.begin(stack, "keeper", keeper.run())
    return rollup, keeper


def _fleet(
    config: Config,
    ground: _Ground,
    schedule: Schedule,
    pulse: Pulse,
    works: Works,
    stack: AsyncExitStack,
) -> Fleet:
    """Put the fleet together. What its forecasts learn is kept from now on, and all of it
    once more when nobody watches any longer."""
    fleet = Fleet(
        *(ground.board, ground.hub, schedule, pulse, ground.clock),
        rests=config.peers is not None,
        learned=ground.restored.learned,
    )
    if ground.store is not None:
        targets = ground.board.targets.keys()
        keeper = ForecastKeeper(targets, fleet.learned, ground.store)
        ground.hub.add(keeper)
        stack.push_async_callback(keeper.keep)
        works.begin(stack, "forecast keeper", keeper.run())
    return fleet


def _traces(
    plan: OtlpPlan, board: Board, metrics: Metrics, clock: Clock, stack: AsyncExitStack
) -> Traces:
    traces = open_traces(plan.endpoint, plan.sample, board, clock, __version__)
    stack.push_async_callback(traces.close)
    metrics.lead_to(traces)
    return traces


def _views(ground: _Ground, renewal: Renewal | None, peers: Peers | None) -> Views:
    def stored() -> Stored | None:
        store = ground.store
        if store is None:
            return None
        return Stored(store.degraded, store.size_bytes, store.audit_fault)

    def last_reload() -> LastReload | None:
        if renewal is None or renewal.at is None:
            return None
        return LastReload(renewal.at, renewal.problem)

    epoch = str(int(ground.clock.wall() * 1000))
    return Views(
        *(ground.board, ground.clock, epoch),
        stored=stored,
        last_reload=last_reload,
        engine_problem=lambda: None if peers is None else peers.why,
    )


async def _tell_start(
    ground: _Ground, config: Config, works: Works, stack: AsyncExitStack
) -> None:
    started = _started(config, ground.restored)
    await ground.tell(started, phase="start", **_before(ground.restored))
    if ground.store is None:
        return
    if ground.store.quarantined is not None:
        # An operator's word may be among what is lost: not for the log alone.
        await ground.tell(_damaged(ground.store.quarantined))
    looked = _tell_audit_fault(ground, ground.store)
    works.do(stack, "look at the audit log", looked)


async def _join(
    peers: Peers, advising: Advising, works: Works, stack: AsyncExitStack
) -> None:
    """Keep in touch with the other daemons; what they know is there from the start."""
    peers.sights.follow(advising.look_soon)
    stack.push_async_callback(peers.close)
    await peers.join()
    advising.is_open = True
    works.begin(stack, "peers", peers.run())


def _peers(
    ground: _Ground, plan: PeersPlan | None, fleet: Fleet, desk: Desk
) -> Peers | None:
    if plan is None:
        return None
    peers = peers_of(
        *(plan, ground.board, ground.history, ground.hub, ground.clock),
        desk=desk,
        watch=fleet.watch,
        overrides=ground.restored.overrides,
    )
    own_peers(ground.metrics, peers)
    return peers


def _advising(
    ground: _Ground, plan: AdvicePlan, epoch: str, stream: Stream, think: Think | None
) -> Advising:
    advising = Advising(
        ground.board,
        ground.history,
        ground.clock,
        int(epoch),
        most=plan.followers,
        also=stream.advise,
        think=think,
    )
    advising.is_open = think is None  # else once it is known what the others know
    return advising


async def _serve(
    config: Config, inside: Inside, stack: AsyncExitStack
) -> tuple[str, int]:
    """Serve HTTP, and answer HAProxy where that is wanted. Returns host and port of the
    first."""
    limits = replace(LIMITS, followers=config.advice.followers)
    address = await stack.enter_async_context(serve(config.http, inside, limits))
    if config.haproxy is not None:
        agent = answering(config.haproxy, inside.board, inside.clock.now)
        await stack.enter_async_context(agent)
    return address


async def _pause(
    config: Config, ground: _Ground, works: Works, stack: AsyncExitStack
) -> None:
    """Have poolers hold clients back, from now on and until shortly before the end."""
    await ground.pausing.take(config.targets)
    works.begin(stack, "pausing", ground.pausing.run())
    stack.push_async_callback(ground.pausing.close)


def _own(
    ground: _Ground,
    schedule: Schedule,
    pulse: Pulse,
    stream: Stream,
    renewal: Renewal | None,
) -> None:
    """Have the metrics show how the daemon itself is."""
    metrics, hub, alerting = ground.metrics, ground.hub, ground.alerting
    metrics.own(LOG_DROPPED, dropped)
    if (recorder := ground.recorder) is not None:
        metrics.own(RECORDING_DROPPED, lambda: recorder.dropped)
        metrics.own(RECORDING_FAILURES, lambda: recorder.failures)
    metrics.own(DROPPED, lambda: hub.dropped)
    metrics.own(ALERTS_PUSHED, lambda: alerting.pushed)
    metrics.own(PUSH_FAILURES, lambda: alerting.failures)
    metrics.own(CLOCK_STEPS, lambda: schedule.clock_steps)
    metrics.own(SKIPPED, lambda: schedule.skipped)
    metrics.own(LOOP_LATE, lambda: pulse.lost)
    metrics.own(STREAMS, lambda: stream.listeners)
    if renewal is not None:
        metrics.own(RELOADED, lambda: int(renewal.problem is None))
        metrics.own(RELOADED_AT, lambda: renewal.taken_at)


def _grafana(config: Config) -> str | None:
    return None if config.alertmanager is None else config.alertmanager.grafana_url


_STOPPING: Final = "the daemon stops"


def _started(config: Config, restored: Restored) -> str:
    """Say that the daemon starts, and how the one before ended."""
    says = f"pgbreaker {__version__} starts, watching {_targets(config)}"
    last = _last_of_daemon(restored.entries)
    if restored.last_id and (last is None or last.text != _STOPPING):
        says += "; the one before did not stop, it was ended"
    return says


def _before(restored: Restored) -> dict[str, float]:
    """Until when the daemon before this one is known to have watched, in wall time.

    Breakers are written down every few seconds, and when it stops.
    """
    written = [at for at, _ in restored.memories.values()]
    return {"watched_until": max(written)} if written else {}


async def _tell_audit_fault(ground: _Ground, store: Store) -> None:
    """Tell where the audit log is not as it was written, once that was looked at."""
    fault = await store.looked_through()
    if fault is not None:
        await ground.tell(
            f"the audit log is not as it was written: {fault}; a backup of {store.path}"
            " tells what was there"
        )


def _damaged(aside: Path) -> str:
    return (
        f"the store was damaged and put aside as {aside}: overrides and windows that"
        " could not be read of it hold no more"
    )


def _tell_restored(restored: Restored, took: Seconds) -> None:
    if restored.last_id:
        log.info(
            "going on from the store, after %s: %s, %s",
            lasting(took),
            counted(len(restored.overrides), "override"),
            counted(len(restored.windows), "window"),
            extra={"fields": {"event": "restored", "took_seconds": round(took, 6)}},
        )


def _targets(config: Config) -> str:
    return counted(len(config.targets), "target")


def _last_of_daemon(entries: Iterable[Entry]) -> Entry | None:
    of_daemon = [entry for entry in entries if entry.kind is Kind.DAEMON]
    return of_daemon[-1] if of_daemon else None


def _shown(config: Config) -> Iterator[Shown]:
    """What the probes of all targets show, and what is reckoned from it."""
    names = {name: None for plan in config.targets for name in plan.probes}
    for name in names:
        yield from probe_called(name).shows
    yield from OUTLOOK


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
