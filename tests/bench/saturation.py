"""Whether breakers stay closed on a server whose every core is busy.

    python tests/bench/saturation.py [MINUTES]

pgbench takes all cores, a third of the time each with 4 clients that write, 64 that
write, and 64 that read; the daemon's patrol watches the server with the defaults, on
the same machine. None of that is an outage: the goal is no opening in 30 minutes.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.demo.server import Server, find_binaries
from support.servers import prepare
from support.watching import Watching

LOADS = (
    ("4 clients that write", ["-c", "4"]),
    ("64 clients that write", ["-c", "64"]),
    ("64 clients that read", ["-c", "64", "-S"]),
)


def pgbench(server: Server, *arguments: str) -> None:
    common = ["-h", server.socket_dir, "-p", str(server.port), "-U", "postgres", "app"]
    command = [str(server.binaries / "pgbench"), *arguments, *common]
    subprocess.run(command, check=True, capture_output=True)


async def measure(minutes: float) -> int:
    settings = {"max_connections": "100"}  # and fsync as it should be
    with Server.create(find_binaries(major=15), settings=settings) as server:
        server.start()
        prepare(server)
        await asyncio.to_thread(pgbench, server, "-i", "-q", "-s", "20")
        async with Watching(server.dsn(user="pgbreaker")) as watching:
            await watching.until_watched()
            table = Table("answers of a busy server", "ms")
            for name, load in LOADS:
                watching.events.clear()
                seconds = str(max(1, round(minutes * 60 / len(LOADS))))
                await asyncio.to_thread(
                    pgbench, server, *load, "-j", "2", "-T", seconds
                )
                report(table, name, watching)
    return table.missed


def report(table: Table, name: str, watching: Watching) -> None:
    """Print what the probes took under one load, and which breakers opened."""
    for probe in ("ping", "login", "commit"):
        took = [r.took * 1000 for r in watching.readings(probe) if r.answered]
        table.row(f"{probe}, {name}", took)
    unanswered = [r for p in ("ping", "login", "commit") for r in watching.readings(p)]
    bad = sum(not reading.answered for reading in unanswered)
    print(f"  unanswered: {bad} of {len(unanswered)}; openings: {watching.openings}")
    table.missed += bool(watching.openings)


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    sys.exit(1 if asyncio.run(measure(minutes)) else 0)


if __name__ == "__main__":
    main()
