"""What the daemon takes: memory, processor time, connections, and time for a scrape.

    python tests/bench/footprint.py [SCRAPES]

The daemon runs as a process of its own, watching one server with the defaults; it is
scraped through each fault.
"""

import asyncio
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
from report import Table

from acceptance.conftest import Daemon
from pgbreaker.core.plan import ProbePlan
from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server, find_binaries
from support.servers import SETTINGS, fill_connections, lock_relation, prepare
from support.watching import Watching


def scrape(url: str, count: int) -> list[float]:
    """Milliseconds of each of *count* scrapes, spread over some seconds."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
            assert b"pgbreaker_target_up" in answer.read()
        took.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.02)
    return took


def resident(pid: int) -> float:
    """Megabytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def spent(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def scrapes(server: Server, proxy: Proxy, daemon: Daemon, count: int) -> int:
    table = Table("/metrics, through each fault", "ms")

    async def row(name: str) -> None:
        await asyncio.sleep(0.7)  # into the fault
        table.row(name, await asyncio.to_thread(scrape, daemon.url, count), p99=50)

    async def until_up() -> None:
        # One fault after the other is flapping, and openings double up to a minute.
        await asyncio.to_thread(
            daemon.until, lambda s: s["targets"][0]["state"] == "up", 90.0
        )

    await until_up()
    await row("all well")
    server.kill()
    await row("killed")
    await asyncio.to_thread(server.start)
    for mode in ("immediate", "fast"):
        await until_up()
        await asyncio.to_thread(server.stop, mode)
        await row(f"stopped, {mode}")
        await asyncio.to_thread(server.start)
    await until_up()
    server.freeze()
    await row("frozen")
    server.thaw()
    await until_up()
    proxy.blackhole()
    await row("black hole")
    proxy.restore()
    await until_up()
    proxy.reset()
    await row("connections reset")
    proxy.restore()
    await until_up()
    async with fill_connections(server):
        await row("full")
    async with lock_relation(server, "pg_catalog.pg_database"):
        await row("pg_database locked")
    await until_up()
    return table.missed


async def pings(server: Server) -> list[float]:
    """Microseconds of processor time of a ping, from asking to every sink told."""
    probes = {"ping": ProbePlan(interval=3600.0, timeout=0.5)}
    dsn = server.dsn(user="pgbreaker")
    async with Watching(dsn, probes=probes, operations=("read",)) as watching:
        await watching.until_watched()
        sentinel = watching.patrol._sentinel
        found = []
        for _ in range(20):
            begun = time.process_time()
            for _ in range(500):
                await sentinel.beat()
            found.append((time.process_time() - begun) / 500 * 1e6)
            watching.events.clear()
        return found


async def cycles(server: Server) -> list[float]:
    """Microseconds of processor time of a health cycle: what is asked of a server every
    five seconds on the held connection, from asking to every sink told."""
    dsn = server.dsn(user="pgbreaker")
    async with Watching(dsn, operations=("read",)) as watching:
        await watching.until_watched()
        (held,) = (r for r in watching.patrol._rounds if r.name.endswith("/held"))
        quick = [watch for watch in held.watches if watch.interval <= 5]
        assert {p for watch in quick for p in watch.probes} == {
            *("identity", "saturation", "blocking", "replication")
        }
        found = []
        for _ in range(20):
            begun = time.process_time()
            for _ in range(100):
                for watch in quick:
                    await watch.tick()
            found.append((time.process_time() - begun) / 100 * 1e6)
            watching.events.clear()
        return found


async def count_sessions(server: Server, counted: list[float]) -> None:
    """Count the monitor's connections at the server, all the time that it answers."""
    dsn = f"postgresql://postgres@/postgres?host={server.socket_dir}&port={server.port}"
    sql = (
        "SELECT count(*)::float8 FROM pg_stat_get_activity(NULL) AS a"
        " JOIN pg_roles AS r ON r.oid = a.usesysid WHERE rolname = 'pgbreaker'"
    )
    while True:
        connection = None
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
            while True:
                counted.append(await connection.fetchval(sql))
                await asyncio.sleep(0.01)
        except Exception:
            await asyncio.sleep(0.01)  # it is being broken just now, in some way
        finally:
            if connection is not None:
                connection.terminate()


def import_cost() -> list[float]:
    """Milliseconds that importing the library adds to a Python with asyncio."""

    def run(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - begun) * 1000

    pairs = [
        (run("import asyncio"), run("import asyncio, pgbreaker")) for _ in range(15)
    ]
    return [with_it - without for without, with_it in pairs]


async def measure(count: int) -> int:
    with Server.create(find_binaries(), settings=SETTINGS) as server:
        server.start()
        prepare(server)
        async with Proxy("127.0.0.1", server.port) as proxy:
            dsn = server.dsn(user="pgbreaker", port=proxy.port)
            daemon = Daemon("--dsn", dsn)
            daemon.start()
            counted: list[float] = []
            counting = asyncio.create_task(count_sessions(server, counted))
            try:
                missed = await scrapes(server, proxy, daemon, count)
                missed += await footprint(daemon, counted)
                missed += await costs(server)
            finally:
                counting.cancel()
                await asyncio.to_thread(daemon.stop)
    return missed


async def footprint(daemon: Daemon, counted: list[float]) -> int:
    """The daemon at rest, and the connections it made in all that came before."""
    pid = daemon.process.pid
    used, begun = spent(pid), time.monotonic()
    await asyncio.sleep(20)
    percent = (spent(pid) - used) / (time.monotonic() - begun) * 100
    memory = Table("the daemon, one target, defaults", "MB")
    memory.row("resident memory", [resident(pid)], p99=65)
    connections = Table(
        "connections counted at the server, through all faults", "count"
    )
    connections.row("of the monitor's role", counted, p99=3)
    connections.missed += max(counted) > 3
    processor = Table("processor time of the whole daemon", "% of a core")
    processor.row("at rest", [percent])
    return memory.missed + connections.missed


async def costs(server: Server) -> int:
    """What single things cost."""
    processor = Table("processor time", "us")
    processor.row("a ping", await pings(server), p50=100)
    processor.row("four questions in two statements", await cycles(server), p50=250)
    imports = Table("importing the library, over asyncio", "ms")
    imports.row("import pgbreaker", import_cost(), p50=15)
    return processor.missed + imports.missed


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    sys.exit(1 if asyncio.run(measure(count)) else 0)


if __name__ == "__main__":
    main()
