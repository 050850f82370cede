"""What could make the monitor blind: work that never ends, and work that adds up."""

import asyncio
import gc
import logging
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbreaker.clock import Clock
from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.schedule import Grid, Schedule
from pgbreaker.postgres.target import Target
from pgbreaker.probes import PROBES
from pgbreaker.sinks.log import LogSink
from pgbreaker.sinks.metrics import Metrics
from support.boards import Scene
from support.watching import Watching

LIMIT = ProbePlan(interval=0.2, timeout=0.2)


class Work:
    """A task for a schedule that counts its runs.

    Attributes:
        stuck: Whether a run never ends.
    """

    hurry = None

    def __init__(self, name: str, *, stuck: bool = False) -> None:
        self.name = name
        self.interval = 0.05
        self.stuck = stuck
        self.runs = 0

    async def tick(self, late: float = 0.0) -> None:
        self.runs += 1
        if self.stuck:
            await asyncio.Event().wait()


async def until(what, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.005)


@pytest.fixture
async def silent():
    """A server that takes every connection, and says nothing: its port."""
    taken = []
    server = await asyncio.start_server(lambda *ends: taken.append(ends), "127.0.0.1")
    yield server.sockets[0].getsockname()[1]
    server.close()
    for _, writer in taken:
        writer.transport.abort()


def at(port: int, **probes: ProbePlan) -> TargetPlan:
    dsn = Secret(f"postgresql://me:secret@127.0.0.1:{port}/app?sslmode=disable")
    return TargetPlan(name="main", dsn=dsn, probes=probes)


# A grid that stands still.


@pytest.mark.parametrize("period", [0.2, 2.0, 5.0, 20.0, 900.0])
def test_the_next_run_is_after_now_even_where_now_is_a_point_of_the_grid(period):
    """
    APScheduler asks for the next one until it lies in the future: a point that is the
    same moment again, for microseconds, would keep the loop for ever.
    """
    grids = [Grid(period, period * n / 997) for n in range(997)]
    some_day = datetime(2027, 1, 15, 8, 0, 0, 123457, UTC)
    points = [(grid, grid.get_next_fire_time(None, some_day)) for grid in grids]

    for microseconds in range(-3, 4):
        for grid, point in points:
            now = point + timedelta(microseconds=microseconds)
            following = grid.get_next_fire_time(point, now)
            assert now < following <= now + timedelta(seconds=period, microseconds=3)


# Work that never ends.


async def test_a_run_that_never_ends_is_skipped_and_the_others_go_on(caplog):
    schedule = Schedule(Clock())
    stuck, well = Work("a/held", stuck=True), Work("b/held")
    schedule.add(stuck)
    schedule.add(well)
    schedule.start()

    await until(lambda: schedule.skipped >= 3 and well.runs >= 3)
    await schedule.close(within=0.05)

    assert stuck.runs == 1
    assert caplog.text == ""  # it is counted: a line a period and target is a flood


async def test_one_that_hung_runs_again_once_it_has_ended():
    schedule = Schedule(Clock())
    work = Work("a/held")
    may_end = asyncio.Event()
    usual = work.tick

    async def hang(late: float = 0.0) -> None:
        await may_end.wait()
        await usual(late)

    work.tick = hang
    schedule.add(work)
    schedule.start()
    await until(lambda: schedule.skipped >= 2)
    may_end.set()

    await until(lambda: work.runs >= 3)
    await schedule.close()


async def test_a_round_that_hangs_is_trouble_after_three_intervals_and_15_s():
    scene = Scene()
    target = scene.board.targets["main"]
    patrol = Patrol(target, scene.hub, Schedule(scene.clock), scene.clock)
    scene.time.now += 3 * 5.0 + 2 * 1.0 + 15.0
    patrol._sentinel.beaten_at = scene.time.now  # it goes on meanwhile
    assert patrol.trouble is None

    scene.time.now += 0.1

    assert patrol.trouble == "login of main has not run for 32.1 s"


async def test_a_probe_that_goes_elsewhere_and_never_comes_back_is_timed_out(
    monkeypatch,
):
    async def lost(_plan, _within) -> dict:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setitem(PROBES, "patroni", replace(PROBES["patroni"], goes=lost))
    dsn = at(1).dsn.reveal()  # where nobody listens
    async with Watching(dsn, probes={"ping": LIMIT, "patroni": LIMIT}) as watching:
        await watching.until(lambda: len(watching.readings("patroni")) >= 3, within=5)

    assert watching.findings("patroni") == {Finding.TIMEOUT}
    for reading in watching.readings("patroni"):
        assert reading.took == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize("way", ["knock", "connect", "visit"])
