"""One daemon on many targets: processor time, memory, punctuality, and what they pay.

    python tests/bench/n_targets.py [N] [SECONDS] [--inside | --storm] [--uvloop]

N targets on up to ten servers of our own with five databases each; pinged once a second,
the rest at its defaults, scraped every 15 s. First the daemon as a user starts it. Then the
same in a process of ours (`--inside`: this alone), whose loop also has a ticker of a
millisecond: how late each ping was, how long the loop was held, and what of it changes
when one of the servers hangs. `--storm` is all of them coming back at once, by TLS.

"Held" is said twice: as time, in which others may have had the processor, and as
processor time of the loop's thread, which a loaded machine does not change.
"""

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from footprint import resident
from report import Table, machine

from pgbreaker.app import running
from pgbreaker.app.life import settle
from pgbreaker.config import load
from pgbreaker.core.judge import PING
from pgbreaker.core.reading import Reading
from pgbreaker.demo.server import Server, find_binaries
from pgbreaker.sinks.hub import Event
from support.servers import psql

SERVERS = 10
# A target asks for the size of every database of its server: with one for each target
# the servers would count files all day.
DATABASES = 5
WARM = 20.0  # seconds after the first pings until anything is measured
SCRAPED = 15.0
SETTINGS = {
    # A held connection and a visit each; the rest is for those that are just ending.
    "max_connections": "450",
    "superuser_reserved_connections": "10",
    "shared_buffers": "'32MB'",
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "'4GB'",
    "autovacuum": "off",  # it would be busy with a hundred databases of ours
    "log_line_prefix": "'%n '",
    "log_connections": "on",
}


# The servers.


class Fleet:
    """Some servers, and the targets on them.

    Attributes:
        servers: The servers; targets are dealt out to them in turn.
        names: Target -> its server.
    """

    def __init__(self, servers: list[Server], count: int, *, tls: bool) -> None:
        self.servers = servers
        self._tls = tls
        self.names = {f"t{n:04}": servers[n % len(servers)] for n in range(count)}
        self.each(self._prepare)

    def each(self, do: Callable[[Server], Any]) -> list[Any]:
        """Do it to every server, all of them at the same time."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            return list(pool.map(do, self.servers))

    def _prepare(self, server: Server) -> None:
        if self._tls:
            certify(server)
        server.start()
        role = f"CREATE ROLE pgbreaker LOGIN PASSWORD '{server.password}'"
        psql(server, f"{role}; GRANT pg_monitor TO pgbreaker")
        for number in range(DATABASES):
            psql(server, f"CREATE DATABASE app{number}")

    def write(self, path: Path) -> None:
        """Write the configuration that watches all of it."""
        lines = ["version: 1\n", "targets:\n"]
        more = "?sslmode=require" if self._tls else ""
        for number, (name, server) in enumerate(self.names.items()):
            database = f"app{number // len(self.servers) % DATABASES}"
            dsn = server.dsn(user="pgbreaker", database=database) + more
            lines.append(f"  - {{name: {name}, dsn: '{dsn}'}}\n")
        path.write_text("".join(lines), "utf-8")

    def spent(self) -> float:
        """Seconds of processor time that all servers have used so far."""
        return sum(map(spent_by, self.servers))

    def logins(self) -> list[float]:
        """Moments of the monitor's logins, of which the servers still have a note."""
        seen = [
            float(line.split()[0])
            for server in self.servers
            for line in (server.home / "log").read_text("utf-8", "replace").splitlines()
            if "connection authorized: user=pgbreaker" in line
        ]
        return sorted(seen)

    def hush(self) -> None:
        """Note no logins from now on, for that costs the servers something."""
        for server in self.servers:
            psql(server, "ALTER SYSTEM SET log_connections = off")
            psql(server, "SELECT pg_reload_conf()")


