"""What is no HTTP, a hundred thousand times, against a daemon of its own process.

    python tests/bench/malformed.py [REQUESTS] [SEED]

Meanwhile others ask well; afterwards its log has nothing to say of itself, and it has
no more memory than before.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from support.abuse import abused, good_requests, throw

WARM_UP = 20_000  # caches are filled, and the allocator has its room
GROWTH = 5.0  # MB
FAULTS = (500, 503, 504)


async def main(count: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        async with abused(Path(home)) as daemon:
            await throw(daemon.port, WARM_UP, seed - 1)
            before, began = daemon.resident(), time.monotonic()
            async with good_requests(daemon.port) as took:
                told = await throw(daemon.port, count, seed)
            seconds, growth = time.monotonic() - began, daemon.resident() - before
            complaints = daemon.complaints()
    table = Table(f"good requests beside {count} malformed ones, seed {seed}", "ms")
    table.row("/-/healthy, a connection each", took, p99=50)
    statuses = ", ".join(
        f"{n} x {status}" for status, n in sorted(told.statuses.items())
    )
    worst = sum(n for status, n in told.statuses.items() if status in FAULTS)
    print(f"{count / seconds:.0f} requests a second; answered by {statuses}")
    print(f"lines in the log: {len(complaints)} (goal 0)", *complaints[:3])
    print(
        f"answers of 500, 503, 504: {worst} (goal 0); that are no HTTP: {len(told.wrong)} (goal 0)"
    )
    print(f"memory: {before:.1f} MB before, {growth:+.1f} MB after (goal < {GROWTH:g})")
    is_bad = bool(table.missed or complaints or worst or told.wrong or growth >= GROWTH)
    return int(is_bad)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(asyncio.run(main(*(words + [100_000, 6][len(words) :]))))