async def test_a_server_that_never_answers_costs_no_more_than_the_deadline(silent, way):
    target = Target(at(silent, ping=LIMIT))
    ways = {
        "knock": lambda: target.knock(0.2),
        "connect": lambda: target.connect(0.2, limit=0.2),
        "visit": lambda: target.visit("login", 0.2, limit=0.2),
    }

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await ways[way]()


async def test_the_sentinel_of_a_server_that_never_answers_beats_on(silent):
    dsn = at(silent).dsn.reveal()
    probes = USUAL | {"ping": LIMIT}
    async with Watching(dsn, probes=probes) as watching:
        await watching.until(lambda: len(watching.readings("ping")) >= 2, within=15)

    assert watching.findings("ping") == {Finding.TIMEOUT}
    assert watching.patrol.trouble is None or "ended" in watching.patrol.trouble
    # A knock, and the patience that it is given once it is known to be down.
    assert max(reading.took for reading in watching.readings("ping")) < 0.2 + 2.0 + 0.5


# The doorway.


async def test_so_many_come_in_at_a_time_and_in_their_order():
    doorway = Doorway(2, apart=0.0, hold=60.0)
    came: list[int] = []

    async def come(number: int) -> None:
        await doorway.enter()
        came.append(number)

    first = await doorway.enter()
    await doorway.enter()
    waiting = [asyncio.create_task(come(n)) for n in range(3)]
    await asyncio.sleep(0.01)  # time in which none may come in
    assert came == []

    first.leave()
    await waiting[0]

    assert came == [0]
    for task in waiting:
        task.cancel()


async def test_a_place_is_left_once_however_often_it_is_said():
    doorway = Doorway(1, apart=0.0, hold=60.0)
    place = await doorway.enter()

    place.leave()
    place.leave()

    await doorway.enter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await doorway.enter()


async def test_those_that_hang_do_not_keep_the_others_out():
    doorway = Doorway(3, apart=0.0, hold=0.05)
    for _ in range(3):
        await doorway.enter()  # and never leaves

    async with asyncio.timeout(1.0):
        for _ in range(3):
            await doorway.enter()


async def test_who_gives_up_waiting_takes_no_place():
    doorway = Doorway(1, apart=0.0, hold=60.0)
    place = await doorway.enter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await doorway.enter()
    place.leave()

    async with asyncio.timeout(1.0):
        await doorway.enter()


async def test_who_gives_up_between_two_beginnings_takes_no_place():
    doorway = Doorway(2, apart=0.2, hold=60.0)
    await doorway.enter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await doorway.enter()

    async with asyncio.timeout(2.0):
        await doorway.enter()


async def test_they_begin_apart_from_each_other():
    doorway = Doorway(20, apart=0.01)
    loop = asyncio.get_running_loop()
    moments = []

    async def come() -> None:
        await doorway.enter()
        moments.append(loop.time())

    await asyncio.gather(*(come() for _ in range(10)))

    assert moments[-1] - moments[0] >= 9 * 0.01 - 0.005


# Work that adds up.


def test_readings_leave_no_memory_behind(caplog):
    caplog.set_level(logging.CRITICAL, "pgbreaker.events")  # pytest keeps each record
    scene = Scene()
    metrics = Metrics(scene.board, "0")
    scene.also(metrics, LogSink(scene.board))
    feed = Feed(scene.board.targets["main"], scene.hub, scene.clock)

    def read(count: int) -> None:
        for number in range(count):
            scene.time.now += 0.5
            failed = number % 40 > 30  # breakers open and close again
            finding = Finding.REFUSED if failed else Finding.OK
            probe = "login" if number % 5 == 0 else "ping"
            reading = Reading(
                "main",
                probe,
                scene.time.now,
                0.001 * (number % 7),
                finding,
                {} if failed else {"version": 150018, "slots_used": number},
                Evidence("refused", f"refused {number}") if failed else None,
                confirmed=failed,
            )
            feed.judge(reading)

    read(400)
    gc.collect()
    tracemalloc.start()
    read(200)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    read(1000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert scene.hub.dropped == 0
    assert after - before < 16 * 1024
