"""From a move that the hub is told of to each of 200 readers of the stream.

    python tests/bench/stream.py [READERS] [MOVES]

The readers are a process of their own, which does nothing but note when a move came. In
the first row the moves come one by one, in the second forty breakers move at once.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.states import Cause, State, Transition
from pgbreaker.web.server import serve
from support.site import Served

READERS, MOVES, GOAL = 200, 100, 100.0
TARGETS = 50
PAUSE = 0.05  # seconds for each move, on average


async def listen(port: int, count: int, moves: int) -> None:
    """Be *count* readers; print when each move came to each."""

    async def one() -> list[tuple[int, float]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came = []
        while len(came) < moves:
            line = await reader.readline()
            if line.startswith(b"event: snapshot"):
                print("listens", flush=True)
            if line.startswith(b"event: transition"):
                at = time.monotonic()
                data = await reader.readline()
                era = json.loads(data.partition(b": ")[2])["details"]["seq"]
                came.append((era, at))
        writer.close()
        return came

    for came in await asyncio.gather(*(one() for _ in range(count))):
        print(json.dumps(came), flush=True)


def move(served: Served, breaker: str, era: int) -> Transition:
    return Transition(
        *(breaker, State.CLOSED, State.OPEN, Cause.CONFIRMED, "a reason with numbers"),
        at=served.scene.time.now,
        era=era,
    )


async def measure(count: int, moves: int, at_once: int) -> list[float]:
    """Milliseconds from the hub to each reader, of *moves* by *at_once*."""
    names = [f"target-{n}" for n in range(TARGETS)]
    served = Served(*names)
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), served.inside) as (_, port):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--listen", str(port), str(count), str(moves)),
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        assert child.stdout is not None
        for _ in range(count):
            assert (await child.stdout.readline()) == b"listens\n"
        told = {}
        for era in range(1, moves + 1):
            told[era] = time.monotonic()
            name = f"{names[era % TARGETS]}/read"
            served.scene.hub.publish(move(served, name, era))
            if era % at_once == 0:
                await asyncio.sleep(PAUSE * at_once)
        took = []
        for _ in range(count):
            came = json.loads(await child.stdout.readline())
            took += [(at - told[era]) * 1000 for era, at in came]
        await child.wait()
    return took


async def main(count: int, moves: int) -> int:
    table = Table(f"a move, to {count} readers of the stream", "ms")
    table.row("one by one", await measure(count, moves, 1), p99=GOAL)
    table.row("forty at once", await measure(count, moves // 40 * 40, 40), p99=GOAL)
    return table.missed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        asyncio.run(listen(*map(int, sys.argv[2:])))
    else:
        given = [int(word) for word in sys.argv[1:]]
        sys.exit(asyncio.run(main(*(given + [READERS, MOVES][len(given) :]))))
