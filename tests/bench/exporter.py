"""The daemon beside Debian's postgres_exporter: cost at rest, and what each sees.

    python tests/bench/exporter.py [--quick]

Both are processes of their own and watch the same PostgreSQL in the same run, each as a
role with pg_monitor, in faults through a proxy of its own; what each costs at rest is
measured one after the other. What Prometheus does is done here:
``GET /metrics`` every 15 s at rest and every second in a fault, 10 s for an answer. A
scrape begins when the one before has ended, as there.

A run takes six minutes. ``--quick`` rests for 30 s, waits for 20 s, and leaves half of
the faults out; its figures are for seeing that it runs.
"""

import argparse
import asyncio
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiohttp
from report import machine

from acceptance.conftest import Daemon
from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server, find_binaries
from support.servers import SETTINGS, fill_connections, lock_relation, prepare, psql

EXPORTER = Path("/usr/bin/prometheus-postgres-exporter")
SETUP = """
CREATE ROLE exporter LOGIN NOSUPERUSER PASSWORD '{password}';
GRANT pg_monitor TO exporter;
CREATE TABLE orders (id int);
"""

AT_REST = 15.0  # seconds from scrape to scrape
IN_FAULT = 1.0
PATIENCE = 10.0  # that Prometheus has with a scrape
POLL = 0.02
INTO = 5.0  # seconds into a fault, when the series are counted
WELL_WITHIN = 90.0

# A process of either side talking of itself, which no server can take from it.
OF_ITSELF = ("process_", "python_", "go_", "promhttp_")


# Scraping.


@dataclass(frozen=True, slots=True)
class Scrape:
    """What came of one ``GET /metrics``.

    Attributes:
        series: Name and labels -> value; without what a process says of itself.
        took: Seconds.
        timed_out: There was no answer in time.
    """

    series: dict[str, float]
    took: float
    timed_out: bool = False

    @property
    def failed(self) -> bool:
        return not self.series and not self.timed_out


