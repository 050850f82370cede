"""How long from a fault to OPEN, and from its end to CLOSED, on a real server.

    python tests/bench/detection.py [ROUNDS]

Each round watches the server anew with the default probes (or the fast profile), waits
until all is closed, breaks it at a random moment of the ping's interval, and mends it.
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server, find_binaries
from support.servers import SETTINGS, fill_connections, prepare
from support.watching import DEFAULT, FAST, Watching


@asynccontextmanager
async def killed(server: Server) -> AsyncIterator[None]:
    server.kill()
    yield
    await asyncio.to_thread(server.start)


def stopped(mode: str) -> Callable[[Server], object]:
    @asynccontextmanager
    async def stop(server: Server) -> AsyncIterator[None]:
        # Not awaited to its end: the fault is the signal, not the last process.
        stopping = asyncio.create_task(asyncio.to_thread(server.stop, mode))
        await asyncio.sleep(0)
        yield
        await stopping
        await asyncio.to_thread(server.start)

    return stop


@asynccontextmanager
async def frozen(server: Server) -> AsyncIterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


async def round_trip(
    server: Server,
    fault,
    *,
    probes,
    dsn: str,
    operations: tuple[str, ...],
    within: float,
) -> tuple[float, float]:
    """One fault: milliseconds to OPEN, and from its end to CLOSED."""
    async with Watching(dsn, probes=probes) as watching:
        await watching.until_watched()
        await watching.until_closed()
        await asyncio.sleep(random.uniform(0.0, probes["ping"].interval))
        broken = time.monotonic()
        async with fault(server):
            opened = await watching.until_open(*operations, within=within)
            await asyncio.sleep(1.0)
        mended = time.monotonic()
        closed = await watching.until_closed(within=15.0)
    return (opened - broken) * 1000, (closed - mended) * 1000


async def measure(rounds: int) -> int:
    with Server.create(find_binaries(), settings=SETTINGS) as server:
        server.start()
        prepare(server)
        async with Proxy("127.0.0.1", server.port) as proxy:
            return await _all(server, proxy, rounds)


async def _all(server: Server, proxy: Proxy, rounds: int) -> int:
    direct = server.dsn(user="pgbreaker")
    through = server.dsn(user="pgbreaker", port=proxy.port)

    @asynccontextmanager
    async def swallowed(_server: Server) -> AsyncIterator[None]:
        proxy.blackhole()
        yield
        proxy.restore()

    every = ("connect", "read", "write")
    cases = [
        ("kill -9 of the tree", killed, DEFAULT, direct, every, 30, 250),
        ("immediate stop", stopped("immediate"), DEFAULT, direct, every, 30, 250),
        ("fast stop", stopped("fast"), DEFAULT, direct, every, 30, 250),
        ("freeze, default", frozen, DEFAULT, direct, every, None, 2100),
        ("freeze, fast profile", frozen, FAST, direct, every, None, 650),
        ("black hole, default", swallowed, DEFAULT, through, every, None, 2100),
        ("black hole, fast profile", swallowed, FAST, through, every, None, 650),
        (
            "full -> connect",
            fill_connections,
            DEFAULT,
            direct,
            ("connect",),
            None,
            6100,
        ),
    ]
    opening: dict[str, list[float]] = {}
    closing: dict[str, list[float]] = {}
    table = Table("fault -> OPEN", "ms")
    for name, fault, probes, dsn, operations, p50, p99 in cases:
        for _ in range(rounds):
            opened, closed = await round_trip(
                server,
                fault,
                probes=probes,
                dsn=dsn,
                operations=operations,
                within=15.0,
            )
            opening.setdefault(name, []).append(opened)
            closing.setdefault(name, []).append(closed)
        table.row(name, opening[name], p50=p50, p99=p99)
    recovery = Table("end of the fault -> CLOSED", "ms")
    for name, values in closing.items():
        recovery.row(name, values, p99=5000)
    return table.missed + recovery.missed


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(1 if asyncio.run(measure(rounds)) else 0)


if __name__ == "__main__":
    main()
