"""What a scrape of 50,000 series takes, and how long it keeps the loop from others.

    python tests/bench/scrape.py [SCRAPES]

Two hundred boards with 250 series each: readings, breakers, and rows of values as
probes bring them. No server is asked, and nothing is sent.
"""

import asyncio
import sys
import time
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import SERVED
from pgbreaker.core.metric import counter, gauge
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.metrics import Metrics

TARGETS, SERIES = 200, 50_000
PROBES = (
    *("ping", "login", "commit", "identity", "saturation", "blocking", "replication"),
    *("slots", "database", "statements", "wal_ckpt", "maintenance", "size"),
)
# 175 series of a target are the daemon's own; these are the 75 others: 15 of values,
# 60 of rows.
VALUES = tuple(f"value_{n}" for n in range(15))
COLUMNS = tuple(f"column_{n}" for n in range(12))
ROWS = 5
SHOWN = (
    *(gauge(f"pgbreaker_{name}_bytes", "One value.", name) for name in VALUES),
    *(
        counter(
            f"pgbreaker_{name}_total", "A column.", name, rows="rows", by=("database",)
        )
        for name in COLUMNS
    ),
)


def watched() -> Metrics:
    """Boards on which every probe has been answered a few times."""
    clock = Clock()
    plans = [
        TargetPlan(
            name=f"database-{n:03}",
            dsn=Secret("postgresql://db/postgres"),
            labels={"env": "prod"},
            probes={probe: ProbePlan(interval=5.0, timeout=1.0) for probe in PROBES},
        )
        for n in range(TARGETS)
    ]
    board = Board(
        [
            TargetBoard(
                plan,
                {
                    operation: Breaker(f"{plan.name}/{operation}", DAEMON, clock.now())
                    for operation in SERVED
                },
                clock,
            )
            for plan in plans
        ],
        clock,
    )
    metrics = Metrics(board, "0", SHOWN)
    hub = Hub([board, metrics])
    seen = {
        "version": 170010,
        "system_id": "7541234567890123456",
        **{name: 1000.5 * n for n, name in enumerate(VALUES)},
        "rows": tuple(
            {"database": f"orders_{row}", **dict.fromkeys(COLUMNS, row + 123456)}
            for row in range(ROWS)
        ),
    }
    for plan in plans:
        for n in range(5):
            for probe in PROBES:
                values = seen if probe == "identity" else {}
                took = 0.00123456 * (n + 1)
                reading = Reading(
                    plan.name, probe, clock.now(), took, Finding.OK, values
                )
                hub.publish(reading)
    assert hub.dropped == 0
    return metrics


async def plain(metrics: Metrics) -> int:
    """Write everything, and keep nothing of it; the number of its bytes."""
    async with aclosing(metrics.chunks()) as chunks:
        return sum([len(chunk) async for chunk in chunks])


async def longest_step(metrics: Metrics) -> float:
    """Milliseconds of processor time of the dearest step between two pauses."""
    steps, last = [], time.thread_time()
    async with aclosing(metrics.chunks()) as chunks:
        async for _ in chunks:
            now = time.thread_time()
            steps.append((now - last) * 1000)
            last = now
    return max(steps)


async def zipped(metrics: Metrics) -> int:
    """The same as a scraper gets it."""
    _, parts = metrics.scrape("", "gzip")
    return sum([len(part) async for part in parts])


async def ticking(late: list[float]) -> None:
    """Note by how many milliseconds a sleep of one is longer."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - begun - 0.001) * 1000)


async def measure(count: int) -> int:
    metrics = watched()
    size = await plain(metrics)
    packed = await zipped(metrics)
    print(f"{metrics.series} series, {size / 1e6:.1f} MB, {packed / 1e6:.2f} zipped")
    assert metrics.series >= SERIES

    cpu: dict[str, list[float]] = {"plain": [], "gzip": []}
    wall: dict[str, list[float]] = {"plain": [], "gzip": []}
    held: dict[str, list[float]] = {"plain": [], "gzip": []}
    steps = []
    for _ in range(count):
        steps.append(await longest_step(metrics))
        for name, scrape in (("plain", plain), ("gzip", zipped)):
            spent, begun = time.process_time(), time.perf_counter()
            await scrape(metrics)
            cpu[name].append((time.process_time() - spent) * 1000)
            wall[name].append((time.perf_counter() - begun) * 1000)
            late: list[float] = []
            ticker = asyncio.create_task(ticking(late))
            await asyncio.sleep(0.005)
            await scrape(metrics)
            await asyncio.sleep(0.002)
            ticker.cancel()
            held[name].append(max(late))

    table = Table(f"a scrape of {metrics.series} series", "ms")
    table.row("processor time, plain", cpu["plain"], p50=60)
    table.row("processor time, gzip", cpu["gzip"])
    table.row("time, plain", wall["plain"])
    table.row("time, gzip", wall["gzip"])
    table.row("processor time of a step", steps, p99=5)
    table.row("longest the loop was held, plain", held["plain"], p99=20)
    table.row("longest the loop was held, gzip", held["gzip"], p99=20)
    return table.missed


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(1 if asyncio.run(measure(count)) else 0)


if __name__ == "__main__":
    main()
