"""A day, or a year, of the daemon on simulated servers, in the time that it computes.

The daemon is the whole of it: what `pgbreaker run` puts together, with its store on a disk
and its HTTP on a socket. Around it servers are broken by a schedule, pages, metrics and
streams are read, orders are given, the configuration is written anew. All of that is in
one process, so what is measured of it is more than the daemon, but never less.
"""

import asyncio
import contextlib
import gc
import os
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from pgbreaker.app import Daemon, Source, running, settle
from pgbreaker.config import load
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import StorePlan
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import State, Transition
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import PROBES
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.store import Store
from pgbreaker.sinks.store.books import Counts
from pgbreaker.sinks.store.rows import Bucket
from support.simulated import Site, Sites
from support.virtual import VirtualLoop, scheduled_by
from support.vitals import Vitals

ALL = frozenset({"connect", "read", "write"})
NONE: frozenset[str] = frozenset()
# What a server counts begins anew with it; what is reckoned from that, with the rules of
# its target, too.
_SHOWN = (*OUTLOOK, *(shown for probe in PROBES.values() for shown in probe.shows))
OF_SERVERS = {shown.family.name for shown in _SHOWN}
_CLOSES_WITHIN = 120.0
_KEPT = 50  # complaints; one is too many


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a server.

    Attributes:
        name: What is done to it.
        begin: Does it; returns what undoes it.
        opens: Operations whose breakers have to open.
        may: Those that may, too.
        lasts: Seconds.
    """

    name: str
    begin: Callable[[Site], Callable[[], None]]
    opens: frozenset[str]
    may: frozenset[str] = NONE
    lasts: float = 30.0


def _crash(site: Site) -> Callable[[], None]:
    machine = site.machine
    machine.crash()
    return machine.start


def _freeze(site: Site) -> Callable[[], None]:
    machine = site.machine
    machine.freeze()
    return machine.thaw


def _flag(name: str) -> Callable[[Site], Callable[[], None]]:
    def begin(site: Site) -> Callable[[], None]:
        machine = site.machine
        setattr(machine, name, True)
        return lambda: setattr(machine, name, False)

    return begin


def _slow(site: Site) -> Callable[[], None]:
    machine, usual = site.machine, site.machine.way
    machine.way = 0.4
    return lambda: setattr(machine, "way", usual)


def _stall(site: Site) -> Callable[[], None]:
    machine = site.machine
    machine.is_alone = True
    return machine.let_go


def _terminate(site: Site) -> Callable[[], None]:
    site.machine.terminate()
    return lambda: None


def _restart(site: Site) -> Callable[[], None]:
    site.machine.crash()
    site.machine.start()
    return lambda: None


def _lose_name(site: Site) -> Callable[[], None]:
    site.is_lost = True
    return lambda: setattr(site, "is_lost", False)


def _fail_over(site: Site) -> Callable[[], None]:
    site.machine.crash()
    return site.fail_over


def _flap(site: Site) -> Callable[[], None]:
    machine, loop = site.machine, asyncio.get_running_loop()
    machine.crash()

    def turn() -> None:
        nonlocal turning
        if machine.is_up:
            machine.crash()
        else:
            machine.start()
        turning = loop.call_later(4.0, turn)

    turning = loop.call_later(4.0, turn)

    def end() -> None:
        turning.cancel()
        if not machine.is_up:
            machine.start()

    return end


FAULTS = (
    Fault("crash", _crash, ALL),
    Fault("freeze", _freeze, ALL),
    Fault("read-only", _flag("is_read_only"), frozenset({"write"})),
    Fault("full", _flag("is_full"), frozenset({"connect"})),
    Fault("slow", _slow, frozenset({"connect", "read"}), lasts=45.0),
    Fault("failover", _fail_over, ALL),
    Fault("flapping", _flap, ALL, lasts=60.0),
    Fault("wrong password", _flag("is_barred"), NONE),
    Fault("name lost", _lose_name, frozenset({"connect"})),
    Fault("commits wait", _stall, frozenset({"write"})),
    Fault("sessions terminated", _terminate, NONE),
    Fault("restart", _restart, NONE, ALL),
)
"""To add one: write the function, add the row."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left when all is well and nobody reads.

    Attributes:
        at: Virtual time.
        files: Open descriptors; threads: threads; tasks: of the loop.
        series: Lines of a scrape.
    """

    at: float
    files: int
    threads: int
    tasks: int
    series: int


@dataclass
class Seen:
    """What came of it.

    Attributes:
        readings: Readings that were told.
        faults: Name of a fault -> targets that suffered it.
        openings: Times that a breaker opened.
        wrong: What should not have been.
        samples: Virtual time, vitals, objects that the collector knows of.
        rests: What was left, each time.
        answers: Status -> answers that readers got.
        largest: Bytes that the store took at most.
        took: Real seconds of all of it.
    """

    readings: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    openings: int = 0
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[float, Vitals, int]] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    largest: int = 0
    took: float = 0.0


class Soak:
    """The daemon, and all who have to do with it.

    Args:
        loop: The loop that runs.
        home: A directory for all of it.
        targets: How many are watched.
        max_size: Bytes that the store may take.
        more: Further lines of the configuration.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        home: Path,
        *,
        targets: int = 50,
        max_size: str = "64MB",
        more: str = "",
    ) -> None:
        self.seen = Seen()
        self.path = home / "state.db"
        self._loop = loop
        self._sites = Sites(loop)
        loop.network = self._sites
        self._names = [f"t{n:02}" for n in range(targets)]
        for name in self._names:
            self._sites.add(f"{name}.example")
        self._luck = random.Random(7)
        self._config = home / "pgbreaker.yaml"
        self._max_size = max_size
        self._more = more
        self._turns = 0
        self._may: dict[str, frozenset[str]] = {}  # target -> what a fault excuses
        self._opened: set[str] = set()  # since the last fault began
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._reading = 0
        self._counted: dict[str, float] = {}
        self._daemon: Daemon
        self._http: aiohttp.ClientSession

    def _write(self) -> None:
        """Write the configuration, another each time: one target has other rules."""
        lines = ["version: 1\n", self._more, "targets:\n"]
        for number, name in enumerate(self._names):
            # One in ten asks for TLS, which its server has not.
            tls = "" if number % 10 == 9 else "?sslmode=disable"
            dsn = f"postgresql://pgbreaker:secret@{name}.example/app{tls}"
            rules = f", breaker: {{slow_call: {250 + self._turns % 3}ms}}"
            lines.append(
                f"  - {{name: {name}, dsn: '{dsn}'{rules if number == 1 else ''}}}\n"
            )
        lines.append("http: {listen: '127.0.0.1:0'}\n")
        lines.append(f"store: {{path: '{self.path}', max_size: {self._max_size}}}\n")
        self._config.write_text("".join(lines), "utf-8")
        self._turns += 1

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        """The daemon, and a client of it, for the time of the block."""
        self._write()
        clock = self._loop.clock
        daemon = running(
            load(self._config),
            source=Source(self._config),
            clock=clock,
            also=[self._note],
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(scheduled_by(clock))
            with self._loop.standing_still():  # a thread opens the store
                self._daemon = await stack.enter_async_context(daemon)
            await stack.enter_async_context(self._reaching())
            yield

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        store = store_of(self._daemon)
        self._loop.holding.append(lambda: is_busy(store))
        settling = asyncio.create_task(settle(self._daemon))
        host, port = self._daemon.address
        async with aiohttp.ClientSession(
            f"http://{host}:{port}",
            # Or those that are kept would be counted when nobody reads.
            connector=aiohttp.TCPConnector(force_close=True),
        ) as self._http:
            yield
        settling.cancel()

    async def run(
        self,
        seconds: float,
        *,
        every: float = 3600.0,
        told: Callable[[str], None] = print,
    ) -> None:
        """Have all of it happen for so long, of the loop's time.

        Args:
            every: Seconds between two looks at what is left at rest.
            told: Is given a line after each.
        """
        began, real = self._loop.time(), time.monotonic()
        async with self._living(), asyncio.TaskGroup() as work:
            await asyncio.sleep(60.0)
            others = [
                *(work.create_task(reader) for reader in self._readers()),
                work.create_task(self._order()),
                work.create_task(self._look()),
            ]
            rests, number = 0, 0
            while self._loop.time() - began < seconds:
                fault = FAULTS[number % len(FAULTS)]
                await self._suffer(fault, self._victims(number))
                number += 1
                await asyncio.sleep(self._luck.uniform(20.0, 60.0))
                if self._loop.time() - began >= (rests + 1) * every:
                    rests += 1
                    await self._rest()
                    self._write()
                    await asyncio.sleep(
                        15.0
                    )  # until it is taken: all is well meanwhile
                    told(self._line(self._loop.time() - began, time.monotonic() - real))
            await self._rest()
            for task in others:
                task.cancel()
        self.seen.took = time.monotonic() - real
        self.seen.wrong += [f"not caught: {fault}" for fault in self._loop.faults]

    def _line(self, virtual: float, real: float) -> str:
        rest = self.seen.rests[-1]
        rss = self.seen.samples[-1][1].rss
        return (
            f"{virtual / 3600:6.2f} h in {real:6.0f} s ({virtual / real:4.0f}x),"
            f" {self.seen.readings / 1e6:6.2f} M readings, {rss / 1e6:6.1f} MB,"
            f" {self.seen.samples[-1][2]} objects; at rest {rest.files} descriptors,"
            f" {rest.threads} threads, {rest.tasks} tasks, {rest.series} series;"
            f" store {self.seen.largest / 1e6:.1f} MB; wrong {len(self.seen.wrong)}"
        )

    def _complain(self, text: str) -> None:
        if len(self.seen.wrong) < _KEPT:
            self.seen.wrong.append(f"{self._loop.time() / 3600:.3f} h: {text}")

    def _note(self, event: Event) -> None:
        """A sink: what is told by the daemon."""
        if isinstance(event, Reading):
            self.seen.readings += 1
        elif isinstance(event, Transition) and event.after is State.OPEN:
            self.seen.openings += 1
            self._opened.add(event.breaker)
            target, _, operation = event.breaker.partition("/")
            if operation not in self._may.get(target, NONE):
                self._complain(f"opened without a fault: {event}")

    # What happens.

    def _victims(self, number: int) -> Sequence[str]:
        # The first one is for orders; at times it is all of them.
        others = self._names[1:]
        if number % 60 == 59:
            return others
        few = min(len(others), self._luck.choice((1, 1, 1, 2, 3, 5, 10)))
        return self._luck.sample(others, few)

    async def _suffer(self, fault: Fault, names: Sequence[str]) -> None:
        """Break some servers, see what opens, mend them, and see all closed."""
        self.seen.faults[fault.name] += len(names)
        self._opened.clear()
        self._may = dict.fromkeys(names, fault.opens | fault.may)
        mends = [fault.begin(self._sites.sites[f"{name}.example"]) for name in names]
        await asyncio.sleep(fault.lasts)
        wanted = {f"{name}/{operation}" for name in names for operation in fault.opens}
        if wanted - self._opened:
            left = sorted(wanted - self._opened)
            self._complain(f"{fault.name} opened not: {left}")
        for mend in mends:
            mend()
        ends = self._loop.time() + _CLOSES_WITHIN
        while (shut := self._shut()) and self._loop.time() < ends:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.5)
        if shut:
            self._complain(f"{fault.name}: not closed again: {sorted(shut)}")
        await asyncio.sleep(5.0)  # what comes late is still the fault's
        self._may = {}

    def _shut(self) -> set[str]:
        """Names of the breakers that are not closed by themselves."""
        return {
            breaker.name
            for target in self._daemon.board.targets.values()
            for breaker in target.breakers.values()
            if not breaker.computed_passes
        }

    async def _order(self) -> None:
        """What people do: words before breakers, windows of maintenance, notes."""
        first = self._names[0]
        word = f"/api/v1/breakers/{first}/read/override"
        while True:
            await asyncio.sleep(600.0)
            async with self._turn():
                said = {"reason": "a soak", "for": "5m", "author": "mia"}
                await self._ask("PUT", word, {"state": "open", **said})
                window = {"targets": [first], **said}
                await self._ask("POST", "/api/v1/maintenance", window)
            await asyncio.sleep(60.0)
            async with self._turn():
                await self._ask("DELETE", word, None)

    async def _ask(self, method: str, path: str, body: object) -> None:
        async with self._http.request(method, path, json=body) as answer:
            self.seen.answers[str(answer.status)] += 1
            if answer.status >= 300:
                self._complain(f"{method} {path}: {await answer.text()}")

    # Those who read.

    def _readers(self) -> list[Any]:
        some = self._names[2]
        pages = ["/", "/events", f"/targets/{some}", f"/breakers/{some}/read"]
        api = [
            *("/api/v1/status", "/api/v1/breakers", "/api/v1/incidents"),
            *(f"/api/v1/targets/{some}", f"/api/v1/breakers/{some}/read/timeline"),
            *("/api/v1/audit", "/api/v1/events?limit=200", f"/health/{some}/read"),
        ]
        return [
            *(self._read(path, 120.0) for path in (*pages, *api)),
            self._read("/metrics", 60.0, self._check_metrics),
            *(self._stream(100.0 + 70.0 * n) for n in range(3)),
        ]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        await self._quiet.wait()
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    async def _read(
        self,
        path: str,
        every: float,
        check: Callable[[str], None] = lambda _text: None,
    ) -> None:
        while True:
            async with self._turn(), self._http.get(path) as answer:
                text = await answer.text()
                self.seen.answers[str(answer.status)] += 1
                if answer.status not in (200, 503):
                    self._complain(f"{path}: {answer.status}")
                check(text)
            await asyncio.sleep(every)

    async def _stream(self, lasts: float) -> None:
        while True:
            async with self._turn(), self._http.get("/api/v1/stream") as answer:
                ends = self._loop.time() + lasts
                while self._loop.time() < ends and self._quiet.is_set():
                    try:
                        async with asyncio.timeout(5.0):
                            data = await answer.content.readany()
                    except TimeoutError:
                        continue
                    if not data:
                        self._complain("the stream ended")
                        break
            self.seen.answers["stream"] += 1

    def _check_metrics(self, text: str) -> None:
        """Whatever is counted is never less than before, and no series goes."""
        now = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            counted = _COUNTED.match(name)
            if counted and counted[0] not in OF_SERVERS:
                now[name] = float(value)
        for name, was in self._counted.items():
            if name not in now:
                self._complain(f"a series is gone: {name}")
            elif now[name] < was:
                self._complain(f"it counts backwards: {name}: {was} -> {now[name]}")
        self._counted = now

    # Those who look.

    async def _look(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(300.0)

    def _sample(self) -> None:
        vitals = Vitals.of(os.getpid())
        counted = len(gc.get_objects()) + gc.get_freeze_count()
        self.seen.samples.append((self._loop.time(), vitals, counted))
        self.seen.largest = max(self.seen.largest, size_of(self.path))

    async def _rest(self) -> None:
        """What is left when all is well and nobody reads: the least of some moments, for
        logins of probes come and go."""
        self._quiet.clear()
        while self._reading:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(1.0)
        await asyncio.sleep(20.0)
        async with self._http.get("/metrics") as answer:
            text = await answer.text()
        series = sum(line[:1] != "#" for line in text.splitlines())
        looks, tasks = [], []
        for _ in range(40):
            await asyncio.sleep(0.13)
            looks.append(Vitals.of(os.getpid()))
            tasks.append(len(asyncio.all_tasks()))
        files, threads = (
            min(getattr(v, n) for v in looks) for n in ("files", "threads")
        )
        self.seen.rests.append(
            Rest(self._loop.time(), files, threads, min(tasks), series)
        )
        self._sample()
        self._quiet.set()


_COUNTED = re.compile(r"\w+(_total|_count|_bucket)\b")


def store_of(daemon: Daemon) -> Store:
    """The store of a daemon, which nobody but a soak has to wait for."""
    history = next(s for s in daemon.fleet._hub._sinks if isinstance(s, History))
    assert isinstance(history._ledger, Store)
    return history._ledger


def is_busy(store: Store) -> bool:
    """Whether its thread has something to write, or is writing."""
    writer = store._writer
    has_work = writer._jobs or writer._memories or len(writer._counts)
    return bool(has_work) or writer._busy_since is not None


def size_of(path: Path) -> int:
    """Bytes that a database takes, with its log."""
    beside = (path, path.with_name(path.name + "-wal"))
    return sum(p.stat().st_size for p in beside if p.exists())


@dataclass
class Aged:
    """What a store was like while it grew old.

    Attributes:
        sizes: Bytes at the end of each day.
        oldest: Table -> age of its oldest row, in days, at the end.
        entries: Entries that are left.
    """

    sizes: list[int] = field(default_factory=list)
    oldest: dict[str, float] = field(default_factory=dict)
    entries: int = 0


async def grow_old(
    loop: VirtualLoop, path: Path, days: int, *, targets: int, max_size: int
) -> Aged:
    """Have a store written every day, as a daemon of so many targets would fill it by
    the hour; at the end of each it is waited for what is old to go."""
    aged = Aged()
    plan = StorePlan(path=path, max_size=max_size)
    with loop.standing_still():  # a thread opens it
        store = await Store.open(plan, loop.clock)
    loop.holding.append(lambda: is_busy(store))
    for day in range(days):
        wall = int(loop.clock.wall())
        pings = {
            (f"t{n:02}", wall + 3600 * hour): Bucket(
                wall + 3600 * hour, 60, 1.0, 0.1, 0
            )
            for n in range(targets)
            for hour in range(24)
        }
        store.count(Counts(pings))
        for first in range(0, 100, 10):
            await store.record(_moved(wall, day, first + n) for n in range(10))
        await asyncio.sleep(86_400.0)
        aged.sizes.append(size_of(path))
    await store.close()
    # It looks for what is old once a minute of real time, and when it begins.
    with loop.standing_still():
        store = await Store.open(plan, loop.clock)
        ends = time.monotonic() + 30.0
        while _age(path, "ping_1m", loop) > 15.0 and time.monotonic() < ends:
            await asyncio.to_thread(time.sleep, 0.1)
        await store.close()
    aged.oldest = {table: _age(path, table, loop) for table in ("ping_1m", "ping_1h")}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (aged.entries,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    return aged


def _age(path: Path, table: str, loop: VirtualLoop) -> float:
    """Days since the beginning of the oldest row of *table*; 0: there is none."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (oldest,) = connection.execute(f"SELECT min(start) FROM {table}").fetchone()
    return 0.0 if oldest is None else (loop.clock.wall() - oldest) / 86_400


def _moved(wall: int, day: int, number: int) -> Entry:
    return Entry(
        id=wall * 1000 + number,
        at=float(wall),
        kind=Kind.TRANSITION,
        text=f"move {number} of day {day}: connection refused",
        target="t00",
        breaker="t00/read",
        details={"from": "closed", "to": "open", "cause": "confirmed"},
    )
