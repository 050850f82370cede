"""The ways to go blind, on real servers: clocks, scrapes, storms, work that hangs."""

import asyncio
import contextlib
import gc
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, tzinfo

import pytest

from pgbreaker.app import Daemon, running
from pgbreaker.clock import Clock
from pgbreaker.config.load import USUAL
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import SERVED
from pgbreaker.core.plan import Config, HttpPlan, ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Event, Hub
from pgbreaker.sinks.metrics import Metrics
from support.servers import one_server, psql, running_server
from support.tools import need
from support.watching import Watching

# Each of its own round, and often enough for a test.
OFTEN = {name: replace(plan, interval=1.0) for name, plan in USUAL.items()}


class Skewed:
    """Both clocks, which a test can put forward and back."""

    def __init__(self) -> None:
        self.monotonic = 0.0
        self.wall = 0.0

    def clock(self) -> Clock:
        return Clock(
            now=lambda: time.monotonic() + self.monotonic,
            wall=lambda: time.time() + self.wall,
        )

    def datetime(self) -> type[datetime]:
        """The wall clock for APScheduler, which cannot be handed one."""

        class Wall(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.fromtimestamp(time.time() + self.wall, tz)

        return Wall


@pytest.fixture
def skewed():
    return Skewed()


class Ticker:
    """Notes how long the loop does not come round to it.

    Attributes:
        held: Seconds of the longest time.
    """

    def __init__(self) -> None:
        self.held = 0.0

    async def __aenter__(self) -> "Ticker":
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            # Processor time: that others have the machine is not what is tested.
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.held = max(self.held, time.thread_time() - before)


@contextlib.asynccontextmanager
async def daemon(
    dsn: str,
    *,
    targets: int = 1,
    clock: Clock | None = None,
    probes: Mapping[str, ProbePlan] = OFTEN,
    readings: list[Reading] | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon in this process; what it reads is put into *readings*."""
    plans = [
        TargetPlan(name=f"t{n}", dsn=Secret(dsn), probes=probes) for n in range(targets)
    ]

    def note(event: Event) -> None:
        if readings is not None and isinstance(event, Reading):
            readings.append(event)

    config = Config(targets=tuple(plans), http=HttpPlan(listen=("127.0.0.1", 0)))
    async with running(config, clock=clock, also=[note]) as running_one:
        yield running_one


async def until(what, within: float) -> float:
    """Wait until *what* holds. Returns the seconds that it took."""
    begun = time.monotonic()
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)
    return time.monotonic() - begun


def fetch(running_one: Daemon, path: str) -> tuple[int, str]:
    """Ask over HTTP. Returns the status and the body."""
    host, port = running_one.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# 1. The wall clock.


@one_server
@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_every_round_goes_on_when_the_wall_clock_jumps(
    server, step, skewed, monkeypatch
):
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", skewed.datetime())
    dsn = server.dsn(user="pgbreaker")
    async with Ticker() as ticker, daemon(dsn, clock=skewed.clock()) as one:
        (patrol,) = one.patrols
        board = one.board.targets["t0"]
        watches = [watch for round_ in patrol._rounds for watch in round_.watches]
        await until(lambda: board.readings.keys() >= OFTEN.keys(), within=15)

        skewed.wall = step
        ticker.held = 0.0
        for _ in range(3):  # the first time at most a look at the clocks later
            now = time.monotonic()
            await until(
                lambda now=now: (
                    all(w.ended_at > now for w in watches)
                    and patrol._sentinel.beaten_at > now
                ),
                within=1.0 + 1.0 + 2.0,  # a look, an interval, a slow machine
            )

        assert ticker.held < 0.25
        assert patrol.trouble is None
        _, metrics = await asyncio.to_thread(fetch, one, "/metrics")
    assert "pgbreaker_clock_steps_total 1\n" in metrics


# 2. A scrape.


def crowd(size: int) -> Metrics:
    """Boards of *size* targets on which every probe has been answered."""
    clock = Clock()
    plans = [
        TargetPlan(name=f"db-{n:03}", dsn=Secret("postgresql://db/app"), probes=USUAL)
        for n in range(size)
    ]
    boards = [
        TargetBoard(
            plan,
            {
                name: Breaker(f"{plan.name}/{name}", DAEMON, clock.now())
                for name in SERVED
            },
            clock,
        )
        for plan in plans
    ]
    board = Board(boards, clock)
    metrics = Metrics(board, "0")
    hub = Hub([board, metrics])
    for plan in plans:
        for probe in USUAL:
            hub.publish(Reading(plan.name, probe, clock.now(), 0.001, Finding.OK))
    return metrics


async def test_pings_are_on_time_while_50_000_series_are_scraped(server):
    metrics = crowd(340)
    often = {"ping": ProbePlan(interval=0.05, timeout=2.0)}
    dsn = server.dsn(user="pgbreaker")
    async with Watching(dsn, probes=often, operations=("read",)) as watching:
        await watching.until_closed()
        watching.events.clear()

        async with Ticker() as ticker:
            for _ in range(5):
                _, parts = metrics.scrape("", "gzip")
                async with aclosing(parts):
                    assert sum([len(part) async for part in parts]) > 50_000
                await asyncio.sleep(0.1)

    assert metrics.series >= 50_000
    pings = watching.readings("ping")
    late = sorted(ping.late for ping in pings)
    assert {ping.finding for ping in pings} <= {Finding.OK, Finding.SLOW}
    assert len(late) >= 10
    assert late[int(len(late) * 0.9)] < 0.1
    assert ticker.held < 0.1


# 3. A storm.


@pytest.fixture(scope="module")
def tls_server():
    """A server with TLS that has room for a crowd."""
    openssl = need("openssl", "openssl")
    with running_server(15, max_connections="450") as server:
        owner = server.data.stat()
        key, certificate = server.data / "server.key", server.data / "server.crt"
        command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
        files = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=x"]
        subprocess.run([*command, *files], check=True, capture_output=True)
        for path in (key, certificate):
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(0o600)
        psql(server, "ALTER SYSTEM SET ssl = on")
        psql(server, "ALTER ROLE pgbreaker CONNECTION LIMIT -1")
        psql(server, "SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def settled():
    """What is there by now costs the collector no time, as in a daemon that has settled:
    else what the whole suite has loaded is held against the loop."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
async def test_200_that_log_in_again_at_once_are_all_let_in(tls_server, settled):
    dsn = tls_server.dsn(user="pgbreaker") + "?sslmode=require"
    probes = {
        "ping": replace(USUAL["ping"], timeout=2.0),
        "login": replace(USUAL["login"], interval=30.0, timeout=5.0),
        "commit": replace(USUAL["commit"], interval=30.0, timeout=5.0),
    }
    async with Ticker() as ticker, daemon(dsn, targets=200, probes=probes) as one:
        boards = one.board.targets.values()
        await until(lambda: all(board.is_up for board in boards), within=60)
        await asyncio.to_thread(tls_server.kill)
        await until(lambda: not any(board.is_up for board in boards), within=10)

        ticker.held = 0.0
        await asyncio.to_thread(tls_server.start)
        took = await until(
            lambda: all(
                board.is_up and all(b.passes for b in board.breakers.values())
                for board in boards
            ),
            within=60,
        )

        assert took < 45
        # Each login is some milliseconds of ours; a heap of them would be seconds.
        assert ticker.held < 0.25


# 4. Work that hangs.


async def never(late: float = 0.0) -> None:
    await asyncio.Event().wait()


@one_server
async def test_a_round_that_hangs_makes_the_daemon_unhealthy_and_no_other_late(
    server, skewed
):
    dsn = server.dsn(user="pgbreaker")
    async with daemon(dsn, clock=skewed.clock()) as one:
        (patrol,) = one.patrols
        board = one.board.targets["t0"]
        await until(lambda: board.readings.keys() >= OFTEN.keys(), within=15)
        door = next(r for r in patrol._rounds if r.name == "t0/door")
        others = [w for r in patrol._rounds if r is not door for w in r.watches]
        assert await asyncio.to_thread(fetch, one, "/-/healthy") == (
            200,
            '{"status": "ok"}',
        )

        door.watches[0].tick = never
        for offset in (20.0, 40.0):
            skewed.monotonic = offset
            now = skewed.clock().now()
            await until(
                lambda now=now: all(watch.ended_at > now for watch in others), within=6
            )

        status, said = await asyncio.to_thread(fetch, one, "/-/healthy")
        assert status == 503
        assert "login, commit of t0 has not run for" in said
        await until(lambda: patrol._schedule.skipped >= 1, within=5)
        _, metrics = await asyncio.to_thread(fetch, one, "/metrics")
    assert "pgbreaker_schedule_skipped_total 0" not in metrics


async def test_a_server_that_freezes_in_the_middle_of_a_login_is_no_hang(fresh_server):
    """The deadline of each probe ends it, and the rounds go on."""
    readings: list[Reading] = []
    dsn = fresh_server.dsn(user="pgbreaker")
    async with daemon(dsn, readings=readings) as one:
        (patrol,) = one.patrols
        board = one.board.targets["t0"]
        await until(lambda: board.readings.keys() >= OFTEN.keys(), within=15)
        watches = [watch for round_ in patrol._rounds for watch in round_.watches]

        fresh_server.freeze()
        now = time.monotonic()
        # One that was under way ends by its deadline: twice the longest, which is ten.
        await until(lambda: all(watch.ended_at > now for watch in watches), within=25)

        assert patrol.trouble is None
        longest = max(plan.timeout for plan in OFTEN.values())
        assert max(reading.took for reading in readings) < longest + 1.0