@contextmanager
def fleet(count: int, *, tls: bool = False) -> Iterator[Fleet]:
    begun = time.monotonic()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server.create(find_binaries(), settings=SETTINGS))
            for _ in range(min(SERVERS, max(1, count // 5)))
        ]
        made = Fleet(servers, count, tls=tls)
        took = time.monotonic() - begun
        print(f"{count} targets on {len(servers)} servers, made in {took:.0f} s")
        yield made


def certify(server: Server) -> None:
    """Give *server* a certificate of its own making, and have it use TLS."""
    key, certificate = server.data / "server.key", server.data / "server.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    owner = server.data.stat()
    for path in (key, certificate):
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o600)
    with (server.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("ssl = on\n")


def processor_time(pid: int) -> float:
    """Seconds of processor time of a process, all of its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), as glibc does


def spent_by(server: Server) -> float:
    """Seconds of processor time of a server: of its processes, and of those that were."""
    total = 0.0
    for pid in server.pids():
        try:
            total += processor_time(pid)
        except OSError:
            continue  # gone meanwhile, and so among those that were
    stat = Path(f"/proc/{server.pids()[0]}/stat").read_text("ascii")
    fields = stat.rpartition(")")[2].split()
    return total + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


# The daemon.


@dataclass(frozen=True, slots=True)
class Scrape:
    """What came of a scrape.

    Attributes:
        took: Milliseconds.
        size: Bytes on the way.
        text: What was said.
    """

    took: float
    size: int
    text: str

    @property
    def series(self) -> int:
        return sum(line[:1] != "#" for line in self.text.splitlines())

    def summed(self, pattern: str) -> dict[str, float]:
        """Sums of the samples that match, by the pattern's group."""
        sums: dict[str, float] = {}
        for found in re.finditer(f"^{pattern} (.+)$", self.text, re.MULTILINE):
            sums[found[1]] = sums.get(found[1], 0.0) + float(found[2])
        return sums

    def late(self) -> dict[str, float]:
        """Bound -> pings that were less late, of all targets."""
        return self.summed(
            r'pgbreaker_probe_lateness_seconds_bucket\{target=.*,le="(.*)"\}'
        )


class Process:
    """The daemon as a process of its own.

    Attributes:
        url: Where it serves.
        begun: Wall time at which it was started.
    """

    def __init__(self, home: Path, *command: str) -> None:
        self._log = home / "log.txt"
        self.begun = time.time()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=log
            )
        self.url = self._listening()

    @property
    def pid(self) -> int:
        return self._process.pid

    def spent(self) -> float:
        return processor_time(self.pid)

    def _listening(self) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"listening on ([\d.:]+)", self._log.read_text("utf-8"))
            if found:
                return f"http://{found[1]}"
            time.sleep(0.02)
        raise AssertionError(self._log.read_text("utf-8")[-2000:])

    def until_ready(self) -> float:
        """Wait until every target was pinged once. Returns seconds since the start."""
        while True:
            try:
                with urllib.request.urlopen(self.url + "/-/ready", timeout=30):
                    return time.time() - self.begun
            except urllib.error.HTTPError as error:
                error.close()
            time.sleep(0.05)

    def scrape(self) -> Scrape:
        """Ask as Prometheus does."""
        asking = urllib.request.Request(
            self.url + "/metrics", headers={"Accept-Encoding": "gzip"}
        )
        begun = time.perf_counter()
        with urllib.request.urlopen(asking, timeout=60) as answer:
            packed = answer.read()
        took = (time.perf_counter() - begun) * 1000
        return Scrape(took, len(packed), gzip.decompress(packed).decode())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def daemon(*command: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as home:
        process = Process(Path(home), *command)
        try:
            yield process
        finally:
            process.stop()


# The daemon inside of a process of ours, which notes more.


class Notes:
    """What the process of ours wrote down, by moments of the monotonic clock."""

    def __init__(self, path: Path) -> None:
        said = json.loads(path.read_text("utf-8"))
        self.pings: list[tuple[float, str, float, bool]] = said["pings"]
        self.held: list[tuple[float, float, float]] = said["held"]

    def late(self, since: float, until: float, names: set[str]) -> list[float]:
        """Milliseconds by which the pings of *names* were late in that time."""
        return [
            late * 1000
            for at, name, late, _ in self.pings
            if since <= at < until and name in names
        ]

    def longest(self, since: float, until: float) -> tuple[list[float], list[float]]:
        """Milliseconds between two turns of the ticker: time, and processor time."""
        found = [h for h in self.held if since <= h[0] < until]
        return [h[1] * 1000 for h in found], [h[2] * 1000 for h in found]

    def back(self, since: float) -> dict[str, float]:
        """Target -> seconds from *since* to its first answered ping."""
        first: dict[str, float] = {}
        for at, name, _, answered in self.pings:
            if at >= since and answered:
                first.setdefault(name, at - since)
        return first


async def inside(config: Path) -> dict[str, Any]:
    """Be the daemon until told to end. Returns what happened, for `Notes`."""
    pings: list[tuple[float, str, float, bool]] = []
    held: list[tuple[float, float, float]] = []
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def note(event: Event) -> None:
        if isinstance(event, Reading) and event.probe == PING:
            pings.append((event.at, event.target, event.late, event.answered))

    async def tick() -> None:
        before, busy = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now, used = time.monotonic(), time.thread_time()
            held.append((now, now - before - 0.001, used - busy))
            before, busy = now, used

    async with running(load(config, listen="127.0.0.1:0"), also=[note]) as inner:
        print("listening on {}:{}".format(*inner.address), flush=True)
        ticking = asyncio.create_task(tick())
        settling = asyncio.create_task(settle(inner))
        await stop.wait()
        ticking.cancel()
        settling.cancel()
    return {"pings": pings, "held": held}


# What is measured.


def report_start(servers: Fleet, process: Process) -> int:
    ready = process.until_ready()
    time.sleep(WARM)
    moments = [at for at in servers.logins() if at >= process.begun]
    dense = [bisect_left(moments, at + 1) - n for n, at in enumerate(moments)]
    table = Table("start", "s")
    table.row("until all were pinged once", [ready])
    table = Table("logins meanwhile", "count")
    table.row("in all, until warm", [len(moments)])
    table.row("in one second, at most", [max(dense)])
    return 0


def report_rest(servers: Fleet, process: Process, seconds: float) -> int:
    """The daemon at rest: what it takes, and what it costs the servers."""
    count = len(servers.names)
    first = process.scrape()
    begun, used, paid = time.monotonic(), process.spent(), servers.spent()
    scrapes, dear = [], []
    while (since := time.monotonic() - begun) < seconds:
        time.sleep(min(SCRAPED, seconds - since))
        before = process.spent()
        scrapes.append(process.scrape())
        dear.append((process.spent() - before, scrapes[-1].took / 1000))
    lasted = time.monotonic() - begun
    share = (process.spent() - used) / lasted
    paid = (servers.spent() - paid) / lasted
    last = scrapes[-1]
    counts = {bound: n - first.late()[bound] for bound, n in last.late().items()}

    few = count < 100
    table = Table(f"{count} targets, at rest for {lasted:.0f} s", "% of a core")
    table.row("the daemon, scrapes included", [share * 100], p99=2 if few else 35)
    missed = table.missed
    table = Table("memory", "MB")
    table.row("resident", [resident(process.pid)], p99=90 if few else 120)
    missed += table.missed
    table = Table("what a target pays", "ms/s")
    table.row("processor time of the server", [paid * 1000 / count], p99=3)
    missed += table.missed
    said = ", ".join(
        f"{counts[b] / counts['+Inf'] * 100:.2f} % within {b} s" for b in counts
    )
    print(f"pings in that time: {counts['+Inf']:.0f}; late: {said}")
    print(
        f"a scrape: {last.series} series, {len(last.text) / 1e6:.1f} MB,"
        f" {last.size / 1e6:.2f} MB on the way"
    )
    table = Table("a scrape", "ms")
    table.row("time", [scrape.took for scrape in scrapes])
    # What it does besides in that time is not the scrape's.
    usual = share if count < 100 else share * 0.9
    table.row("processor time", [(cpu - usual * took) * 1000 for cpu, took in dear])
    return missed


@dataclass(frozen=True, slots=True)
class Window:
    """A time that is measured.

    Attributes:
        name: What happened in it.
        since: Its beginning, on the monotonic clock; until: its end.
        share: Share of a core that the daemon took.
    """

    name: str
    since: float
    until: float
    share: float


def watched(name: str, process: Process, seconds: float) -> Window:
    """Let *seconds* pass, in which it is scraped as ever."""
    begun, used = time.monotonic(), process.spent()
    while (since := time.monotonic() - begun) < seconds:
        time.sleep(min(SCRAPED, seconds - since))
        process.scrape()
    now = time.monotonic()
    return Window(name, begun, now, (process.spent() - used) / (now - begun))


def report_window(window: Window, notes: Notes, names: set[str]) -> int:
    took, used = notes.longest(window.since, window.until)
    table = Table(f"{window.name}, with a ticker inside", "ms")
    late = notes.late(window.since, window.until, names)
    table.row("lateness of pings", late, p99=20)
    table.row("between two turns of the loop", took)
    table.row("processor time between them", used)
    longest = max(used)
    print(
        f"longest that the loop was held: {max(took):.0f} ms, {longest:.0f} ms of them"
        f" its own (goal 20){'' if longest <= 20 else '   MISSED'};"
        f" the daemon took {window.share * 100:.1f} % of a core"
    )
    return table.missed + (longest > 20)


def report_inside(servers: Fleet, config: Path, seconds: float, *more: str) -> int:
    """How late pings are, at rest and while a tenth of the targets hangs."""
    notes_path = config.with_name("notes.json")
    command = [__file__, "--be", str(config), str(notes_path), *more]
    hung = servers.servers[0]
    is_split = len(servers.servers) > 1
    others = {n for n, its in servers.names.items() if its is not hung or not is_split}
    with daemon(*command) as process:
        process.until_ready()
        time.sleep(WARM)
        windows = [watched("at rest", process, seconds)]
        if is_split:
            hung.freeze()
            try:
                windows.append(watched("a tenth hangs", process, seconds))
                states = process.scrape().summed(
                    r'pgbreaker_breaker_state\{(target="\w+").*state="closed"\}'
                )
            finally:
                hung.thaw()
            thawed = time.monotonic()
            windows.append(watched("it is back", process, seconds))
    notes = Notes(notes_path)
    missed = sum(report_window(window, notes, others) for window in windows)
    if is_split:
        closed = sum(states[f'target="{name}"'] for name in others) / len(others)
        open_ = sum(states.values()) - closed * len(others)
        back = notes.back(thawed)
        print(
            f"while it hung: {closed:.2f} of 3 breakers closed on each of the others,"
            f" {open_:.0f} on the hung ones; the last was back after"
            f" {max(back[n] for n in servers.names.keys() - others):.1f} s"
        )
    return missed


def report_storm(servers: Fleet, config: Path, *more: str) -> int:
    """All servers go, and come back at once: everybody logs in again."""
    notes_path = config.with_name("notes.json")
    with daemon(__file__, "--be", str(config), str(notes_path), *more) as process:
        process.until_ready()
        time.sleep(WARM)
        rest = watched("at rest", process, 15)
        servers.each(lambda server: server.stop("immediate"))
        gone = watched("all are gone", process, 10)
        servers.each(lambda server: server.start())
        started, wall = time.monotonic(), time.time()
        storm = watched("all are back", process, 30)
    notes = Notes(notes_path)
    missed = sum(
        report_window(window, notes, set(servers.names))
        for window in (rest, gone, storm)
    )
    back = notes.back(started)
    table = Table("from the servers' start", "s")
    table.row("until a target is back", list(back.values()))
    lost = len(servers.names) - len(back)
    print(f"not back within 30 s: {lost}{'   MISSED' if lost else ''}")
    seconds: dict[int, int] = {}
    for at in servers.logins():
        if at >= wall:
            seconds[int(at - wall)] = seconds.get(int(at - wall), 0) + 1
    print("logins in each second:", *(seconds.get(n, 0) for n in range(15)))
    return missed + bool(lost)


def main() -> None:
    words = [word for word in sys.argv[1:] if word.startswith("-")]
    given = [word for word in sys.argv[1:] if not word.startswith("-")]
    if "--be" in words:
        runner = asyncio.run
        if "--uvloop" in words:
            import uvloop

            runner = uvloop.run
        happened = runner(inside(Path(given[0])))
        Path(given[1]).write_text(json.dumps(happened), "utf-8")
        return
    count = int(given[0]) if given else 1000
    seconds = float(given[1]) if len(given) > 1 else 60.0
    more = ["--uvloop"] if "--uvloop" in words else []
    is_storm = "--storm" in words
    missed = 0
    with tempfile.TemporaryDirectory() as home, fleet(count, tls=is_storm) as servers:
        config = Path(home) / "pgbreaker.yaml"
        servers.write(config)
        if is_storm:
            missed += report_storm(servers, config, *more)
        elif "--inside" not in words:
            run = ["-m", "pgbreaker", "run", "--listen", "127.0.0.1:0"]
            with daemon(*run, "--config", str(config)) as process:
                missed += report_start(servers, process)
                servers.hush()
                missed += report_rest(servers, process, seconds)
        if not is_storm:
            missed += report_inside(servers, config, seconds / 2, *more)
    print(f"\n{machine()}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
