"""What the live page costs the daemon: 500 targets, and fifty browsers that look at them.

    python tests/bench/page.py [SECONDS]

Every target is pinged each second, and its row shows it. The browsers are played within
the same process, so what they cost is in the figures; a ping may come late by as much as
the loop is held.
"""

import asyncio
import math
import random
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.core.reading import Finding, Reading
from support.site import Served, serving

TARGETS = 500
BROWSERS = 50
FIRST = 1000.0  # milliseconds for the first page, which writes every row
COST = 100.0  # milliseconds of the processor a second, with one browser


def tick(served: Served) -> None:
    """A second goes by: every target is pinged."""
    served.scene.time.now += 1
    for name in served.scene.board.targets:
        took = 0.001 * math.exp(random.gauss(0, 0.2))
        at = served.scene.time.now
        served.scene.hub.publish(Reading(name, "ping", at, took, Finding.OK))


async def first(served: Served) -> tuple[float, str]:
    """Milliseconds until the whole page is there, and its mark."""
    begun = time.perf_counter()
    _, text = await served.get("/")
    found = re.search(r'data-mark="([^"]+)"', text)
    assert found is not None
    return (time.perf_counter() - begun) * 1000, found[1]


async def looking(served: Served, marks: list[str]) -> tuple[float, int]:
    """Milliseconds of the processor that a second takes, and bytes that were sent."""
    sent = 0

    async def look(browser: int) -> None:
        nonlocal sent
        await asyncio.sleep(random.random() * 0.9)
        answer, text = await served.get("/", params={"since": marks[browser]})
        marks[browser] = answer.headers["Pgbreaker-Mark"]
        sent += len(text)

    tick(served)
    begun = time.process_time()
    await asyncio.gather(asyncio.sleep(1.0), *(look(n) for n in range(len(marks))))
    return (time.process_time() - begun) * 1000, sent


async def measure(seconds: int) -> int:
    """Measure and print; returns how many goals were missed."""
    async with serving(*(f"db-{number:03}" for number in range(TARGETS))) as served:
        served.scene.also(served.metrics, served.history, served.inside.recent)
        for _ in range(60):
            tick(served)
        took, mark = await first(served)
        table = Table(f"the page of {TARGETS} targets", "ms")
        table.row("the first one", [took], p99=FIRST)
        for browsers, goal in ((1, COST), (BROWSERS, None)):
            marks = [mark] * browsers
            await looking(served, marks)
            told = [await looking(served, marks) for _ in range(seconds)]
            name = f"a second with {browsers} looking"
            table.row(name, [busy for busy, _ in told], p50=goal)
            print(f"{'':<34}{told[-1][1] / 1000:>9.0f} kB a second, unpacked")
        return table.missed


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    sys.exit(1 if asyncio.run(measure(seconds)) else 0)


if __name__ == "__main__":
    main()
