"""One real hour of the daemon as a process: faults, readers, reloads, and what it takes.

    python tests/bench/hour.py [MINUTES] [FILE FOR THE LOG]

Fifty targets on five real servers, each probe at its default, a store on the disk. The
faults come one after the other, each on the next server; meanwhile pages, metrics, the
API and streams are read, and every minute the configuration is another: rules of one
target change, one more target comes or goes. Every ten seconds it is written down what
the process takes; and after each fault, when all is closed and nobody reads, how many
descriptors and tasks are left.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiohttp
import asyncpg
from n_targets import SETTINGS, Fleet
from report import machine

from pgbreaker.demo.server import Server, find_binaries
from support.process import free_port
from support.servers import lock_relation, psql
from support.soaking import ALL, NONE, OF_SERVERS
from support.vitals import Vitals, growth

MINUTES = 60.0
WARM = 1 / 3  # of the time, in which each kind of fault has been there
SERVERS, TARGETS = 5, 50
EVERY = 10.0  # seconds between two looks
GOAL = 0.02  # growth of the memory after that

# The faults.


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a server.

    Attributes:
        name: What is done to it.
        breaks: Breaks it for the time of a block.
        opens: Operations whose breakers have to open, on each of its targets.
        may: Those that may.
        lasts: Seconds, at least.
    """

    name: str
    breaks: Callable[[Server], Any]
    opens: frozenset[str]
    may: frozenset[str] = NONE
    lasts: float = 12.0


