"""Clients that take for ever, against a daemon of its own process.

    python tests/bench/slow_clients.py [SECONDS]

A thousand that never end a header, two hundred that never read what they asked for, and
four that send a hundred megabytes each, over and over; all of one address.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from support.abuse import Slow, abused, good_requests

SETTLED = 2.0  # seconds
GROWTH = 64.0  # MB, of 512 connections with what they have sent


async def main(seconds: float) -> int:
    with tempfile.TemporaryDirectory() as home:
        async with abused(Path(home)) as daemon:
            before = daemon.resident()
            async with Slow(daemon.port, headers=1000, readers=200, bodies=4) as slow:
                await asyncio.sleep(SETTLED)
                async with good_requests(daemon.port) as took:
                    await asyncio.sleep(seconds)
                growth, connections = daemon.resident() - before, daemon.connections()
                opened = await slow.opened()
            complaints = daemon.complaints()
    table = Table(f"good requests beside slow clients, {seconds:g} s", "ms")
    table.row("/-/healthy, a connection each", took, p99=100)
    print(f"opened by slow clients: {opened}; there at the end: {connections}")
    print(f"lines in the log: {len(complaints)} (goal 0)", *complaints[:3])
    print(
        f"memory: {before:.1f} MB before, {growth:+.1f} MB meanwhile (goal < {GROWTH:g})"
    )
    return int(bool(table.missed or complaints or growth >= GROWTH or opened < 1200))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float((sys.argv[1:] or [60])[0]))))