def samples(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if line and not line.startswith(("#", *OF_ITSELF)):
            name, _, value = line.rpartition(" ")
            yield name, float(value)


async def scrape(http: aiohttp.ClientSession, url: str) -> Scrape:
    begun = time.monotonic()
    series: dict[str, float] = {}
    timed_out = False
    try:
        async with asyncio.timeout(PATIENCE), http.get(url + "/metrics") as answer:
            if answer.status == 200:
                series = dict(samples(await answer.text()))
    except TimeoutError:
        timed_out = True
    except aiohttp.ClientError:
        pass  # failed: it has no series
    return Scrape(series, time.monotonic() - begun, timed_out)


def is_open(seen: Scrape) -> bool:
    """One of our breakers is open."""
    return any(
        value == 1
        and name.startswith("pgbreaker_breaker_state{")
        and 'state="open"' in name
        for name, value in seen.series.items()
    )


def says_up(seen: Scrape, metric: str) -> bool:
    """The scrape has *metric*, and it is 1 wherever it is."""
    ups = [
        value
        for name, value in seen.series.items()
        if name == metric or name.startswith(metric + "{")
    ]
    return bool(ups) and all(value == 1 for value in ups)


# The two that are compared.


@dataclass(slots=True)
class Monitor:
    """One of the two, running.

    Attributes:
        up: Metric that is 1 while it finds the server well.
        shows: Whether a scrape shows that something is wrong.
    """

    name: str
    url: str
    process: "subprocess.Popen[str] | subprocess.Popen[bytes]"
    up: str
    shows: Callable[[Scrape], bool]

    async def until_well(self, http: aiohttp.ClientSession) -> float | None:
        """Wait until it finds the server well.

        Returns the seconds that it took; None when it did not within a bound.
        """
        begun = time.monotonic()
        while (waited := time.monotonic() - begun) < WELL_WITHIN:
            seen = await scrape(http, self.url)
            if says_up(seen, self.up) and not self.shows(seen):
                return time.monotonic() - begun
            await asyncio.sleep(0.25)
        print(f"{self.name} does not find the server well after {waited:.0f} s")
        return None

    async def healthy(self, http: aiohttp.ClientSession) -> set[str]:
        """The series that it has in good times: those of each of three scrapes."""
        if await self.until_well(http) is None:
            raise TimeoutError(f"{self.name} was never well, so there is no comparing")
        names: list[set[str]] = []
        for _ in range(3):
            names.append(set((await scrape(http, self.url)).series))
            await asyncio.sleep(0.5)
        return set.intersection(*names)


def _end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def ours(dsn: str) -> Iterator[Monitor]:
    daemon = Daemon("--dsn", dsn)
    try:
        daemon.start()
        # Nobody reads its log from here on, and a full pipe would stop it.
        log = daemon.process.stderr
        assert log is not None
        threading.Thread(target=log.read, daemon=True).start()
        yield Monitor(
            "pgbreaker", daemon.url, daemon.process, "pgbreaker_target_up", is_open
        )
    finally:
        _end(daemon.process)


@contextmanager
def theirs(dsn: str) -> Iterator[Monitor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [EXPORTER, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DATA_SOURCE_NAME": dsn + "?sslmode=disable"},
    )
    url = f"http://127.0.0.1:{port}"

    def shows(seen: Scrape) -> bool:
        return seen.failed or (not seen.timed_out and not says_up(seen, "pg_up"))

    try:
        yield Monitor("postgres_exporter", url, process, "pg_up", shows)
    finally:
        _end(process)


@asynccontextmanager
async def new_server() -> AsyncIterator[Server]:
    with Server.create(find_binaries(major=15), settings=SETTINGS) as server:
        await asyncio.to_thread(server.start)
        prepare(server)
        psql(server, SETUP.format(password=server.password))
        yield server


def version(server: Server) -> str:
    said = subprocess.run([EXPORTER, "--version"], capture_output=True, text=True)
    exporter = (said.stdout or said.stderr).splitlines()[0].partition(" (")[0]
    return f"PostgreSQL {psql(server, 'SHOW server_version')}, {exporter}"


# What each costs at rest.


def _on_cpu(pid: int) -> float:
    """Seconds that a process has run."""
    # utime + stime come in steps of 10 ms, as much as a whole scrape takes; what the
    # threads have run comes in nanoseconds, but without those that have ended.
    threads = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            threads += int((thread / "schedstat").read_text("ascii").split()[0])
    return max(threads / 1e9, _ticks(pid, 11))


def _ticks(pid: int, at: int) -> float:
    """Seconds in two fields of a process's stat: 11 its own, 13 of ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[at]) + int(fields[at + 1])) / os.sysconf("SC_CLK_TCK")


def on_cpu(server: Server) -> float:
    """Seconds that the tree of a server has run, with those that have come and gone."""
    postmaster, *children = server.pids()
    total = _on_cpu(postmaster) + _ticks(postmaster, 13)
    for pid in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # ended just now
            total += _on_cpu(pid)
    return total


def resident(pid: int) -> float:
    """Megabytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@dataclass(frozen=True, slots=True)
class Cost:
    """What watching takes.

    Attributes:
        client: Milliseconds of processor time a minute, of the monitor.
        server: The same of the server, more than of an idle one.
        memory: Megabytes that the monitor has resident.
        series: How many a scrape has.
        scrape: Milliseconds of a scrape, the median.
    """

    client: float
    server: float
    memory: float
    series: int
    scrape: float


async def cost(
    http: aiohttp.ClientSession,
    monitor: Monitor,
    server: Server,
    idle: Server,
    every: float,
    lasts: float,
) -> Cost:
    """Let *monitor* watch, scraped *every* so many seconds, while nothing happens."""

    def spent() -> tuple[float, float]:
        return _on_cpu(monitor.process.pid), on_cpu(server) - on_cpu(idle)

    scrapes: list[Scrape] = []
    before, begun = spent(), time.monotonic()
    for n in range(round(lasts / every)):
        await asyncio.sleep(begun + (n + 0.5) * every - time.monotonic())
        scrapes.append(await scrape(http, monitor.url))
    await asyncio.sleep(begun + lasts - time.monotonic())
    minutes = (time.monotonic() - begun) / 60
    client, more = (
        (now - then) * 1000 / minutes for now, then in zip(spent(), before, strict=True)
    )
    return Cost(
        client,
        more,
        memory=resident(monitor.process.pid),
        series=len(scrapes[-1].series),
        scrape=median(one.took for one in scrapes) * 1000,
    )


async def costs(
    http: aiohttp.ClientSession,
    monitor: Monitor,
    server: Server,
    idle: Server,
    lasts: float,
) -> tuple[Cost, Cost]:
    """What it takes when scraped as usual, and when scraped every second."""
    await monitor.until_well(http)
    await asyncio.sleep(3)  # what comes first is no rest
    usual = await cost(http, monitor, server, idle, AT_REST, lasts)
    return usual, await cost(http, monitor, server, idle, IN_FAULT, lasts / 2)


# The faults.


@dataclass(slots=True)
class Stage:
    """One server, and both watching it.

    Attributes:
        proxies: A way to the server for each.
        ours: Our daemon; theirs: the exporter.
    """

    server: Server
    proxies: tuple[Proxy, Proxy]
    ours: Monitor
    theirs: Monitor


@asynccontextmanager
async def stage(server: Server) -> AsyncIterator[Stage]:
    async with (
        Proxy("127.0.0.1", server.port) as ours_way,
        Proxy("127.0.0.1", server.port) as theirs_way,
    ):
        with (
            ours(server.dsn(user="pgbreaker", port=ours_way.port)) as our,
            theirs(server.dsn(user="exporter", port=theirs_way.port)) as their,
        ):
            yield Stage(server, (ours_way, theirs_way), our, their)


@asynccontextmanager
async def killed(on: Stage) -> AsyncIterator[None]:
    await asyncio.to_thread(on.server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(on.server.start)


@asynccontextmanager
async def stopped(on: Stage) -> AsyncIterator[None]:
    await asyncio.to_thread(on.server.stop, "immediate")
    try:
        yield
    finally:
        await asyncio.to_thread(on.server.start)


@asynccontextmanager
async def frozen(on: Stage) -> AsyncIterator[None]:
    on.server.freeze()
    try:
        yield
    finally:
        on.server.thaw()


@asynccontextmanager
async def swallowed(on: Stage) -> AsyncIterator[None]:
    for proxy in on.proxies:
        proxy.blackhole()
    try:
        yield
    finally:
        for proxy in on.proxies:
            proxy.restore()


@asynccontextmanager
async def wedged(on: Stage) -> AsyncIterator[None]:
    """Commits wait for a standby that there is not."""
    for sql in (
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "SELECT pg_reload_conf()",
    ):
        await asyncio.to_thread(psql, on.server, sql)
    try:
        yield
    finally:
        for sql in (
            "ALTER SYSTEM RESET synchronous_standby_names",
            "SELECT pg_reload_conf()",
        ):
            await asyncio.to_thread(psql, on.server, sql)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a server.

    Attributes:
        begin: Breaks it for the time of the block.
        goal: Seconds within which ours has to open. None: it must open nothing,
            because who does not need what is locked is served.
        quick: Whether a quick run has it.
    """

    name: str
    begin: Callable[[Stage], AbstractAsyncContextManager[object]]
    goal: float | None
    quick: bool = False


KILL = Fault("kill -9 of the tree", killed, 0.25, quick=True)
STOP = Fault("immediate stop", stopped, 0.25)
FREEZE = Fault("freeze (SIGSTOP)", frozen, 2.1, quick=True)
BLACK_HOLE = Fault("black hole", swallowed, 2.1)
FULL = Fault("max_connections full", lambda on: fill_connections(on.server), 6.1)
TABLE = Fault(
    "a table of a user locked",
    lambda on: lock_relation(on.server, "orders"),
    None,
)
CATALOG = Fault(
    "pg_database locked",
    lambda on: lock_relation(on.server, "pg_catalog.pg_database"),
    None,
    quick=True,
)
WRITES = Fault("commits wait for a standby", wedged, 7.1, quick=True)

# What is seen in milliseconds is measured alone. The others are waited for by the
# minute, so three at a time are, each on a server of its own.
WAVES = ((KILL,), (STOP,), (FREEZE, BLACK_HOLE, FULL), (TABLE, CATALOG, WRITES))


@dataclass(slots=True)
class Sight:
    """How one of the two saw a fault; seconds from its beginning.

    Attributes:
        api: First answer of the API that has an open breaker. None: none had.
        opened: The breakers that were open in it.
        shown: End of the first scrape that shows it. None: none did.
        blind: End of the first scrape that timed out. None: none did.
        kept: Share of the healthy series that a scrape in the fault had.
        scrape: That scrape.
        well: Seconds from the end of the fault until all was well. None: it was not.
    """

    api: float | None = None
    opened: list[str] = field(default_factory=list)
    shown: float | None = None
    blind: float | None = None
    kept: float = 0.0
    scrape: Scrape = field(default_factory=lambda: Scrape({}, 0.0))
    well: float | None = None


async def watch_api(
    http: aiohttp.ClientSession, monitor: Monitor, sight: Sight, begun: float
) -> None:
    while True:
        try:
            async with http.get(monitor.url + "/api/v1/status") as answer:
                status = await answer.json()
        except aiohttp.ClientError:
            status = {"targets": []}
        opened = [
            breaker["operation"]
            for target in status["targets"]
            for breaker in target["breakers"]
            if breaker["state"] == "open"
        ]
        if opened:
            sight.api, sight.opened = time.monotonic() - begun, opened
            return
        await asyncio.sleep(POLL)


async def watch_scrapes(
    http: aiohttp.ClientSession,
    monitor: Monitor,
    sight: Sight,
    begun: float,
    phase: float,
) -> None:
    await asyncio.sleep(phase)
    while True:
        due = time.monotonic() + IN_FAULT
        seen = await scrape(http, monitor.url)
        ended = time.monotonic() - begun
        if seen.timed_out and sight.blind is None:
            sight.blind = ended
        if monitor.shows(seen):
            sight.shown = ended
            return
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def count_series(
    http: aiohttp.ClientSession,
    monitor: Monitor,
    sight: Sight,
    begun: float,
    healthy: set[str],
) -> None:
    await asyncio.sleep(begun + INTO - time.monotonic())
    sight.scrape = await scrape(http, monitor.url)
    sight.kept = len(healthy & set(sight.scrape.series)) / len(healthy)


async def break_it(
    http: aiohttp.ClientSession, on: Stage, fault: Fault, within: float
) -> tuple[Sight, Sight]:
    """One fault, from both well to both well."""
    both = (on.ours, on.theirs)
    healthy = [await monitor.healthy(http) for monitor in both]
    sights = (Sight(), Sight())
    phase = random.uniform(0.0, IN_FAULT)  # no scrape waits for a fault
    begun = time.monotonic()

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(watch_api(http, on.ours, sights[0], begun))
            for monitor, sight, names in zip(both, sights, healthy, strict=True):
                group.create_task(watch_scrapes(http, monitor, sight, begun, phase))
                group.create_task(count_series(http, monitor, sight, begun, names))

    watching = asyncio.create_task(watch())
    async with fault.begin(on):
        done, _ = await asyncio.wait([watching], timeout=within)
        if done:
            await watching  # for its errors
    watching.cancel()
    await asyncio.wait([watching])
    waited = await asyncio.gather(*(monitor.until_well(http) for monitor in both))
    for sight, well in zip(sights, waited, strict=True):
        sight.well = well
    return sights


# Telling it.


class Comparison:
    """A table that is printed for people at once, and as Markdown at the end."""

    def __init__(self, title: str, *columns: str) -> None:
        self.title = title
        self.rows = [list(columns)]

    def row(self, *cells: str) -> None:
        self.rows.append(list(cells))

    def show(self) -> None:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        print(f"\n{self.title}   ({machine()})")
        for row in self.rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print("   ".join(cells).rstrip())
        sys.stdout.flush()

    def show_markdown(self) -> None:
        head, *rows = self.rows
        print(f"\n{self.title}:\n")
        print("| " + " | ".join(head) + " |")
        print("|---" * len(head) + "|")
        for row in rows:
            print("| " + " | ".join(row) + " |")


def time_of(seconds: float | None) -> str:
    if seconds is None:
        return f"not within {WELL_WITHIN:.0f} s"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def told(seen: float | None, fault: Fault, within: float) -> str:
    if seen is not None:
        return time_of(seen)
    return "nothing, rightly" if fault.goal is None else f"never within {within:.0f} s"


def told_by_exporter(sight: Sight, fault: Fault, within: float) -> str:
    if sight.blind is None:
        return told(sight.shown, fault, within)
    after = f"blind after {sight.blind:.0f} s"
    return after if sight.shown is None else f"{after}, {time_of(sight.shown)}"


def is_late(fault: Fault, sight: Sight) -> bool:
    """Whether ours opened too late, or what it must not open."""
    if fault.goal is None:
        return sight.api is not None
    # It was found by polling, which adds up to one poll to what the goal is for.
    return sight.api is None or sight.api > fault.goal + POLL


def is_incomplete(sight: Sight) -> bool:
    """Whether a scrape of ours lacked something, or took longer than its goal."""
    return sight.kept < 1 or sight.scrape.took > 0.05


def compare_costs(ours_: tuple[Cost, Cost], theirs_: tuple[Cost, Cost]) -> Comparison:
    table = Comparison("At rest", "", "pgbreaker", "postgres_exporter", "better")

    def row(what: str, our: float, their: float, unit: str) -> None:
        better = "pgbreaker" if our < their else "**postgres_exporter**"
        table.row(what, f"{our:.3g} {unit}", f"{their:.3g} {unit}", better)

    for every, our, their in zip((AT_REST, IN_FAULT), ours_, theirs_, strict=True):
        minute = f"processor a minute, scraped every {every:.0f} s"
        row(f"{minute}: monitor", our.client, their.client, "ms")
        row(f"{minute}: server", our.server, their.server, "ms")
    # The longer a process has run, the more memory it has; and more scrapes to judge by.
    our, their = ours_[1], theirs_[1]
    row("resident memory", our.memory, their.memory, "MB")
    row("time of a scrape", our.scrape, their.scrape, "ms")
    table.row("series", str(our.series), str(their.series), "")
    return table


def compare_sights(
    sights: list[tuple[Fault, Sight, Sight]], within: float
) -> Iterator[Comparison]:
    table = Comparison(
        "From the fault until it is seen",
        *("fault", "ours: API", "goal", "opened", "ours: scraped", "postgres_exporter"),
    )
    for fault, our, their in sights:
        table.row(
            fault.name,
            told(our.api, fault, within) + (" MISSED" if is_late(fault, our) else ""),
            "nothing" if fault.goal is None else time_of(fault.goal),
            ", ".join(our.opened) or "-",
            told(our.shown, fault, within),
            told_by_exporter(their, fault, within),
        )
    yield table
    table = Comparison(
        f"Series left {INTO:.0f} s into the fault, and the time of that scrape",
        *("fault", "ours", "took", "postgres_exporter", "took"),
    )
    for fault, our, their in sights:
        cells = [
            cell
            for sight in (our, their)
            for cell in (
                f"{math.floor(sight.kept * 1000) / 10:g} %",
                "timeout" if sight.scrape.timed_out else time_of(sight.scrape.took),
            )
        ]
        cells[1] += " MISSED" if is_incomplete(our) else ""
        table.row(fault.name, *cells)
    yield table
    table = Comparison(
        "From the end of the fault until all is told as well",
        *("fault", "ours", "postgres_exporter"),
    )
    for fault, our, their in sights:
        table.row(fault.name, time_of(our.well), time_of(their.well))
    yield table


async def measure_costs(http: aiohttp.ClientSession, lasts: float) -> Comparison:
    async with new_server() as server, new_server() as idle:
        print(version(server))
        # One after the other on the same server; the idle one is there all the time.
        with theirs(server.dsn(user="exporter")) as monitor:
            their = await costs(http, monitor, server, idle, lasts)
        with ours(server.dsn(user="pgbreaker")) as monitor:
            our = await costs(http, monitor, server, idle, lasts)
    return compare_costs(our, their)


async def compare(*, quick: bool) -> int:
    lasts, within = (30.0, 20.0) if quick else (60.0, 60.0)
    sights: list[tuple[Fault, Sight, Sight]] = []

    async def on_its_own(
        fault: Fault, together: asyncio.Barrier
    ) -> tuple[Fault, Sight, Sight]:
        async with new_server() as server, stage(server) as on:
            await together.wait()  # nothing starts or ends beside what is measured
            ours_, theirs_ = await break_it(http, on, fault, within)
            await together.wait()
            return fault, ours_, theirs_

    # A connection for each request: none is kept alive over a fault.
    every = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=every) as http:
        tables = [await measure_costs(http, lasts)]
        tables[0].show()
        for wave in WAVES:
            faults = [fault for fault in wave if fault.quick or not quick]
            if not faults:
                continue
            together = asyncio.Barrier(len(faults))
            sights += await asyncio.gather(*(on_its_own(f, together) for f in faults))
    for table in compare_sights(sights, within):
        table.show()
        tables.append(table)
    print("\nThe same as Markdown")
    for table in tables:
        table.show_markdown()
    return sum(is_late(fault, our) or is_incomplete(our) for fault, our, _ in sights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter")
    quick = parser.parse_args().quick
    if not EXPORTER.exists():
        print(
            f"there is no {EXPORTER}; install Debian's prometheus-postgres-exporter:"
            " apt-get install --no-install-recommends prometheus-postgres-exporter"
        )
        sys.exit(1)
    sys.exit(1 if asyncio.run(compare(quick=quick)) else 0)


if __name__ == "__main__":
    main()