@contextmanager
def killed(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


@contextmanager
def restarted(server: Server) -> Iterator[None]:
    server.stop("fast")
    server.start()
    yield


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def flapping(server: Server) -> Iterator[None]:
    for _ in range(4):
        server.kill()
        time.sleep(2.0)  # that is the fault
        server.start()
        time.sleep(2.0)
    yield


@contextmanager
def terminated(server: Server) -> Iterator[None]:
    for _ in range(3):
        psql(
            server,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE usename = 'pgbreaker'",
        )
        time.sleep(3.0)  # each time they are let in again
    yield


def setting(name: str, value: str) -> Callable[[Server], Any]:
    """The fault that a setting is."""

    @contextmanager
    def set_(server: Server) -> Iterator[None]:
        psql(server, f"ALTER SYSTEM SET {name} = {value}")
        psql(server, "SELECT pg_reload_conf()")
        try:
            yield
        finally:
            psql(server, f"ALTER SYSTEM RESET {name}")
            psql(server, "SELECT pg_reload_conf()")

    return set_


@contextmanager
def barred(server: Server) -> Iterator[None]:
    psql(server, "ALTER ROLE pgbreaker PASSWORD 'another'")
    try:
        yield
    finally:
        psql(server, f"ALTER ROLE pgbreaker PASSWORD '{server.password}'")


@asynccontextmanager
async def full(server: Server) -> AsyncIterator[None]:
    """Every slot taken, those that visits of the monitor leave as well."""
    taken: list[asyncpg.Connection[Any]] = []

    async def take() -> None:
        while True:
            try:
                taken.append(await asyncpg.connect(server.dsn(user="app_user")))
            except asyncpg.TooManyConnectionsError:
                await asyncio.sleep(0.05)  # the next look

    taking = asyncio.create_task(take())
    try:
        yield
    finally:
        taking.cancel()
        await asyncio.wait([taking])
        for connection in taken:
            connection.terminate()


FAULTS = (
    Fault("kill -9 of the tree", killed, ALL),
    Fault("freeze", frozen, ALL),
    Fault("full", full, frozenset({"connect"})),
    Fault(
        "read-only",
        setting("default_transaction_read_only", "on"),
        frozenset({"write"}),
    ),
    Fault("sessions terminated", terminated, NONE),
    Fault("immediate stop", stopped, ALL),
    Fault("wrong password", barred, NONE, lasts=20.0),
    Fault("flapping", flapping, ALL),
    Fault(
        "commits wait",
        setting("synchronous_standby_names", "'nobody'"),
        frozenset({"write"}),
    ),
    Fault("fast restart", restarted, NONE, ALL),
    Fault(
        "pg_database locked", lambda s: lock_relation(s, "pg_catalog.pg_database"), NONE
    ),
)


@asynccontextmanager
async def broken(fault: Fault, server: Server) -> AsyncIterator[None]:
    block = fault.breaks(server)
    if hasattr(block, "__aenter__"):
        async with block:
            yield
        return
    await asyncio.to_thread(block.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)


# The daemon.


@dataclass
class Seen:
    """What there was to see.

    Attributes:
        vitals: Seconds since the start, and what the process took.
        tasks: Tasks of its loop, when it was asked.
        rests: Descriptors, threads and tasks, each time that all was well.
        openings: Moment, breaker and words of each opening.
        wrong: Whatever should not have been.
        faults: What was broken: from, to, name, names of its targets.
        reads: Answers by status.
        reloads: Times that the configuration was taken.
    """

    vitals: list[tuple[float, Vitals]] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    rests: list[tuple[str, int, int, int]] = field(default_factory=list)
    openings: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    faults: list[tuple[float, float, Fault, frozenset[str]]] = field(
        default_factory=list
    )
    reads: Counter[str] = field(default_factory=Counter)
    reloads: int = 0


class Hour:
    """The daemon, and all who have to do with it.

    Attributes:
        seen: What there was to see.
        log: The daemon's log.

    Args:
        fleet: What it watches.
        home: A directory for all of it.
    """

    def __init__(self, fleet: Fleet, home: Path) -> None:
        self.seen = Seen()
        self._fleet = fleet
        self._config = home / "pgbreaker.yaml"
        self.log = home / "log"
        self._store = home / "state.db"
        self._port = free_port()
        self._quiet = asyncio.Event()  # set: the readers may read
        self._quiet.set()
        self._reading = 0
        self._series: dict[str, float] = {}
        self._begun = time.monotonic()
        self._turns = 0
        self._write()

    def _write(self) -> None:
        """Write the configuration, another each time."""
        self._fleet.write(self._config)
        text = self._config.read_text("utf-8")
        odd = self._turns % 2
        server = self._fleet.servers[0]
        if odd:
            dsn = server.dsn(user="pgbreaker", database="app0")
            text += f"  - {{name: guest, dsn: '{dsn}'}}\n"
        slow = 250 + self._turns % 3
        text = text.replace(
            "{name: t0001,", f"{{name: t0001, breaker: {{slow_call: {slow}ms}},"
        )
        text += (
            f"http: {{listen: '127.0.0.1:{self._port}'}}\n"
            f"store: {{path: '{self._store}'}}\n"
        )
        self._config.write_text(text, "utf-8")
        self._turns += 1

    async def run(self, minutes: float) -> None:
        """Have all of it happen for so long."""
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pgbreaker", "run", "--config", self._config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = process.pid
        begun = time.monotonic()
        try:
            async with (
                aiohttp.ClientSession(
                    f"http://127.0.0.1:{self._port}",
                    # Or those that are kept would be counted when nobody reads.
                    connector=aiohttp.TCPConnector(force_close=True),
                ) as self._http,
                asyncio.TaskGroup() as work,
            ):
                await self._until_ready(process)
                readers = [work.create_task(r) for r in self._readers()]
                looks = [
                    work.create_task(self._look()),
                    work.create_task(self._follow()),
                    work.create_task(self._reload()),
                ]
                number = 0
                while time.monotonic() - begun < minutes * 60:
                    fault = FAULTS[number % len(FAULTS)]
                    server = self._fleet.servers[number % SERVERS]
                    await self._suffer(fault, server)
                    number += 1
                for task in (*readers, *looks):
                    task.cancel()
            if process.returncode is not None:
                self.seen.wrong.append(f"it ended with {process.returncode}")
        finally:
            if process.returncode is None:
                process.terminate()
            ended = time.monotonic()
            if await process.wait():
                self.seen.wrong.append(f"it ended with {process.returncode}")
            print(f"stopped within {time.monotonic() - ended:.1f} s")

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(60):
            while True:
                assert process.returncode is None, self.log.read_text("utf-8")
                try:
                    async with self._http.get("/-/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # not yet
                await asyncio.sleep(0.1)

    # Those who read.

    def _readers(self) -> list[Any]:
        pages = [
            "/",
            "/events",
            "/targets/t0003",
            "/breakers/t0007/read",
            "/maintenance",
        ]
        api = [
            "/api/v1/targets",
            "/api/v1/breakers",
            "/api/v1/incidents",
            "/api/v1/audit",
            "/api/v1/targets/t0002/probes",
            "/api/v1/breakers/t0002/write/timeline",
            "/api/v1/events?limit=200",
            "/health/t0004/read",
            "/-/healthy",
        ]
        return [
            *(self._read(page, 3.0) for page in pages),
            *(self._read(path, 7.0) for path in api),
            self._read("/metrics", 5.0, self._check_metrics),
            self._read("/api/v1/status", 2.0),
            *(self._stream(20.0 + 17.0 * n) for n in range(5)),
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
        """Ask for *path* again and again."""
        while True:
            async with self._turn():
                try:
                    async with self._http.get(path) as answer:
                        text = await answer.text()
                        self.seen.reads[str(answer.status)] += 1
                        if answer.status not in (200, 503):
                            self._complain(f"{path}: {answer.status}")
                        elif answer.status == 200:
                            check(text)
                except (aiohttp.ClientError, TimeoutError) as error:
                    self._complain(f"{path}: {error!r}")
            await asyncio.sleep(every)

    async def _stream(self, lasts: float) -> None:
        """Listen to the stream for some time, and again."""
        while True:
            async with self._turn(), self._http.get("/api/v1/stream") as answer:
                ends = time.monotonic() + lasts
                while time.monotonic() < ends and self._quiet.is_set():
                    try:
                        async with asyncio.timeout(0.5):
                            data = await answer.content.readany()
                    except TimeoutError:
                        continue
                    self.seen.reads["stream"] += data.count(b"\nevent: ")
                    if not data:
                        self._complain("the stream ended")
                        break

    def _check_metrics(self, text: str) -> None:
        """Whatever is counted is never less than before, while its target is there."""
        now = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            counted = re.match(r"\w+(_total|_count|_bucket)\b", name)
            if counted and counted[0] not in OF_SERVERS:
                now[name] = float(value)
        lost = [n for n in self._series if n not in now and "guest" not in n]
        less = [
            n for n in now if now[n] < self._series.get(n, 0.0) and "guest" not in n
        ]
        for name in lost[:3]:
            self._complain(f"a series is gone: {name}")
        for name in less[:3]:
            was = self._series[name]
            self._complain(f"it counts backwards: {name} {was} -> {now[name]}")
        self._series = now

    def _complain(self, text: str) -> None:
        at = time.monotonic() - self._begun
        self.seen.wrong.append(f"{at:7.1f} s: {text}")
        print(f"  WRONG {at:7.1f} s: {text}", flush=True)

    # Those who look.

    async def _look(self) -> None:
        while True:
            at = time.monotonic() - self._begun
            self.seen.vitals.append((at, Vitals.of(self.pid)))
            self.seen.tasks.append(await self._count_tasks())
            await asyncio.sleep(EVERY)

    async def _count_tasks(self) -> int:
        """Have it write down its tasks, and read how many there are."""
        begun = self.log.stat().st_size
        os.kill(self.pid, signal.SIGUSR1)
        async with asyncio.timeout(10):
            while True:
                with self.log.open("rb") as log:
                    log.seek(begun)
                    found = re.search(rb'"message": "(\d+) tasks?:"', log.read())
                if found:
                    return int(found[1])
                await asyncio.sleep(0.05)

    async def _follow(self) -> None:
        """Read every move, in its order."""
        last = 0
        while True:
            path = f"/api/v1/events?after={last}&kind=transition&limit=500"
            async with self._http.get(path) as answer:
                for event in (await answer.json())["events"]:
                    last = event["id"]
                    if event["details"]["to"] == "open":
                        self.seen.openings.append(event | {"seen": time.monotonic()})
            await asyncio.sleep(0.5)

    async def _reload(self) -> None:
        """Each minute, have it read another configuration."""
        while True:
            await asyncio.sleep(60.0)
            async with self._turn():
                self._write()
                if self._turns % 4 < 2:
                    os.kill(self.pid, signal.SIGHUP)
                    self.seen.reloads += 1
                    continue
                async with self._http.post("/-/reload", json={"author": "hour"}) as a:
                    if a.status != 200:
                        self._complain(f"reload: {a.status} {await a.text()}")
                    self.seen.reloads += 1

    # What happens.

    async def _suffer(self, fault: Fault, server: Server) -> None:
        """Break *server*, see what opens, mend it, and see all closed."""
        names = frozenset(n for n, its in self._fleet.names.items() if its is server)
        if server is self._fleet.servers[0]:
            names |= {"guest"}
        begun, before = time.monotonic(), len(self.seen.openings)
        wanted = {f"{n}/{o}" for n in names - {"guest"} for o in fault.opens}

        def missing() -> set[str]:
            return wanted - {e["breaker"] for e in self.seen.openings[before:]}

        async with broken(fault, server):
            if not await self._until(lambda _: not missing(), 40.0):
                self._complain(f"{fault.name}: did not open: {sorted(missing())}")
            opened = time.monotonic() - begun
            await asyncio.sleep(max(0.0, begun + fault.lasts - time.monotonic()))
        mended = time.monotonic()
        if not await self._until(lambda s: not shut(s), 90.0):
            left = sorted(shut(await self._status()))
            self._complain(f"{fault.name}: did not close: {left}")
        closed = time.monotonic() - mended
        await asyncio.sleep(5.0)  # so that what is late is told as this fault's
        self.seen.faults.append((begun, time.monotonic(), fault, names))
        rest = await self._rest()
        self.seen.rests.append(rest)
        vitals = self.seen.vitals[-1][1]
        print(
            f"{begun - self._begun:7.1f} s {fault.name:<20} open after {opened:4.1f} s,"
            f" closed after {closed:4.1f} s; at rest {rest[0]}: {rest[1]} descriptors,"
            f" {rest[2]} threads, {rest[3]} tasks; {vitals.rss / 1e6:.1f} MB",
            flush=True,
        )

    async def _status(self) -> dict[str, Any]:
        async with self._http.get("/api/v1/status") as answer:
            return await answer.json()

    async def _until(self, what: Callable[[Any], bool], within: float) -> bool:
        ends = time.monotonic() + within
        while not what(await self._status()):
            if time.monotonic() > ends:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _rest(self) -> tuple[str, int, int, int]:
        """What is left when nobody reads: the least that is seen for some seconds, for
        logins of probes come and go."""
        self._quiet.clear()
        try:
            async with asyncio.timeout(30):
                while self._reading:  # noqa: ASYNC110 - nobody tells us
                    await asyncio.sleep(0.05)
            ends = time.monotonic() + 4.0
            looks, tasks = [], []
            while time.monotonic() < ends:
                looks.append(Vitals.of(self.pid))
                tasks.append(await self._count_tasks())
                # The daemon wakes up by tenths of a second: not always with it.
                await asyncio.sleep(random.uniform(0.03, 0.17))
            guests = "51 targets" if self._turns % 2 == 0 else "50 targets"
            return (
                guests,
                min(look.files for look in looks),
                min(look.threads for look in looks),
                min(tasks),
            )
        finally:
            self._quiet.set()


def shut(status: dict[str, Any]) -> set[str]:
    """Names of the breakers that are not closed."""
    return {
        b["name"]
        for t in status["targets"]
        for b in t["breakers"]
        if b["state"] != "closed"
    }


# What came of it.


def stray(seen: Seen) -> list[str]:
    """Openings that no fault explains."""
    found = []
    for opening in seen.openings:
        target, _, operation = opening["breaker"].partition("/")
        if not any(
            begun <= opening["seen"] <= ended
            and target in names
            and operation in fault.opens | fault.may
            for begun, ended, fault, names in seen.faults
        ):
            found.append(f"{opening['time']} {opening['breaker']}: {opening['text']}")
    return found


def bad_lines(log: Path) -> list[str]:
    """Lines of faults of ours, and whatever is no line of the log."""
    found = []
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            level = json.loads(line)["level"]
        except ValueError:
            level = "no JSON"
        if level not in ("DEBUG", "INFO", "WARNING") or "never retrieved" in line:
            found.append(line[:400])
    return found


def report(seen: Seen, log: Path, minutes: float) -> int:
    """Print what came of it. Returns how many promises were not kept."""
    missed = 0

    def told(name: str, value: str, *, is_kept: bool = True) -> None:
        nonlocal missed
        missed += not is_kept
        print(f"{name:<44}{value}{'' if is_kept else '   MISSED'}")

    print(f"\n{minutes:.0f} minutes, {TARGETS} targets   ({machine()})")
    warm = [v for at, v in seen.vitals if at >= seen.vitals[-1][0] * WARM]
    for what in ("rss", "pss", "private"):
        sizes = [getattr(v, what) for v in warm]
        grown = growth(sizes)
        told(
            f"{what} after warm-up: first, last, growth",
            f"{sizes[0] / 1e6:.1f} MB, {sizes[-1] / 1e6:.1f} MB, {grown:+.2%} (goal 2 %)",
            is_kept=grown < GOAL or what != "rss",
        )
    for name, values in (
        ("descriptors", [v.files for _, v in seen.vitals]),
        ("threads", [v.threads for _, v in seen.vitals]),
        ("tasks", seen.tasks),
    ):
        spread = f"{min(values)} to {max(values)}, p50 {statistics.median(values):.0f}"
        told(f"{name}, whatever happens", spread)
    for guests in ("50 targets", "51 targets"):
        warmed = seen.rests[round(len(seen.rests) * WARM) :]
        rests = [rest[1:] for rest in warmed if rest[0] == guests]
        if not rests:
            continue
        for n, name in enumerate(("descriptors", "threads", "tasks")):
            values = [rest[n] for rest in rests]
            told(
                f"{name} at rest, {guests}, {len(values)} times",
                f"{min(values)} to {max(values)}",
                is_kept=len(set(values)) == 1,
            )
    counts = Counter(fault.name for _, _, fault, _ in seen.faults)
    told("faults", ", ".join(f"{n} {name}" for name, n in counts.items()))
    told("openings", str(len(seen.openings)))
    strays = stray(seen)
    told("openings without a fault", f"{len(strays)} (goal 0)", is_kept=not strays)
    told("answers", ", ".join(f"{n} {name}" for name, n in seen.reads.items()))
    told("times that the configuration was taken", str(seen.reloads))
    told("what should not have been", str(len(seen.wrong)), is_kept=not seen.wrong)
    bad = bad_lines(log)
    told("errors in the log", f"{len(bad)} (goal 0)", is_kept=not bad)
    for line in (*strays, *seen.wrong, *bad)[:40]:
        print(f"  {line}")
    return missed


async def main(minutes: float, keep: str | None) -> int:
    settings = SETTINGS | {"max_connections": "60", "log_connections": "off"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = [
            stack.enter_context(Server.create(find_binaries(), settings=settings))
            for _ in range(SERVERS)
        ]
        fleet = Fleet(servers, TARGETS, tls=False)
        for server in servers:
            psql(server, f"CREATE ROLE app_user LOGIN PASSWORD '{server.password}'")
        hour = Hour(fleet, Path(folder))
        try:
            await hour.run(minutes)
        finally:
            if keep is not None:
                shutil.copy(hour.log, keep)
        return report(hour.seen, hour.log, minutes)


if __name__ == "__main__":
    minutes, keep, *_ = (*sys.argv[1:], *(None,) * 2)
    sys.exit(asyncio.run(main(float(minutes or MINUTES), keep)))
